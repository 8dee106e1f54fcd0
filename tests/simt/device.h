// What a kernel finds without including anything when nvcc compiles it: qualifiers, vector types, warp-wide operations,
// barriers, atomics, intrinsics. The emulated build puts this header in front of every source (g++ -include).
//
// Not here on purpose: __activemask (its answer depends on scheduling), cooperative groups, textures, half arithmetic.
// Static __shared__ variables are not offered either: LLMREC_SHARED gives dynamic shared memory, which the engine
// poisons before every block and allocates to the byte.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "engine.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

// Types ---------------------------------------------------------------------------------------------------------------

struct alignas(4) char4 {
  signed char x, y, z, w;
};
struct alignas(4) uchar4 {
  unsigned char x, y, z, w;
};
struct alignas(4) ushort2 {
  unsigned short x, y;
};
struct alignas(8) ushort4 {
  unsigned short x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) double2 {
  double x, y;
};
struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

using std::max;
using std::min;

// Warp-wide operations and barriers. The file and line of the call come from default arguments ------------------------

#define SIMT_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace simt {

template <class Value>
struct ShuffleInput {
  Value value;
  int argument, width;
};

enum class Shuffle { index, up, down, butterfly };

// CUDA C++ Programming Guide, "Warp Shuffle Functions"; PTX ISA, shfl.sync
template <Shuffle kind>
int shuffle_source(int lane, int argument, int width) {
  const int first = lane & ~(width - 1), last = first | (width - 1);
  int source = 0;
  if (kind == Shuffle::index) source = first + (argument & (width - 1));
  if (kind == Shuffle::up) source = lane - argument < first ? lane : lane - argument;
  if (kind == Shuffle::down) source = lane + argument > last ? lane : lane + argument;
  if (kind == Shuffle::butterfly) source = (lane ^ argument) > last ? lane : (lane ^ argument);
  return source;
}

template <class Value, Shuffle kind>
void shuffle_function(Thread* const* lanes, unsigned mask) {
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!lanes[lane]) continue;
    const auto* input = static_cast<const ShuffleInput<Value>*>(lanes[lane]->input);
    const int source = shuffle_source<kind>(static_cast<int>(lane), input->argument, input->width);
    // a lane outside of the mask gives an undefined value: poison makes it seen
    if (mask >> source & 1)
      std::memcpy(lanes[lane]->output, &static_cast<const ShuffleInput<Value>*>(lanes[source]->input)->value,
                  sizeof(Value));
    else
      std::memset(lanes[lane]->output, 0xFF, sizeof(Value));
  }
}

template <Shuffle kind, class Value>
Value shuffle(unsigned mask, Value value, int argument, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<Value> && (sizeof(Value) == 4 || sizeof(Value) == 8),
                "32 and 64 bits can be shuffled");
  const ShuffleInput<Value> input{value, argument, width};
  Value output{};
  warp_operation(mask, shuffle_function<Value, kind>, &input, &output, file, line);
  return output;
}

// `combine(total, value)` over the lanes in ascending order; everyone gets the total
template <class Value, class Combine>
void reduce_function(Thread* const* lanes, unsigned) {
  bool first = true;
  Value total{};
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!lanes[lane]) continue;
    const Value value = *static_cast<const Value*>(lanes[lane]->input);
    total = first ? value : Combine{}(total, value);
    first = false;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (lanes[lane]) *static_cast<Value*>(lanes[lane]->output) = total;
}

template <class Combine, class Value>
Value reduce(unsigned mask, Value value, const char* file, int line) {
  Value output{};
  warp_operation(mask, reduce_function<Value, Combine>, &value, &output, file, line);
  return output;
}

struct Add {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(std::make_unsigned_t<T>(a) + std::make_unsigned_t<T>(b));
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};

inline void ballot_function(Thread* const* lanes, unsigned) {
  unsigned votes = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (lanes[lane] && *static_cast<const int*>(lanes[lane]->input)) votes |= 1u << lane;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (lanes[lane]) *static_cast<unsigned*>(lanes[lane]->output) = votes;
}

template <class Value>
void match_function(Thread* const* lanes, unsigned) {
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!lanes[lane]) continue;
    unsigned same = 0;
    for (unsigned other = 0; other < kWarp; ++other)
      if (lanes[other] && std::memcmp(lanes[lane]->input, lanes[other]->input, sizeof(Value)) == 0) same |= 1u << other;
    *static_cast<unsigned*>(lanes[lane]->output) = same;
  }
}

