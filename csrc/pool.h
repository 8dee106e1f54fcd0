// `pool`: reduce segments of rows to one vector each, in one pass. What it means is told in
// llmrec_fast/kernels/cpu/pool.py.
#pragma once

#include "elements.h"

namespace llmrec {

enum class PoolMode { mean, max, sum, first, last };

// Pointers are to device memory. Segment s covers the positions starts[s] .. starts[s] + lengths[s]; position p is row
// p of the table or, with an index, row index[p]. A segment outside of the positions, or a row outside of the table,
// gives NaN: kernels cannot raise, and nothing outside is read.
struct PoolArguments {
  const void* table = nullptr;  // (rows, columns), row after row
  Element element = Element::float32;
  int64_t rows = 0, columns = 0;
  const int64_t* starts = nullptr;
  const int64_t* lengths = nullptr;
  int64_t segments = 0;
  const int64_t* index = nullptr;  // (positions,) or null
  const float* weights = nullptr;  // (positions,) or null; for the modes mean and sum
  int64_t positions = 0;
  PoolMode mode = PoolMode::mean;
  bool normalize = false;
  float* out = nullptr;  // (segments, columns)
};

}  // namespace llmrec
