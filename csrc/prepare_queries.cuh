// Turn queries into what the stages multiply: rotated integer codes, weights of the bounds, numbers of the thresholds.
// All in double for a query of unit length, as kernels/cpu/scan_queries.py does. Cost of a query: dim^2 operations.
#pragma once

#include "scan_terms.cuh"

namespace llmrec {

constexpr int kRotatedColumns = 32, kRotatedQueries = 4;
constexpr size_t kRotateShared = sizeof(double) * kScanThreads * kRotatedQueries;
constexpr size_t kPrepareShared = (sizeof(double) + sizeof(int)) * kScanThreads / kWarpLanes;
constexpr double kLeastStep = 1e-30, kNormSlack = 1e-12;

// Where `prepare_queries` writes; the same memory that QueryCodes shows to the scan.
struct PreparedQueries {
  double* rotated;  // (queries, dim)
  QueryTerms* terms;
  int8_t *first, *second, *third_high, *third_low;
};

// rotated = (query - mean, or query) @ rotation. A block does 32 columns of 4 queries; 8 threads share a column's sum.
__global__ void __launch_bounds__(kScanThreads)
    rotate_queries(const float* __restrict__ queries, int count, ScanShape shape, PlanView plan, double* __restrict__ rotated) {
  LLMREC_SHARED(double, partial);  // (slices, queries, columns)
  const int lane = threadIdx.x % kRotatedColumns, slice = threadIdx.x / kRotatedColumns;
  const int column = blockIdx.x * kRotatedColumns + lane, first = blockIdx.y * kRotatedQueries;
  const int slices = kScanThreads / kRotatedColumns;
  double sums[kRotatedQueries] = {};
  if (column < shape.dim) {
    // without a rotation only the column itself contributes
    const int start = plan.rotation == nullptr ? (slice == 0 ? column : shape.dim) : slice;
    const int stop = plan.rotation == nullptr ? min(column + 1, shape.dim) : shape.dim;
    for (int c = start; c < stop; c += slices) {
      const double factor = plan.rotation == nullptr ? 1.0 : (double)plan.rotation[(size_t)c * shape.dim + column];
      const double centre = shape.euclidean ? (double)plan.mean[c] : 0.0;
#pragma unroll
      for (int j = 0; j < kRotatedQueries; ++j) {
        if (first + j < count) sums[j] += ((double)queries[(size_t)(first + j) * shape.dim + c] - centre) * factor;
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kRotatedQueries; ++j) partial[(slice * kRotatedQueries + j) * kRotatedColumns + lane] = sums[j];
  __syncthreads();
  if (slice < kRotatedQueries && column < shape.dim && first + slice < count) {
    double total = 0.0;
    for (int s = 0; s < slices; ++s) total += partial[(s * kRotatedQueries + slice) * kRotatedColumns + lane];
    rotated[(size_t)(first + slice) * shape.dim + column] = total;
  }
}

struct Largest {
  template <class T>
  __device__ static T of(T left, T right) {
    return left < right ? right : left;
  }
};
struct Sum {
  template <class T>
  __device__ static T of(T left, T right) {
    return left + right;
  }
};

// Reduce one value a thread over the block; every thread gets it. `scratch` holds a value a warp.
template <class Operation, class T>
__device__ __forceinline__ T reduce_block(T value, T* scratch) {
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) {
    value = Operation::of(value, __shfl_xor_sync(0xFFFFFFFFu, value, distance));
  }
  __syncthreads();
  if ((threadIdx.x & 31) == 0) scratch[threadIdx.x >> 5] = value;
  __syncthreads();
  T result = scratch[0];
  for (int warp = 1; warp < kScanThreads / 32; ++warp) result = Operation::of(result, scratch[warp]);
  return result;
}

// Step, sum of the codes and norm of what is lost, of one range of columns.
struct Quantised {
  float step;
  int sum;
  double lost;
};

// Codes of z[start:stop] with |code| <= levels, split as 64 * high + low when `low` is given; zeros up to `padded`.
__device__ __forceinline__ Quantised quantise_columns(const double* z, int start, int stop, int padded, int levels,
                                                      int8_t* codes, int8_t* low, double* doubles, int* integers) {
  double largest = 0.0;
  for (int c = start + threadIdx.x; c < stop; c += kScanThreads) largest = Largest::of(largest, fabs(z[c]));
  largest = reduce_block<Largest>(largest, doubles);
  const double least = largest / levels;
  const float step = (float)(least > kLeastStep ? least : kLeastStep);
  int sum = 0;
  double lost = 0.0;
  for (int c = threadIdx.x; c < padded; c += kScanThreads) {
    int code = 0;
    if (start + c < stop) {
      const double value = z[start + c];
      const double level = rint(value / (double)step);
      code = (int)(level > levels ? levels : level < -levels ? -levels : level);
      const double difference = value - code * (double)step;
      lost += difference * difference;
      sum += code;
    }
    const int high = low == nullptr ? code : (code + 32) >> 6;
    codes[c] = (int8_t)high;
    if (low != nullptr) low[c] = (int8_t)(code - 64 * high);
  }
  sum = reduce_block<Sum>(sum, integers);
  lost = reduce_block<Sum>(lost, doubles);
  return {step, sum, sqrt(lost) * kMargin + kNormSlack};
}

__device__ __forceinline__ double norm_of_columns(const double* z, int start, int stop, double* scratch) {
  double square = 0.0;
  for (int c = start + threadIdx.x; c < stop; c += kScanThreads) square += z[c] * z[c];
  return sqrt(reduce_block<Sum>(square, scratch)) * kMargin + kNormSlack;
}

// One block a query, after `rotate_queries`.
__global__ void __launch_bounds__(kScanThreads, 1)
    prepare_queries(const float* __restrict__ queries, ScanShape shape, PlanView plan, PreparedQueries out) {
  LLMREC_SHARED(double, doubles);  // a double and an integer a warp
  int* const integers = reinterpret_cast<int*>(doubles + kScanThreads / kWarpLanes);
  const int query = blockIdx.x, dim = shape.dim;
  const float* own = queries + (size_t)query * dim;
  double* z = out.rotated + (size_t)query * dim;
  double square = 0.0, own_square = 0.0, mean_square = 0.0, along_mean = 0.0;
  for (int c = threadIdx.x; c < dim; c += kScanThreads) {
    const double q = own[c], m = plan.mean[c], u = shape.euclidean ? q - m : q;
    square += u * u;
    own_square += q * q;
    mean_square += m * m;
    along_mean += q * m;
  }
  square = reduce_block<Sum>(square, doubles);
  own_square = reduce_block<Sum>(own_square, doubles);
  mean_square = reduce_block<Sum>(mean_square, doubles);
  along_mean = reduce_block<Sum>(along_mean, doubles);

  const double norm = square > 0 ? sqrt(square) : 1.0;
  for (int c = threadIdx.x; c < dim; c += kScanThreads) z[c] /= norm;
  QueryTerms& terms = out.terms[query];
  if (threadIdx.x == 0) {
    // how an exact score becomes a threshold for bounds of the unit query and the scaled row
    double to_bound, bias_weight, offset, slack;
    if (shape.euclidean) {
      to_bound = 0.5 * plan.scale / norm;
      bias_weight = 1.0 / (plan.scale * norm);
      offset = square * to_bound - plan.bias_centre * bias_weight;
      slack = square * to_bound + fabs(plan.bias_centre) * bias_weight;
    } else {
      to_bound = plan.scale / norm;
      bias_weight = plan.bias_radius > 0 ? plan.scale / norm : 0.0;
      offset = -(along_mean + plan.bias_centre) * to_bound;
      slack = (sqrt(own_square * mean_square) + fabs(plan.bias_centre)) * to_bound;
    }
    terms.usable = square > 0 && bias_weight * plan.bias_radius < 1e25 && bias_weight < 1e25 &&
                   (bias_weight > 1e-30 || bias_weight == 0.0) && to_bound > 0 && to_bound < 1e300;
    terms.to_bound = to_bound, terms.offset = offset, terms.slack = slack * (dim + 16) * 0x1p-51;
    terms.first[4] = (float)bias_weight;
  }
  __syncthreads();

  const int stop0 = min(shape.first, dim), stop1 = min(shape.first + shape.second, dim);
  // int16 products with int8 codes must fit in int32; see kernels/cpu/scan_queries.py
  const int fitting = 2147483647 / (128 * shape.third);
  for (int stage = 0; stage < 3; ++stage) {
    const int start = stage == 1 ? stop0 : 0, stop = stage == 0 ? stop0 : stage == 1 ? stop1 : dim;
    const int padded = stage == 0 ? shape.first : stage == 1 ? shape.second : shape.third;
    int8_t* const codes = (stage == 0 ? out.first : stage == 1 ? out.second : out.third_high) + (size_t)query * padded;
    int8_t* const low = stage == 2 ? out.third_low + (size_t)query * padded : nullptr;
    const Quantised coded =
        quantise_columns(z, start, stop, padded, stage < 2 ? 127 : min(fitting, 4095), codes, low, doubles, integers);
    const double own = norm_of_columns(z, start, stop, doubles), rest = norm_of_columns(z, stop, dim, doubles);
    if (threadIdx.x != 0) continue;
    terms.errors[stage] = coded.lost;
    if (stage == 2) {
      terms.third[0] = coded.step, terms.third[1] = (float)(own * kMargin);
      continue;
    }
    // sum of (code - 7.5) * q = product - floor(7.5 * sum) - half, in integers
    terms.offsets[stage] = -((15 * coded.sum) >> 1);
    float* const weights = stage == 0 ? terms.first : terms.second;
    weights[0] = coded.step, weights[1] = -0.5f * (float)((15 * coded.sum) & 1) * coded.step;
    weights[2] = (float)(own * kMargin), weights[3] = stop < dim || stage == 1 ? (float)(rest * kMargin) : 0.0f;
  }
}

}  // namespace llmrec
