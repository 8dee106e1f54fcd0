// The kernels of `pool`. A block reduces one piece of one segment; its threads stand `blockDim.x` side by side along
// the columns (16 bytes each) and `blockDim.y` groups deep along the rows.
//
// Cost: reads every row of every segment once and writes 4 bytes a column and segment; with pieces also 8 bytes a
// column and piece. All sums are taken in an order that sizes alone decide, so results are the same in every run on
// every device.
#pragma once

#include "elements.cuh"
#include "pool.h"

namespace llmrec {

// Rows whose loads a thread issues before it uses the first of them.
constexpr int kRowsInFlight = 4;

struct PoolWork {
  PoolArguments arguments;
  int pieces = 1;
  float* partial = nullptr;  // (segments, pieces, columns), with more than one piece
  double* masses = nullptr;  // (segments, pieces)
};

struct Segment {
  int64_t start, length;
  bool inside;  // of the positions
};

__device__ __forceinline__ Segment segment_of(const PoolArguments& a, int64_t number) {
  Segment segment{a.starts[number], a.lengths[number], true};
  // positions - length cannot overflow, start + length could
  segment.inside = segment.start >= 0 && segment.length >= 0 && segment.start <= a.positions - segment.length;
  if (!segment.inside) segment.length = 0;
  if (segment.length > 0 && (a.mode == PoolMode::first || a.mode == PoolMode::last)) {
    if (a.mode == PoolMode::last) segment.start += segment.length - 1;
    segment.length = 1;
  }
  return segment;
}

template <bool is_max>
__device__ __forceinline__ float combined(float total, float value) {
  if constexpr (is_max)
    return total >= value || total != total ? total : value;  // a NaN stays, as in numpy.maximum
  else
    return total + value;
}
constexpr float kNaN = __builtin_nanf("");
template <bool is_max>
constexpr float kNothing = is_max ? -__builtin_huge_valf() : 0.0f;

// One result row on its way out: the last step of a reduction, then the norm. Every thread of the block calls `finish`.
template <int width>
class ResultRow {
 public:
  __device__ ResultRow(const PoolArguments& a, const Segment& segment, int64_t number, double mass)
      : row_(a.out + number * a.columns),
        columns_(static_cast<int>(a.columns)),
        normalize_(a.normalize),
        mean_(a.mode == PoolMode::mean),
        inverse_mass_(mass != 0.0 ? 1.0 / mass : 0.0),
        empty_(segment.length == 0),
        fill_(segment.inside ? 0.0f : kNaN) {}

  __device__ __forceinline__ void put(int column, float (&values)[width]) {
#pragma unroll
    for (int i = 0; i < width; ++i) {
      if (mean_) values[i] = static_cast<float>(static_cast<double>(values[i]) * inverse_mass_);
      if (empty_) values[i] = fill_;
      if (normalize_) squares_ += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
    store(row_ + column, values);
  }

  // Normalises what the threads with `writes` have put. `warp_sums`: shared memory for a number a warp. Each thread
  // reads back only what it wrote itself.
  __device__ __forceinline__ void finish(double* warp_sums, bool writes) {
    if (!normalize_) return;
    const int thread = threadIdx.y * blockDim.x + threadIdx.x, warps = blockDim.x * blockDim.y / kWarpLanes;
    const double sum = sum_of_lanes(writes ? squares_ : 0.0);
    if (thread % kWarpLanes == 0) warp_sums[thread / kWarpLanes] = sum;
    __syncthreads();
    double squares = 0.0;
    for (int warp = 0; warp < warps; ++warp) squares += warp_sums[warp];
    const double scale = scale_to(1.0, squares);
    if (!writes) return;
    for (int column = threadIdx.x * width; column < columns_; column += blockDim.x * width) {
      float values[width];
      load(row_ + column, values);
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] = scaled(values[i], scale);
      store(row_ + column, values);
    }
  }

 private:
  float* row_;
  int columns_;
  bool normalize_, mean_;
  double inverse_mass_;
  bool empty_;
  float fill_;
  double squares_ = 0.0;
};

// What one group of threads adds up of its columns: the rows begin + group, begin + group + groups, ... below end.
template <class Format, int width, bool is_max>
__device__ __forceinline__ void add_rows(const PoolArguments& a, int64_t begin, int64_t end, int column,
                                         float (&total)[width]) {
  const auto* table = static_cast<const typename Format::Stored*>(a.table) + column;
#pragma unroll
  for (int i = 0; i < width; ++i) total[i] = kNothing<is_max>;
  const int groups = blockDim.y;
  for (int64_t first = begin + threadIdx.y; first < end; first += kRowsInFlight * groups) {
    Piece<Format, width> pieces[kRowsInFlight];
    float weights[kRowsInFlight];
    bool inside[kRowsInFlight];
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      const int64_t position = first + r * groups;
      if (position >= end) continue;
      const int64_t row = a.index ? a.index[position] : position;
      weights[r] = a.weights ? a.weights[position] : 1.0f;
      inside[r] = static_cast<uint64_t>(row) < static_cast<uint64_t>(a.rows);
      if (inside[r]) pieces[r] = Piece<Format, width>::load(table + row * a.columns);
    }
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (first + r * groups >= end) continue;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const float value = inside[r] ? pieces[r][i] : kNaN;
        total[i] = is_max ? combined<true>(total[i], value) : fmaf(weights[r], value, total[i]);
      }
    }
  }
}

