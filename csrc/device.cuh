// Small helpers of all kernels. Includes no runtime header: nvcc provides the built-ins, the emulated build puts its
// own in front.
#pragma once

#include <stdint.h>

#include "ptx.cuh"

// The block's dynamic shared memory as an array of `type`; at most one in a kernel. The only way to shared memory here,
// so that the emulated build can allocate it to the byte and poison it before every block.
#if defined(LLMREC_EMULATED)
#define LLMREC_SHARED(type, name) type* const name = reinterpret_cast<type*>(simt::dynamic_shared())
#else
#define LLMREC_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char llmrec_shared[]; \
  type* const name = reinterpret_cast<type*>(llmrec_shared)
#endif

namespace llmrec {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr int kWarpLanes = 32;

// Sum over groups of `lanes` neighbouring lanes (a power of two); every lane of a group gets it. The order of additions
// is fixed, so the result is the same in every run. All lanes of the warp take part.
template <class Value>
__device__ __forceinline__ Value sum_of_lanes(Value value, int lanes = kWarpLanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

}  // namespace llmrec