inline void barrier_function(Thread* const* lanes, unsigned mask) {
  if (hooks.warp_barrier) hooks.warp_barrier(lanes, mask);
}

}  // namespace simt

template <class Value>
Value __shfl_sync(unsigned mask, Value value, int lane, int width = 32, SIMT_CALLER) {
  return simt::shuffle<simt::Shuffle::index>(mask, value, lane, width, file, line);
}
template <class Value>
Value __shfl_up_sync(unsigned mask, Value value, unsigned delta, int width = 32, SIMT_CALLER) {
  return simt::shuffle<simt::Shuffle::up>(mask, value, static_cast<int>(delta), width, file, line);
}
template <class Value>
Value __shfl_down_sync(unsigned mask, Value value, unsigned delta, int width = 32, SIMT_CALLER) {
  return simt::shuffle<simt::Shuffle::down>(mask, value, static_cast<int>(delta), width, file, line);
}
template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lanes, int width = 32, SIMT_CALLER) {
  return simt::shuffle<simt::Shuffle::butterfly>(mask, value, lanes, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_CALLER) {
  unsigned votes = 0;
  simt::warp_operation(mask, simt::ballot_function, &predicate, &votes, file, line);
  return votes;
}
inline int __any_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_CALLER) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
template <class Value>
unsigned __match_any_sync(unsigned mask, Value value, SIMT_CALLER) {
  unsigned same = 0;
  simt::warp_operation(mask, simt::match_function<Value>, &value, &same, file, line);
  return same;
}
template <class Value>
unsigned __match_all_sync(unsigned mask, Value value, int* all_equal, SIMT_CALLER) {
  *all_equal = __match_any_sync(mask, value, file, line) == mask;
  return *all_equal ? mask : 0;
}
// The __reduce_*_sync of sm_80 and newer; kernels that also run on sm_75 reduce by shuffles there.

template <class Value>
Value __reduce_add_sync(unsigned mask, Value value, SIMT_CALLER) {
  return simt::reduce<simt::Add>(mask, value, file, line);
}
template <class Value>
Value __reduce_max_sync(unsigned mask, Value value, SIMT_CALLER) {
  return simt::reduce<simt::Max>(mask, value, file, line);
}
template <class Value>
Value __reduce_min_sync(unsigned mask, Value value, SIMT_CALLER) {
  return simt::reduce<simt::Min>(mask, value, file, line);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, SIMT_CALLER) {
  return simt::reduce<simt::And>(mask, value, file, line);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, SIMT_CALLER) {
  return simt::reduce<simt::Or>(mask, value, file, line);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, SIMT_CALLER) {
  return simt::reduce<simt::Xor>(mask, value, file, line);
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, SIMT_CALLER) {
  simt::warp_operation(mask, simt::barrier_function, nullptr, nullptr, file, line);
}
inline void __syncthreads(SIMT_CALLER) { simt::block_barrier(false, file, line); }
inline int __syncthreads_count(int predicate, SIMT_CALLER) { return simt::block_barrier(predicate != 0, file, line); }
inline int __syncthreads_or(int predicate, SIMT_CALLER) { return simt::block_barrier(predicate != 0, file, line) != 0; }
inline int __syncthreads_and(int predicate, SIMT_CALLER) {
  return simt::block_barrier(predicate == 0, file, line) == 0;
}

// Memory --------------------------------------------------------------------------------------------------------------

// A fence orders what follows for other blocks: the race check lets an atomic after it hand over what was written
// before.
inline void __threadfence() { simt::fence(); }
inline void __threadfence_block() {}

