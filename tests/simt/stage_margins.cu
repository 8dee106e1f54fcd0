// How far every row's bounds lie above the thresholds that its own exact score gives, stage by stage: by the very functions of
// the scan. A negative margin means that a stage would skip a row that belongs in the answer.
#include "launch.h"
#include "prepare_queries.cuh"
#include "survivors.cuh"

namespace {

using namespace llmrec;

// The first stage's bounds without the tail, for all rows and queries, by one way of scanning. One warp a tile of rows.
template <Scan kScan, int kQueries>
__global__ void first_bases(ScanShape shape, SegmentView segment, QueryCodes codes, float* bases) {
  LLMREC_SHARED(unsigned char, shared);
  const ScanBlock block = carve_scan_block(shared, kQueries, shape.first);
  const int first_query = blockIdx.y * kQueries, queries = min(kQueries, codes.count - first_query), lane = threadIdx.x;
  if (lane == 0) *block.queued = 0;
  for (int j = lane; j < kQueries; j += 32) {
    FirstTerms terms = {0, 0, 0, 0, 0, (float)-minus_infinity(), 0, 0};
    if (j < queries) {
      const QueryTerms& query = codes.terms[first_query + j];
      terms = {query.first[0], query.first[1],          query.first[2],   query.first[3],
               query.first[4], (float)minus_infinity(), query.offsets[0], 0};
    }
    block.terms[j] = terms;
  }
  for (int i = lane; i < kQueries * shape.first; i += 32) {
    const int j = i / shape.first, c = i % shape.first;
    block.codes[j * block.pitch + c] = j < queries ? codes.first[(size_t)(first_query + j) * shape.first + c] : 0;
  }
  __syncthreads();
  if (kScan == Scan::kTensor)
    scan_tensor_tile < kQueries<8 ? 8 : kQueries>(block, segment, shape.first, blockIdx.x);
  else
    scan_packed_tile<kQueries>(block, segment, shape.first, blockIdx.x, queries);
  __syncthreads();
  for (int e = lane; e < *block.queued; e += 32) {
    bases[(size_t)(first_query + block.queries[e]) * segment.count + block.rows[e]] = block.bases[e];
  }
}

__global__ void margins_of_rows(ScanShape shape, SegmentView segment, QueryCodes codes, const float* bases, double* margins) {
  const int64_t row = blockIdx.x;
  const int query = blockIdx.y, lane = threadIdx.x;
  const QueryTerms& terms = codes.terms[query];
  const double score = exact_score(segment.rows + row * shape.dim, codes.queries + (size_t)query * shape.dim, segment.bias[row],
                                   shape.dim, shape.euclidean);
  const Thresholds limits = thresholds_of(score, terms, segment.largest, shape);
  const float base = bases[query * segment.count + row];
  const RowTerms own =
      packed_terms(segment.first + row / kTileRows * (shape.first * 16 + 256), shape.first / 32, (int)(row % kTileRows));
  const float first = fmaf(terms.first[3], own.tail, base);
  const float second = shape.second > 0 ? second_bound(shape, segment, codes, query, row, base) : first;
  const float third = third_bound(shape, segment, codes, query, row);
  if (lane != 0) return;
  double* const out = margins + (query * segment.count + row) * 3;
  out[0] = (double)first - (double)limits.first;
  out[1] = shape.second > 0 ? (double)second - (double)limits.second : 0.0;
  out[2] = (double)third - (double)limits.third;
}

}  // namespace

extern "C" {

size_t stage_workspace(const ScanShape* shape, int queries) {
  return (size_t)queries * ((size_t)shape->dim * 8 + sizeof(QueryTerms) + (size_t)shape->first + (size_t)shape->second +
                            2 * (size_t)shape->third) +
         64;
}

// `codes` is what the workspace becomes: thus a test can damage prepared queries between the two calls.
int stage_prepare(const ScanShape* shape, const PlanView* plan, const float* queries, int count, unsigned char* workspace,
                  QueryCodes* codes) {
  PreparedQueries prepared;
  prepared.rotated = reinterpret_cast<double*>(workspace);
  prepared.terms = reinterpret_cast<QueryTerms*>(prepared.rotated + (size_t)count * shape->dim);
  prepared.first = reinterpret_cast<int8_t*>(prepared.terms + count);
  prepared.second = prepared.first + (size_t)count * shape->first;
  prepared.third_high = prepared.second + (size_t)count * shape->second;
  prepared.third_low = prepared.third_high + (size_t)count * shape->third;
  *codes = {queries, prepared.terms, prepared.first, prepared.second, prepared.third_high, prepared.third_low, count};
  const dim3 columns((unsigned)(shape->dim + kRotatedColumns - 1) / kRotatedColumns,
                     (unsigned)(count + kRotatedQueries - 1) / kRotatedQueries);
  const int error = launch(rotate_queries, columns, dim3(kScanThreads), kRotateShared, nullptr, queries, count, *shape, *plan,
                           prepared.rotated);
  if (error != cudaSuccess) return error;
  return launch(prepare_queries, dim3((unsigned)count), dim3(kScanThreads), kPrepareShared, nullptr, queries, *shape, *plan,
                prepared);
}

// Of the structs that the test has mirrors of, in their order there.
size_t stage_size_of(int kind) {
  const size_t sizes[] = {sizeof(ScanShape), sizeof(PlanView), sizeof(SegmentView), sizeof(QueryCodes), sizeof(QueryTerms)};
  return sizes[kind];
}

// bases: (queries, rows); margins: (queries, rows, 3)
int stage_margins(const ScanShape* shape, const SegmentView* segment, const QueryCodes* codes, bool tensor, float* bases,
                  double* margins) {
  const auto tiles = (unsigned)((segment->count + kTileRows - 1) / kTileRows), count = (unsigned)codes->count;
  int error;
  if (tensor) {
    const auto kernel = first_bases<Scan::kTensor, 16>;
    allow_shared(kernel, scan_shared_bytes(16, shape->first));
    error = launch(kernel, dim3(tiles, (count + 15) / 16), dim3(32), scan_shared_bytes(16, shape->first), nullptr, *shape,
                   *segment, *codes, bases);
  } else {
    const auto kernel = first_bases<Scan::kPacked, 4>;
    error = launch(kernel, dim3(tiles, (count + 3) / 4), dim3(32), scan_shared_bytes(4, shape->first), nullptr, *shape,
                   *segment, *codes, bases);
  }
  if (error != cudaSuccess) return error;
  return launch(margins_of_rows, dim3((unsigned)segment->count, count), dim3(32), 0, nullptr, *shape, *segment, *codes,
                static_cast<const float*>(bases), margins);
}
}
