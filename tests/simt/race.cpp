// The race check: which two accesses to one byte are ordered by nothing?
//
// Sources under test are compiled with -fsanitize=thread but linked with this file in place of the sanitizer's library,
// so every load and store of theirs calls us. Order within a launch comes from
//   - block barriers: everything before one is ordered before everything after it, for the threads of the block;
//   - __syncwarp, for the lanes of its mask (a shuffle or vote orders nothing: the programming guide promises no more);
//   - between blocks: a __threadfence, then an atomic; whoever reads that atomic later is ordered after the writer's
//   block
//     up to its last block barrier, and after the writing thread up to the fence; the reader's block is from its next
//     barrier on.
// Two accesses that nothing orders, one of them a write, not both atomic, are a race; its launch fails with both lines.
// Each byte remembers its last write and two reads by different threads, so a run can miss a race, but names no false
// one.
#include <cxxabi.h>
#include <dlfcn.h>

#include <array>
#include <cstdio>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "engine.h"

namespace {

using simt::Thread;

struct Access {
  unsigned launch = 0, block = 0, thread = 0, epoch = 0, time = 0;
  bool atomic = false;
  void* caller = nullptr;
};
struct Cell {
  Access write, reads[2];
};
constexpr size_t kPage = 4096;
using Page = std::array<Cell, kPage>;

// up to which epoch the accesses of another block are known to be over, and up to which time those of one of its
// threads
struct Knowledge {
  unsigned epoch = 0, thread = 0, time = 0;
};
using Known = std::map<unsigned, Knowledge>;

unsigned launch = 0;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
uintptr_t last_page_number = ~uintptr_t{0};
Page* last_page = nullptr;
std::unordered_map<const void*, Known> released;   // by atomics' addresses
std::unordered_map<unsigned, Known> thread_knows;  // of the running block
Known block_knows;
unsigned block_knows_epoch = 0;
std::set<std::pair<void*, void*>> reported;
std::string report;

uintptr_t watch_start = 0, watch_bytes = 0;
bool watch_everything = false;
uint64_t watched_reads = 0, watched_writes = 0;

bool in_shared(uintptr_t address) {
  return address - reinterpret_cast<uintptr_t>(simt::dynamic_shared()) < simt::dynamic_shared_bytes();
}

Cell& cell(uintptr_t address) {
  const uintptr_t number = address / kPage;
  if (number != last_page_number) {
    auto& page = pages[number];
    if (!page) page = std::make_unique<Page>();
    last_page = page.get();
    last_page_number = number;
  }
  return (*last_page)[address % kPage];
}

void learn(Known& known, const Known& more) {
  for (const auto& [block, knowledge] : more) {
    Knowledge& mine = known[block];
    if (knowledge.epoch > mine.epoch || (knowledge.epoch == mine.epoch && knowledge.time > mine.time)) mine = knowledge;
  }
}

bool knows(const Known& known, const Access& access) {
  const auto found = known.find(access.block);
  if (found == known.end()) return false;
  const Knowledge& knowledge = found->second;
  return access.epoch < knowledge.epoch ||
         (access.epoch == knowledge.epoch && access.thread == knowledge.thread && access.time <= knowledge.time);
}

// What the threads of the block knew before its last barrier, all of them know after it.
void pass_on_at_barriers() {
  if (block_knows_epoch == simt::barrier_epoch()) return;
  block_knows_epoch = simt::barrier_epoch();
  for (const auto& entry : thread_knows) learn(block_knows, entry.second);
  thread_knows.clear();
}

bool ordered(const Access& earlier, const Thread& thread, bool shared) {
  if (earlier.block != simt::block_number()) {
    if (shared) return true;  // another block's shared memory is another memory
    pass_on_at_barriers();
    const auto own = thread_knows.find(thread.index);
    return knows(block_knows, earlier) || (own != thread_knows.end() && knows(own->second, earlier));
  }
  if (earlier.thread == thread.index || earlier.epoch < simt::barrier_epoch()) return true;
  return earlier.thread / simt::kWarp == thread.warp && thread.seen[earlier.thread % simt::kWarp] >= earlier.time;
}

std::string describe(const Access& access, bool write) {
  char text[256];
  Dl_info info{};
  dladdr(access.caller, &info);
  const auto offset = static_cast<const char*>(access.caller) - static_cast<const char*>(info.dli_fbase) - 1;
  std::snprintf(text, sizeof text, "%s%s by block %u thread %u at %s+0x%lx", access.atomic ? "atomic " : "",
                write ? "write" : "read", access.block, access.thread, info.dli_fname ? info.dli_fname : "?",
                static_cast<unsigned long>(offset));
  return text;
}

void check(const Access& earlier, bool earlier_writes, const Access& now, bool now_writes, const Thread& thread,
           bool shared) {
  if (earlier.launch != launch || (earlier.atomic && now.atomic) || ordered(earlier, thread, shared)) return;
  if (reported.size() >= 8 || !reported.insert({earlier.caller, now.caller}).second) return;
  report += std::string(report.empty() ? "" : "\n") + "data race in " + (shared ? "shared" : "global") +
            " memory: " + describe(earlier, earlier_writes) + ", then " + describe(now, now_writes);
}

void note(const void* pointer, size_t bytes, bool write, bool atomic, void* caller) {
  const Thread* thread = simt::current();
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  if (!thread || simt::is_private(pointer)) return;
  const bool shared = in_shared(address);
  if (address - watch_start < watch_bytes || (watch_everything && !shared))
    (write ? watched_writes : watched_reads) += bytes;
  Access now{launch, simt::block_number(), thread->index, simt::barrier_epoch(), thread->time, atomic, caller};
  for (uintptr_t byte = address; byte < address + bytes; ++byte) {
    Cell& found = cell(byte);
    check(found.write, true, now, write, *thread, shared);
    if (write) {
      for (const Access& read : found.reads) check(read, false, now, true, *thread, shared);
      found.write = now;
      found.reads[0].launch = found.reads[1].launch = 0;
    } else {
      if (found.reads[0].launch == launch && found.reads[0].thread != now.thread) found.reads[1] = found.reads[0];
      found.reads[0] = now;
    }
  }
}

void note_atomic(const void* pointer, size_t bytes, bool write, void* caller) {
  Thread* thread = simt::current();
  if (!thread) return;
  note(pointer, bytes, write, true, caller);
  pass_on_at_barriers();
  Known& cell_knows = released[pointer];
  if (write && thread->fenced) {
    // what this thread and its block know themselves is handed on as well
    learn(cell_knows, block_knows);
    learn(cell_knows, thread_knows[thread->index]);
    learn(cell_knows, {{simt::block_number(), {simt::barrier_epoch(), thread->index, thread->time}}});
    ++thread->time;  // what the thread does from here on has not been handed over
  }
  learn(thread_knows[thread->index], cell_knows);
}

void access(const void* address, size_t bytes, bool write) {
  note(address, bytes, write, false, __builtin_return_address(0));
}

void warp_barrier(Thread* const* lanes, unsigned) {
  uint32_t latest[simt::kWarp] = {};
  for (unsigned l = 0; l < simt::kWarp; ++l) {
    if (!lanes[l]) continue;
    lanes[l]->seen[l] = lanes[l]->time++;
    for (unsigned other = 0; other < simt::kWarp; ++other)
      latest[other] = std::max(latest[other], lanes[l]->seen[other]);
  }
  for (unsigned l = 0; l < simt::kWarp; ++l)
    if (lanes[l]) std::copy(std::begin(latest), std::end(latest), lanes[l]->seen);
}

void launch_begins() {
  ++launch;
  released.clear();
  reported.clear();
  report.clear();
}

void block_begins() {
  block_knows.clear();
  thread_knows.clear();
  block_knows_epoch = 0;
}

std::string launch_ends() { return report; }

struct Install {
  Install() { simt::hooks = {access, warp_barrier, launch_begins, block_begins, launch_ends}; }
} install;

}  // namespace

