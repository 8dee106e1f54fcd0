// `fuse`: normalise blocks of columns, scale them, concatenate. Meaning: llmrec_fast/kernels/cpu/fuse.py.
#pragma once

#include "elements.h"

namespace llmrec {

// One block of columns on its way into its place in the fused rows. Pointers are to device memory.
struct FuseArguments {
  const void* block = nullptr;  // (rows, columns), row after row
  Element element = Element::float32;
  int64_t rows = 0, columns = 0;
  double root = 1.0;     // of the block's weight: the norm of its part of a fused row
  float* out = nullptr;  // (rows, out_columns); the block goes to the columns from first_column on
  int64_t out_columns = 0, first_column = 0;
};

}  // namespace llmrec
