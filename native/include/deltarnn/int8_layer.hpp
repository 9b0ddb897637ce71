// A fixed-point delta layer: int8 weights, activations of at most 16 bits, exact accumulators (MATH §6).
#pragma once
#include <vector>

#include "deltarnn/aligned.hpp"
#include "deltarnn/layer.hpp"

namespace deltarnn {

// σ and tanh over the address format in units of N's steps, without their constant ends: entry k belongs to the address
// first + k.
struct TableSpec {
    std::int32_t first;
    std::vector<std::int32_t> entries;
};

struct FormatSpec {
    int bits, fraction;
};

// Formats as of IntFormats. Parameters as integers, each matrix on its own grid, shaped as PyTorch's (see
// FloatLayerSpec), such that input and W_ih have memory_fraction fraction bits together, as have hidden and W_hh;
// memory (4H) in units of 2^−memory_fraction.
struct Int8LayerSpec {
    LayerShape shape;
    FormatSpec input, hidden, cell, address;
    int memory_fraction, gate_fraction, projection_fraction;
    bool floor;
    std::int32_t thx, thh;
    TableSpec sigmoid, tanh;
    const std::int8_t *weight_ih, *weight_hh;
    const std::int64_t* memory;
    const std::int8_t* weight_hr;
};

// std::invalid_argument for formats and tables that no layer has.
void check(const Int8LayerSpec& spec);

// Whether int32 holds everything. M = W x̂ + U ĥ + b with |x̂|, |ĥ| ≤ 2^(bits − 1), each of its own format, so a row's
// memory is at most |b| + Σ|w|·2^(bits − 1); sums on the way may wrap, the result does not. The gates' terms are
// bounded by their formats. std::invalid_argument if a bias has more than 62 bits.
bool needs_wide(const Int8LayerSpec& spec);

// Immutable, shared by all streams.
class Int8Layer {
  public:
    using Value = std::int32_t;

    Int8Layer(const Int8LayerSpec& spec, const Int8Kernels& kernels);
    Int8Layer(const Int8Layer&) = delete;  // `formats` points into the tables

    const Int8Kernels& kernels;
    const LayerShape shape;
    const std::int32_t thx, thh;
    const std::ptrdiff_t stride, projection_stride;
    // 64-bit accumulators and gates: where some state within the formats' ranges could overflow 32 bits.
    const bool wide;
    AlignedArray<std::int8_t> input_columns, hidden_columns, projection_columns;
    AlignedArray<std::int64_t> memory;
    AlignedArray<std::int32_t> sigmoid_entries, tanh_entries;
    IntFormats formats;
};

class Int8LayerState {
  public:
    explicit Int8LayerState(const Int8Layer& layer);

    void reset();
    void restart();  // reset, but for the counts

    // As FloatLayerState::set, values rounded to their formats. False, and nothing is set, if one is NaN.
    bool set(const float* h, const float* c);
    const std::int32_t* h() const { return h_.data(); }
    const std::int32_t* c() const { return c_.data(); }

    // `frames` ≤ chunk_frames steps: x (frames, padded_input()) → y (frames, padded_outputs()), zero in the padding.
    void run(const std::int32_t* x, int frames, std::int32_t* y);

    std::vector<double> read(StateField field) const;
    const Activity& activity() const { return activity_; }

  private:
    int split_large(int count);
    void add_columns(int offset, const AlignedArray<std::int8_t>& columns, int count);
    void project();

    const Int8Layer& layer_;
    AlignedArray<std::int32_t> x_hat_, h_, h_hat_, c_, full_h_, acc_;
    AlignedArray<std::int64_t> wide_acc_;
    AlignedArray<std::int32_t> index_, delta_;
    AlignedArray<std::int32_t> projected_;  // sums of the projection before rounding, 32 or 64 bits wide
    AlignedArray<std::int64_t> wide_projected_;
    Activity activity_;
};

}  // namespace deltarnn
