// The extension module `llmrec_fast._cuda`: hands pointers, sizes and streams (as integers) to the launchers. It holds
// no logic: what arguments mean and where memory comes from is decided in llmrec_fast/kernels/cuda. Every call releases
// the GIL, runs on the device that it names, and raises `llmrec_fast.errors.CudaError` where CUDA reports an error.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "binding.h"
#include "launchers.h"
#include "search_bindings.h"

namespace py = pybind11;
using namespace py::literals;

namespace llmrec {
namespace {

using Pointer = uintptr_t;

// What Python needs of the runtime itself -----------------------------------------------------------------------------

Status count_devices(int* count) {
  LLMREC_TRY(cudaGetDeviceCount(count));
  return {};
}

// The device that owns the memory, or -1 for memory of the host.
Status find_device(int* device, const void* pointer) {
  cudaPointerAttributes attributes{};
  LLMREC_TRY(cudaPointerGetAttributes(&attributes, pointer));
  const bool on_device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  *device = on_device ? attributes.device : -1;
  return {};
}

// The device of a stream; of the default streams, which every device has, the current one.
Status find_device_of_stream(int* device, cudaStream_t stream) {
#if CUDART_VERSION >= 12080
  LLMREC_TRY(cudaStreamGetDevice(stream, device));
#else
  // before CUDA 12.8 nothing tells: an event of another device cannot be recorded, so ask every device in turn
  int count = 0;
  LLMREC_TRY(cudaGetDeviceCount(&count));
  for (*device = 0; *device < count; ++*device) {
    const OnDevice here(*device);
    cudaEvent_t event = nullptr;
    LLMREC_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    const cudaError_t error = cudaEventRecord(event, stream);
    cudaEventDestroy(event);
    if (error == cudaSuccess) return {};
    cudaGetLastError();
  }
  LLMREC_REQUIRE(*device < count, "the stream belongs to no device");
#endif
  return {};
}

// Lets `consumer` wait for all that `producer` has been given so far. The host does not wait.
Status order_streams(cudaStream_t consumer, cudaStream_t producer) {
  cudaEvent_t event = nullptr;
  LLMREC_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  cudaError_t error = cudaEventRecord(event, producer);
  if (error == cudaSuccess) error = cudaStreamWaitEvent(consumer, event, 0);
  cudaEventDestroy(event);  // takes effect when the event has completed
  LLMREC_TRY(error);
  return {};
}

Status synchronize(cudaStream_t stream) {
  LLMREC_TRY(cudaStreamSynchronize(stream));
  return {};
}

// All streams of the current device.
Status synchronize_device() {
  LLMREC_TRY(cudaDeviceSynchronize());
  return {};
}

// CUDA graphs: what a Python function gives to a stream, recorded instead of run. The stream is made for it.
class Recording {
 public:
  Recording() {
    check(begin());
  }
  ~Recording() {
    if (recording_) {  // a failure on the way: what was recorded is thrown away
      cudaStreamEndCapture(stream_, &graph_);
      cudaGetLastError();
    }
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    cudaStreamDestroy(stream_);
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  Pointer stream() const { return reinterpret_cast<Pointer>(stream_); }
  cudaGraphExec_t finish() {
    cudaGraphExec_t graph = nullptr;
    check(instantiate(&graph));
    return graph;
  }

 private:
  Status begin() {
    LLMREC_TRY(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    // other threads may allocate and wait meanwhile
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) cudaStreamDestroy(stream_);
    LLMREC_TRY(error);
    recording_ = true;
    return {};
  }
  Status instantiate(cudaGraphExec_t* graph) {
    recording_ = false;
    LLMREC_TRY(cudaStreamEndCapture(stream_, &graph_));
    LLMREC_TRY(cudaGraphInstantiate(graph, graph_, 0));
    return {};
  }

  cudaStream_t stream_ = nullptr;
  cudaGraph_t graph_ = nullptr;
  bool recording_ = false;
};

Status replay_graph(cudaGraphExec_t graph, cudaStream_t stream) {
  LLMREC_TRY(cudaGraphLaunch(graph, stream));
  return {};
}

void register_graphs(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  module.def(
      "record",
      [](int device, const py::function& function) {
        const OnDevice here(device);
        Recording recording;
        function(recording.stream());
        return reinterpret_cast<Pointer>(recording.finish());
      },
      "device"_a, "function"_a, "A CUDA graph of what `function(stream)` gives to the stream, which runs nothing.");
  module.def(
      "replay",
      [](int device, Pointer stream, Pointer graph) {
        const OnDevice here(device);
        check(replay_graph(reinterpret_cast<cudaGraphExec_t>(graph), stream_at(stream)));
      },
      "device"_a, "stream"_a, "graph"_a, released, "Runs a recorded graph.");
  module.def(
      "forget", [](Pointer graph) { cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph)); }, "graph"_a, released,
      "Frees a recorded graph.");
}

void register_runtime(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  module.attr("cuda_version") = CUDART_VERSION;
#if defined(LLMREC_ARCHITECTURES)
  module.attr("architectures") = LLMREC_ARCHITECTURES;
#else
  module.attr("architectures") = "";
#endif
  module.def(
      "device_count",
      [] {
        int count = 0;
        check(count_devices(&count));
        return count;
      },
      released, "Number of usable GPUs; raises where there is no driver.");
  module.def(
      "device_of",
      [](Pointer pointer) {
        int device = 0;
        check(find_device(&device, pointer_to<const void>(pointer)));
        return device;
      },
      "pointer"_a, released, "The device that owns this memory, or -1 for host memory.");
  module.def(
      "device_of_stream",
      [](Pointer stream) {
        int device = 0;
        check(find_device_of_stream(&device, stream_at(stream)));
        return device;
      },
      "stream"_a, released, "The device of a stream.");
  module.def(
      "wait_for",
      [](int device, Pointer consumer, Pointer producer) {
        const OnDevice here(device);
        check(order_streams(stream_at(consumer), stream_at(producer)));
      },
      "device"_a, "consumer"_a, "producer"_a, released,
      "Lets a stream wait for what another one has been given so far.");
  module.def(
      "synchronize",
      [](int device, Pointer stream) {
        const OnDevice here(device);
        check(synchronize(stream_at(stream)));
      },
      "device"_a, "stream"_a, released, "Waits on the host for a stream.");
  module.def(
      "synchronize_device",
      [](int device) {
        const OnDevice here(device);
        check(synchronize_device());
      },
      "device"_a, released, "Waits on the host for all streams of a device.");
}

// The kernels ---------------------------------------------------------------------------------------------------------

void register_pool(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  module.def(
      "pool_workspace_bytes",
      [](int64_t segments, int64_t positions, int64_t columns, int mode) {
        return pool_workspace_bytes(segments, positions, columns, static_cast<PoolMode>(mode));
      },
      py::kw_only(), "segments"_a, "positions"_a, "columns"_a, "mode"_a, released,
      "Bytes of workspace that `pool` needs.");
  module.def(
      "pool",
      [](int device, Pointer stream, Pointer table, int element, int64_t rows, int64_t columns, Pointer starts,
         Pointer lengths, int64_t segments, Pointer index, Pointer weights, int64_t positions, int mode, bool normalize,
         Pointer out, Pointer workspace, size_t workspace_bytes) {
        PoolArguments a;
        a.table = pointer_to<const void>(table);
        a.element = static_cast<Element>(element);
        a.rows = rows;
        a.columns = columns;
        a.starts = pointer_to<const int64_t>(starts);
        a.lengths = pointer_to<const int64_t>(lengths);
        a.segments = segments;
        a.index = pointer_to<const int64_t>(index);
        a.weights = pointer_to<const float>(weights);
        a.positions = positions;
        a.mode = static_cast<PoolMode>(mode);
        a.normalize = normalize;
        a.out = pointer_to<float>(out);
        const OnDevice here(device);
        check(pool(a, pointer_to<void>(workspace), workspace_bytes, stream_at(stream)));
      },
      py::kw_only(), "device"_a, "stream"_a, "table"_a, "element"_a, "rows"_a, "columns"_a, "starts"_a, "lengths"_a,
      "segments"_a, "index"_a, "weights"_a, "positions"_a, "mode"_a, "normalize"_a, "out"_a, "workspace"_a,
      "workspace_bytes"_a, released, "Reduce segments of rows; see csrc/pool.h.");
}

void register_fuse(py::module_& module) {
  module.def(
      "fuse",
      [](int device, Pointer stream, Pointer block, int element, int64_t rows, int64_t columns, double root,
         Pointer out, int64_t out_columns, int64_t first_column) {
        FuseArguments a;
        a.block = pointer_to<const void>(block);
        a.element = static_cast<Element>(element);
        a.rows = rows;
        a.columns = columns;
        a.root = root;
        a.out = pointer_to<float>(out);
        a.out_columns = out_columns;
        a.first_column = first_column;
        const OnDevice here(device);
        check(fuse(a, stream_at(stream)));
      },
      py::kw_only(), "device"_a, "stream"_a, "block"_a, "element"_a, "rows"_a, "columns"_a, "root"_a, "out"_a,
      "out_columns"_a, "first_column"_a, py::call_guard<py::gil_scoped_release>(),
      "Normalise one block into its columns; see csrc/fuse.h.");
}

}  // namespace
}  // namespace llmrec

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of llmrec_fast: pointers, sizes and streams as integers.";
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      std::rethrow_exception(thrown);
    } catch (const llmrec::CudaFailure& failure) {
      py::set_error(py::module_::import("llmrec_fast.errors").attr("CudaError"), failure.what());
    }
  });
  llmrec::register_runtime(module);
  llmrec::register_graphs(module);
  llmrec::register_pool(module);
  llmrec::register_fuse(module);
  llmrec::register_search(module);
}
