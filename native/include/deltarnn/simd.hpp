// Vectors of the instruction set a kernel source is being compiled for.
//
// Included by *_kernels.cpp only. Everything here and in the other per-instruction-set headers lives in the namespace
// deltarnn::DELTARNN_ISA. Such sources use no inline function or template of the standard library, and no inline
// function outside that namespace: the linker keeps one copy of those for the whole program, and it must not be one
// that was compiled for a CPU this program may not be running on.
#pragma once
#include <cstddef>
#include <cstdint>

#ifndef DELTARNN_ISA
#error "compile per-instruction-set sources with -DDELTARNN_ISA=<name> and -DDELTARNN_ISA_<NAME>"
#endif

#if defined(DELTARNN_ISA_AVX2) || defined(DELTARNN_ISA_AVX512)
#include <immintrin.h>
#elif defined(DELTARNN_ISA_NEON)
#include <arm_neon.h>
#endif

#define DELTARNN_INLINE inline __attribute__((always_inline))
#define DELTARNN_INLINE_LAMBDA __attribute__((always_inline))

namespace deltarnn::DELTARNN_ISA {

// Floats per vector. Rows are padded to row_padding floats whatever the instruction set (engine_kernels.hpp).
#if defined(DELTARNN_ISA_AVX512)
constexpr int lanes = 16;
#elif defined(DELTARNN_ISA_AVX2)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

typedef float vf __attribute__((vector_size(lanes * 4)));
typedef std::int32_t vi __attribute__((vector_size(lanes * 4)));   // also the result of comparing two vf or vi: −1 or 0
typedef std::uint32_t vu __attribute__((vector_size(lanes * 4)));  // for sums that may wrap

namespace detail {
typedef float vf_any __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef std::int32_t vi_any __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef std::uint16_t half_any __attribute__((vector_size(lanes * 2), aligned(2), may_alias));
}  // namespace detail

// Loads and stores need no more alignment than the element has.
DELTARNN_INLINE vf load(const float* from) { return *reinterpret_cast<const detail::vf_any*>(from); }
DELTARNN_INLINE vi load(const std::int32_t* from) { return *reinterpret_cast<const detail::vi_any*>(from); }
// bfloat16: the upper half of a float.
DELTARNN_INLINE vf load(const std::uint16_t* from) {
#if defined(DELTARNN_ISA_AVX512)
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return (vf)_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, halves),
                                       16);  // GCC 12 warns of the plain ones
#elif defined(DELTARNN_ISA_AVX2)
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
#else
    return (vf)(__builtin_convertvector(*reinterpret_cast<const detail::half_any*>(from), vi) << 16);
#endif
}
DELTARNN_INLINE void store(float* to, vf value) { *reinterpret_cast<detail::vf_any*>(to) = value; }
DELTARNN_INLINE void store(std::int32_t* to, vi value) { *reinterpret_cast<detail::vi_any*>(to) = value; }
DELTARNN_INLINE vf splat(float value) { return value - vf{}; }  // x − 0 is x, also for −0
DELTARNN_INLINE vi splat(std::int32_t value) { return value - vi{}; }

// a·b + c, in one rounding where the instruction set has it.
DELTARNN_INLINE vf fma(vf a, vf b, vf c) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(DELTARNN_ISA_AVX2)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(DELTARNN_ISA_NEON)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// Where `a` is NaN, minimum and maximum return it: NaN passes through every function built on them. (x86's instructions
// return the second operand where either is NaN; the compiler does not find them.)
DELTARNN_INLINE vf minimum(vf a, vf b) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_maskz_min_ps(0xffff, b, a);  // GCC 12 warns of the plain one
#elif defined(DELTARNN_ISA_AVX2)
    return _mm256_min_ps(b, a);
#else
    return b < a ? b : a;
#endif
}
DELTARNN_INLINE vf maximum(vf a, vf b) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_maskz_max_ps(0xffff, b, a);
#elif defined(DELTARNN_ISA_AVX2)
    return _mm256_max_ps(b, a);
#else
    return b > a ? b : a;
#endif
}
DELTARNN_INLINE vi minimum(vi a, vi b) { return b < a ? b : a; }
DELTARNN_INLINE vi maximum(vi a, vi b) { return b > a ? b : a; }

DELTARNN_INLINE vf absolute(vf a) { return (vf)((vi)a & 0x7fffffff); }

DELTARNN_INLINE float sum(vf a) {
    float total = 0.0f;
    for (int i = 0; i < lanes; ++i) total += a[i];
    return total;
}

DELTARNN_INLINE void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }
DELTARNN_INLINE void prefetch_to_write(const void* address) { __builtin_prefetch(address, 1, 3); }

}  // namespace deltarnn::DELTARNN_ISA
