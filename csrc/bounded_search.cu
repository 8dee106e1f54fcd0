// Launches the steps of the bounded scan in order: prepare queries, seed, scan segment after segment, select.

#include "prepare_queries.cuh"
#include "scan_segment.cuh"
#include "search.h"
#include "seeds.cuh"
#include "select_rows.cuh"

namespace llmrec {
namespace {

constexpr int kFewQueries = 8;
// Seeds may read this many bytes a row on average, so that a scan stays within first / 2 + 16 bytes a row.
constexpr int kSeedBytes = 7;
constexpr int64_t kMostSeedTiles = 32768;

int64_t divide_up(int64_t value, int64_t by) { return (value + by - 1) / by; }

// Hands out aligned parts of a workspace; with a null start it only measures.
class Layout {
 public:
  explicit Layout(void* start) : start_(static_cast<unsigned char*>(start)) {}
  template <class Item>
  Item* take(int64_t count) {
    Item* const place = start_ == nullptr ? nullptr : reinterpret_cast<Item*>(start_ + used_);
    used_ += divide_up(count * static_cast<int64_t>(sizeof(Item)), 256) * 256;
    return place;
  }
  size_t used() const { return static_cast<size_t>(used_); }

 private:
  unsigned char* start_;
  int64_t used_ = 0;
};

struct Workspace {
  size_t zeroed_bytes = 0, bytes = 0;
  SearchState state{};
  PreparedQueries prepared{};
  SeedTiles seeds{};
};

const SegmentView* seeded_segment(const SearchRequest& request) {
  for (int i = 0; i < request.segment_count; ++i) {
    if (request.segments[i].first != nullptr) return &request.segments[i];
  }
  return nullptr;
}

SeedTiles seed_tiles(const SearchRequest& request) {
  SeedTiles seeds{};
  const SegmentView* const segment = seeded_segment(request);
  if (segment == nullptr || segment->count == 0) return seeds;
  const int64_t tiles = divide_up(segment->count, kTileRows), wanted = 2 * (request.k + request.k / 4 + kSeedSlack);
  int64_t stride = divide_up(request.shape.first / 2 + 8, kSeedBytes);
  // many queries are bound by arithmetic, not by bytes: seeds get a smaller share
  if (request.query_count > kFewQueries) stride *= 4;
  if (tiles / stride < wanted) stride = tiles / wanted > 0 ? tiles / wanted : 1;
  if (divide_up(tiles, stride) > kMostSeedTiles) stride = divide_up(tiles, kMostSeedTiles);
  seeds.stride = stride;
  seeds.count = divide_up(tiles, stride);
  return seeds;
}

int capacity_for(int k) {
  int capacity = 2 * kDrainEntries;
  while (capacity < k + kDrainEntries) capacity <<= 1;
  return capacity;
}

Workspace lay_out(const SearchRequest& request, void* start) {
  const int64_t queries = request.query_count, slices = request.slices;
  const ScanShape& shape = request.shape;
  Workspace space;
  Layout layout(start);
  space.state.k = request.k, space.state.slices = request.slices, space.state.capacity = capacity_for(request.k);
  space.state.counts = request.counts;
  space.state.floors = layout.take<unsigned long long>(queries);
  space.state.bin_scales = layout.take<double>(2 * queries);
  space.state.bins = layout.take<int32_t>(kBins * queries);
  space.state.found_counts = layout.take<int32_t>(queries * slices);
  space.zeroed_bytes = layout.used();
  space.state.found_scores = layout.take<double>(queries * slices * space.state.capacity);
  space.state.found_rows = layout.take<int64_t>(queries * slices * space.state.capacity);
  if (seeded_segment(request) != nullptr) {
    space.prepared.rotated = layout.take<double>(queries * shape.dim);
    space.prepared.terms = layout.take<QueryTerms>(queries);
    space.prepared.first = layout.take<int8_t>(queries * shape.first);
    space.prepared.second = layout.take<int8_t>(queries * shape.second);
    space.prepared.third_high = layout.take<int8_t>(queries * shape.third);
    space.prepared.third_low = layout.take<int8_t>(queries * shape.third);
    space.seeds = seed_tiles(request);
    space.seeds.values = layout.take<float>(queries * space.seeds.count);
    space.seeds.rows = layout.take<uint32_t>(queries * space.seeds.count);
  }
  space.bytes = layout.used();
  return space;
}

template <Scan kScan, int kQueries>
Status launch_scan(const SearchRequest& request, const SegmentView& segment, const QueryCodes& codes, const SearchState& state,
                   cudaStream_t stream) {
  const size_t shared = scan_shared_bytes(kQueries, kScan == Scan::kRows ? 0 : request.shape.first);
  const auto kernel = scan_segment<kScan, kQueries>;
  if (shared > 48 * 1024) LLMREC_TRY(allow_shared(kernel, shared));
  const dim3 grid(static_cast<unsigned>(request.slices), static_cast<unsigned>(divide_up(codes.count, kQueries)));
  LLMREC_TRY(
      launch(kernel, grid, dim3(kScanThreads), shared, stream, request.shape, segment, codes, request.exclusions, state));
  return {};
}

template <int kQueries>
Status launch_estimates(const SearchRequest& request, const SegmentView& segment, const QueryCodes& codes,
                        const SeedTiles& seeds, cudaStream_t stream) {
  const size_t shared = seed_shared_bytes(kQueries, request.shape.first);
  const auto kernel = estimate_tiles<kQueries>;
  if (shared > 48 * 1024) LLMREC_TRY(allow_shared(kernel, shared));
  const int64_t blocks = divide_up(seeds.count, kWarps);
  const dim3 grid(static_cast<unsigned>(blocks < 4096 ? blocks : 4096),
                  static_cast<unsigned>(divide_up(codes.count, kQueries)));
  LLMREC_TRY(launch(kernel, grid, dim3(kScanThreads), shared, stream, request.shape, segment, codes, seeds));
  return {};
}

#define LLMREC_PROPAGATE(...)                                     \
  do {                                                            \
    const Status llmrec_status = (__VA_ARGS__);                   \
    if (llmrec_status.error != cudaSuccess) return llmrec_status; \
  } while (false)

// The widest group of queries whose codes fit beside the queue, at most `queries` rounded up to a power of two.
int group_width(const SearchRequest& request, int shared_limit, int least, int most) {
  int width = least;
  while (width < most && width < request.query_count) width *= 2;
  while (width > 1 && scan_shared_bytes(width, request.shape.first) > static_cast<size_t>(shared_limit)) width /= 2;
  return width;
}

Status scan(const SearchRequest& request, const SegmentView& segment, const QueryCodes& codes, const SearchState& state,
            int shared_limit, cudaStream_t stream) {
  if (segment.first == nullptr) return launch_scan<Scan::kRows, 8>(request, segment, codes, state, stream);
  if (request.query_count > kFewQueries) {
    switch (group_width(request, shared_limit, 16, kTensorQueries)) {
      case 64:
        return launch_scan<Scan::kTensor, 64>(request, segment, codes, state, stream);
      case 32:
        return launch_scan<Scan::kTensor, 32>(request, segment, codes, state, stream);
      case 16:
        return launch_scan<Scan::kTensor, 16>(request, segment, codes, state, stream);
      default:
        break;  // rows too long for a tile of queries
    }
  }
  switch (group_width(request, shared_limit, 1, kFewQueries)) {
    case 8:
      return launch_scan<Scan::kPacked, 8>(request, segment, codes, state, stream);
    case 4:
      return launch_scan<Scan::kPacked, 4>(request, segment, codes, state, stream);
    case 2:
      return launch_scan<Scan::kPacked, 2>(request, segment, codes, state, stream);
    default:
      return launch_scan<Scan::kPacked, 1>(request, segment, codes, state, stream);
  }
}

Status seed(const SearchRequest& request, const SegmentView& segment, const QueryCodes& codes, const Workspace& space,
            int shared_limit, cudaStream_t stream) {
  if (request.query_count > 1 && seed_shared_bytes(kFewQueries, request.shape.first) <= static_cast<size_t>(shared_limit)) {
    LLMREC_PROPAGATE(launch_estimates<kFewQueries>(request, segment, codes, space.seeds, stream));
  } else {
    LLMREC_PROPAGATE(launch_estimates<1>(request, segment, codes, space.seeds, stream));
  }
  const size_t shared = sizeof(SeedBlock);
  LLMREC_TRY(launch(choose_seeds, dim3(static_cast<unsigned>(codes.count)), dim3(kScanThreads), shared, stream, request.shape,
                    segment, codes, request.exclusions, space.seeds, space.state));
  return {};
}

RowNames row_names(const SearchRequest& request) {
  RowNames names{};
  names.count = request.segment_count;
  for (int i = 0; i < names.count; ++i) {
    names.bases[i] = request.segments[i].base, names.counts[i] = request.segments[i].count;
    names.ids[i] = request.segments[i].ids;
  }
  return names;
}

Status check(const SearchRequest& request) {
  const ScanShape& shape = request.shape;
  LLMREC_REQUIRE(request.k >= 1 && request.k <= kLargestK, "k must be 1 to 1024");
  LLMREC_REQUIRE(request.query_count >= 1 && request.slices >= 1 && request.segment_count >= 0, "sizes must be positive");
  LLMREC_REQUIRE(shape.dim >= 1, "rows must have columns");
  LLMREC_REQUIRE(request.segment_count <= kMostSegments, "a search takes 64 segments at most");
  for (int i = 0; i < request.segment_count; ++i) {
    LLMREC_REQUIRE(request.segments[i].count >= 0 && request.segments[i].count < (int64_t{1} << 31),
                   "a segment holds 2^31 rows at most");
    if (request.segments[i].first == nullptr) continue;
    LLMREC_REQUIRE(shape.first >= 32 && shape.first % 32 == 0 && shape.second % 64 == 0 && shape.third % 32 == 0,
                   "the stages' widths must be multiples of 32, 64 and 32");
    LLMREC_REQUIRE(request.plan.mean != nullptr, "rows with codes need a plan");
  }
  return {};
}

}  // namespace

Status count_multiprocessors(int device, int* count) {
  LLMREC_TRY(cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device));
  return {};
}

