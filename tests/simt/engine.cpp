// Fibers, the scheduler of a block, warp-wide operations and barriers. See engine.h.
//
// One lane at a time runs until it waits or ends. A scheduler gives turns to the threads of one block in the chosen
// order, until all are done; then comes the next block. Nothing runs side by side, so a run with one order and seed is
// repeatable.
#include "engine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Hooks hooks;

namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr size_t kGuardBytes = 4096;
constexpr size_t kSlotBytes = kStackBytes + kGuardBytes;
constexpr unsigned char kPoison = 0xFF;  // NaN in every float format, -1 in every integer: hard to overlook

struct Engine {
  std::mutex mutex;
  Order order = Order::ascending;
  uint64_t seed = 0, random_state = 0;
  char* arena = nullptr;
  std::vector<Thread> threads = std::vector<Thread>(kMostThreads);
  Thread* current = nullptr;
  void* scheduler_stack_pointer = nullptr;
  void* scheduler_sanitizer_stack = nullptr;
  const void* scheduler_stack_bottom = nullptr;
  size_t scheduler_stack_bytes = 0;
  const std::function<void()>* body = nullptr;
  unsigned count = 0;
  unsigned epoch = 0;
  unsigned block = 0;
  unsigned char* shared = nullptr;
  size_t shared_bytes = 0;
  bool failed = false;
  std::string failure;
};
Engine engine;

uint64_t next_random() {  // xorshift64
  uint64_t& x = engine.random_state;
  x ^= x << 13;
  x ^= x >> 7;
  x ^= x << 17;
  return x;
}

template <class Value>
void arrange(std::vector<Value>& values) {
  if (engine.order == Order::descending) std::reverse(values.begin(), values.end());
  if (engine.order == Order::random)
    for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[next_random() % i]);
}

// Switching between stacks --------------------------------------------------------------------------------------------

extern "C" void simt_thread_entry();

#if defined(__x86_64__)
extern "C" void simt_switch(void** save_stack_pointer, void* stack_pointer);
asm(R"(.text
.globl simt_switch
.hidden simt_switch
.type simt_switch,@function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch,.-simt_switch
)");

void prepare_stack(Thread& thread) {
  // stacks lie a power of two apart: without an offset their hot lines would share one set of the first-level cache
  void** top = reinterpret_cast<void**>(thread.stack + kStackBytes - (thread.index % 61) * 64);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(simt_thread_entry);
  for (int saved_register = 0; saved_register < 6; ++saved_register) *--top = nullptr;
  thread.stack_pointer = top;
}
#else
void simt_switch(void** save_stack_pointer, void* stack_pointer) {
  ucontext_t here;
  *save_stack_pointer = &here;
  swapcontext(&here, static_cast<ucontext_t*>(stack_pointer));
}

void prepare_stack(Thread& thread) {
  auto* context = reinterpret_cast<ucontext_t*>(thread.stack);
  getcontext(context);
  context->uc_stack.ss_sp = thread.stack + sizeof(ucontext_t);
  context->uc_stack.ss_size = kStackBytes - sizeof(ucontext_t);
  context->uc_link = nullptr;
  makecontext(context, simt_thread_entry, 0);
  thread.stack_pointer = context;
}
#endif

void to_scheduler(Thread& thread) {
#if defined(__SANITIZE_ADDRESS__)
  void** keep = thread.state == State::done ? nullptr : &thread.sanitizer_stack;
  __sanitizer_start_switch_fiber(keep, engine.scheduler_stack_bottom, engine.scheduler_stack_bytes);
#endif
  simt_switch(&thread.stack_pointer, engine.scheduler_stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(thread.sanitizer_stack, &engine.scheduler_stack_bottom,
                                  &engine.scheduler_stack_bytes);
#endif
}

void give_turn(Thread& thread) {
  engine.current = &thread;
  threadIdx = thread.position;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&engine.scheduler_sanitizer_stack, thread.stack, kStackBytes);
#endif
  simt_switch(&engine.scheduler_stack_pointer, thread.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(engine.scheduler_sanitizer_stack, nullptr, nullptr);
#endif
  engine.current = nullptr;
}

extern "C" void simt_thread_entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &engine.scheduler_stack_bottom, &engine.scheduler_stack_bytes);
#endif
  (*engine.body)();
  if (!engine.current->copies.empty()) fail("a thread ended with a cp.async that nobody waited for");
  engine.current->state = State::done;
  to_scheduler(*engine.current);
  std::abort();  // an ended thread is never resumed
}

