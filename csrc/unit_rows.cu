// Launches the division of rows by their norms.
#include "unit_rows.cuh"

#include "search.h"

namespace llmrec {

Status unit_rows(const float* rows, int64_t count, int64_t dim, float* out, cudaStream_t stream) {
  LLMREC_REQUIRE(count >= 0 && dim >= 1, "sizes must be positive");
  const int64_t blocks = (count + kUnitThreads / kWarpLanes - 1) / (kUnitThreads / kWarpLanes);
  LLMREC_REQUIRE(blocks < (int64_t{1} << 31), "more rows than one launch takes");
  if (count == 0) return {};
  LLMREC_TRY(launch(divide_by_norm, dim3(static_cast<unsigned>(blocks)), dim3(kUnitThreads), 0, stream, rows, count, dim, out));
  return {};
}

}  // namespace llmrec
