// The kernel of `fuse`. A group of neighbouring lanes, a power of two up to a warp, takes one row: sum of squares, then
// scale. Cost: reads the block once and writes it once as float32. A row that fits stays in registers between the two;
// of a longer one the second look comes from the first-level cache.
#pragma once

#include "elements.cuh"
#include "fuse.h"

namespace llmrec {

// Pieces of a row that each lane holds in registers.
constexpr int kPiecesHeld = 4;

template <class Format, int width>
__global__ void __launch_bounds__(256) fuse_rows(const FuseArguments a, const int lanes) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t row = thread / lanes;
  const int lane = static_cast<int>(thread % lanes);
  // lanes without a row still take part in the sum
  const int columns = row < a.rows ? static_cast<int>(a.columns) : 0;
  const auto* from = static_cast<const typename Format::Stored*>(a.block) + row * a.columns;
  float* to = a.out + row * a.out_columns + a.first_column;
  const int stride = lanes * width, held = kPiecesHeld * stride;

  Piece<Format, width> pieces[kPiecesHeld] = {};
  double squares = 0.0;
  for (int base = 0; base < columns; base += held) {
#pragma unroll
    for (int p = 0; p < kPiecesHeld; ++p) {
      const int column = base + p * stride + lane * width;
      if (column < columns) pieces[p] = Piece<Format, width>::load(from + column);
    }
#pragma unroll
    for (int p = 0; p < kPiecesHeld; ++p) {
      if (base + p * stride + lane * width >= columns) continue;
#pragma unroll
      for (int i = 0; i < width; ++i) {
        const double value = static_cast<double>(pieces[p][i]);
        squares = fma(value, value, squares);
      }
    }
  }
  const double scale = scale_to(a.root, sum_of_lanes(squares, lanes));

  for (int base = 0; base < columns; base += held) {
#pragma unroll
    for (int p = 0; p < kPiecesHeld; ++p) {
      const int column = base + p * stride + lane * width;
      if (column >= columns) continue;
      if (columns > held) pieces[p] = Piece<Format, width>::load(from + column);
      float values[width];
#pragma unroll
      for (int i = 0; i < width; ++i) values[i] = scaled(pieces[p][i], scale);
      store(to + column, values);
    }
  }
}

}  // namespace llmrec
