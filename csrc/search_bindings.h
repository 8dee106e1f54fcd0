// The bounded scan in the Python module: plain structs from keyword arguments, pointers as integers. No logic.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "binding.h"
#include "search.h"

namespace llmrec {

inline void register_search(pybind11::module_& module) {
  namespace py = pybind11;
  using namespace py::literals;
  const auto release = py::call_guard<py::gil_scoped_release>();

  py::class_<ScanShape>(module, "ScanShape", py::module_local(), "Widths of an encoding")
      .def(py::init([](int dim, int first, int second, int third, bool euclidean) {
             return ScanShape{dim, first, second, third, euclidean};
           }),
           py::kw_only(), "dim"_a, "first"_a, "second"_a, "third"_a, "euclidean"_a);

  py::class_<PlanView>(module, "PlanView", py::module_local(), "Centre, rotation and scale of an encoding, on the device")
      .def(py::init([](uintptr_t mean, uintptr_t rotation, double scale, double bias_centre, double bias_radius) {
             return PlanView{pointer_to<float>(mean), pointer_to<float>(rotation), scale, bias_centre, bias_radius};
           }),
           py::kw_only(), "mean"_a, "rotation"_a, "scale"_a, "bias_centre"_a, "bias_radius"_a);

  py::class_<SegmentView>(module, "SegmentView", py::module_local(),
                          "Rows of a segment and their codes, on the device; first = 0: no codes")
      .def(py::init([](uintptr_t first, uintptr_t second, uintptr_t third, uintptr_t third_terms, uintptr_t rows,
                       uintptr_t bias, uintptr_t allowed, uintptr_t ids, int64_t base, int64_t count, std::array<double, 3> largest) {
             return SegmentView{pointer_to<uint8_t>(first),
                                pointer_to<uint8_t>(second),
                                pointer_to<int8_t>(third),
                                pointer_to<float>(third_terms),
                                pointer_to<float>(rows),
                                pointer_to<float>(bias),
                                pointer_to<uint32_t>(allowed),
                                pointer_to<int64_t>(ids),
                                base,
                                count,
                                {largest[0], largest[1], largest[2]}};
           }),
           py::kw_only(), "first"_a, "second"_a, "third"_a, "third_terms"_a, "rows"_a, "bias"_a, "allowed"_a, "ids"_a,
           "base"_a, "count"_a, "largest"_a);

  module.def(
      "multiprocessors",
      [](int device) {
        int count = 0;
        check(count_multiprocessors(device, &count));
        return count;
      },
      release, "device"_a, "Multiprocessors of a device");

  module.def(
      "search_workspace_bytes",
      [](const ScanShape& shape, const std::vector<SegmentView>& segments, int queries, int k, int slices) {
        SearchRequest request{};
        request.shape = shape, request.segments = segments.data(),
        request.segment_count = static_cast<int32_t>(segments.size());
        request.query_count = queries, request.k = k, request.slices = slices;
        return search_workspace_bytes(request);
      },
      py::kw_only(), "shape"_a, "segments"_a, "queries"_a, "k"_a, "slices"_a, "Bytes of workspace that `search` needs");

  module.def(
      "search",
      [](int device, uintptr_t stream, const ScanShape& shape, const PlanView& plan, const std::vector<SegmentView>& segments,
         uintptr_t queries, int query_count, int k, int slices, uintptr_t excluded_starts, uintptr_t excluded_rows,
         uintptr_t counts, uintptr_t out_scores, uintptr_t out_rows, uintptr_t workspace, size_t workspace_bytes) {
        const SearchRequest request{shape,
                                    plan,
                                    segments.data(),
                                    static_cast<int32_t>(segments.size()),
                                    pointer_to<float>(queries),
                                    query_count,
                                    k,
                                    slices,
                                    {pointer_to<int64_t>(excluded_starts), pointer_to<int64_t>(excluded_rows)},
                                    pointer_to<unsigned long long>(counts),
                                    pointer_to<double>(out_scores),
                                    pointer_to<int64_t>(out_rows)};
        const OnDevice here(device);
        check(search(request, pointer_to<void>(workspace), workspace_bytes, stream_at(stream)));
      },
      release, py::kw_only(), "device"_a, "stream"_a, "shape"_a, "plan"_a, "segments"_a, "queries"_a, "query_count"_a, "k"_a,
      "slices"_a, "excluded_starts"_a, "excluded_rows"_a, "counts"_a, "out_scores"_a, "out_rows"_a, "workspace"_a,
      "workspace_bytes"_a, "The exact top k; see bounded_search.h");

  module.def(
      "clear",
      [](int device, uintptr_t stream, uintptr_t memory, size_t bytes) {
        const OnDevice here(device);
        check(clear(pointer_to<void>(memory), bytes, stream_at(stream)));
      },
      release, py::kw_only(), "device"_a, "stream"_a, "memory"_a, "bytes"_a, "Fill device memory with zeros");

  module.def(
      "copy",
      [](int device, uintptr_t stream, uintptr_t target, uintptr_t source, size_t bytes) {
        const OnDevice here(device);
        check(copy(pointer_to<void>(target), pointer_to<const void>(source), bytes, stream_at(stream)));
      },
      release, py::kw_only(), "device"_a, "stream"_a, "target"_a, "source"_a, "bytes"_a,
      "Copy memory, whichever of the two is on a device");

  module.def(
      "unit_rows",
      [](int device, uintptr_t stream, uintptr_t rows, int64_t count, int64_t dim, uintptr_t out) {
        const OnDevice here(device);
        check(unit_rows(pointer_to<const float>(rows), count, dim, pointer_to<float>(out), stream_at(stream)));
      },
      release, py::kw_only(), "device"_a, "stream"_a, "rows"_a, "count"_a, "dim"_a, "out"_a,
      "Rows divided by their norms; see unit_rows.cuh");

  module.def(
      "encode_workspace_bytes", [](const ScanShape& shape, int64_t count) { return encode_workspace_bytes(shape, count); },
      py::kw_only(), "shape"_a, "count"_a, "Bytes of workspace that `encode` needs");

  module.def(
      "encode",
      [](int device, uintptr_t stream, const ScanShape& shape, const PlanView& plan, uintptr_t rows, uintptr_t bias,
         int64_t count, int64_t place, double row_slack, uintptr_t first, uintptr_t second, uintptr_t third,
         uintptr_t third_terms, uintptr_t summary, uintptr_t workspace, size_t workspace_bytes) {
        const EncodeRequest request{shape,
                                    plan,
                                    pointer_to<float>(rows),
                                    pointer_to<float>(bias),
                                    count,
                                    place,
                                    row_slack,
                                    {pointer_to<uint8_t>(first), pointer_to<uint8_t>(second), pointer_to<int8_t>(third),
                                     pointer_to<float>(third_terms)},
                                    pointer_to<double>(summary)};
        const OnDevice here(device);
        check(encode(request, pointer_to<void>(workspace), workspace_bytes, stream_at(stream)));
      },
      release, py::kw_only(), "device"_a, "stream"_a, "shape"_a, "plan"_a, "rows"_a, "bias"_a, "count"_a, "place"_a,
      "row_slack"_a, "first"_a, "second"_a, "third"_a, "third_terms"_a, "summary"_a, "workspace"_a, "workspace_bytes"_a,
      "Codes of rows, in the layout of the scan; see encode_rows.h");
}

}  // namespace llmrec
