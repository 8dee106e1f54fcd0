// The element types of input matrices, and reading them as float32. Reading is exact for all three.
#pragma once

#include "device.cuh"

namespace llmrec {

// What a thread reads at once where rows are aligned for it.
constexpr int kVectorBytes = 16;

// A format names how elements are stored and what one is worth.
struct Float32 {
  using Stored = float;
  static __device__ __forceinline__ float value(float stored) { return stored; }
};
struct Float16 {
  using Stored = uint16_t;
  static __device__ __forceinline__ float value(uint16_t stored) { return ptx::half_to_float(stored); }
};
struct BFloat16 {  // the upper half of a float32
  using Stored = uint16_t;
  static __device__ __forceinline__ float value(uint16_t stored) {
    return __uint_as_float(static_cast<uint32_t>(stored) << 16);
  }
};

// `width` neighbouring elements as they are stored, held in registers: one load of 16 bytes, or one element.
template <class Format, int width>
struct Piece {
  static_assert(width * sizeof(typename Format::Stored) == kVectorBytes, "16 bytes a load");
  uint4 words;

  static __device__ __forceinline__ Piece load(const typename Format::Stored* from) {
    return {*reinterpret_cast<const uint4*>(from)};
  }
  __device__ __forceinline__ float operator[](int i) const {
    constexpr int per_word = 4 / sizeof(typename Format::Stored);
    const uint32_t words_as_array[4] = {words.x, words.y, words.z, words.w};
    const uint32_t word = words_as_array[i / per_word];
    if constexpr (per_word == 1)
      return __uint_as_float(word);
    else
      return Format::value(static_cast<uint16_t>(i % 2 ? word >> 16 : word));
  }
};
template <class Format>
struct Piece<Format, 1> {
  typename Format::Stored element;

  static __device__ __forceinline__ Piece load(const typename Format::Stored* from) { return {*from}; }
  __device__ __forceinline__ float operator[](int) const { return Format::value(element); }
};

// `width` floats, in loads and stores of 16 bytes where there are four.
template <int width>
__device__ __forceinline__ void load(const float* from, float (&values)[width]) {
  if constexpr (width % 4 == 0) {
#pragma unroll
    for (int i = 0; i < width; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i);
      values[i] = four.x, values[i + 1] = four.y, values[i + 2] = four.z, values[i + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < width; ++i) values[i] = from[i];
  }
}
template <int width>
__device__ __forceinline__ void store(float* to, const float (&values)[width]) {
  if constexpr (width % 4 == 0) {
#pragma unroll
    for (int i = 0; i < width; i += 4)
      *reinterpret_cast<float4*>(to + i) = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
  } else {
#pragma unroll
    for (int i = 0; i < width; ++i) to[i] = values[i];
  }
}

// `value * scale`, rounded once or twice to float32. Products of float64 run at 1/64 of the speed on many GPUs, so they
// are left to scales that are not ordinary float32 numbers (rows with norms beyond 2^100 or below 2^-100).
__device__ __forceinline__ float scaled(float value, double scale) {
  const float single = static_cast<float>(scale);
  const bool ordinary = single == 0.0f ? scale == 0.0 : single > 0x1p-100f && single < 0x1p100f;
  return ordinary ? value * single : static_cast<float>(static_cast<double>(value) * scale);
}

// What rows of that sum of squares are multiplied by to get the norm `length`; 0 for a zero row.
__device__ __forceinline__ double scale_to(double length, double squares) {
  return squares > 0.0 ? length / sqrt(squares) : squares == 0.0 ? 0.0 : squares;  // NaN stays NaN
}

}  // namespace llmrec
