// Launches of `pool`: choose pieces, block shape and vector width; check what a launcher can check.
#include <algorithm>

#include "launchers.h"
#include "pool.cuh"

namespace llmrec {

namespace {

constexpr int kThreads = 256;
// With fewer blocks than this a large device is not busy; pieces of fewer rows than that are not worth a block.
constexpr int64_t kBlocksWanted = 1024, kRowsWorthAPiece = 32, kMostPieces = 64;

int64_t pieces_of(int64_t segments, int64_t positions, PoolMode mode) {
  if (segments == 0 || mode == PoolMode::first || mode == PoolMode::last) return 1;
  const int64_t wanted = std::min(kBlocksWanted / segments, positions / segments / kRowsWorthAPiece);
  return std::clamp<int64_t>(wanted, 1, kMostPieces);
}

struct Shape {
  dim3 block;
  size_t shared_bytes;
};

// Lanes along the columns until they reach the row's end or the block is full, the rest of the block along the rows.
Shape shape_of(int64_t columns, int width, bool one_group) {
  const int64_t vectors = (columns + width - 1) / width;
  const int lanes = static_cast<int>(std::min<int64_t>(kThreads, (vectors + kWarpLanes - 1) / kWarpLanes * kWarpLanes));
  const int groups = one_group ? 1 : kThreads / lanes;
  const size_t totals = groups > 1 ? sizeof(float) * groups * lanes * width : 0;
  return {dim3(lanes, groups), sizeof(double) * (lanes * groups / kWarpLanes + groups) + totals};
}

template <class Format, int width, bool is_max>
Status launch_pool(const PoolWork& work, cudaStream_t stream) {
  const PoolArguments& a = work.arguments;
  const Shape segments = shape_of(a.columns, width, false);
  LLMREC_TRY(launch(pool_segments<Format, width, is_max>, static_cast<unsigned>(a.segments * work.pieces),
                    segments.block, segments.shared_bytes, stream, work));
  if (work.pieces == 1) return {};
  constexpr int joined_width = width == 1 ? 1 : 4;
  const Shape pieces = shape_of(a.columns, joined_width, true);
  LLMREC_TRY(launch(pool_pieces<joined_width, is_max>, static_cast<unsigned>(a.segments), pieces.block,
                    pieces.shared_bytes, stream, work));
  return {};
}

template <class Format>
Status launch_pool(const PoolWork& work, cudaStream_t stream) {
  constexpr int width = kVectorBytes / static_cast<int>(sizeof(typename Format::Stored));
  const PoolArguments& a = work.arguments;
  const bool vectors = a.columns % width == 0 && is_aligned(a.table) && is_aligned(a.out);
  const bool is_max = a.mode == PoolMode::max;
  if (vectors)
    return is_max ? launch_pool<Format, width, true>(work, stream) : launch_pool<Format, width, false>(work, stream);
  return is_max ? launch_pool<Format, 1, true>(work, stream) : launch_pool<Format, 1, false>(work, stream);
}

}  // namespace

size_t pool_workspace_bytes(int64_t segments, int64_t positions, int64_t columns, PoolMode mode) {
  const int64_t pieces = pieces_of(segments, positions, mode);
  if (pieces == 1) return 0;
  return static_cast<size_t>(segments * pieces) * (sizeof(double) + sizeof(float) * static_cast<size_t>(columns)) + 8;
}

Status pool(const PoolArguments& arguments, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const PoolArguments& a = arguments;
  LLMREC_REQUIRE(a.rows >= 0 && a.columns >= 0 && a.segments >= 0 && a.positions >= 0, "sizes are not negative");
  LLMREC_REQUIRE(a.columns <= kMostColumns, "more columns than a kernel takes");
  if (a.segments == 0 || a.columns == 0) return {};
  PoolWork work{a};
  work.pieces = static_cast<int>(pieces_of(a.segments, a.positions, a.mode));
  LLMREC_REQUIRE(a.segments * work.pieces <= kMostBlocks, "at most 2^31 - 1 segments in one call");
  if (work.pieces > 1) {
    const size_t needed = pool_workspace_bytes(a.segments, a.positions, a.columns, a.mode);
    LLMREC_REQUIRE(workspace_bytes >= needed && is_aligned(workspace),
                   "the workspace is too small or not aligned to 16 bytes");
    // rows of partial sums first: they are read and written 16 bytes at a time
    work.partial = static_cast<float*>(workspace);
    const size_t floats = static_cast<size_t>(a.segments * work.pieces * a.columns);
    work.masses = reinterpret_cast<double*>(work.partial + floats + floats % 2);
  }
  switch (a.element) {
    case Element::float32:
      return launch_pool<Float32>(work, stream);
    case Element::float16:
      return launch_pool<Float16>(work, stream);
    case Element::bfloat16:
      return launch_pool<BFloat16>(work, stream);
  }
  return {};
}

}  // namespace llmrec
