// Products with chosen columns of a matrix: the heart of a delta network.
#pragma once
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

namespace detail {

constexpr int ahead = 64;  // floats: how far in front of its loads a column is prefetched

// acc[0:rows] += Σ_k columns[k]·deltas[k], k < count, in one pass over acc: acc is loaded and stored once for `count` columns.
// next: the columns of the following pass, whose heads are fetched while this one ends; or nullptr.
template <int count>
DELTARNN_INLINE void add_some_columns(float* acc, const float* const* columns, const float* deltas, int rows,
                                      const float* const* next) {
    const float* column[count];
    vf delta[count];
    for (int k = 0; k < count; ++k) {
        column[k] = columns[k];
        delta[k] = splat(deltas[k]);
    }
    if (next != nullptr) {
        for (int k = 0; k < count; ++k) {
            for (int row = 0; row < ahead; row += 16) prefetch(next[k] + row);
        }
    }
    for (int row = 0; row < rows; row += lanes) {
        vf even = load(acc + row), odd = {};
#pragma GCC unroll 12
        for (int k = 0; k < count; ++k) {
            vf& sum = k % 2 == 0 ? even : odd;
            sum = fma(load(column[k] + row), delta[k], sum);
            if (row % 16 == 0) prefetch(column[k] + row + ahead);
        }
        store(acc + row, even + odd);
    }
}

}  // namespace detail

// Columns of one pass: each more saves traffic with acc, until pointers and sums no longer fit into registers.
constexpr int pass_columns = 12;

// acc[0:rows] += Σ_k columns[k][0:rows]·deltas[k], k < count. rows is a multiple of 16.
DELTARNN_INLINE void add_columns(float* acc, const float* const* columns, const float* deltas, int count, int rows) {
    int k = 0;
    for (; k + pass_columns <= count; k += pass_columns) {
        const bool more = k + 2 * pass_columns <= count;
        detail::add_some_columns<pass_columns>(acc, columns + k, deltas + k, rows, more ? columns + k + pass_columns : nullptr);
    }
    if (k + 8 <= count) {
        detail::add_some_columns<8>(acc, columns + k, deltas + k, rows, nullptr);
        k += 8;
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
