// What every launcher and the binding share: the CUDA runtime or its stand-in, a status that names the call that
// failed, and one way to launch a kernel that nvcc and g++ both compile. Not for kernels: a .cuh includes no runtime
// header.
#pragma once

#if defined(LLMREC_EMULATED)
#include "simt/runtime.h"
#else
#include <cuda_runtime.h>
#endif

#include <cstddef>
#include <cstdint>

namespace llmrec {

// What a launcher returns. Launchers never throw: the binding turns a failure into an exception.
struct Status {
  cudaError_t error = cudaSuccess;
  const char* message = nullptr;  // why; null where the error code says it
  const char* call = nullptr;
  const char* file = nullptr;
  int line = 0;
};

// Returns from a launcher when a call of the CUDA runtime fails.
#define LLMREC_TRY(...)                                                                                                \
  do {                                                                                                                 \
    const cudaError_t llmrec_error = (__VA_ARGS__);                                                                    \
    if (llmrec_error != cudaSuccess) return ::llmrec::Status{llmrec_error, nullptr, #__VA_ARGS__, __FILE__, __LINE__}; \
  } while (false)

// Returns from a launcher that cannot work with what it was given, before anything is launched.
#define LLMREC_REQUIRE(condition, why)                                                                     \
  do {                                                                                                     \
    if (!(condition)) return ::llmrec::Status{cudaErrorInvalidValue, why, #condition, __FILE__, __LINE__}; \
  } while (false)

// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), with the error of this very launch as the result.
// Dynamic shared memory beyond the 48 KiB that every kernel may use must be asked for with `allow_shared` before.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Lets `kernel` use `bytes` of dynamic shared memory. Sets an attribute, launches nothing.
template <class... Parameters>
cudaError_t allow_shared(void (*kernel)(Parameters...), size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace llmrec
