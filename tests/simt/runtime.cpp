// The host side of the stand-in: streams, events, launches with the limits of the least of the supported devices.
#include "runtime.h"

#include <dlfcn.h>

#include <deque>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

struct SimtGraph {
  std::vector<std::function<cudaError_t()>> operations;
  bool valid = true;
};
struct SimtEvent {
  cudaStream_t stream = nullptr;
  uint64_t position = 0;  // of the stream's operations, how many come before the event
};

namespace {

// Compute capability 7.5 has the least opt-in shared memory (64 KiB) of the architectures that the project is built
// for.
constexpr size_t kSharedBytes = 48 * 1024, kSharedBytesOptIn = 64 * 1024;
constexpr int kMultiprocessors = 4, kDevices = 2;

struct Operation {
  std::function<cudaError_t()> execute;
};
struct Queue {
  std::deque<Operation> waiting;
  uint64_t given = 0, executed = 0;
};

std::recursive_mutex mutex;
std::map<cudaStream_t, SimtGraph> captures;
uintptr_t streams_made = 0;
std::map<cudaStream_t, Queue> queues;
std::unordered_map<const void*, size_t> shared_limits;
std::map<const void*, std::pair<size_t, int>> devices;
bool deferred = false;
int launches = 0;
std::unordered_map<const void*, size_t> largest_shared;  // dynamic shared memory of each kernel's launches so far
cudaError_t last_error = cudaSuccess;
int current_device = 0;

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Whether `stream` is being captured; what asks cannot be, and spoils the capture.
bool spoils_capture(cudaStream_t stream) {
  const auto capture = captures.find(stream);
  if (capture == captures.end()) return false;
  capture->second.valid = false;
  return true;
}

cudaError_t drain(cudaStream_t stream, uint64_t until) {
  Queue& queue = queues[stream];
  cudaError_t error = cudaSuccess;
  while (queue.executed < until && !queue.waiting.empty()) {
    Operation operation = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    ++queue.executed;
    const cudaError_t found = operation.execute();
    if (error == cudaSuccess) error = found;
  }
  return error;
}

cudaError_t enqueue(cudaStream_t stream, std::function<cudaError_t()> execute) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  const auto capture = captures.find(stream);
  if (capture != captures.end()) {
    capture->second.operations.push_back(std::move(execute));
    return cudaSuccess;
  }
  if (!deferred) return remember(execute());
  Queue& queue = queues[stream];
  queue.waiting.push_back({std::move(execute)});
  ++queue.given;
  return cudaSuccess;
}

}  // namespace

namespace simt {

cudaError_t set_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<size_t>(bytes) > kSharedBytesOptIn) return remember(cudaErrorInvalidValue);
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  shared_limits[kernel] = static_cast<size_t>(bytes);
  return cudaSuccess;
}

cudaError_t enqueue_launch(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                           std::function<void()> body) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMostThreads || block.z > 64 || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535)
    return remember(cudaErrorInvalidConfiguration);
  const auto limit = shared_limits.find(kernel);
  if (shared_bytes > std::max(kSharedBytes, limit == shared_limits.end() ? size_t{0} : limit->second))
    return remember(cudaErrorInvalidValue);
  {
    const std::lock_guard<std::recursive_mutex> lock(mutex);
    ++launches;
    size_t& largest = largest_shared[kernel];
    largest = std::max(largest, shared_bytes);
  }
  return enqueue(stream, [=] { return run(grid, block, shared_bytes, body) ? cudaSuccess : cudaErrorLaunchFailure; });
}

}  // namespace simt

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "unrecognized error";
}

const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorLaunchFailure ? simt::failure().c_str() : cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaGetDeviceCount(int* count) { return *count = kDevices, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= kDevices) return remember(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= kDevices) return remember(cudaErrorInvalidDevice);
  *value = attribute == cudaDevAttrMultiProcessorCount ? kMultiprocessors : static_cast<int>(kSharedBytesOptIn);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  int device = 0;
  auto range = devices.upper_bound(pointer);
  if (range != devices.begin()) {
    --range;
    const auto* start = static_cast<const char*>(range->first);
    if (static_cast<const char*>(pointer) < start + range->second.first) device = range->second.second;
  }
  *attributes = {device < 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice, device, const_cast<void*>(pointer),
                 nullptr};
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
// a stream's number tells its device: 1000 to 1999 belong to device 1
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return *device = reinterpret_cast<uintptr_t>(stream) / 1000 == 1 ? 1 : 0, cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  if (spoils_capture(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  return remember(drain(stream, queues[stream].given));
}

cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  if (!captures.empty() && spoils_capture(captures.begin()->first)) return remember(cudaErrorStreamCaptureUnsupported);
  cudaError_t error = cudaSuccess;
  for (auto& [stream, queue] : queues) {
    const cudaError_t found = drain(stream, queue.given);
    if (error == cudaSuccess) error = found;
  }
  return remember(error);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new SimtEvent, cudaSuccess; }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  // a graph over several streams is not emulated
  if (spoils_capture(stream)) return remember(cudaErrorStreamCaptureUnsupported);
  *event = {stream, queues[stream].given};
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const SimtEvent recorded = *event;
  return enqueue(stream, [recorded] { return drain(recorded.stream, recorded.position); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  return *stream = reinterpret_cast<cudaStream_t>(100000 + 2000 * ++streams_made), cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  return queues.erase(stream), cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  if (stream == nullptr) return remember(cudaErrorStreamCaptureUnsupported);
  return captures[stream] = {}, cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  const SimtGraph captured = std::move(captures[stream]);
  captures.erase(stream);
  if (!captured.valid) return *graph = nullptr, remember(cudaErrorStreamCaptureInvalidated);
  return *graph = new SimtGraph(captured), cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new SimtGraph(*graph), cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const auto& operation : executable->operations) {
    if (const cudaError_t error = enqueue(stream, operation); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return delete executable, cudaSuccess; }

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(stream, [=] { return std::memset(to, value, bytes), cudaSuccess; });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  return enqueue(stream, [=] { return std::memmove(to, from, bytes), cudaSuccess; });
}

extern "C" {
void simt_set_order(int order, uint64_t seed) { simt::set_order(static_cast<simt::Order>(order), seed); }
int simt_launches() { return launches; }
const char* simt_shared_bytes() {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  static std::string text;
  text.clear();
  for (const auto& [kernel, bytes] : largest_shared) {
    Dl_info info{};
    if (dladdr(kernel, &info) && info.dli_sname) text += info.dli_sname + (" " + std::to_string(bytes)) + "\n";
  }
  return text.c_str();
}
void simt_set_deferred(int value) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  deferred = value != 0;
}
void simt_set_device(const void* start, size_t bytes, int device) {
  const std::lock_guard<std::recursive_mutex> lock(mutex);
  devices[start] = {bytes, device};
}
}
