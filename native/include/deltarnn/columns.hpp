// Products with chosen columns of a matrix: the heart of a delta network.
#pragma once
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

namespace detail {

// acc[0:rows] += Σ_k columns[k]·deltas[k], k < count, one pass over acc: acc is loaded and stored once for `count` columns.
template <int count>
DELTARNN_INLINE void add_some_columns(float* acc, const float* const* columns, const float* deltas, int rows,
                                      const float* const* next) {
    for (int row = 0; row < rows; row += lanes) {
        vf sum = load(acc + row);
#pragma GCC unroll 8
        for (int k = 0; k < count; ++k) {
            sum = fma(load(columns[k] + row), splat(deltas[k]), sum);
            if (next != nullptr && row % 16 == 0) prefetch(next[k] + row);
        }
        store(acc + row, sum);
    }
}

}  // namespace detail

// acc[0:rows] += Σ_k columns[k][0:rows]·deltas[k], k < count. rows is a multiple of 16.
DELTARNN_INLINE void add_columns(float* acc, const float* const* columns, const float* deltas, int count, int rows) {
    int k = 0;
    for (; k + 8 <= count; k += 8) {
        const bool more = k + 16 <= count;
        detail::add_some_columns<8>(acc, columns + k, deltas + k, rows, more ? columns + k + 8 : nullptr);
    }
    if (k + 4 <= count) {
        detail::add_some_columns<4>(acc, columns + k, deltas + k, rows, nullptr);
        k += 4;
    }
    if (k + 2 <= count) {
        detail::add_some_columns<2>(acc, columns + k, deltas + k, rows, nullptr);
        k += 2;
    }
    if (k < count) detail::add_some_columns<1>(acc, columns + k, deltas + k, rows, nullptr);
}

}  // namespace deltarnn::DELTARNN_ISA
