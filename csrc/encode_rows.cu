// Launches the encoder, a limited number of rows at a time so that the rotated rows fit into the workspace.

#include "encode_rows.cuh"
#include "search.h"

namespace llmrec {
namespace {

constexpr int64_t kRowsAtATime = 65536;

int64_t rows_at_a_time(int64_t count) { return count < kRowsAtATime ? count : kRowsAtATime; }
unsigned blocks_for(int64_t items, int64_t a_block) { return static_cast<unsigned>((items + a_block - 1) / a_block); }

}  // namespace

Status clear(void* memory, size_t bytes, cudaStream_t stream) {
  if (bytes > 0) LLMREC_TRY(cudaMemsetAsync(memory, 0, bytes, stream));
  return {};
}

Status copy(void* target, const void* source, size_t bytes, cudaStream_t stream) {
  if (bytes > 0) LLMREC_TRY(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream));
  return {};
}

size_t encode_workspace_bytes(const ScanShape& shape, int64_t count) {
  return static_cast<size_t>(rows_at_a_time(count)) * static_cast<size_t>(shape.dim) * sizeof(float);
}

Status encode(const EncodeRequest& request, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const ScanShape& shape = request.shape;
  LLMREC_REQUIRE(
      shape.dim >= 1 && shape.first >= 32 && shape.first % 32 == 0 && shape.second % 64 == 0 && shape.third % 32 == 0,
      "the stages' widths must be multiples of 32, 64 and 32");
  LLMREC_REQUIRE(request.count >= 0 && request.place >= 0, "sizes must not be negative");
  if (request.count == 0) return {};
  LLMREC_REQUIRE(workspace != nullptr && workspace_bytes >= encode_workspace_bytes(shape, request.count),
                 "the workspace is too small");
  const auto scale = static_cast<float>(request.plan.scale);
  auto* const rotated = static_cast<float*>(workspace);
  for (int64_t start = 0; start < request.count; start += kRowsAtATime) {
    EncodeRequest part = request;
    part.count = rows_at_a_time(request.count - start);
    part.place = request.place + start;
    part.rows = request.rows + start * shape.dim;
    if (request.bias != nullptr) part.bias = request.bias + start;
    if (request.plan.rotation != nullptr) {
      const dim3 grid(blocks_for(part.count, kRotateRows), blocks_for(shape.dim, kRotateThreads));
      LLMREC_TRY(launch(rotate_rows, grid, dim3(kRotateThreads), kRotateRowsShared, stream, part.rows, part.count, shape,
                        request.plan.mean, request.plan.rotation, scale, rotated));
    } else {
      LLMREC_TRY(launch(centre_rows, dim3(static_cast<unsigned>(part.count)), dim3(kScanThreads), 0, stream, part.rows,
                        part.count, shape, request.plan.mean, scale, rotated));
    }
    LLMREC_TRY(
        launch(quantise_rows, dim3(blocks_for(part.count, kScanThreads / 32)), dim3(kScanThreads), 0, stream, part, rotated));
  }
  return {};
}

}  // namespace llmrec
