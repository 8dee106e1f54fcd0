// What becomes of rows that pass the first bound: finer stages, exclusions, exact scores, a place among the rows kept, and the
// floor that rises with them. A block keeps its own rows of a query in global memory; it never holds more than there is room
// for, because it throws away all but the k best of them whenever the next batch might not fit.
#pragma once

#include "scan_block.cuh"

namespace llmrec {

// A row's bound by both 4-bit stages, from the first one's without the tail; by a whole warp. Reads second / 2 + 16 bytes.
__device__ __forceinline__ float second_bound(const ScanShape& shape, const SegmentView& segment, const QueryCodes& codes,
                                              int query, int64_t row, float base) {
  const int lane = threadIdx.x & 31, words = shape.second / 8;
  const uint32_t* record = reinterpret_cast<const uint32_t*>(segment.second + row * (shape.second / 2 + 16));
  const int* columns = reinterpret_cast<const int*>(codes.second + (int64_t)query * shape.second);
  int sum = 0;
  for (int w = lane; w < words; w += 32) {
    // 8 words hold 64 columns: the low nibbles the first 32 of them, the high nibbles the others
    const uint32_t word = record[w];
    const int* own = columns + (w >> 3) * 16 + (w & 7);
    sum = __dp4a((int)low_nibbles(word), own[0], sum);
    sum = __dp4a((int)high_nibbles(word), own[8], sum);
  }
  const QueryTerms& terms = codes.terms[query];
  const float product = (float)(sum_of_lanes(sum) + terms.offsets[1]);
  const float4 row_terms = *reinterpret_cast<const float4*>(record + words);
  const float left = fmaf(terms.second[2], row_terms.y, terms.second[3] * row_terms.z);
  return fmaf(row_terms.x, fmaf(terms.second[0], product, terms.second[1]), base + left);
}

// A row's bound by the int8 stage; by a whole warp. Reads third + 16 bytes.
__device__ __forceinline__ float third_bound(const ScanShape& shape, const SegmentView& segment, const QueryCodes& codes,
                                             int query, int64_t row) {
  const int lane = threadIdx.x & 31, words = shape.third / 4;
  const int* own = reinterpret_cast<const int*>(segment.third + row * shape.third);
  const int* high = reinterpret_cast<const int*>(codes.third_high + (int64_t)query * shape.third);
  const int* low = reinterpret_cast<const int*>(codes.third_low + (int64_t)query * shape.third);
  int high_sum = 0, low_sum = 0;
  for (int w = lane; w < words; w += 32) {
    const int word = own[w];
    high_sum = __dp4a(word, high[w], high_sum);
    low_sum = __dp4a(word, low[w], low_sum);
  }
  // the whole fits in int32, its parts on the way need not
  const uint32_t sum = 64u * (uint32_t)sum_of_lanes(high_sum) + (uint32_t)sum_of_lanes(low_sum);
  const QueryTerms& terms = codes.terms[query];
  const float4 row_terms = *reinterpret_cast<const float4*>(segment.third_terms + row * 4);
  const float estimate = row_terms.x * (terms.third[0] * (float)(int)sum);
  return fmaf(terms.first[4], row_terms.z, fmaf(terms.third[1], row_terms.y, estimate));
}

// Count a row that scores `score` in the query's histogram: bin b holds rows that score at least start + b * width.
__device__ __forceinline__ void count_in_bin(const SearchState& state, int query, double score) {
  const double start = state.bin_scales[2 * query], width = state.bin_scales[2 * query + 1];
  if (!(width > 0) || !(score >= start)) return;
  const double bins = (score - start) / width;
  int bin = bins < kBins - 1 ? (int)bins : kBins - 1;
  while (bin > 0 && start + bin * width > score) --bin;
  atomicAdd(&state.bins[query * kBins + bin], 1);
}

// Sort the block's rows of a query and keep the k best; if there are k, the last of them is a floor. By the whole block.
__device__ __forceinline__ void keep_best(const SearchState& state, int* found, int query) {
  const int64_t start = ((int64_t)query * state.slices + blockIdx.x) * state.capacity;
  double* const scores = state.found_scores + start;
  int64_t* const rows = state.found_rows + start;
  const int count = *found;
  int size = 2;
  while (size < count) size <<= 1;
  for (int i = count + threadIdx.x; i < size; i += kScanThreads) scores[i] = minus_infinity(), rows[i] = INT64_MAX;
  sort_entries(scores, rows, size);
  if (threadIdx.x == 0 && count >= state.k) {
    atomicMax(&state.floors[query], ordered_bits(scores[state.k - 1]));
    *found = state.k;
  }
  __syncthreads();
}

// Complete the rows in the queue and empty it. Called by the whole block after a barrier; ends with one unless nothing was
// queued.
template <Scan kScan>
__device__ __forceinline__ void drain(const ScanBlock& block, const ScanShape& shape, const SegmentView& segment,
                                      const QueryCodes& codes, const Exclusions& exclusions, const SearchState& state,
                                      int first_query, int queries) {
  const int total = *block.queued, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (total == 0) return;
  for (int begin = 0; begin < total; begin += kDrainEntries) {
    const int end = min(begin + kDrainEntries, total);
    for (int e = begin + warp; e < end; e += kWarps) {
      const int own = block.queries[e], query = first_query + own;
      const int64_t row = block.rows[e];
      bool kept = true;
      if (kScan != Scan::kRows) {
        const Thresholds limits = block.limits[own];
        // a bound that is not a number keeps its row
        if (shape.second > 0) kept = !(second_bound(shape, segment, codes, query, row, block.bases[e]) < limits.second);
        if (kept && lane == 0) atomicAdd(&block.tally[1], 1);
        if (kept) kept = !(third_bound(shape, segment, codes, query, row) < limits.third);
        if (kept && lane == 0) atomicAdd(&block.tally[2], 1);
      }
      if (kept) kept = !is_excluded(exclusions, query, segment.base + row);
      __syncwarp();
      if (!kept && lane == 0) block.queries[e] = kDropped;
    }
    __syncthreads();
    for (int e = begin + (int)threadIdx.x / 8; e < end; e += kScanThreads / 8) {
      const int own = block.queries[e];
      if (own == kDropped) continue;
      const int query = first_query + own;
      const int64_t row = block.rows[e];
      const double score = exact_score(segment.rows + row * shape.dim, codes.queries + (int64_t)query * shape.dim,
                                       segment.bias[row], shape.dim, shape.euclidean);
      if ((threadIdx.x & 7) != 0) continue;
      const int slot = atomicAdd(&block.found[own], 1);
      const int64_t place = ((int64_t)query * state.slices + blockIdx.x) * state.capacity + slot;
      state.found_scores[place] = score;
      state.found_rows[place] = segment.base + row;
      count_in_bin(state, query, score);
      atomicAdd(&block.tally[3], 1);
    }
    __syncthreads();
    for (int own = 0; own < queries; ++own) {
      if (block.found[own] > state.capacity - kDrainEntries) keep_best(state, block.found + own, first_query + own);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    block.tally[0] += total;
    *block.queued = 0;
  }
  __syncthreads();
}

// Raise the floors by the histograms, which all blocks fill, and turn the floors into the block's thresholds; a warp a query.
__device__ __forceinline__ void set_thresholds(const ScanBlock& block, const ScanShape& shape, const SegmentView& segment,
                                               const QueryCodes& codes, const SearchState& state, int first_query,
                                               int queries) {
  const int lane = threadIdx.x & 31;
  for (int own = threadIdx.x >> 5; own < queries; own += kWarps) {
    const int query = first_query + own;
    const double start = state.bin_scales[2 * query], width = state.bin_scales[2 * query + 1];
    unsigned long long floor = 0;
    if (width > 0) {
      // lane l holds bins 2 l and 2 l + 1; a count read early is only too small
      const int even = ptx::load_relaxed(&state.bins[query * kBins + 2 * lane]);
      const int odd = ptx::load_relaxed(&state.bins[query * kBins + 2 * lane + 1]);
      int above = even + odd;  // becomes the number of rows in this lane's bins and those after
#pragma unroll
      for (int distance = 1; distance < 32; distance <<= 1) {
        const int other = __shfl_down_sync(kAllLanes, above, distance);
        if (lane + distance < 32) above += other;
      }
      const unsigned reached = __ballot_sync(kAllLanes, above >= state.k);
      if (reached != 0) {
        const int top = 31 - __clz((int)reached);
        const int upper = __shfl_sync(kAllLanes, above - even >= state.k ? 1 : 0, top);
        floor = ordered_bits(start + (2 * top + upper) * width);
      }
    }
    if (lane == 0) {
      const unsigned long long before = atomicMax(&state.floors[query], floor);
      const unsigned long long highest = before > floor ? before : floor;
      const double score = highest == 0 ? minus_infinity() : from_ordered_bits(highest);
      const Thresholds limits = thresholds_of(score, codes.terms[query], segment.largest, shape);
      block.limits[own] = limits;
      block.terms[own].threshold = limits.first;
    }
  }
}

}  // namespace llmrec
