// What the bounded scan on the GPU reads and writes: plain structs of raw pointers and sizes, for kernels and launchers alike.
// No CUDA header is included. All pointers are device pointers; nothing here owns memory. llmrec_fast/kernels/codes.py
// describes the plan and the stages, llmrec_fast/kernels/BOUNDS.md why the bounds hold, and csrc/README.md the layout and the
// steps.
#pragma once

#include <cstdint>

namespace llmrec {

constexpr int kTileRows = 32;       // rows whose first stage lies together: one a lane
constexpr int kTensorQueries = 64;  // queries that one block serves at most
constexpr int kScanThreads = 256;
constexpr int kDrainEntries = 128;  // survivors completed between two looks at the room left
constexpr int kLargestK = 1024;
constexpr int kBins = 64;            // of the histogram of exact scores that raises a query's floor
constexpr int kSeedSlack = 16;       // seeds scored beyond 1.25 k
constexpr int kLargestSeeds = 2048;  // a power of two above 1.25 * kLargestK + kSeedSlack

// The widths of an encoding: columns, columns of the 4-bit stages, bytes of the int8 stage.
struct ScanShape {
  int32_t dim, first, second, third;
  int32_t euclidean;
};

// Rows of a segment and their codes. `first` is null for rows without codes: those are always scored exactly.
struct SegmentView {
  const uint8_t* first;      // tiles of 32 rows: 32 columns x 32 rows x 16 bytes ..., then 32 x (step, rounding, tail, bias)
  const uint8_t* second;     // second / 2 + 16 bytes a row
  const int8_t* third;       // third bytes a row
  const float* third_terms;  // step, rounding norm, bias, 0
  const float* rows;         // dim floats a row
  const float* bias;
  const uint32_t* allowed;  // a bit a row, zero past the last one
  const int64_t* ids;       // what a search writes for its rows; null: their positions
  int64_t base;             // position of the first row in the index
  int64_t count;
  double largest[3];  // norms of decoded rows, stage by stage
};

// What the bounds need of a query, made by `prepare_queries`; see QueryCodes in kernels/cpu/scan_queries.py.
struct QueryTerms {
  double errors[3];                // norms that the query's own rounding loses, stage by stage
  double to_bound, offset, slack;  // turn an exact score into a threshold for bounds
  float first[5];                  // step, correction, norm of the first columns, norm of the others, weight of the bias
  float second[4];                 // step, correction, norm of the second columns, norm of the rest
  float third[2];                  // step, norm
  int32_t offsets[2];              // taken from the integer products of the two 4-bit stages
  int32_t usable;                  // 0: bounds cannot be evaluated in float32 and every row is scored
};

// A plan's numbers beside its widths. `rotation` (dim, dim) may be null for the identity.
struct PlanView {
  const float *mean, *rotation;
  double scale, bias_centre, bias_radius;
};

// Where codes go, in the layout of SegmentView.
struct CodesOut {
  uint8_t *first, *second;
  int8_t* third;
  float* third_terms;
};

struct EncodeRequest {
  ScanShape shape;
  PlanView plan;
  const float* rows;  // (count, dim)
  const float* bias;  // (count,) or null; for Euclidean distance the encoder makes its own
  int64_t count;
  int64_t place;     // of the first row among the codes
  double row_slack;  // ScanPlan.row_slack
  CodesOut out;
  double* summary;  // 6 doubles, zero before: SUMMARY of llmrec_fast/kernels/codes.py
};

struct QueryCodes {
  const float* queries;  // (queries, dim)
  const QueryTerms* terms;
  const int8_t* first;       // (queries, first)
  const int8_t* second;      // (queries, second)
  const int8_t* third_high;  // (queries, third): code = 64 * high + low
  const int8_t* third_low;
  int32_t count;
};

// What is known of each query's answer while segments are scanned.
struct SearchState {
  unsigned long long* floors;  // ordered bits of a lower bound of the k-th best score
  double* bin_scales;          // (queries, 2): where the histogram starts and how wide a bin is; width 0: no histogram
  int32_t* bins;               // (queries, kBins): distinct allowed rows by exact score
  double* found_scores;        // (queries, slices, capacity)
  int64_t* found_rows;
  int32_t* found_counts;       // (queries, slices)
  unsigned long long* counts;  // rows left after each stage and rows scored exactly, summed; null if nobody asks
  int32_t k, slices, capacity;
};

// Rows that a query must not return, CSR, ascending within a query; null pointers for none.
struct Exclusions {
  const int64_t* starts;
  const int64_t* rows;
};

// What stands for the rows of each segment in the answer: positions base .. base + count are named by `ids`, if not null.
constexpr int kMostSegments = 64;
struct RowNames {
  int32_t count;
  int64_t bases[kMostSegments], counts[kMostSegments];
  const int64_t* ids[kMostSegments];
};

// The best estimate and its row in each of `count` tiles, `stride` tiles apart.
struct SeedTiles {
  float* values;  // (queries, count)
  uint32_t* rows;
  int64_t count, stride;
};

}  // namespace llmrec
