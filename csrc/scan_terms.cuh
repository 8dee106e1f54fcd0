// Arithmetic that every step of the bounded scan shares: order of scores, thresholds, exact scores. No kernels.
#pragma once

#include "bounded_search.h"
#include "device.cuh"

namespace llmrec {

constexpr double kMargin = 1 + 0x1p-20;
// Wild rows carry norms of 1e30 in every stage; a threshold below that lets them pass whatever the floor.
constexpr double kLargestThreshold = 1e29;

template <class To, class From>
__device__ __forceinline__ To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps the size");
  To result;
  memcpy(&result, &value, sizeof(To));
  return result;
}

// Unsigned integers in the order of the doubles they stand for, so that an atomic maximum works on them.
__device__ __forceinline__ unsigned long long ordered_bits(double value) {
  const unsigned long long bits = bits_as<unsigned long long>(value);
  return bits >> 63 ? ~bits : bits | 1ull << 63;
}

__device__ __forceinline__ double from_ordered_bits(unsigned long long key) {
  return bits_as<double>(key >> 63 ? key & ~(1ull << 63) : ~key);
}

__device__ __forceinline__ double minus_infinity() { return bits_as<double>(0xFFF0000000000000ull); }

// Whether (score, row) comes before the other in a search's order: a higher score, or the same in an earlier row.
__device__ __forceinline__ bool comes_before(double score, int64_t row, double other_score, int64_t other_row) {
  return score > other_score || (score == other_score && row < other_row);
}

struct Thresholds {
  float first, second, third;
};

__device__ __forceinline__ float float_down(double value) {
  const double lower = value - (fabs(value) * 0x1p-22 + 1e-36);
  return (float)(lower < kLargestThreshold ? lower : kLargestThreshold);
}

// The least bounds that a row scoring at least `score` can have; `threshold_of` and `set_thresholds` in
// kernels/cpu/survivors.py.
__device__ __forceinline__ Thresholds thresholds_of(double score, const QueryTerms& query, const double (&largest)[3],
                                                    const ScanShape& shape) {
  if (!query.usable || !(score > minus_infinity())) {
    const float lowest = (float)minus_infinity();
    return {lowest, lowest, lowest};
  }
  double threshold;
  if (shape.euclidean) {
    const double moved = score * score * query.to_bound;
    threshold = query.offset - moved - (query.slack + moved * (shape.dim + 16) * 0x1p-51);
  } else {
    const double moved = score * query.to_bound;
    threshold = moved + query.offset - (query.slack + fabs(moved) * 0x1p-50);
  }
  const double first_error = query.errors[0] * largest[0] * kMargin;
  const double second_error = query.errors[1] * largest[1] * kMargin;
  const double third_error = query.errors[2] * largest[2] * kMargin;
  return {float_down(threshold - first_error), float_down(threshold - first_error - second_error),
          float_down(threshold - third_error)};
}

// Sum over the lanes of a warp that `mask` names, a power of two of neighbours; every lane gets it.
template <int kLanes, class T>
__device__ __forceinline__ T sum_lanes(unsigned mask, T value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance >>= 1) value += __shfl_xor_sync(mask, value, distance);
  return value;
}

// q . x + b, or minus the Euclidean distance, by eight neighbouring lanes, all of which get it. The order of the sums is fixed
// (column c goes to lane c % 8, lanes are added in halves, then the columns past the last full eight): every device has the
// same scores, bit for bit. A product of two floats is exact in double, so a fused multiply-add rounds the same; a square of a
// difference is not, so it is rounded explicitly.
__device__ __forceinline__ double exact_score(const float* __restrict__ row, const float* __restrict__ query, float bias,
                                              int dim, int euclidean) {
  const int lane = threadIdx.x & 7, full = dim & ~7;
  const unsigned mask = 0xFFu << (threadIdx.x & 24);
  double total = 0.0;
  if (euclidean) {
#pragma unroll 4
    for (int c = lane; c < full; c += 8) {
      const double difference = (double)query[c] - (double)row[c];
      total = __dadd_rn(total, __dmul_rn(difference, difference));
    }
    total = sum_lanes<8>(mask, total);
    for (int c = full; c < dim; ++c) {
      const double difference = (double)query[c] - (double)row[c];
      total = __dadd_rn(total, __dmul_rn(difference, difference));
    }
    return -sqrt(total);
  }
#pragma unroll 8
  for (int c = lane; c < full; c += 8) total += (double)query[c] * (double)row[c];
  total = sum_lanes<8>(mask, total);
  for (int c = full; c < dim; ++c) total += (double)query[c] * (double)row[c];
  return total + (double)bias;
}

// Whether `row` (a position in the index) is in query's exclusions, by one thread.
__device__ __forceinline__ bool is_excluded(const Exclusions& exclusions, int query, int64_t row) {
  if (exclusions.starts == nullptr) return false;
  int64_t low = exclusions.starts[query], high = exclusions.starts[query + 1];
  const int64_t end = high;
  while (low < high) {
    const int64_t middle = (low + high) >> 1;
    if (exclusions.rows[middle] < row)
      low = middle + 1;
    else
      high = middle;
  }
  return low < end && exclusions.rows[low] == row;
}

// Sort `count` (a power of two) entries by the order of a search, by the whole block. Ends with a barrier.
__device__ __forceinline__ void sort_entries(double* scores, int64_t* rows, int count) {
  for (int size = 2; size <= count; size <<= 1) {
    for (int distance = size >> 1; distance > 0; distance >>= 1) {
      __syncthreads();
      for (int i = threadIdx.x; i < count / 2; i += blockDim.x) {
        const int low = 2 * i - (i & (distance - 1)), high = low + distance;
        const bool ascending = (low & size) == 0;
        const double score = scores[low], other_score = scores[high];
        const int64_t row = rows[low], other_row = rows[high];
        if (comes_before(other_score, other_row, score, row) == ascending) {
          scores[low] = other_score, rows[low] = other_row;
          scores[high] = score, rows[high] = row;
        }
      }
    }
  }
  __syncthreads();
}

}  // namespace llmrec