// Errors --------------------------------------------------------------------------------------------------------------

std::string where(const Thread& thread) {
  return thread.file ? std::string(thread.file) + ":" + std::to_string(thread.line) : "an unknown line";
}

std::string describe_waiting() {
  std::string text;
  int listed = 0;
  for (unsigned i = 0; i < engine.count && listed < 8; ++i) {
    const Thread& thread = engine.threads[i];
    if (thread.state != State::at_barrier && thread.state != State::at_warp_operation) continue;
    const bool barrier = thread.state == State::at_barrier;
    char mask[16];
    std::snprintf(mask, sizeof mask, "%08x", thread.mask);
    text += "\n  thread " + std::to_string(i) + " waits at " +
            (barrier ? "a block barrier" : std::string("a warp operation, mask ") + mask) + ", " + where(thread);
    ++listed;
  }
  return text;
}

void record_failure(const std::string& message) {
  engine.failed = true;
  engine.failure = message + " in block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
                   std::to_string(blockIdx.z) + ")" + describe_waiting();
}

// One block -----------------------------------------------------------------------------------------------------------

void prepare_threads(dim3 block) {
  for (unsigned i = 0; i < engine.count; ++i) {
    Thread& thread = engine.threads[i];
    thread.index = i;
    thread.lane = i % kWarp;
    thread.warp = i / kWarp;
    thread.position = uint3{i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    thread.state = State::ready;
    thread.file = nullptr;
    thread.copies.clear();
    thread.copy_group = 0;
    thread.sanitizer_stack = nullptr;
    thread.time = 1;
    std::fill(std::begin(thread.seen), std::end(thread.seen), 0u);
    thread.fenced = false;
    thread.stack = engine.arena + i * kSlotBytes + kGuardBytes;
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(thread.stack, kStackBytes);
#endif
    prepare_stack(thread);
  }
}

void release_block_barrier() {
  int votes = 0;
  const Thread* first = nullptr;
  for (unsigned i = 0; i < engine.count; ++i) {
    const Thread& thread = engine.threads[i];
    if (thread.state != State::at_barrier) continue;
    votes += thread.predicate;
    if (!first) first = &thread;
    if (thread.line != first->line || std::strcmp(thread.file, first->file) != 0)
      return record_failure("threads of one block wait at different barriers");
  }
  ++engine.epoch;
  for (unsigned i = 0; i < engine.count; ++i) {
    Thread& thread = engine.threads[i];
    if (thread.state != State::at_barrier) continue;
    thread.state = State::ready;
    thread.predicate = votes;
  }
}

void run_block(std::vector<unsigned>& turns) {
  while (!engine.failed) {
    if (engine.order == Order::random) arrange(turns);
    bool ran = false;
    for (unsigned i : turns) {
      Thread& thread = engine.threads[i];
      if (thread.state != State::ready) continue;
      give_turn(thread);
      ran = true;
      if (engine.failed) return;
    }
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < engine.count; ++i) {
      done += engine.threads[i].state == State::done;
      waiting += engine.threads[i].state == State::at_barrier;
    }
    if (done == engine.count) return;
    if (waiting && done + waiting == engine.count) {
      release_block_barrier();
    } else if (!ran) {
      record_failure("deadlock: a barrier or warp operation that not all of its threads reach");
    }
  }
}

void make_arena() {
  if (engine.arena) return;
  void* arena = mmap(nullptr, kMostThreads * kSlotBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena == MAP_FAILED) std::abort();
  engine.arena = static_cast<char*>(arena);
  for (unsigned i = 0; i < kMostThreads; ++i) mprotect(engine.arena + i * kSlotBytes, kGuardBytes, PROT_NONE);
}

}  // namespace

void set_order(Order order, uint64_t seed) {
  std::lock_guard<std::mutex> lock(engine.mutex);
  engine.order = order;
  engine.seed = seed;
}

