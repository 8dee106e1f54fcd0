// The shared memory of a scanning block, the queue in which rows that passed the first bound wait, and the first stage itself.
#pragma once

#include "scan_terms.cuh"

namespace llmrec {

constexpr int kWarps = kScanThreads / kWarpLanes;
// Survivors of the first bound that a block can hold. One warp's tile fits into an empty queue, so a warp that finds no room
// scans its tile again after the next drain and nothing is ever lost.
constexpr int kQueueEntries = kTileRows * kTensorQueries;
constexpr uint8_t kDropped = 255;

enum class Scan { kRows, kPacked, kTensor };

// What the first bound needs of a query, 32 bytes for two 16-byte loads.
struct __align__(16) FirstTerms {
  float step, correction, near_norm, far_norm;
  float bias_weight, threshold;
  int offset, unused;
};

struct ScanBlock {
  FirstTerms* terms;   // a query
  int4* staging;       // 32 a warp, for tensor tiles
  int8_t* codes;       // (queries, pitch)
  Thresholds* limits;  // a query
  int* found;          // rows kept so far, a query
  uint32_t* rows;      // the queue: row in the segment, bound without the tail, query
  float* bases;
  int* queued;
  int* tally;  // rows after the first, second, third stage, rows scored
  uint8_t* queries;
  int pitch;
};

// Bytes between two queries' codes: an odd multiple of 32, so that the 8 queries of a fragment lie in different banks.
__host__ __device__ constexpr int code_pitch(int first) { return first / 32 % 2 ? first : first + 32; }

__host__ __device__ constexpr size_t scan_shared_bytes(int queries, int first) {
  return queries * (sizeof(FirstTerms) + sizeof(Thresholds) + sizeof(int) + code_pitch(first)) + sizeof(int4) * kScanThreads +
         kQueueEntries * (sizeof(uint32_t) + sizeof(float) + 1) + 8 * sizeof(int);
}

__device__ __forceinline__ ScanBlock carve_scan_block(unsigned char* shared, int queries, int first) {
  ScanBlock block;
  block.pitch = code_pitch(first);
  block.terms = reinterpret_cast<FirstTerms*>(shared);
  block.staging = reinterpret_cast<int4*>(block.terms + queries);
  block.codes = reinterpret_cast<int8_t*>(block.staging + kScanThreads);
  block.limits = reinterpret_cast<Thresholds*>(block.codes + queries * block.pitch);
  block.found = reinterpret_cast<int*>(block.limits + queries);
  block.rows = reinterpret_cast<uint32_t*>(block.found + queries);
  block.bases = reinterpret_cast<float*>(block.rows + kQueueEntries);
  block.queued = reinterpret_cast<int*>(block.bases + kQueueEntries);
  block.tally = block.queued + 1;
  block.queries = reinterpret_cast<uint8_t*>(block.queued + 8);
  return block;
}

__device__ __forceinline__ float bfloat_low(uint32_t pair) { return bits_as<float>(pair << 16); }
__device__ __forceinline__ float bfloat_high(uint32_t pair) { return bits_as<float>(pair & 0xFFFF0000u); }

// Four columns of 4-bit codes as bytes 0..15: the low nibbles of a word are columns 8 w .. 8 w + 3, the high ones the next
// four.
__device__ __forceinline__ uint32_t low_nibbles(uint32_t word) { return word & 0x0F0F0F0Fu; }
__device__ __forceinline__ uint32_t high_nibbles(uint32_t word) { return word >> 4 & 0x0F0F0F0Fu; }

// Step, rounding norm, tail norm and bias of a row.
struct RowTerms {
  float step, rounding, tail, bias;
};
__device__ __forceinline__ RowTerms row_terms(uint2 packed) {
  return {bfloat_low(packed.x), bfloat_high(packed.x), bfloat_low(packed.y), bfloat_high(packed.y)};
}

// The estimate of the first stage, and the bound without the tail: what the second stage starts from.
__device__ __forceinline__ float first_estimate(const FirstTerms& query, const RowTerms& row, int sum) {
  return fmaf(row.step, fmaf(query.step, (float)sum, query.correction), query.bias_weight * row.bias);
}
__device__ __forceinline__ float first_base(const FirstTerms& query, const RowTerms& row, int sum) {
  return fmaf(query.near_norm, row.rounding, first_estimate(query, row, sum));
}
// A bound that is not a number keeps its row: only unusable queries have such bounds, and they keep every row.
__device__ __forceinline__ bool passes(const FirstTerms& query, const RowTerms& row, float base) {
  return !(fmaf(query.far_norm, row.tail, base) < query.threshold);
}

// Place for `wanted` entries in the queue, or -1; called by all lanes with the same number.
__device__ __forceinline__ int reserve(int* queued, int wanted) {
  int start = 0;
  if ((threadIdx.x & 31) == 0) {
    int seen = atomicAdd(queued, 0);
    for (;;) {
      start = seen;
      if (seen + wanted > kQueueEntries) {
        start = -1;
        break;
      }
      seen = atomicCAS(queued, start, start + wanted);
      if (seen == start) break;
    }
  }
  return __shfl_sync(kAllLanes, start, 0);
}

// Integer products of the tile's rows, one a lane, with kQueries queries. Reads 16 bytes a lane and 32 columns.
template <int kQueries>
__device__ __forceinline__ void packed_products(const uint8_t* tile, int chunks, const int8_t* codes, int pitch,
                                                int (&sums)[kQueries]) {
  const uint4* own = reinterpret_cast<const uint4*>(tile) + (threadIdx.x & 31);
#pragma unroll 4
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const uint4 packed = __ldcs(own + chunk * kTileRows);
    const uint32_t columns[8] = {low_nibbles(packed.x), high_nibbles(packed.x), low_nibbles(packed.y), high_nibbles(packed.y),
                                 low_nibbles(packed.z), high_nibbles(packed.z), low_nibbles(packed.w), high_nibbles(packed.w)};
#pragma unroll
    for (int j = 0; j < kQueries; ++j) {
      const int4* query = reinterpret_cast<const int4*>(codes + j * pitch + chunk * 32);
      const int4 left = query[0], right = query[1];
      sums[j] = __dp4a((int)columns[0], left.x, sums[j]);
      sums[j] = __dp4a((int)columns[1], left.y, sums[j]);
      sums[j] = __dp4a((int)columns[2], left.z, sums[j]);
      sums[j] = __dp4a((int)columns[3], left.w, sums[j]);
      sums[j] = __dp4a((int)columns[4], right.x, sums[j]);
      sums[j] = __dp4a((int)columns[5], right.y, sums[j]);
      sums[j] = __dp4a((int)columns[6], right.z, sums[j]);
      sums[j] = __dp4a((int)columns[7], right.w, sums[j]);
    }
  }
}

