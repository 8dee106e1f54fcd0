// The wrappers of csrc/ptx.cuh one by one, for test_ptx.py: run on the stand-in, and compiled by nvcc to look at the
// PTX.
#include "device.cuh"
#include "launch.h"

namespace ptx = llmrec::ptx;

__global__ void test_half_to_float(const uint16_t* in, float* out) {
  out[threadIdx.x] = ptx::half_to_float(in[threadIdx.x]);
}

__global__ void test_dp4a_s8_s8(const uint32_t* a, const uint32_t* b, const int* c, int* out) {
  out[threadIdx.x] = ptx::dp4a_s8_s8(a[threadIdx.x], b[threadIdx.x], c[threadIdx.x]);
}
__global__ void test_dp4a_u8_s8(const uint32_t* a, const uint32_t* b, const int* c, int* out) {
  out[threadIdx.x] = ptx::dp4a_u8_s8(a[threadIdx.x], b[threadIdx.x], c[threadIdx.x]);
}

// out (16, 8) += a (16, 32) b (8, 32)', by the fragment layout of the PTX ISA
#define TEST_MMA(name)                                                                                       \
  __global__ void test_##name(const uint32_t* a, const uint32_t* b, int* out) {                              \
    const int group = threadIdx.x / 4, member = threadIdx.x % 4;                                             \
    const uint32_t left[4] = {a[group * 8 + member], a[(group + 8) * 8 + member], a[group * 8 + member + 4], \
                              a[(group + 8) * 8 + member + 4]};                                              \
    const uint32_t right[2] = {b[group * 8 + member], b[group * 8 + member + 4]};                            \
    int sums[4];                                                                                             \
    for (int i = 0; i < 4; ++i) sums[i] = out[(group + i / 2 * 8) * 8 + 2 * member + i % 2];                 \
    ptx::name(sums, left, right);                                                                            \
    for (int i = 0; i < 4; ++i) out[(group + i / 2 * 8) * 8 + 2 * member + i % 2] = sums[i];                 \
  }
TEST_MMA(mma_m16n8k32_s8_s8)
TEST_MMA(mma_m16n8k32_u8_s8)
TEST_MMA(mma_m16n8k32_s8_u8)

__global__ void test_cp_async(const uint4* in, uint4* out) {
  LLMREC_SHARED(uint4, staged);
  ptx::cp_async_16(staged + threadIdx.x, in + threadIdx.x);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  out[threadIdx.x] = staged[threadIdx.x];
}

__global__ void test_load_relaxed(const float* in, float* out) {
  out[threadIdx.x] = ptx::load_relaxed(in + threadIdx.x);
}

using llmrec::launch;
extern "C" {
int run_half_to_float(const uint16_t* in, float* out) {
  return launch(test_half_to_float, 1, 1024, 0, nullptr, in, out);
}
int run_dp4a_s8_s8(const uint32_t* a, const uint32_t* b, const int* c, int* out) {
  return launch(test_dp4a_s8_s8, 1, 64, 0, nullptr, a, b, c, out);
}
int run_dp4a_u8_s8(const uint32_t* a, const uint32_t* b, const int* c, int* out) {
  return launch(test_dp4a_u8_s8, 1, 64, 0, nullptr, a, b, c, out);
}
int run_mma_m16n8k32_s8_s8(const uint32_t* a, const uint32_t* b, int* out) {
  return launch(test_mma_m16n8k32_s8_s8, 1, 32, 0, nullptr, a, b, out);
}
int run_mma_m16n8k32_u8_s8(const uint32_t* a, const uint32_t* b, int* out) {
  return launch(test_mma_m16n8k32_u8_s8, 1, 32, 0, nullptr, a, b, out);
}
int run_mma_m16n8k32_s8_u8(const uint32_t* a, const uint32_t* b, int* out) {
  return launch(test_mma_m16n8k32_s8_u8, 1, 32, 0, nullptr, a, b, out);
}
int run_load_relaxed(const float* in, float* out) { return launch(test_load_relaxed, 1, 32, 0, nullptr, in, out); }
}