size_t search_workspace_bytes(const SearchRequest& request) { return lay_out(request, nullptr).bytes; }

Status search(const SearchRequest& request, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  LLMREC_PROPAGATE(check(request));
  const Workspace space = lay_out(request, workspace);
  LLMREC_REQUIRE(workspace != nullptr && workspace_bytes >= space.bytes, "the workspace is too small");
  int device = 0, shared_limit = 0;
  LLMREC_TRY(cudaGetDevice(&device));
  LLMREC_TRY(cudaDeviceGetAttribute(&shared_limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  LLMREC_TRY(cudaMemsetAsync(workspace, 0, space.zeroed_bytes, stream));

  const auto queries = static_cast<unsigned>(request.query_count);
  const QueryCodes codes{request.queries,           space.prepared.terms,     space.prepared.first, space.prepared.second,
                         space.prepared.third_high, space.prepared.third_low, request.query_count};
  if (const SegmentView* const seeded = seeded_segment(request)) {
    const PlanView& plan = request.plan;
    const dim3 columns(static_cast<unsigned>(divide_up(request.shape.dim, kRotatedColumns)),
                       static_cast<unsigned>(divide_up(request.query_count, kRotatedQueries)));
    LLMREC_TRY(launch(rotate_queries, columns, dim3(kScanThreads), kRotateShared, stream, request.queries, request.query_count,
                      request.shape, plan, space.prepared.rotated));
    LLMREC_TRY(launch(prepare_queries, dim3(queries), dim3(kScanThreads), kPrepareShared, stream, request.queries,
                      request.shape, plan, space.prepared));
    if (space.seeds.count > 0) LLMREC_PROPAGATE(seed(request, *seeded, codes, space, shared_limit, stream));
  }
  for (int i = 0; i < request.segment_count; ++i) {
    if (request.segments[i].count == 0) continue;
    LLMREC_PROPAGATE(scan(request, request.segments[i], codes, space.state, shared_limit, stream));
  }
  LLMREC_TRY(launch(select_rows, dim3(queries), dim3(kScanThreads), select_shared_bytes(request.k), stream, space.state,
                    row_names(request), request.out_scores, request.out_rows));
  return {};
}

}  // namespace llmrec