__device__ __forceinline__ RowTerms packed_terms(const uint8_t* tile, int chunks, int row) {
  return row_terms(__ldcs(reinterpret_cast<const uint2*>(tile + chunks * 512) + row));
}

// Few queries: a lane a row, dp4a. Returns whether the tile is done; false: there was no room for its survivors.
template <int kQueries>
__device__ __forceinline__ bool scan_packed_tile(const ScanBlock& block, const SegmentView& segment, int first, int64_t tile,
                                                 int queries) {
  const uint32_t allowed = segment.allowed[tile];
  if (allowed == 0) return true;
  const int lane = threadIdx.x & 31, chunks = first / 32;
  const uint8_t* codes = segment.first + tile * (first * 16 + 256);
  int sums[kQueries];
#pragma unroll
  for (int j = 0; j < kQueries; ++j) sums[j] = block.terms[j].offset;
  packed_products<kQueries>(codes, chunks, block.codes, block.pitch, sums);
  const RowTerms row = packed_terms(codes, chunks, lane);
  float bases[kQueries];
  unsigned masks[kQueries];
  int wanted = 0;
#pragma unroll
  for (int j = 0; j < kQueries; ++j) {
    const FirstTerms query = block.terms[j];
    bases[j] = first_base(query, row, sums[j]);
    masks[j] = __ballot_sync(kAllLanes, j < queries && passes(query, row, bases[j])) & allowed;
    wanted += __popc(masks[j]);
  }
  if (wanted == 0) return true;
  int place = reserve(block.queued, wanted);
  if (place < 0) return false;
#pragma unroll
  for (int j = 0; j < kQueries; ++j) {
    if (masks[j] >> lane & 1) {
      const int own = place + __popc(masks[j] & ((1u << lane) - 1));
      block.rows[own] = (uint32_t)(tile * kTileRows + lane);
      block.bases[own] = bases[j];
      block.queries[own] = (uint8_t)j;
    }
    place += __popc(masks[j]);
  }
  return true;
}

