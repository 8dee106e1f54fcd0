// Launches of `fuse`: choose lanes a row and vector width; check what a launcher can check.
#include "fuse.cuh"
#include "launchers.h"

namespace llmrec {

namespace {

constexpr int kThreads = 256;

template <class Format, int width>
Status launch_fuse(const FuseArguments& a, cudaStream_t stream) {
  const int64_t vectors = (a.columns + width - 1) / width;
  int lanes = 1;
  while (lanes < kWarpLanes && lanes < vectors) lanes *= 2;
  const int64_t rows_a_block = kThreads / lanes, blocks = (a.rows + rows_a_block - 1) / rows_a_block;
  LLMREC_REQUIRE(blocks <= kMostBlocks, "more rows than one launch takes");
  LLMREC_TRY(launch(fuse_rows<Format, width>, static_cast<unsigned>(blocks), kThreads, 0, stream, a, lanes));
  return {};
}

template <class Format>
Status launch_fuse(const FuseArguments& a, cudaStream_t stream) {
  constexpr int width = kVectorBytes / static_cast<int>(sizeof(typename Format::Stored));
  const bool vectors = a.columns % width == 0 && is_aligned(a.block) && is_aligned(a.out) && a.out_columns % 4 == 0 &&
                       a.first_column % 4 == 0;
  return vectors ? launch_fuse<Format, width>(a, stream) : launch_fuse<Format, 1>(a, stream);
}

}  // namespace

Status fuse(const FuseArguments& arguments, cudaStream_t stream) {
  const FuseArguments& a = arguments;
  LLMREC_REQUIRE(a.rows >= 0 && a.columns >= 0, "sizes are not negative");
  LLMREC_REQUIRE(a.first_column >= 0 && a.first_column + a.columns <= a.out_columns,
                 "the block must fit in the fused row");
  LLMREC_REQUIRE(a.columns <= kMostColumns, "more columns than a kernel takes");
  if (a.rows == 0 || a.columns == 0) return {};
  switch (a.element) {
    case Element::float32:
      return launch_fuse<Float32>(a, stream);
    case Element::float16:
      return launch_fuse<Float16>(a, stream);
    case Element::bfloat16:
      return launch_fuse<BFloat16>(a, stream);
  }
  return {};
}

}  // namespace llmrec