extern "C" {

void simt_watch(const void* start, size_t bytes) {
  watch_start = reinterpret_cast<uintptr_t>(start);
  watch_bytes = start ? bytes : 0;
  watch_everything = !start;
  watched_reads = watched_writes = 0;
}
uint64_t simt_watched_reads() { return watched_reads; }
uint64_t simt_watched_writes() { return watched_writes; }

// The hooks of gcc's -fsanitize=thread (gcc/sanitizer.def)
#define CALLER __builtin_return_address(0)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
#define ACCESSES(bytes)                                                                            \
  void __tsan_read##bytes(void* address) { note(address, bytes, false, false, CALLER); }           \
  void __tsan_write##bytes(void* address) { note(address, bytes, true, false, CALLER); }           \
  void __tsan_unaligned_read##bytes(void* address) { note(address, bytes, false, false, CALLER); } \
  void __tsan_unaligned_write##bytes(void* address) { note(address, bytes, true, false, CALLER); } \
  void __tsan_volatile_read##bytes(void* address) { note(address, bytes, false, false, CALLER); }  \
  void __tsan_volatile_write##bytes(void* address) { note(address, bytes, true, false, CALLER); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* address, size_t bytes) { note(address, bytes, false, false, CALLER); }
void __tsan_write_range(void* address, size_t bytes) { note(address, bytes, true, false, CALLER); }
#define ATOMICS(bits, Bits)                                                                                         \
  Bits __tsan_atomic##bits##_load(const volatile Bits* address, int) {                                              \
    note_atomic(const_cast<const Bits*>(address), bits / 8, false, CALLER);                                         \
    return *address;                                                                                                \
  }                                                                                                                 \
  void __tsan_atomic##bits##_store(volatile Bits* address, Bits value, int) {                                       \
    note_atomic(const_cast<Bits*>(address), bits / 8, true, CALLER);                                                \
    *address = value;                                                                                               \
  }                                                                                                                 \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile Bits* address, Bits* expected, Bits value, int, int) { \
    note_atomic(const_cast<Bits*>(address), bits / 8, true, CALLER);                                                \
    if (*address == *expected) return *address = value, 1;                                                          \
    return *expected = *address, 0;                                                                                 \
  }
ATOMICS(8, uint8_t)
ATOMICS(32, uint32_t)
ATOMICS(64, uint64_t)
}