// Many queries: 32 rows x kQueries queries by int8 tensor-core tiles, the bound test on the accumulators.
// Fragment of a lane (group = lane / 4, member = lane % 4): word `member` of the 16 bytes of rows group, group + 8, ...; its
// low and high nibbles are the two halves of the 32 summed columns. Any order of the columns will do if the queries' is the
// same.
template <int kQueries>
__device__ __forceinline__ bool scan_tensor_tile(const ScanBlock& block, const SegmentView& segment, int first, int64_t tile) {
  constexpr int kColumns = kQueries / 8;
  const uint32_t allowed = segment.allowed[tile];
  if (allowed == 0) return true;
  const int lane = threadIdx.x & 31, group = lane >> 2, member = lane & 3, chunks = first / 32;
  const uint8_t* codes = segment.first + tile * (first * 16 + 256);
  const int4* own = reinterpret_cast<const int4*>(codes) + lane;
  int4* const staging = block.staging + (threadIdx.x & ~31);
  const uint32_t* const words = reinterpret_cast<const uint32_t*>(staging) + group * 4 + member;
  int sums[2][kColumns][4];
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
    const int even = block.terms[8 * n + 2 * member].offset, odd = block.terms[8 * n + 2 * member + 1].offset;
#pragma unroll
    for (int m = 0; m < 2; ++m) sums[m][n][0] = even, sums[m][n][1] = odd, sums[m][n][2] = even, sums[m][n][3] = odd;
  }
  int4 next = __ldcs(own);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    __syncwarp();
    staging[lane] = next;
    __syncwarp();
    if (chunk + 1 < chunks) next = __ldcs(own + (chunk + 1) * kTileRows);
    uint32_t rows[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const uint32_t upper = words[64 * m], lower = words[64 * m + 32];
      rows[m][0] = low_nibbles(upper), rows[m][1] = low_nibbles(lower);
      rows[m][2] = high_nibbles(upper), rows[m][3] = high_nibbles(lower);
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      const int2 pair = *reinterpret_cast<const int2*>(block.codes + (8 * n + group) * block.pitch + chunk * 32 + 8 * member);
      const uint32_t columns[2] = {(uint32_t)pair.x, (uint32_t)pair.y};
      ptx::mma_m16n8k32_s8_s8(sums[0][n], rows[0], columns);
      ptx::mma_m16n8k32_s8_s8(sums[1][n], rows[1], columns);
    }
  }
  RowTerms rows[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) rows[r] = packed_terms(codes, chunks, group + 8 * r);
  // bit r of mask[n][i]: row group + 8 r passes for query 8 n + 2 member + i
  uint32_t passed[2] = {0, 0};
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const FirstTerms query = block.terms[8 * n + 2 * member + i];
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const bool kept = (allowed >> (group + 8 * r) & 1) &&
                          passes(query, rows[r], first_base(query, rows[r], sums[r >> 1][n][2 * (r & 1) + i]));
        passed[i] |= (uint32_t)kept << (4 * n + r);
      }
    }
  }
  const int mine = __popc(passed[0]) + __popc(passed[1]);
  if (!__any_sync(kAllLanes, mine != 0)) return true;
  int before = mine;
#pragma unroll
  for (int distance = 1; distance < 32; distance <<= 1) {
    const int other = __shfl_up_sync(kAllLanes, before, distance);
    if (lane >= distance) before += other;
  }
  int place = reserve(block.queued, __shfl_sync(kAllLanes, before, 31));
  if (place < 0) return false;
  place += before - mine;
#pragma unroll
  for (int n = 0; n < kColumns; ++n) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int j = 8 * n + 2 * member + i;
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        if (passed[i] >> (4 * n + r) & 1) {
          block.rows[place] = (uint32_t)(tile * kTileRows + group + 8 * r);
          block.bases[place] = first_base(block.terms[j], rows[r], sums[r >> 1][n][2 * (r & 1) + i]);
          block.queries[place++] = (uint8_t)j;
        }
      }
    }
  }
  return true;
}

// Rows without codes: every allowed row is scored for every query.
__device__ __forceinline__ bool pass_all_rows(const ScanBlock& block, const SegmentView& segment, int64_t tile, int queries) {
  const uint32_t allowed = segment.allowed[tile];
  const int lane = threadIdx.x & 31, count = __popc(allowed);
  if (count == 0) return true;
  const int place = reserve(block.queued, count * queries);
  if (place < 0) return false;
  if (allowed >> lane & 1) {
    const int own = place + __popc(allowed & ((1u << lane) - 1));
    for (int j = 0; j < queries; ++j) {
      block.rows[own + j * count] = (uint32_t)(tile * kTileRows + lane);
      block.queries[own + j * count] = (uint8_t)j;
    }
  }
  return true;
}

}  // namespace llmrec
