// A first floor for every query: exact scores of the rows with the best estimates among evenly spaced tiles of a segment. Exact
// scores of any k allowed rows give a valid floor, so nothing here can make a search wrong, only slow.
#pragma once

#include "scan_block.cuh"

namespace llmrec {

// Bins end this much above the best seed, as a part of the seeds' range: better rows share the last bin.
constexpr double kBinsReach = 4.0 / 3.0;

__host__ __device__ constexpr size_t seed_shared_bytes(int queries, int first) {
  return queries * (sizeof(FirstTerms) + code_pitch(first));
}

// The best estimate of each sampled tile and its row; -inf where no row is allowed. A warp a tile; grid: (any, groups of
// kQueries).
template <int kQueries>
__global__ void __launch_bounds__(kScanThreads)
    estimate_tiles(ScanShape shape, SegmentView segment, QueryCodes codes, SeedTiles seeds) {
  LLMREC_SHARED(unsigned char, shared);
  FirstTerms* const terms = reinterpret_cast<FirstTerms*>(shared);
  int8_t* const own_codes = reinterpret_cast<int8_t*>(terms + kQueries);
  const int first_query = blockIdx.y * kQueries, queries = min(kQueries, codes.count - first_query);
  const int lane = threadIdx.x & 31, chunks = shape.first / 32, pitch = code_pitch(shape.first);
  for (int j = threadIdx.x; j < kQueries; j += kScanThreads) {
    FirstTerms own = {0, 0, 0, 0, 0, 0, 0, 0};
    if (j < queries) {
      const QueryTerms& query = codes.terms[first_query + j];
      own = {query.first[0], query.first[1], query.first[2], query.first[3], query.first[4], 0, query.offsets[0], 0};
    }
    terms[j] = own;
  }
  const int words = shape.first / 16;
  const int4* from = reinterpret_cast<const int4*>(codes.first) + (int64_t)first_query * words;
  for (int i = threadIdx.x; i < kQueries * words; i += kScanThreads) {
    const int j = i / words;
    reinterpret_cast<int4*>(own_codes)[j * (pitch / 16) + i % words] = j < queries ? from[i] : make_int4(0, 0, 0, 0);
  }
  __syncthreads();
  for (int64_t s = (int64_t)blockIdx.x * kWarps + (threadIdx.x >> 5); s < seeds.count; s += (int64_t)gridDim.x * kWarps) {
    const int64_t tile = s * seeds.stride;
    const uint32_t allowed = segment.allowed[tile];
    if (allowed == 0) {
      if (lane < queries) {
        seeds.values[(int64_t)(first_query + lane) * seeds.count + s] = (float)minus_infinity();
        seeds.rows[(int64_t)(first_query + lane) * seeds.count + s] = (uint32_t)(tile * kTileRows);
      }
      continue;
    }
    const uint8_t* tile_codes = segment.first + tile * (shape.first * 16 + 256);
    int sums[kQueries];
#pragma unroll
    for (int j = 0; j < kQueries; ++j) sums[j] = terms[j].offset;
    packed_products<kQueries>(tile_codes, chunks, own_codes, pitch, sums);
    const RowTerms row = packed_terms(tile_codes, chunks, lane);
#pragma unroll
    for (int j = 0; j < kQueries; ++j) {
      const float lowest = (float)minus_infinity();
      float best = allowed >> lane & 1 ? first_estimate(terms[j], row, sums[j]) : lowest;
      int best_lane = lane;
      if (!(best > lowest)) best = lowest;
#pragma unroll
      for (int distance = 16; distance > 0; distance >>= 1) {
        const float other = __shfl_xor_sync(kAllLanes, best, distance);
        const int other_lane = __shfl_xor_sync(kAllLanes, best_lane, distance);
        if (other > best || (other == best && other_lane < best_lane)) best = other, best_lane = other_lane;
      }
      if (lane == 0 && j < queries) {
        seeds.values[(int64_t)(first_query + j) * seeds.count + s] = best;
        seeds.rows[(int64_t)(first_query + j) * seeds.count + s] = (uint32_t)(tile * kTileRows + best_lane);
      }
    }
  }
}

__device__ __forceinline__ uint32_t ordered_float(float value) {
  const uint32_t bits = bits_as<uint32_t>(value);
  return bits >> 31 ? ~bits : bits | 1u << 31;
}

struct SeedBlock {
  double scores[kLargestSeeds];
  int64_t rows[kLargestSeeds];
  uint32_t chosen[kLargestSeeds];
  int histogram[256];
  int valid, taken, digit, left;
};

// The `wanted`-th largest key of a query's tiles, found digit by digit; by the whole block.
__device__ __forceinline__ uint32_t largest_key(SeedBlock& block, const float* values, int64_t count, int wanted) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = threadIdx.x; i < 256; i += kScanThreads) block.histogram[i] = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < count; i += kScanThreads) {
      const uint32_t key = ordered_float(values[i]);
      if (shift == 24 || key >> (shift + 8) == prefix) atomicAdd(&block.histogram[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int digit = 255, left = wanted;
      while (digit > 0 && block.histogram[digit] < left) left -= block.histogram[digit--];
      block.digit = digit, block.left = left;
    }
    __syncthreads();
    prefix = prefix << 8 | (uint32_t)block.digit;
    wanted = block.left;
  }
  return prefix;
}