// Two blocks a multiprocessor have 32 KiB of loads under way, more than a memory round trip takes on any device; asking
// for no more of them leaves 128 registers a thread, and nothing is spilled.
template <class Format, int width, bool is_max>
__global__ void __launch_bounds__(256, 2) pool_segments(const PoolWork work) {
  LLMREC_SHARED(double, shared);
  const PoolArguments& a = work.arguments;
  const int groups = blockDim.y, warps = blockDim.x * groups / kWarpLanes;
  // totals first: they are read and written 16 bytes at a time
  auto* totals = reinterpret_cast<float*>(shared);  // (groups, blockDim.x, width), with more than one group
  double* warp_sums = shared + (groups > 1 ? groups * blockDim.x * width / 2 : 0);
  double* group_masses = warp_sums + warps;

  const int64_t number = blockIdx.x / work.pieces, piece = blockIdx.x % work.pieces;
  const Segment segment = segment_of(a, number);
  const int64_t begin = segment.start + segment.length * piece / work.pieces;
  const int64_t end = segment.start + segment.length * (piece + 1) / work.pieces;

  double mass = static_cast<double>(end - begin);
  if (a.mode == PoolMode::mean && a.weights) {
    mass = 0.0;
    for (int64_t position = begin + threadIdx.y; position < end; position += groups)
      mass += static_cast<double>(a.weights[position]);
    if (groups > 1) {
      if (threadIdx.x == 0) group_masses[threadIdx.y] = mass;
      __syncthreads();
      mass = 0.0;
      for (int group = 0; group < groups; ++group) mass += group_masses[group];
    }
  }
  ResultRow<width> result(a, segment, number, mass);
  const int columns = static_cast<int>(a.columns), lanes = blockDim.x;
  for (int tile = 0; tile < columns; tile += lanes * width) {
    const int column = tile + threadIdx.x * width;
    float total[width] = {};
    if (column < columns) add_rows<Format, width, is_max>(a, begin, end, column, total);
    if (groups > 1) {
      float* mine = totals + (threadIdx.y * lanes + threadIdx.x) * width;
      store(mine, total);
      __syncthreads();
      if (threadIdx.y == 0) {
        for (int group = 1; group < groups; ++group) {
          float other[width];
          load(mine + group * lanes * width, other);
#pragma unroll
          for (int i = 0; i < width; ++i) total[i] = combined<is_max>(total[i], other[i]);
        }
      }
      __syncthreads();  // the next tile overwrites the totals
    }
    if (threadIdx.y != 0 || column >= columns) continue;
    if (work.pieces == 1)
      result.put(column, total);
    else
      store(work.partial + (number * work.pieces + piece) * a.columns + column, total);
  }
  if (work.pieces == 1) {
    result.finish(warp_sums, threadIdx.y == 0);
  } else if (threadIdx.x == 0 && threadIdx.y == 0) {
    work.masses[number * work.pieces + piece] = mass;
  }
}

// Joins the pieces of each segment, in order; one block a segment, blockDim.y = 1.
template <int width, bool is_max>
__global__ void __launch_bounds__(256, 2) pool_pieces(const PoolWork work) {
  LLMREC_SHARED(double, warp_sums);
  const PoolArguments& a = work.arguments;
  const int64_t number = blockIdx.x;
  double mass = 0.0;
  for (int piece = 0; piece < work.pieces; ++piece) mass += work.masses[number * work.pieces + piece];
  ResultRow<width> result(a, segment_of(a, number), number, mass);
  const float* partial = work.partial + number * work.pieces * a.columns;
  for (int column = threadIdx.x * width; column < a.columns; column += blockDim.x * width) {
    float total[width];
#pragma unroll
    for (int i = 0; i < width; ++i) total[i] = kNothing<is_max>;
    for (int piece = 0; piece < work.pieces; ++piece) {
      float values[width];
      load(partial + piece * a.columns + column, values);
#pragma unroll
      for (int i = 0; i < width; ++i) total[i] = combined<is_max>(total[i], values[i]);
    }
    result.put(column, total);
  }
  result.finish(warp_sums, true);
}

}  // namespace llmrec
