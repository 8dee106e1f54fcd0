// Every line of inline PTX of the project, each in a function of its own with the section of the PTX ISA that defines
// it and a plain C++ equivalent. nvcc compiles the PTX; the emulated build for tests compiles the equivalent.
//
// Equivalents of warp-wide instructions take the registers of all 32 lanes: in the emulated build the last lane to
// arrive computes the result for everyone.
#pragma once

#include <stdint.h>

namespace llmrec::ptx {

// Plain equivalents ---------------------------------------------------------------------------------------------------

namespace plain {

// IEEE 754 binary16 to binary32, exact.
inline float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3FFu;
  uint32_t pattern = 0;
  if (exponent == 31) {
    pattern = 0x7F800000u | fraction << 13;
  } else if (exponent != 0) {
    pattern = (exponent + 112) << 23 | fraction << 13;
  } else {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal: fraction * 2^-24
    __builtin_memcpy(&pattern, &magnitude, 4);
  }
  pattern |= sign;
  float value;
  __builtin_memcpy(&value, &pattern, 4);
  return value;
}

inline int byte_of(uint32_t word, int position, bool is_signed) {
  const uint32_t byte = word >> 8 * position & 255;
  return is_signed ? static_cast<int8_t>(byte) : static_cast<int>(byte);
}

inline int dp4a(uint32_t a, bool a_signed, uint32_t b, bool b_signed, int c) {
  uint32_t sum = static_cast<uint32_t>(c);  // wraps, as the instruction does
  for (int i = 0; i < 4; ++i) sum += static_cast<uint32_t>(byte_of(a, i, a_signed) * byte_of(b, i, b_signed));
  return static_cast<int>(sum);
}

// PTX ISA, "Matrix Fragments for mma.m16n8k32", integer types. Lane = 4 * group + member.
//   A, 16 x 32: byte i of register r lies in row group + 8 * (r & 1), column 4 * member + i + 16 * (r >> 1)
//   B, 32 x 8: byte i of register r lies in row 4 * member + i + 16 * r, column group
//   C and D, 16 x 8: register r lies in row group + 8 * (r >> 1), column 2 * member + (r & 1)
inline void mma_m16n8k32(int (*d)[4], const uint32_t (*a)[4], bool a_signed, const uint32_t (*b)[2], bool b_signed) {
  int left[16][32], right[32][8];
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < 4; ++i)
        left[group + 8 * (r & 1)][4 * member + i + 16 * (r >> 1)] = byte_of(a[lane][r], i, a_signed);
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < 4; ++i) right[4 * member + i + 16 * r][group] = byte_of(b[lane][r], i, b_signed);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, member = lane % 4;
    for (int r = 0; r < 4; ++r) {
      uint32_t sum = static_cast<uint32_t>(d[lane][r]);
      for (int k = 0; k < 32; ++k)
        sum += static_cast<uint32_t>(left[group + 8 * (r >> 1)][k] * right[k][2 * member + (r & 1)]);
      d[lane][r] = static_cast<int>(sum);
    }
  }
}

}  // namespace plain

// Instructions --------------------------------------------------------------------------------------------------------

#if defined(LLMREC_EMULATED)

inline float half_to_float(uint16_t bits) { return plain::half_to_float(bits); }
inline int dp4a_s8_s8(uint32_t a, uint32_t b, int c) { return plain::dp4a(a, true, b, true, c); }
inline int dp4a_u8_s8(uint32_t a, uint32_t b, int c) { return plain::dp4a(a, false, b, true, c); }

struct MmaRegisters {
  int* d;
  const uint32_t *a, *b;
};
template <bool a_signed, bool b_signed>
void mma_function(simt::Thread* const* lanes, unsigned) {
  int d[32][4];
  uint32_t a[32][4], b[32][2];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& registers = *static_cast<const MmaRegisters*>(lanes[lane]->input);
    for (int r = 0; r < 4; ++r) d[lane][r] = registers.d[r], a[lane][r] = registers.a[r];
    for (int r = 0; r < 2; ++r) b[lane][r] = registers.b[r];
  }
  plain::mma_m16n8k32(d, a, a_signed, b, b_signed);
  for (int lane = 0; lane < 32; ++lane)
    for (int r = 0; r < 4; ++r) static_cast<const MmaRegisters*>(lanes[lane]->input)->d[r] = d[lane][r];
}
template <bool a_signed, bool b_signed>
void mma(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  const MmaRegisters registers{d, a, b};
  simt::warp_operation(0xFFFFFFFFu, mma_function<a_signed, b_signed>, &registers, nullptr, "mma.m16n8k32", 0);
}
inline void mma_m16n8k32_s8_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma<true, true>(d, a, b);
}
inline void mma_m16n8k32_u8_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma<false, true>(d, a, b);
}
inline void mma_m16n8k32_s8_u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma<true, false>(d, a, b);
}