namespace simt {
// Through compare-and-swap, so that it serves floats as well, and so that the race check sees an atomic access.
template <class Value, class Change>
Value read_modify_write(Value* address, Change change) {
  static_assert(sizeof(Value) == 4 || sizeof(Value) == 8, "32 and 64 bits have atomics");
  using Bits = std::conditional_t<sizeof(Value) == 8, uint64_t, uint32_t>;
  auto* cell = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(cell, __ATOMIC_RELAXED);
  for (;;) {
    Value old_value, new_value;
    Bits new_bits;
    std::memcpy(&old_value, &old_bits, sizeof old_value);
    new_value = change(old_value);
    std::memcpy(&new_bits, &new_value, sizeof new_bits);
    if (__atomic_compare_exchange_n(cell, &old_bits, new_bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return old_value;
  }
}
template <class Value>
struct Identity {
  using type = Value;
};
template <class Value>
using Same = typename Identity<Value>::type;  // keeps an argument out of template argument deduction
}  // namespace simt

template <class T>
T atomicAdd(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T old) {
    if constexpr (std::is_integral_v<T>)
      return simt::Add{}(old, value);
    else
      return old + value;
  });
}
template <class T>
T atomicSub(T* address, simt::Same<T> value) {
  return atomicAdd(address, static_cast<T>(0 - std::make_unsigned_t<T>(value)));
}
template <class T>
T atomicMax(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T old) { return simt::Max{}(old, value); });
}
template <class T>
T atomicMin(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T old) { return simt::Min{}(old, value); });
}
template <class T>
T atomicAnd(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T old) { return simt::And{}(old, value); });
}
template <class T>
T atomicOr(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T old) { return simt::Or{}(old, value); });
}
template <class T>
T atomicExch(T* address, simt::Same<T> value) {
  return simt::read_modify_write(address, [value](T) { return value; });
}
template <class T>
T atomicCAS(T* address, simt::Same<T> expected, simt::Same<T> value) {
  return simt::read_modify_write(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return simt::read_modify_write(address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T __ldcg(const T* address) {
  return *address;
}
template <class T>
T __ldca(const T* address) {
  return *address;
}
template <class T>
T __ldcs(const T* address) {
  return *address;
}
template <class T>
void __stcs(T* address, T value) {
  *address = value;
}
template <class T>
void __stcg(T* address, T value) {
  *address = value;
}

// Arithmetic ----------------------------------------------------------------------------------------------------------

namespace simt {
template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
// directed rounding, in arithmetic.cpp (compiled to honour the rounding mode); `mode` as in <cfenv>
float add(float a, float b, int mode);
float multiply(float a, float b, int mode);
float fuse(float a, float b, float c, int mode);
float root(float a, int mode);
float narrow(double a, int mode);
double add(double a, double b, int mode);
double multiply(double a, double b, int mode);
double fuse(double a, double b, double c, int mode);
extern const int kNearest, kUp, kDown, kZero;
}  // namespace simt

inline int __float_as_int(float x) { return simt::bits_as<int>(x); }
inline unsigned __float_as_uint(float x) { return simt::bits_as<unsigned>(x); }
inline float __int_as_float(int x) { return simt::bits_as<float>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_as<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_as<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_as<double>(x); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fadd_ru(float a, float b) { return simt::add(a, b, simt::kUp); }
inline float __fadd_rd(float a, float b) { return simt::add(a, b, simt::kDown); }
inline float __fsub_ru(float a, float b) { return simt::add(a, -b, simt::kUp); }
inline float __fsub_rd(float a, float b) { return simt::add(a, -b, simt::kDown); }
inline float __fmul_ru(float a, float b) { return simt::multiply(a, b, simt::kUp); }
inline float __fmul_rd(float a, float b) { return simt::multiply(a, b, simt::kDown); }
inline float __fmaf_ru(float a, float b, float c) { return simt::fuse(a, b, c, simt::kUp); }
inline float __fmaf_rd(float a, float b, float c) { return simt::fuse(a, b, c, simt::kDown); }
inline float __fsqrt_ru(float a) { return simt::root(a, simt::kUp); }
inline float __fsqrt_rd(float a) { return simt::root(a, simt::kDown); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }
inline float __double2float_ru(double a) { return simt::narrow(a, simt::kUp); }
inline float __double2float_rd(double a) { return simt::narrow(a, simt::kDown); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __dadd_ru(double a, double b) { return simt::add(a, b, simt::kUp); }
inline double __dadd_rd(double a, double b) { return simt::add(a, b, simt::kDown); }
inline double __dmul_ru(double a, double b) { return simt::multiply(a, b, simt::kUp); }
inline double __fma_ru(double a, double b, double c) { return simt::fuse(a, b, c, simt::kUp); }
inline int __float2int_rn(float a) { return static_cast<int>(std::nearbyint(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1u) << (31 - i);
  return y;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
// PTX ISA, prmt.b32: result byte i is byte (selector nibble i & 7) of {b, a}; bit 3 replicates its sign
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i & 15;
    unsigned byte = bytes >> 8 * (choice & 7) & 255;
    if (choice & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((uint64_t{high} << 32 | low) >> (shift & 31));
}
// PTX ISA, dp4a: four products of bytes added to c, without saturation
inline int __dp4a(int a, int b, int c) {
  unsigned sum = static_cast<unsigned>(c);
  for (int i = 0; i < 4; ++i)
    sum += static_cast<unsigned>(static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i));
  return static_cast<int>(sum);
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; ++i) c += (a >> 8 * i & 255) * (b >> 8 * i & 255);
  return c;
}

#undef SIMT_CALLER
