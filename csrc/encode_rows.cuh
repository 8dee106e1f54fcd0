// Encode rows for the bounded scan: centre, rotate, quantise, measure what the rounding lost. The same steps as
// kernels/cpu/encode_rows.py; codes may differ where sums round differently, the norms beside them say what was lost.
// Cost of a row: 2 dim^2 operations to rotate and about 40 dim to quantise.
#pragma once

#include "scan_terms.cuh"

namespace llmrec {

constexpr int kRotateRows = 16, kRotateThreads = 128;
// As ROTATION_DEPTH in llmrec_fast/kernels/codes.py: the error bound of the rotation counts on partial sums of this length.
constexpr int kRotationDepth = 128;
constexpr size_t kRotateRowsShared = sizeof(float) * kRotateRows * kRotationDepth;
constexpr float kWildNorm = 1e30f, kLeastNorm = 1e-34f;
constexpr double kWildRadii = 4.0, kLossless = 1 + 0x1p-20;

// out = ((rows - mean) * scale) @ rotation. A block does 16 rows of 128 columns, 128 summands at a time.
__global__ void __launch_bounds__(kRotateThreads)
    rotate_rows(const float* __restrict__ rows, int64_t count, ScanShape shape, const float* __restrict__ mean,
                const float* __restrict__ rotation, float scale, float* __restrict__ out) {
  LLMREC_SHARED(float, centred);  // (kRotateRows, kRotationDepth)
  const int64_t first = (int64_t)blockIdx.x * kRotateRows;
  const int column = blockIdx.y * kRotateThreads + threadIdx.x;
  float totals[kRotateRows] = {};
  for (int start = 0; start < shape.dim; start += kRotationDepth) {
    const int depth = min(kRotationDepth, shape.dim - start);
    __syncthreads();
    if ((int)threadIdx.x < depth) {
      const float centre = mean[start + threadIdx.x];
      for (int r = 0; r < kRotateRows; ++r) {
        const int64_t row = first + r;
        centred[r * kRotationDepth + threadIdx.x] =
            row < count ? (rows[row * shape.dim + start + threadIdx.x] - centre) * scale : 0.0f;
      }
    }
    __syncthreads();
    if (column >= shape.dim) continue;
    float partial[kRotateRows] = {};
    for (int c = 0; c < depth; ++c) {
      const float factor = rotation[(int64_t)(start + c) * shape.dim + column];
#pragma unroll
      for (int r = 0; r < kRotateRows; ++r) partial[r] = fmaf(centred[r * kRotationDepth + c], factor, partial[r]);
    }
#pragma unroll
    for (int r = 0; r < kRotateRows; ++r) totals[r] += partial[r];
  }
  if (column >= shape.dim) return;
#pragma unroll
  for (int r = 0; r < kRotateRows; ++r) {
    if (first + r < count) out[(first + r) * shape.dim + column] = totals[r];
  }
}

// Without a rotation: out = (rows - mean) * scale.
__global__ void __launch_bounds__(kScanThreads)
    centre_rows(const float* __restrict__ rows, int64_t count, ScanShape shape, const float* __restrict__ mean, float scale,
                float* __restrict__ out) {
  const int64_t row = blockIdx.x;
  if (row >= count) return;
  for (int c = threadIdx.x; c < shape.dim; c += kScanThreads)
    out[row * shape.dim + c] = (rows[row * shape.dim + c] - mean[c]) * scale;
}

__device__ __forceinline__ uint32_t bfloat_nearest(float value) { return (bits_as<uint32_t>(value) + 0x8000u) >> 16; }
// The least bfloat16 that is not below `value`.
__device__ __forceinline__ uint32_t bfloat_up(float value) {
  return (bits_as<uint32_t>(value) + (value > 0 ? 0xFFFFu : 0u)) >> 16;
}
__device__ __forceinline__ float bfloat_value(uint32_t bits) { return bits_as<float>(bits << 16); }
// A float not below sqrt(square) + slack.
__device__ __forceinline__ float norm_up(double square, double slack) {
  return (float)((sqrt(square) + slack) * kLossless + (double)kLeastNorm);
}

__device__ __forceinline__ float clamp_level(float level, float low, float high) {
  return level < low ? low : level > high ? high : level;
}

// What follows is done by one warp for one row; `values` are its rotated columns.

__device__ __forceinline__ double square_norm(const float* values, int start, int stop) {
  double total = 0.0;
  for (int c = start + ((int)threadIdx.x & 31); c < stop; c += 32) total += (double)values[c] * (double)values[c];
  return sum_of_lanes(total);
}

// The step, of a few multiples of the root mean square, that loses least.
__device__ __forceinline__ float choose_step(const float* values, int start, int stop) {
  const int lane = threadIdx.x & 31;
  float total = 0.0f;
  for (int c = start + lane; c < stop; c += 32) total = fmaf(values[c], values[c], total);
  const float root = sqrtf(sum_of_lanes(total) / (float)max(1, stop - start)) + 1e-30f;
  float least = bits_as<float>(0x7F800000u), chosen = root;
  for (int choice = 0; choice < 6; ++choice) {
    const float multiple = choice == 0   ? 1.75f
                           : choice == 1 ? 2.1f
                           : choice == 2 ? 2.4f
                           : choice == 3 ? 2.7f
                           : choice == 4 ? 3.1f
                                         : 3.6f;
    const float step = multiple / 7.5f * root, inverse = 1.0f / step;
    float lost = 0.0f;
    for (int c = start + lane; c < stop; c += 32) {
      const float level = clamp_level(floorf(values[c] * inverse), -8.0f, 7.0f) + 0.5f;
      const float difference = fmaf(-level, step, values[c]);
      lost = fmaf(difference, difference, lost);
    }
    lost = sum_of_lanes(lost);
    if (lost < least) least = lost, chosen = step;
  }
  return chosen;
}

struct Rounding {
  double lost, stored;  // squared norms of what is lost and of what is stored
};

__device__ __forceinline__ int code4(float value, float inverse) {
  return (int)clamp_level(floorf(value * inverse), -8.0f, 7.0f) + 8;
}

__device__ __forceinline__ Rounding measure4(const float* values, int start, int stop, float step) {
  const float inverse = 1.0f / step;
  double lost = 0.0, stored = 0.0;
  for (int c = start + ((int)threadIdx.x & 31); c < stop; c += 32) {
    const double value = ((double)code4(values[c], inverse) - 7.5) * (double)step, difference = (double)values[c] - value;
    lost += difference * difference;
    stored += value * value;
  }
  return {sum_of_lanes(lost), sum_of_lanes(stored)};
}

// Two 4-bit codes: columns `low` and `high`; 8 past the end.
__device__ __forceinline__ uint8_t code_pair(const float* values, int low, int high, int stop, float inverse) {
  const int left = low < stop ? code4(values[low], inverse) : 8, right = high < stop ? code4(values[high], inverse) : 8;
  return (uint8_t)(left | right << 4);
}

// One warp a row: codes, norms and the summary.
__global__ void __launch_bounds__(kScanThreads, 2) quantise_rows(EncodeRequest request, float* __restrict__ rotated) {
  const ScanShape& shape = request.shape;
  const int lane = threadIdx.x & 31, dim = shape.dim;
  const int64_t row = (int64_t)blockIdx.x * (kScanThreads / 32) + (threadIdx.x >> 5);
  if (row >= request.count) return;
  float* const values = rotated + row * dim;
  double square = square_norm(values, 0, dim);
  double own_bias;
  if (shape.euclidean) {
    double centred = 0.0;
    for (int c = lane; c < dim; c += 32) {
      const float value = (request.rows[row * dim + c] - request.plan.mean[c]) * (float)request.plan.scale;
      centred += (double)value * (double)value;
    }
    // rounding of the centring moves |y|^2 by 2 roundoffs at most; four are given back to stay above
    own_bias = -0.5 * sum_of_lanes(centred) * (1 - 0x1p-22) - request.plan.bias_centre;
  } else {
    own_bias = (request.bias == nullptr ? 0.0 : (double)request.bias[row]) - request.plan.bias_centre;
  }
  const bool wild =
      !(square <= kWildRadii * kWildRadii) || (!shape.euclidean && fabs(own_bias) > kWildRadii * request.plan.bias_radius);
  if (wild) {
    for (int c = lane; c < dim; c += 32) values[c] = 0.0f;
    square = 0.0, own_bias = 0.0;
    __syncwarp();
  }
  const double slack = request.row_slack * sqrt(square);
  const float upper_bias = (float)(own_bias + fabs(own_bias) * 0x1p-19);
  const int stop0 = min(shape.first, dim), stop1 = min(shape.first + shape.second, dim);
  const int64_t place = request.place + row;

  const uint32_t step_bits = bfloat_nearest(choose_step(values, 0, stop0));
  const float first_step = bfloat_value(step_bits), first_inverse = 1.0f / first_step;
  const Rounding first = measure4(values, 0, stop0, first_step);
  const float rounding = wild ? kWildNorm : norm_up(first.lost, slack);
  const float tail = stop0 < dim ? (wild ? kWildNorm : norm_up(square_norm(values, stop0, dim), slack)) : 0.0f;
  uint8_t* const tile = request.out.first + (place / kTileRows) * (shape.first * 16 + 256);
  const int own = (int)(place % kTileRows);
  for (int byte = lane; byte < shape.first / 2; byte += 32) {
    const int column = (byte >> 2) * 8 + (byte & 3);
    tile[(byte >> 4) * 512 + own * 16 + (byte & 15)] = code_pair(values, column, column + 4, stop0, first_inverse);
  }
  if (lane == 0) {
    *reinterpret_cast<uint2*>(tile + shape.first * 16 + own * 8) =
        make_uint2(step_bits | bfloat_up(rounding) << 16, bfloat_up(tail) | bfloat_up(upper_bias) << 16);
  }

  double second_stored = 0.0;
  if (shape.second > 0) {
    const float step = choose_step(values, stop0, stop1), inverse = 1.0f / step;
    const Rounding second = measure4(values, stop0, stop1, step);
    second_stored = second.stored;
    uint8_t* const record = request.out.second + place * (shape.second / 2 + 16);
    for (int byte = lane; byte < shape.second / 2; byte += 32) {
      const int column = stop0 + (byte >> 5) * 64 + (byte & 31);
      record[byte] = code_pair(values, column, column + 32, stop1, inverse);
    }
    const float left = wild ? kWildNorm : norm_up(square_norm(values, stop1, dim), slack);
    if (lane == 0) {
      *reinterpret_cast<float4*>(record + shape.second / 2) =
          make_float4(step, wild ? kWildNorm : norm_up(second.lost, slack), left, bfloat_value(bfloat_up(tail)));
    }
  }

  float largest = 0.0f;
  for (int c = lane; c < dim; c += 32) largest = fmaxf(largest, fabsf(values[c]));
#pragma unroll
  for (int distance = 16; distance > 0; distance >>= 1) largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, distance));
  const float step = fmaxf(largest / 127.0f, 1e-30f), inverse = 1.0f / step;
  double lost = 0.0, stored = 0.0;
  for (int c = lane; c < shape.third; c += 32) {
    int code = 0;
    if (c < dim) {
      code = (int)clamp_level(rintf(values[c] * inverse), -127.0f, 127.0f);
      const double value = (double)code * (double)step, difference = (double)values[c] - value;
      lost += difference * difference;
      stored += value * value;
    }
    request.out.third[place * shape.third + c] = (int8_t)code;
  }
  lost = sum_of_lanes(lost), stored = sum_of_lanes(stored);
  if (lane != 0) return;
  *reinterpret_cast<float4*>(request.out.third_terms + place * 4) =
      make_float4(step, wild ? bits_as<float>(0x7F800000u) : norm_up(lost, slack), upper_bias, 0.0f);
  // norms are not negative, so their bits are in their order
  auto* const maxima = reinterpret_cast<unsigned long long*>(request.summary);
  atomicMax(&maxima[0], bits_as<unsigned long long>(sqrt(first.stored)));
  atomicMax(&maxima[1], bits_as<unsigned long long>(sqrt(second_stored)));
  atomicMax(&maxima[2], bits_as<unsigned long long>(sqrt(stored)));
  if (wild) {
    atomicAdd(&request.summary[5], 1.0);
  } else {
    atomicAdd(&request.summary[3], (double)rounding);
    atomicAdd(&request.summary[4], (double)tail);
  }
}

}  // namespace llmrec
