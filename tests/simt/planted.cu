// Kernels with planted bugs, each with its correct twin: the tests of the stand-in prove that each one is caught.
#include "device.cuh"
#include "launch.h"

namespace {

using llmrec::kAllLanes;

// out[i] = in[n - 1 - i], through shared memory
__global__ void reverse(const int* in, int* out, bool barrier) {
  LLMREC_SHARED(int, staged);
  staged[threadIdx.x] = in[threadIdx.x];  // reverse
  if (barrier) __syncthreads();
  out[threadIdx.x] = staged[blockDim.x - 1 - threadIdx.x];
}

// the same within a warp
__global__ void reverse_in_warp(const int* in, int* out, bool barrier) {
  LLMREC_SHARED(int, staged);
  staged[threadIdx.x] = in[threadIdx.x];
  if (barrier)
    __syncwarp();
  else
    __shfl_sync(kAllLanes, 0, 0);  // a shuffle lets lanes meet but orders no memory
  out[threadIdx.x] = staged[31 - threadIdx.x];
}

__global__ void copy_through_cp_async(const int* in, int* out, bool wait) {
  LLMREC_SHARED(int, staged);
  llmrec::ptx::cp_async_16(staged + 4 * threadIdx.x, in + 4 * threadIdx.x);
  llmrec::ptx::cp_async_commit();
  if (wait) llmrec::ptx::cp_async_wait<0>();
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = staged[4 * threadIdx.x + i];
  if (!wait) llmrec::ptx::cp_async_wait<0>();
}

__global__ void forget_cp_async(const int* in) {
  LLMREC_SHARED(int, staged);
  llmrec::ptx::cp_async_16(staged + 4 * threadIdx.x, in + 4 * threadIdx.x);
  llmrec::ptx::cp_async_commit();
}

__global__ void do_nothing() {}

enum Memory { kShared, kGlobal, kLocal };
__global__ void read_at(const int* in, int* out, Memory memory, int position) {
  LLMREC_SHARED(int, staged);
  volatile int local[4] = {0, 1, 2, 3};  // volatile: stays in memory
  staged[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = memory == kShared ? staged[position] : memory == kGlobal ? in[position] : local[position];
}

__global__ void read_wide(const char* in, int* out, int offset) {
  out[0] = reinterpret_cast<const int4*>(in + offset)->x;
}

__global__ void count(int* counter, bool atomic) {
  if (atomic)
    atomicAdd(counter, 1);
  else
    *counter += 1;
}

// The last block to finish adds up what all blocks left in global memory.
__global__ void sum_of_blocks(int* parts, int* done, int* total, bool fence) {
  LLMREC_SHARED(int, last);
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = static_cast<int>(blockIdx.x);
    if (fence) __threadfence();
    last[0] = atomicAdd(done, 1) == static_cast<int>(gridDim.x) - 1;
  }
  __syncthreads();
  if (last[0] && threadIdx.x == 1) {
    int sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += parts[b];
    *total = sum;
  }
}

__global__ void incomplete_mask(int* out, unsigned mask) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<int>(threadIdx.x), 1);
}

__global__ void different_barriers(int* out) {
  if (threadIdx.x < 16) {
    __syncthreads();  // here
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

}  // namespace

// Each returns the error of the launch.
extern "C" {
int planted_reverse(const int* in, int* out, int n, bool right) {
  return llmrec::launch(reverse, 1, n, n * sizeof(int), nullptr, in, out, right);
}
int planted_reverse_in_warp(const int* in, int* out, bool right) {
  return llmrec::launch(reverse_in_warp, 1, 32, 32 * sizeof(int), nullptr, in, out, right);
}
int planted_cp_async(const int* in, int* out, bool right) {
  return llmrec::launch(copy_through_cp_async, 1, 8, 32 * sizeof(int), nullptr, in, out, right);
}
int planted_cp_async_forgotten(const int* in, int*) {
  return llmrec::launch(forget_cp_async, 1, 8, 32 * sizeof(int), nullptr, in);
}
int planted_launch(int threads, int blocks, int shared) {
  return llmrec::launch(do_nothing, blocks, threads, shared, nullptr);
}
int planted_read_at(const int* in, int* out, int memory, int position) {
  return llmrec::launch(read_at, 1, 16, 16 * sizeof(int), nullptr, in, out, static_cast<Memory>(memory), position);
}
int planted_read_wide(const char* in, int* out, int offset) {
  return llmrec::launch(read_wide, 1, 1, 0, nullptr, in, out, offset);
}
int planted_count(int* counter, bool right) { return llmrec::launch(count, 4, 1, 0, nullptr, counter, right); }
int planted_sum_of_blocks(int* parts, int* done, int* total, bool right) {
  return llmrec::launch(sum_of_blocks, 5, 32, sizeof(int), nullptr, parts, done, total, right);
}
int planted_incomplete_mask(int* out, unsigned mask) {
  return llmrec::launch(incomplete_mask, 1, 32, 0, nullptr, out, mask);
}
int planted_different_barriers(int* out) { return llmrec::launch(different_barriers, 1, 32, 0, nullptr, out); }
const char* planted_failure() { return cudaGetErrorString(cudaErrorLaunchFailure); }
}