inline void cp_async_16(void* shared, const void* global) { simt::copy_async(shared, global, 16); }
inline void cp_async_commit() { simt::commit_copies(); }
template <int groups_left>
void cp_async_wait() {
  simt::wait_for_copies(groups_left);
}

template <class Word>
Word load_relaxed(const Word* address) {
  static_assert(sizeof(Word) == 4, "a word of 32 bits");
  const uint32_t bits = __atomic_load_n(reinterpret_cast<const uint32_t*>(address), __ATOMIC_RELAXED);
  Word value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

#else

// cvt.f32.f16: "Data Movement and Conversion Instructions: cvt". Exact.
__device__ __forceinline__ float half_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// dp4a: "Integer Arithmetic Instructions: dp4a", sm_61. Signedness of each operand is part of the name.
__device__ __forceinline__ int dp4a_s8_s8(uint32_t a, uint32_t b, int c) {
  int sum;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}
__device__ __forceinline__ int dp4a_u8_s8(uint32_t a, uint32_t b, int c) {
  int sum;
  asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(b), "r"(c));
  return sum;
}

// mma.m16n8k32: "Warp Level Matrix Instructions: mma", sm_80; d += a b. Two fragments of 16 columns of A, each of two
// fragments of 8 rows, have the layout of four mma.m8n8k16, which is what sm_75 executes.
#if __CUDA_ARCH__ >= 800
#define LLMREC_MMA(a_type, b_type)                                 \
  asm("mma.sync.aligned.m16n8k32.row.col.s32." a_type "." b_type   \
      ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])             \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
#define LLMREC_MMA_8(a_type, b_type, row, column)                                                    \
  asm("mma.sync.aligned.m8n8k16.row.col.s32." a_type "." b_type ".s32 {%0,%1}, {%2}, {%3}, {%0,%1};" \
      : "+r"(d[2 * (row)]), "+r"(d[2 * (row) + 1])                                                   \
      : "r"(a[(row) + 2 * (column)]), "r"(b[column]))
#define LLMREC_MMA(a_type, b_type)      \
  do {                                  \
    LLMREC_MMA_8(a_type, b_type, 0, 0); \
    LLMREC_MMA_8(a_type, b_type, 1, 0); \
    LLMREC_MMA_8(a_type, b_type, 0, 1); \
    LLMREC_MMA_8(a_type, b_type, 1, 1); \
  } while (false)
#endif
__device__ __forceinline__ void mma_m16n8k32_s8_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LLMREC_MMA("s8", "s8");
}
__device__ __forceinline__ void mma_m16n8k32_u8_s8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LLMREC_MMA("u8", "s8");
}
__device__ __forceinline__ void mma_m16n8k32_s8_u8(int (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  LLMREC_MMA("s8", "u8");
}

// cp.async: "Data Movement and Conversion Instructions: Asynchronous Data Movement", sm_80. 16 bytes from global to
// shared memory past the first-level cache; both addresses are multiples of 16. On sm_75 an ordinary copy, and nothing
// to wait for.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = *static_cast<const uint4*>(global);
#endif
}
__device__ __forceinline__ void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `groups_left` of the thread's committed groups are under way. Other threads see the bytes after a
// barrier only.
template <int groups_left>
__device__ __forceinline__ void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory");
#endif
}

// ld.relaxed.gpu: "Data Movement and Conversion Instructions: ld", sm_70. One word that other blocks change by atomics.
template <class Word>
__device__ __forceinline__ Word load_relaxed(const Word* address) {
  static_assert(sizeof(Word) == 4, "a word of 32 bits");
  uint32_t bits;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(bits) : "l"(address) : "memory");
  Word value;
  memcpy(&value, &bits, 4);
  return value;
}

#endif

}  // namespace llmrec::ptx
