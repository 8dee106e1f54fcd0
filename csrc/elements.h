// The element types of input matrices, as launchers and the binding name them.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace llmrec {

enum class Element { float32, float16, bfloat16 };

inline size_t bytes_of(Element element) { return element == Element::float32 ? 4 : 2; }

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Kernels count the columns of one row in 32 bits, everything else in 64.
constexpr int64_t kMostColumns = 1 << 30;
constexpr int64_t kMostBlocks = 0x7FFFFFFF;  // in the first dimension of a grid, on every architecture

}  // namespace llmrec
