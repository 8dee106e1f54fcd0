// Divide rows by their norms, as `normalised` in llmrec_fast/retrieval/searching.py does: norm and quotient in double, one
// rounding to float32; zero rows stay zero. Slower than `fuse` (a division in double for every value), which rounds twice.
// Cost: reads every row twice, the second time mostly from the cache, and writes it once.
#pragma once

#include "device.cuh"

namespace llmrec {

constexpr int kUnitThreads = 256;

// A warp a row.
__global__ void __launch_bounds__(kUnitThreads) divide_by_norm(const float* rows, int64_t count, int64_t dim, float* out) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kUnitThreads + threadIdx.x) / kWarpLanes;
  const int lane = threadIdx.x & (kWarpLanes - 1);
  if (row >= count) return;  // by whole warps
  double squares = 0.0;
  for (int64_t c = lane; c < dim; c += kWarpLanes) {
    const double value = rows[row * dim + c];
    squares += value * value;
  }
  squares = sum_of_lanes(squares);
  const double norm = squares == 0.0 ? 1.0 : sqrt(squares);
  for (int64_t c = lane; c < dim; c += kWarpLanes) out[row * dim + c] = static_cast<float>(rows[row * dim + c] / norm);
}

}  // namespace llmrec