// Score the most promising tiles' rows and set the query's floor and histogram; a block a query. Leaves them as they are where
// fewer than k rows can be seeds.
__global__ void __launch_bounds__(kScanThreads) choose_seeds(ScanShape shape, SegmentView segment, QueryCodes codes,
                                                             Exclusions exclusions, SeedTiles seeds, SearchState state) {
  LLMREC_SHARED(SeedBlock, shared);
  SeedBlock& block = *shared;
  const int query = blockIdx.x;
  float* const values = seeds.values + query * seeds.count;
  const uint32_t* const rows = seeds.rows + query * seeds.count;
  const float lowest = (float)minus_infinity();
  if (threadIdx.x == 0) block.valid = 0, block.taken = 0;
  __syncthreads();
  int valid = 0;
  for (int64_t i = threadIdx.x; i < seeds.count; i += kScanThreads) {
    if (values[i] > lowest && is_excluded(exclusions, query, segment.base + rows[i])) values[i] = lowest;
    valid += values[i] > lowest;
  }
  if (valid > 0) atomicAdd(&block.valid, valid);
  __syncthreads();
  if (block.valid < state.k || !codes.terms[query].usable) return;
  const int wanted = min(block.valid, state.k + state.k / 4 + kSeedSlack);
  const uint32_t pivot = largest_key(block, values, seeds.count, wanted);
  for (int round = 0; round < 2; ++round) {  // those above the pivot first, then as many that equal it as there is room for
    for (int64_t i = threadIdx.x; i < seeds.count; i += kScanThreads) {
      const uint32_t key = ordered_float(values[i]);
      if (round == 0 ? key > pivot : key == pivot) {
        const int slot = atomicAdd(&block.taken, 1);
        if (slot < wanted) block.chosen[slot] = rows[i];
      }
    }
    __syncthreads();
  }
  int size = 2;
  while (size < wanted) size <<= 1;
  for (int i = threadIdx.x / 8; i < size; i += kScanThreads / 8) {
    double score = minus_infinity();
    int64_t row = INT64_MAX;
    if (i < wanted) {
      row = block.chosen[i];
      score = exact_score(segment.rows + row * shape.dim, codes.queries + (int64_t)query * shape.dim, segment.bias[row],
                          shape.dim, shape.euclidean);
    }
    if ((threadIdx.x & 7) == 0) block.scores[i] = score, block.rows[i] = row;
  }
  sort_entries(block.scores, block.rows, size);
  if (threadIdx.x != 0) return;
  const double floor = block.scores[state.k - 1], width = (block.scores[0] - floor) * kBinsReach / kBins;
  atomicMax(&state.floors[query], ordered_bits(floor));
  state.bin_scales[2 * query] = floor;
  state.bin_scales[2 * query + 1] = width < 1e300 ? width : 0.0;
  if (state.counts != nullptr) atomicAdd(&state.counts[3], (unsigned long long)wanted);
}

}  // namespace llmrec
