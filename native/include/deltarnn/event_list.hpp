// Compaction: the lanes of a vector that fired, appended to a list of events.
#pragma once
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

// Bit i: element i of a comparison is true.
DELTARNN_INLINE std::uint32_t bits(vi comparison) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_movepi32_mask((__m512i)comparison);
#elif defined(DELTARNN_ISA_AVX2)
    return static_cast<std::uint32_t>(_mm256_movemask_ps((__m256)comparison));
#else
    std::uint32_t result = 0;
    for (int i = 0; i < lanes; ++i) result |= (static_cast<std::uint32_t>(comparison[i]) & 1u) << i;
    return result;
#endif
}

// Lists the elements of a vector whose bit is set: `first` + lane in index, the element in value; both have room for a
// whole vector. Returns how many.
template <class Vector, class Value>
DELTARNN_INLINE int list_chosen(std::uint32_t mask, int first, Vector from, std::int32_t* index, Value* value) {
#if defined(DELTARNN_ISA_AVX512)
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 chosen = static_cast<__mmask16>(mask);
    const __m512i where = _mm512_add_epi32(_mm512_set1_epi32(first), lane);
    // Compressed in registers: compressing stores are slow on some CPUs.
    store(index, (vi)_mm512_maskz_compress_epi32(chosen, where));
    store(value, (Vector)_mm512_maskz_compress_epi32(chosen, (__m512i)from));
    return __builtin_popcount(mask);
#else
    int count = 0;
    for (; mask != 0; mask &= mask - 1) {
        const int lane = __builtin_ctz(mask);
        index[count] = first + lane;
        value[count++] = from[lane];
    }
    return count;
#endif
}

// The same, of the elements for which a comparison is true.
template <class Vector, class Value>
DELTARNN_INLINE int list_chosen(vi comparison, int first, Vector from, std::int32_t* index, Value* value) {
#if defined(DELTARNN_ISA_AVX512) || defined(DELTARNN_ISA_AVX2)
    return list_chosen(bits(comparison), first, from, index, value);
#else
    int count = 0;
    for (int lane = 0; lane < lanes; ++lane) {  // without a branch
        index[count] = first + lane;
        value[count] = from[lane];
        count -= comparison[lane];
    }
    return count;
#endif
}

}  // namespace deltarnn::DELTARNN_ISA
