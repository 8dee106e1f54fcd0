// The launchers of the bounded scan and of its encoder: they check, lay out the caller's workspace, and launch; they never
// allocate or wait.
#pragma once

#include "bounded_search.h"
#include "launch.h"

namespace llmrec {

struct SearchRequest {
  ScanShape shape;
  PlanView plan;
  const SegmentView* segments;  // host array of device views, the longest first
  int32_t segment_count;
  const float* queries;  // (query_count, dim)
  int32_t query_count, k;
  int32_t slices;  // blocks that share a query's rows
  Exclusions exclusions;
  unsigned long long* counts;  // 4, added to; or null
  double* out_scores;          // (query_count, k)
  int64_t* out_rows;
};

// How many multiprocessors a device has: what the number of slices should follow.
Status count_multiprocessors(int device, int* count);

// Bytes of workspace that `search` needs for a request; only sizes are looked at.
size_t search_workspace_bytes(const SearchRequest& request);

// The exact top k. Every kernel goes to `stream`; all sizes are known here, so the calls can be captured in a graph.
Status search(const SearchRequest& request, void* workspace, size_t workspace_bytes, cudaStream_t stream);

// Zeroes for codes that are yet to be written: the scan on the CPU looks at whole panels, and garbage could be anything.
Status clear(void* memory, size_t bytes, cudaStream_t stream);

// From one place to another on the device, or between it and the host (pageable memory makes the host wait).
Status copy(void* target, const void* source, size_t bytes, cudaStream_t stream);

// Rows of unit length, as an index for cosines stores them; see unit_rows.cuh. `out` may be `rows`.
Status unit_rows(const float* rows, int64_t count, int64_t dim, float* out, cudaStream_t stream);

size_t encode_workspace_bytes(const ScanShape& shape, int64_t count);

// Codes of rows, written behind those that are there; see encode_rows.cuh.
Status encode(const EncodeRequest& request, void* workspace, size_t workspace_bytes, cudaStream_t stream);

}  // namespace llmrec
