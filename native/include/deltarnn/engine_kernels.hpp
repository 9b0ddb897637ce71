// The engine's kernels: one table per instruction set.
//
// Layout. A gate's H rows are padded with zeros to `hp`, a multiple of `row_padding`. The accumulator holds four blocks
// of hp: nx, r, z, nh of a GRU (so that an input column, nx r z, and a hidden column, r z nh, are each one contiguous
// update), i, f, g, o of an LSTM. A matrix is stored by columns, each `stride` elements apart.
#pragma once
#include <cstddef>
#include <cstdint>

#include "deltarnn/dispatch.hpp"

namespace deltarnn {

constexpr int row_padding = 16;  // elements
constexpr int tile_frames = 8;   // frames of one tile product

// The functions of a GRU's gates, and what n's products are of: r ∘ M_nh, or, with the reset before the product, M_nh
// alone.
struct GruForm {
    bool hard, relu, reset_before;
};

// Products with columns of float32 or bfloat16 weights (the upper halves of floats, as integers), in float32 either
// way.
template <class Weight>
struct ProductKernels {
    // acc[0:rows] += Σ_k matrix[:, index[k]]·delta[k], k < count: the sum by itself, its terms in the order of the
    // list, then added. rows is a multiple of row_padding; sum: room for as many.
    void (*add_columns)(float* acc, float* sum, const Weight* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                        const float* delta, int count, int rows);

    // acc[0:rows] += Σ_j matrix[:, j]·value[j], j < n: all columns, for a block of at most 32 rows at a time.
    void (*add_block)(float* acc, const Weight* matrix, std::ptrdiff_t stride, const float* value, int n, int rows);

    // out[t][0:rows] = Σ_k matrix[:, index[k]]·delta[k][t], k < count, for tile_frames frames at once: every weight is
    // read once for all of them. The same sums as those of add_columns, as a delta of 0 changes none. delta is (count,
    // tile_frames), out (tile_frames, rows).
    void (*tile_products)(float* out, const Weight* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                          const float* delta, int count, int rows);
};

struct FloatKernels {
    // Activation functions over n values, to[i] = f(from[i]): hard or smooth, σ or tanh.
    void (*apply_gate)(bool hard, bool tanh, const float* from, float* to, int n);

    // The delta encoder (MATH §1) over n values, n a multiple of row_padding. Where |v − v̂| ≥ θ, or is NaN, v̂ takes v.
    // Changes other than 0 go to (index, delta), room for n + row_padding each. Returns how many.
    int (*encode)(const float* value, float* memory, float threshold, int n, std::int32_t* index, float* delta);

    ProductKernels<float> float32;
    ProductKernels<std::uint16_t> bfloat16;

    // Gates and state update (MATH §2, §3) over hp rows; acc as above. For the LSTM h receives o ∘ tanh(c).
    void (*gru_gates)(GruForm form, const float* acc, float* h, int hp);
    // rh = σ(M_r) ∘ h, to be encoded where the reset comes before the product.
    void (*gru_reset)(bool hard, const float* acc, const float* h, float* rh, int hp);
    void (*lstm_gates)(bool hard, const float* acc, float* c, float* h, int hp);

    // Σ values, n a multiple of 128: reads memory as fast as one thread can, the floor of benchmarks.
    float (*sum)(const float* values, std::int64_t n);
};

// N(f(A(·))) by table (MATH §6): entry[clamp(q, first, last) − first]; constant beyond both ends.
struct GateTable {
    const std::int32_t* entry;
    std::int32_t first;
    std::int32_t last;
};

// A signed format: value = integer · 2^−fraction, min ≤ integer ≤ max; at most 16 bits.
struct IntFormat {
    int fraction;
    std::int32_t min, max;
};

// The formats of an int8 layer (MATH §6): of x, h and c, of what σ and tanh look up, all four A where a layer has one
// format of activations. Accumulators have memory_fraction bits, W_hr projection_fraction.
struct IntFormats {
    IntFormat input, hidden, cell, address;
    int memory_fraction, gate_fraction, projection_fraction;
    bool floor;  // rounding: down, else to nearest, ties to even
    GateTable sigmoid, tanh;
};

// Values are integers on these grids, of N for the gates' outputs.
struct Int8Kernels {
    // Rows are permuted within blocks of this many when a column is stored: see pack_column.
    int pack_block;
    void (*pack_column)(const std::int8_t* natural, std::int8_t* packed, int rows);

    // Values rounded to a format, n a multiple of row_padding. False if one is NaN.
    bool (*quantize)(const IntFormat& format, bool floor, const float* from, std::int32_t* to, int n);

    // Values with `shift` fraction bits more than `to` brought to it, n a multiple of row_padding.
    void (*rescale)(const IntFormat& to, int shift, bool floor, std::int32_t* values, int n);

    // As FloatKernels::encode, on integers; threshold ≥ 0.
    int (*encode)(const std::int32_t* value, std::int32_t* memory, std::int32_t threshold, int n, std::int32_t* index,
                  std::int32_t* delta);

    // acc[0:rows] += Σ_k matrix[:, index[k]]·delta[k], |delta[k]| ≤ 127·256 + 127, exact modulo 2³². rows is padded up
    // to int8_row_padding by the callee: acc and matrix must have room.
    void (*add_columns)(std::int32_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                        const std::int32_t* delta, int count, int rows);

    void (*gru_gates)(const IntFormats& formats, const std::int32_t* acc, std::int32_t* h, int hp);
    void (*lstm_gates)(const IntFormats& formats, const std::int32_t* acc, std::int32_t* c, std::int32_t* h, int hp);

    // The same in 64 bits, for layers whose accumulators or gates could overflow 32; columns in natural row order.
    void (*add_columns_wide)(std::int64_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride,
                             const std::int32_t* index, const std::int32_t* delta, int count, int rows);
    void (*gru_gates_wide)(const IntFormats& formats, const std::int64_t* acc, std::int32_t* h, int hp);
    void (*lstm_gates_wide)(const IntFormats& formats, const std::int64_t* acc, std::int32_t* c, std::int32_t* h,
                            int hp);
};

constexpr int int8_row_padding = 64;

DELTARNN_DECLARE_TABLE(FloatKernels, float_kernels)
DELTARNN_DECLARE_TABLE(Int8Kernels, int8_kernels)

const FloatKernels& float_kernels(Isa isa);
const Int8Kernels& int8_kernels(Isa isa);

}  // namespace deltarnn