bool run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  std::lock_guard<std::mutex> lock(engine.mutex);
  make_arena();
  engine.failed = false;
  engine.failure.clear();
  engine.body = &body;
  engine.count = block.x * block.y * block.z;
  engine.random_state = 88172645463325252ull ^ (engine.seed * 0x9E3779B97F4A7C15ull);
  gridDim = grid;
  blockDim = block;
  // allocated to the byte, so that the address sanitizer sees the first one past the end
  void* shared = nullptr;
  if (shared_bytes && posix_memalign(&shared, 128, shared_bytes)) std::abort();
  const std::unique_ptr<void, void (*)(void*)> owner(shared, std::free);
  engine.shared = static_cast<unsigned char*>(shared);
  engine.shared_bytes = shared_bytes;

  std::vector<uint64_t> blocks(uint64_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), uint64_t{0});
  arrange(blocks);
  std::vector<unsigned> turns(engine.count);
  std::iota(turns.begin(), turns.end(), 0u);
  arrange(turns);
  if (hooks.launch_begins) hooks.launch_begins();
  for (uint64_t number : blocks) {
    blockIdx = uint3{static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / (uint64_t{grid.x} * grid.y))};
    engine.block = static_cast<unsigned>(number);
    engine.epoch = 0;
    if (shared_bytes) std::memset(engine.shared, kPoison, shared_bytes);
    if (hooks.block_begins) hooks.block_begins();
    prepare_threads(block);
    run_block(turns);
    if (engine.failed) break;
  }
  if (hooks.launch_ends) {
    const std::string races = hooks.launch_ends();
    if (!races.empty() && !engine.failed) {
      engine.failed = true;
      engine.failure = races;
    }
  }
  engine.shared = nullptr;
  engine.shared_bytes = 0;
  return !engine.failed;
}

const std::string& failure() { return engine.failure; }

Thread* current() { return engine.current; }
unsigned char* dynamic_shared() { return engine.shared; }
size_t dynamic_shared_bytes() { return engine.shared_bytes; }
unsigned barrier_epoch() { return engine.epoch; }
unsigned block_number() { return engine.block; }

bool is_private(const void* address) {
  const auto byte = reinterpret_cast<uintptr_t>(address);
  return byte - reinterpret_cast<uintptr_t>(engine.arena) < kMostThreads * kSlotBytes ||
         byte - reinterpret_cast<uintptr_t>(engine.threads.data()) < kMostThreads * sizeof(Thread);
}

void fail(const std::string& message) {
  record_failure(message);
  to_scheduler(*engine.current);
  std::abort();  // a failed launch is never resumed
}

void warp_operation(unsigned mask, WarpFunction function, const void* input, void* output, const char* file, int line) {
  Thread& self = *engine.current;
  Thread* warp = engine.threads.data() + self.warp * kWarp;
  self.mask = mask;
  self.function = function;
  self.input = input;
  self.output = output;
  self.file = file;
  self.line = line;
  self.state = State::at_warp_operation;
  if (!(mask >> self.lane & 1)) fail("a lane is not in the mask of its own warp operation");
  const unsigned lanes_here = std::min(kWarp, engine.count - self.warp * kWarp);
  Thread* lanes[kWarp] = {};
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (lane >= lanes_here || warp[lane].state == State::done)
      fail("the mask of a warp operation names lane " + std::to_string(lane) + ", which does not exist or has ended");
    lanes[lane] = warp + lane;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!lanes[lane]) continue;
    const bool arrived = lanes[lane]->state == State::at_warp_operation && lanes[lane]->mask == mask &&
                         lanes[lane]->function == function;
    if (!arrived) return to_scheduler(self);  // not the last: sleep until that one has computed the result
  }
  function(lanes, mask);
  for (Thread* lane : lanes)
    if (lane) lane->state = State::ready;
}

int block_barrier(bool predicate, const char* file, int line) {
  Thread& self = *engine.current;
  self.predicate = predicate;
  self.file = file;
  self.line = line;
  self.state = State::at_barrier;
  to_scheduler(self);
  return self.predicate;
}

void copy_async(void* to, const void* from, size_t bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % bytes)
    fail("cp.async: misaligned address");
  const auto* start = static_cast<unsigned char*>(to);
  if (start < engine.shared || start + bytes > engine.shared + engine.shared_bytes)
    fail("cp.async: the destination is not in dynamic shared memory");
  engine.current->copies.push_back({to, from, bytes, engine.current->copy_group});
}

void fence() { engine.current->fenced = true; }

void commit_copies() { ++engine.current->copy_group; }

// Copies happen here and not before, so that a kernel that reads too early sees poison or old data.
void wait_for_copies(int groups_left) {
  Thread& self = *engine.current;
  size_t kept = 0;
  for (const Copy& copy : self.copies) {
    if (copy.group >= self.copy_group - groups_left) {
      self.copies[kept++] = copy;
      continue;
    }
    if (hooks.access) {
      hooks.access(copy.from, copy.bytes, false);
      hooks.access(copy.to, copy.bytes, true);
    }
    std::memcpy(copy.to, copy.from, copy.bytes);
  }
  self.copies.resize(kept);
}

}  // namespace simt
