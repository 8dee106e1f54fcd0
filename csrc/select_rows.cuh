// The answer: of the rows that all slices kept, each query's k best in order, ties by position, padded with -inf and -1; then
// rows are named by the ids of their segments.
#pragma once

#include "scan_block.cuh"

namespace llmrec {

// Room for the k best and as many more, so that a sort is due only every k rows; at least two batches.
__host__ __device__ constexpr int select_room(int k) {
  int room = 2 * kScanThreads;
  while (room < 2 * k) room <<= 1;
  return room;
}
__host__ __device__ constexpr size_t select_shared_bytes(int k) {
  return select_room(k) * (sizeof(double) + sizeof(int64_t)) + 2 * sizeof(int);
}

// The id of the row at this position, or the position itself where its segment has no ids; -1 for none.
__device__ __forceinline__ int64_t name_of(const RowNames& names, int64_t row) {
  for (int i = 0; i < names.count; ++i) {
    const int64_t local = row - names.bases[i];
    if (local >= 0 && local < names.counts[i]) return names.ids[i] == nullptr ? row : names.ids[i][local];
  }
  return -1;
}

// A block a query. A warp reads a slice's rows, 32 at a time; rows below the floor are skipped.
__global__ void __launch_bounds__(kScanThreads)
    select_rows(SearchState state, const RowNames names, double* __restrict__ out_scores, int64_t* __restrict__ out_rows) {
  LLMREC_SHARED(double, scores);
  const int room = select_room(state.k), k = state.k, query = blockIdx.x, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  int64_t* const rows = reinterpret_cast<int64_t*>(scores + room);
  int* const held = reinterpret_cast<int*>(rows + room);
  const unsigned long long floor = state.floors[query];
  double limit = floor == 0 ? minus_infinity() : from_ordered_bits(floor);
  if (threadIdx.x == 0) *held = 0;
  __syncthreads();
  for (int first = 0; first < state.slices; first += kWarps) {
    const int64_t list = (int64_t)query * state.slices + first + warp;
    const int count = first + warp < state.slices ? state.found_counts[list] : 0;
    for (int i = lane; __syncthreads_or(i - lane < count); i += 32) {
      if (i < count) {
        const double score = state.found_scores[list * state.capacity + i];
        if (!(score < limit)) {
          const int slot = atomicAdd(held, 1);
          scores[slot] = score;
          rows[slot] = state.found_rows[list * state.capacity + i];
        }
      }
      __syncthreads();
      const int filled = *held;
      if (filled > room - kScanThreads) {
        for (int j = filled + threadIdx.x; j < room; j += kScanThreads) scores[j] = minus_infinity(), rows[j] = INT64_MAX;
        sort_entries(scores, rows, room);
        if (filled >= k) limit = scores[k - 1] > limit ? scores[k - 1] : limit;
        if (threadIdx.x == 0) *held = filled < k ? filled : k;
        __syncthreads();
      }
    }
  }
  const int filled = *held;
  for (int j = filled + threadIdx.x; j < room; j += kScanThreads) scores[j] = minus_infinity(), rows[j] = INT64_MAX;
  sort_entries(scores, rows, room);
  for (int i = threadIdx.x; i < k; i += kScanThreads) {
    const bool real = i < filled;
    out_scores[(int64_t)query * k + i] = real ? scores[i] : minus_infinity();
    out_rows[(int64_t)query * k + i] = real ? name_of(names, rows[i]) : -1;
  }
}

}  // namespace llmrec
