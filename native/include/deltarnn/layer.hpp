// Shapes, accumulator layout and event counts, common to float and int8 layers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "deltarnn/engine_kernels.hpp"

namespace deltarnn {

enum class Cell { gru, lstm };

// Frames are processed in chunks: a layer runs a whole chunk, the products of its inputs first, before the next layer
// starts, so that only one weight matrix at a time competes for the caches. A multiple of tile_frames.
constexpr int chunk_frames = 128;

inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Elements from one stored column to the next: an odd number of cache lines of `line` elements. An even number, at
// worst a multiple of 4 KiB, would map the same rows of all columns of a pass to few sets of the cache, where they
// evict each other.
inline int column_stride(int rows, int line) { return ((rows + line - 1) / line | 1) * line; }

// Sizes of one layer. projection is 0, or the size of an LSTM's projected h. reset_before: a GRU whose reset gate is
// applied before the product, so that a column of h feeds r and z alone, and r ∘ h has columns of its own, which feed
// nh.
struct LayerShape {
    Cell cell;
    int input;
    int hidden;
    int projection;
    bool reset_before = false;

    int outputs() const { return projection > 0 ? projection : hidden; }
    int gates() const { return cell == Cell::gru ? 3 : 4; }
    int padded_input() const { return round_up(input, row_padding); }
    int padded_hidden() const { return round_up(hidden, row_padding); }
    int padded_outputs() const { return round_up(outputs(), row_padding); }
    int rows() const { return gates() * padded_hidden(); }  // of a stored column
    int hidden_rows() const { return reset_before ? 2 * padded_hidden() : rows(); }
    int reset_rows() const { return reset_before ? padded_hidden() : 0; }
    int accumulator_rows() const { return 4 * padded_hidden(); }
    int hidden_offset() const { return cell == Cell::gru ? padded_hidden() : 0; }  // where a hidden column adds
    int reset_offset() const { return 3 * padded_hidden(); }                       // where a column of r ∘ h adds

    // The accumulator's block of PyTorch's gate g, for input columns and for hidden columns.
    int input_block(int gate) const { return cell == Cell::gru ? (gate + 1) % 3 : gate; }  // r z n → nx r z
    int hidden_block(int gate) const { return cell == Cell::gru ? gate + 1 : gate; }       // r z n → r z nh
    // The accumulator's block of part p of the state's m: r, z, nx, nh or i, f, g, o.
    int memory_block(int part) const { return cell == Cell::gru && part < 3 ? (part + 1) % 3 : part; }
};

// std::invalid_argument for sizes that no layer has.
void check(const LayerShape& shape);

// Deltas that were not 0, counted exactly.
struct Activity {
    std::uint64_t steps = 0;
    std::uint64_t fired_x = 0;
    std::uint64_t fired_h = 0;
    std::uint64_t fired_rh = 0;
};

// Parts of the delta state, as in deltarnn.nn.state.
enum class StateField { x_hat, h, h_hat, rh_hat, c, m };

// The accumulator, times scale, in the order of the state's m, without the padding.
template <class T>
std::vector<double> unpadded_memory(const LayerShape& shape, const T* acc, double scale) {
    std::vector<double> m;
    for (int part = 0; part < 4; ++part) {
        const T* block = acc + shape.memory_block(part) * shape.padded_hidden();
        for (int i = 0; i < shape.hidden; ++i) m.push_back(static_cast<double>(block[i]) * scale);
    }
    return m;
}

}  // namespace deltarnn
