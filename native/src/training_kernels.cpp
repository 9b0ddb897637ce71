// Packing of weights, and the table of the training kernels.
#include "deltarnn/training_kernels.hpp"

#include "deltarnn/training_products.hpp"
#include "deltarnn/training_sequence.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// Calls move(weight element, packed element) for all of a column-blocked packing.
template <class Move>
DELTARNN_INLINE void for_each_packed(const int* order, int gates, Index hidden, Index padded, Index columns,
                                     Index first_unit, Index last_unit, Move move) {
    for (Index unit = first_unit; unit < last_unit; unit += block_units) {
        const Index width = unit + block_units <= padded ? block_units : padded - unit;
        for (int g = 0; g < gates; ++g) {
            // Tiles of 16 columns: rows of the weight are read, and columns of the packing written, a cache line at a
            // time.
            for (Index column0 = 0; column0 < columns; column0 += 16) {
                const Index column1 = column0 + 16 < columns ? column0 + 16 : columns;
                for (Index u = 0; u < width; ++u) {
                    const bool inside = unit + u < hidden;
                    const Index row = inside ? order[g] * hidden + unit + u : -1;
                    for (Index column = column0; column < column1; ++column) {
                        move(inside ? row * columns + column : -1,
                             gates * columns * unit + (column * gates + g) * width + u);
                    }
                }
            }
        }
    }
}

void pack(const float* weight, float* packed, const int* order, int gates, Index hidden, Index padded, Index columns,
          Index first_unit, Index last_unit) {
    for_each_packed(order, gates, hidden, padded, columns, first_unit, last_unit,
                    [&](Index from, Index to)
                        __attribute__((always_inline)) { packed[to] = from < 0 ? 0.0f : weight[from]; });
}

void unpack(const float* packed, float* weight, const int* order, int gates, Index hidden, Index padded, Index columns,
            Index first_unit, Index last_unit) {
    for_each_packed(order, gates, hidden, padded, columns, first_unit, last_unit,
                    [&](Index to, Index from) __attribute__((always_inline)) {
                        if (to >= 0) weight[to] = packed[from];
                    });
}

void pack_rows(const float* weight, float* rows, const int* order, int gates, Index hidden, Index padded,
               Index columns) {
    const Index width = (columns + 15) / 16 * 16;
    for (int g = 0; g < gates; ++g) {
        for (Index unit = 0; unit < padded; ++unit) {
            float* row = rows + (g * padded + unit) * width;
            if (unit < hidden) {
                load_row(row, weight + (order[g] * hidden + unit) * columns, columns, width);
            } else {
                clear(row, width);
            }
        }
    }
}

void add(float* to, const float* from, Index n) {
    for (Index i = 0; i < n; i += lanes) store(to + i, load(to + i) + load(from + i));
}

}  // namespace

extern const TrainingKernels training_kernels = {
    pack,
    unpack,
    pack_rows,
    forward_workspace,
    forward,
    backward_workspace,
    backward_begin,
    backward_chunk,
    add_weight_gradients,
    backward_end,
    add,
    block_units,
};

}  // namespace deltarnn::DELTARNN_ISA
