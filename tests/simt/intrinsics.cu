// What device.h offers, one kernel a group, for test_device.py.
#include "device.cuh"
#include "launch.h"

using llmrec::kAllLanes;
using llmrec::launch;

// Results of lane l are out[32 r + l].
__global__ void shuffles(int* out) {
  const int lane = threadIdx.x, value = 100 + lane;
  int r = 0;
  auto put = [&](int result) { out[32 * r++ + lane] = result; };
  put(__shfl_sync(kAllLanes, value, 5));
  put(__shfl_sync(kAllLanes, value, lane + 1, 8));
  put(__shfl_up_sync(kAllLanes, value, 3));
  put(__shfl_down_sync(kAllLanes, value, 3));
  put(__shfl_down_sync(kAllLanes, value, 3, 16));
  put(__shfl_xor_sync(kAllLanes, value, 9));
  put(static_cast<int>(__shfl_xor_sync(kAllLanes, static_cast<double>(value), 1)));
  put(static_cast<int>(__ballot_sync(kAllLanes, lane % 3 == 0)));
  put(__any_sync(kAllLanes, lane == 31) + 2 * __any_sync(kAllLanes, lane == 32));
  put(__all_sync(kAllLanes, lane < 32) + 2 * __all_sync(kAllLanes, lane < 31));
  put(static_cast<int>(__match_any_sync(kAllLanes, lane / 5)));
  put(__reduce_add_sync(kAllLanes, lane));
  put(__reduce_max_sync(kAllLanes, -lane) + 1000 * __reduce_min_sync(kAllLanes, -lane));
  put(static_cast<int>(__reduce_or_sync(kAllLanes, 1u << lane % 8)));
  put(llmrec::sum_of_lanes(lane));
  put(llmrec::sum_of_lanes(lane, 4));
  // halves of the warp meet apart
  const unsigned half = lane < 16 ? 0xFFFFu : 0xFFFF0000u;
  if (lane < 16) {
    put(__shfl_xor_sync(half, value, 1));
  } else {
    put(__shfl_xor_sync(half, value, 2));
  }
}

__global__ void barriers(int* out) {
  const int thread = threadIdx.x;
  const int counted = __syncthreads_count(thread % 3 == 0);
  const int any = __syncthreads_or(thread == 70), none = __syncthreads_or(thread == 1000);
  const int all = __syncthreads_and(thread < 96), not_all = __syncthreads_and(thread < 95);
  out[thread] = counted + 1000 * any + 2000 * none + 4000 * all + 8000 * not_all;
}

__global__ void atomics(int* integers, unsigned long long* wide, float* real, unsigned* unsigneds) {
  const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(integers, thread);
  atomicMax(integers + 1, thread);
  atomicMin(integers + 2, -thread);
  atomicExch(integers + 3, 7);
  atomicCAS(integers + 4, 0, 9);
  atomicOr(integers + 5, 1 << thread % 8);
  atomicAnd(integers + 6, ~(1 << thread % 8));
  atomicSub(integers + 7, 1);
  atomicAdd(wide, 1ull << 33);
  atomicMax(wide + 1, (1ull << 40) + thread);
  atomicAdd(real, 0.5f);
  atomicInc(unsigneds, 9);
}

__global__ void arithmetic(const float* a, const float* b, const double* c, float* out, double* wide) {
  out[0] = __fadd_ru(a[0], b[0]), out[1] = __fadd_rd(a[0], b[0]), out[2] = __fadd_rn(a[0], b[0]);
  out[3] = __fmul_ru(a[1], b[1]), out[4] = __fmul_rd(a[1], b[1]);
  out[5] = __fmaf_ru(a[1], b[1], a[0]), out[6] = __fmaf_rd(a[1], b[1], a[0]);
  out[7] = __double2float_ru(c[0]), out[8] = __double2float_rd(c[0]);
  out[9] = __fsqrt_ru(a[2]), out[10] = __fsqrt_rd(a[2]);
  out[11] = __fsub_ru(a[0], -b[0]), out[12] = __fsub_rd(a[0], -b[0]);
  wide[0] = __dadd_ru(c[1], c[2]), wide[1] = __dadd_rd(c[1], c[2]), wide[2] = __dmul_ru(c[0], c[0]);
}

__global__ void bits(const unsigned* in, unsigned* out) {
  out[0] = __byte_perm(in[0], in[1], 0x7531);
  out[1] = __byte_perm(in[0], in[1], 0x89B0);  // signs of bytes
  out[2] = __brev(in[0]);
  out[3] = __popc(in[0]) + 100 * __clz(static_cast<int>(in[2])) + 10000 * __ffs(static_cast<int>(in[3]));
  out[4] = __umulhi(in[0], in[1]);
  out[5] = __funnelshift_l(in[0], in[1], 8), out[6] = __funnelshift_r(in[0], in[1], 8);
  out[7] = static_cast<unsigned>(__dp4a(static_cast<int>(in[0]), static_cast<int>(in[1]), 5)),
  out[8] = __dp4a(in[0], in[1], 5u);
  out[9] = __float_as_uint(__uint_as_float(in[0])), out[10] = __popcll(~0ull) + 100 * __clzll(1) + 10000 * __ffsll(4);
}

extern "C" {
int run_shuffles(int* out) { return launch(shuffles, 1, 32, 0, nullptr, out); }
int run_barriers(int* out) { return launch(barriers, 1, 96, 0, nullptr, out); }
int run_atomics(int* integers, unsigned long long* wide, float* real, unsigned* unsigneds) {
  return launch(atomics, 3, 50, 0, nullptr, integers, wide, real, unsigneds);
}
int run_arithmetic(const float* a, const float* b, const double* c, float* out, double* wide) {
  return launch(arithmetic, 1, 1, 0, nullptr, a, b, c, out, wide);
}
int run_bits(const unsigned* in, unsigned* out) { return launch(bits, 1, 1, 0, nullptr, in, out); }
}
