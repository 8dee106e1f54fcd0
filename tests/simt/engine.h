// The machine under the stand-in for CUDA: runs a kernel's threads as fibers, block after block, on one CPU core.
//
// This header is the engine's whole interface: threads, launches, warp-wide operations, block barriers, asynchronous
// copies. What a kernel sees (threadIdx, __shfl_sync, ...) is in device.h; what a launcher sees (cudaError_t, streams)
// in runtime.h. In the race check the engine is not instrumented, so that only kernels and launchers report to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMostThreads = 1024;

enum class State : uint8_t { ready, at_barrier, at_warp_operation, done };

struct Thread;
// Executes one warp-wide operation for every lane of `mask`; `lanes[l]` is null where the warp has no lane l.
using WarpFunction = void (*)(Thread* const* lanes, unsigned mask);

struct Copy {  // a cp.async that has not been waited for
  void* to;
  const void* from;
  size_t bytes;
  int group;
};

struct Thread {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  State state = State::done;
  unsigned index = 0, lane = 0, warp = 0;
  uint3 position{};
  // the warp operation or barrier at which the thread waits
  unsigned mask = 0;
  WarpFunction function = nullptr;
  const void* input = nullptr;
  void* output = nullptr;
  int predicate = 0;
  const char* file = nullptr;
  int line = 0;
  std::vector<Copy> copies;
  int copy_group = 0;
  void* sanitizer_stack = nullptr;
  // for the race check: own time, the latest time of each lane of the warp that this thread is ordered after, and
  // whether the thread has executed a __threadfence
  uint32_t time = 0;
  uint32_t seen[kWarp] = {};
  bool fenced = false;
};

// What the race check wants to know; all null in a build without it.
struct Hooks {
  void (*access)(const void* address, size_t bytes, bool write) = nullptr;
  void (*warp_barrier)(Thread* const* lanes, unsigned mask) = nullptr;
  void (*launch_begins)() = nullptr;
  void (*block_begins)() = nullptr;
  // races found in the launch that ends, as text; empty: none
  std::string (*launch_ends)() = nullptr;
};
extern Hooks hooks;

enum class Order { ascending, descending, random };
// The order in which blocks run, and in which the threads of a block get their turns.
void set_order(Order order, uint64_t seed);

// Runs `body` once for every thread of the grid. False: the launch failed, and `failure()` says why.
bool run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body);
const std::string& failure();

// Called by a running kernel's thread ---------------------------------------------------------------------------------

Thread* current();  // null outside of a kernel
unsigned char* dynamic_shared();
size_t dynamic_shared_bytes();
unsigned barrier_epoch();              // number of block barriers that the running block has passed
unsigned block_number();               // position of the running block in the grid
bool is_private(const void* address);  // on a thread's stack, or the engine's own record of threads

// Waits for all lanes of `mask`; the last to arrive executes `function` for all of them.
void warp_operation(unsigned mask, WarpFunction function, const void* input, void* output, const char* file, int line);
// Waits for all live threads of the block; returns for how many of them `predicate` held.
int block_barrier(bool predicate, const char* file, int line);
void copy_async(void* to, const void* from, size_t bytes);
void commit_copies();
void wait_for_copies(int groups_left);
void fence();
// Ends the launch with an error. For misuse that a GPU would answer with undefined behaviour.
[[noreturn]] void fail(const std::string& message);

}  // namespace simt

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;
