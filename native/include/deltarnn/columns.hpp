// Products with chosen columns of a matrix: the heart of a delta network.
#pragma once
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

namespace detail {

constexpr int ahead = 64;  // floats: how far in front of its loads a column is prefetched

template <int count>
struct Vectors {};

// One pass over the rows for `count` columns. Every row's sum takes its terms one after the other, in the order of the
// list: from 0 in the first pass, else from what `sum` holds; in the last pass it is added to acc, else stored to
// `sum`. next: the columns of the following pass, whose heads are fetched while this one ends; or nullptr.
template <int count, class Weight>
DELTARNN_INLINE void add_some_columns(float* acc, float* sum, bool first, bool last, const Weight* const* columns,
                                      const float* deltas, int rows, const Weight* const* next) {
    const Weight* column[count];
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
    // Additions wait for each other: several vectors of rows at a time.
    const auto add = [&]<int vectors>(Vectors<vectors>, int row) DELTARNN_INLINE_LAMBDA {
        vf total[vectors];
        for (int i = 0; i < vectors; ++i) total[i] = first ? vf{} : load(sum + row + i * lanes);
#pragma GCC unroll 12
        for (int k = 0; k < count; ++k) {
            for (int i = 0; i < vectors; ++i) total[i] = fma(load(column[k] + row + i * lanes), delta[k], total[i]);
            for (int i = 0; i < vectors * lanes; i += 16) prefetch(column[k] + row + i + ahead);
        }
        for (int i = 0; i < vectors; ++i) {
            float* const to = (last ? acc : sum) + row + i * lanes;
            store(to, last ? load(to) + total[i] : total[i]);
        }
    };
    constexpr int together = 32 / lanes < 2 ? 2 : 32 / lanes;
    int row = 0;
    for (; row + together * lanes <= rows; row += together * lanes) add(Vectors<together>{}, row);
    for (; row < rows; row += 16) add(Vectors<16 / lanes>{}, row);
}

}  // namespace detail

// Columns of one pass: each more saves traffic with the sums, until pointers and sums no longer fit into registers.
constexpr int pass_columns = 12;

}  // namespace deltarnn::DELTARNN_ISA
