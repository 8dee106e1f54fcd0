// What every part of the Python module needs: pointers from integers, exceptions from statuses, the right current
// device.
#pragma once

#include <cstring>
#include <stdexcept>
#include <string>

#include "launch.h"

namespace llmrec {

template <class Item>
Item* pointer_to(uintptr_t address) {
  return reinterpret_cast<Item*>(address);
}

inline cudaStream_t stream_at(uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

// Becomes llmrec_fast.errors.CudaError in Python.
struct CudaFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws what `status` says, as "csrc/pool.cu:42: launch(...): invalid argument (cudaErrorInvalidValue, 1)".
inline void check(const Status& status) {
  if (status.error == cudaSuccess) return;
  const char* slash = std::strrchr(status.file, '/');
  throw CudaFailure("csrc/" + std::string(slash ? slash + 1 : status.file) + ":" + std::to_string(status.line) + ": " +
                    status.call + ": " + (status.message ? status.message : cudaGetErrorString(status.error)) + " (" +
                    cudaGetErrorName(status.error) + ", " + std::to_string(status.error) + ")");
}

// Makes `device` the current one of this thread while it lives.
class OnDevice {
 public:
  explicit OnDevice(int device) { check(enter(device)); }
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  Status enter(int device) {
    LLMREC_TRY(cudaGetDevice(&before_));
    if (device == before_) return {};
    LLMREC_TRY(cudaSetDevice(device));
    changed_ = true;
    return {};
  }
  int before_ = 0;
  bool changed_ = false;
};

}  // namespace llmrec
