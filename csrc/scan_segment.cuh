// One pass over a segment: bound every row, complete those that pass, keep the best. Any number of segments may follow each
// other; the rows kept and the floors carry over. Cost: first / 2 + 8 bytes a row and group of queries, one bit of `allowed`,
// and what survivors need. Nothing is written for rows that do not pass.
#pragma once

#include "survivors.cuh"

namespace llmrec {

constexpr int kTilesAStep = 16;  // tiles a warp scans between two drains

// Blocks a multiprocessor must hold. Wide tensor tiles keep their sums in registers: one will do; else (0) the compiler finds a
// balance: 64 to 80 registers a thread, 3 or 4 blocks.
template <Scan kScan, int kQueries>
constexpr int kScanBlocks = kScan == Scan::kTensor && kQueries >= 32 ? 1 : 0;

// Grid: (slices, groups of kQueries queries).
template <Scan kScan, int kQueries>
__global__ void __launch_bounds__(kScanThreads, (kScanBlocks<kScan, kQueries>))
    scan_segment(ScanShape shape, SegmentView segment, QueryCodes codes, Exclusions exclusions, SearchState state) {
  LLMREC_SHARED(unsigned char, shared);
  const ScanBlock block = carve_scan_block(shared, kQueries, kScan == Scan::kRows ? 0 : shape.first);
  const int first_query = blockIdx.y * kQueries, queries = min(kQueries, codes.count - first_query);
  const int warp = threadIdx.x >> 5;

  if (threadIdx.x < 8) block.queued[threadIdx.x] = 0;
  for (int j = threadIdx.x; j < kQueries; j += kScanThreads) {
    FirstTerms terms = {0, 0, 0, 0, 0, (float)-minus_infinity(), 0, 0};  // queries that pad the group keep nothing
    if (j < queries && kScan != Scan::kRows) {
      const QueryTerms& query = codes.terms[first_query + j];
      terms = {query.first[0], query.first[1], query.first[2], query.first[3], query.first[4], 0, query.offsets[0], 0};
    }
    if (j < queries) {
      block.found[j] = state.found_counts[(int64_t)(first_query + j) * state.slices + blockIdx.x];
    }
    block.terms[j] = terms;
  }
  if (kScan != Scan::kRows) {
    const int words = shape.first / 16, pitch = block.pitch / 16;
    const int4* from = reinterpret_cast<const int4*>(codes.first) + (int64_t)first_query * words;
    for (int i = threadIdx.x; i < kQueries * words; i += kScanThreads) {
      const int j = i / words;
      reinterpret_cast<int4*>(block.codes)[j * pitch + i % words] = j < queries ? from[i] : make_int4(0, 0, 0, 0);
    }
  }
  __syncthreads();
  if (kScan != Scan::kRows) set_thresholds(block, shape, segment, codes, state, first_query, queries);
  __syncthreads();

  const int64_t tiles = (segment.count + kTileRows - 1) / kTileRows, stride = (int64_t)gridDim.x * kWarps;
  int64_t tile = (int64_t)blockIdx.x * kWarps + warp;
  for (;;) {
    for (int step = 0; step < kTilesAStep && tile < tiles; ++step) {
      bool done;
      if (kScan == Scan::kTensor)
        done = scan_tensor_tile < kQueries<8 ? 8 : kQueries>(block, segment, shape.first, tile);
      else if (kScan == Scan::kPacked)
        done = scan_packed_tile<kQueries>(block, segment, shape.first, tile, queries);
      else
        done = pass_all_rows(block, segment, tile, queries);
      if (!done) break;
      tile += stride;
    }
    const int unfinished = __syncthreads_or(tile < tiles);
    drain<kScan>(block, shape, segment, codes, exclusions, state, first_query, queries);
    if (!unfinished) break;
    if (kScan != Scan::kRows) set_thresholds(block, shape, segment, codes, state, first_query, queries);
    __syncthreads();
  }
  for (int j = threadIdx.x; j < queries; j += kScanThreads) {
    state.found_counts[(int64_t)(first_query + j) * state.slices + blockIdx.x] = block.found[j];
  }
  if (state.counts != nullptr && threadIdx.x < 4)
    atomicAdd(&state.counts[threadIdx.x], (unsigned long long)block.tally[threadIdx.x]);
}

}  // namespace llmrec
