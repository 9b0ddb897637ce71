// A float32 delta layer: weights stored by columns, and the state of one stream over them (MATH §1–3).
#pragma once
#include <vector>

#include "deltarnn/aligned.hpp"
#include "deltarnn/layer.hpp"

namespace deltarnn {

// Parameters as PyTorch stores them: weight_ih (G·H, I), weight_hh (G·H, P), weight_hr (P, H) or nullptr, all
// row-major; memory (4H): M before the first step, in the order of the state's m.
struct FloatLayerSpec {
    LayerShape shape;
    bool bfloat16;    // how weights are stored
    bool hard, relu;  // relu: the function of a GRU's candidate
    float thx, thh;
    const float *weight_ih, *weight_hh, *memory, *weight_hr;
};

// A matrix stored by columns, padded with zeros, in float32 or, in half the bytes, bfloat16.
class WeightColumns {
  public:
    WeightColumns(bool half, int rows, int count);

    void set(int column, int row, float weight);
    std::size_t bytes() const { return float32_.size() * sizeof(float) + bfloat16_.size() * sizeof(std::uint16_t); }

    // See ProductKernels; add_block takes the block of rows that begins at `first`.
    void add(const FloatKernels& kernels, float* acc, float* sum, const std::int32_t* index, const float* delta,
             int count, int rows) const;
    void add_block(const FloatKernels& kernels, float* acc, int first, const float* value, int n, int rows) const;
    void tile_products(const FloatKernels& kernels, float* out, const std::int32_t* index, const float* delta,
                       int count, int rows) const;

  private:
    const bool half_;
    const int stride_;  // elements from column to column
    AlignedArray<float> float32_;
    AlignedArray<std::uint16_t> bfloat16_;
};

// Immutable, shared by all streams.
class FloatLayer {
  public:
    using Value = float;

    FloatLayer(const FloatLayerSpec& spec, const FloatKernels& kernels);

    const FloatKernels& kernels;
    const LayerShape shape;
    const bool hard, relu;
    const float thx, thh;
    WeightColumns input_columns, hidden_columns;  // rows() and hidden_rows() each
    WeightColumns reset_columns;                  // reset_rows() each
    WeightColumns projection_columns;             // padded_outputs() each
    AlignedArray<float> memory;                   // the accumulator before the first step
    float input_gain = 0;                         // the largest norm of a row of weight_ih: how far inputs move M
};

class FloatLayerState {
  public:
    explicit FloatLayerState(const FloatLayer& layer);

    void reset();
    void restart();  // reset, but for the counts

    // Sets h (outputs()) and, for the LSTM, c (hidden) of a state that was just restarted; nullptr leaves zeros.
    void set(const float* h, const float* c);
    const float* h() const { return h_.data(); }
    const float* c() const { return c_.data(); }

    // `frames` ≤ chunk_frames steps: x (frames, padded_input()) → y (frames, padded_outputs()), zero in the padding.
    // The same numbers, to the last bit, however a stream is cut into calls.
    void run(const float* x, int frames, float* y);

    std::vector<double> read(StateField field) const;
    const Activity& activity() const { return activity_; }

  private:
    void encode_inputs(const float* x, int frames);
    bool gather_tile(int first, int frames);
    int add_events(const AlignedArray<float>& value, AlignedArray<float>& memory, const WeightColumns& columns,
                   int offset, int rows);
    void project();
    void refresh(const float* x_hat);
    void refresh_after_fall(const float* x_hat, const std::int32_t* fired, int count);
    void refresh_block(const float* x_hat);

    const FloatLayer& layer_;
    AlignedArray<float> x_hat_, h_, h_hat_, c_, full_h_, rh_, rh_hat_, acc_, sum_;
    AlignedArray<float> held_;          // x̂ after each frame of a chunk
    AlignedArray<std::int32_t> index_;  // events of each frame of a chunk, then those of h
    AlignedArray<float> delta_;
    int count_[chunk_frames] = {};
    bool tiled_[chunk_frames / tile_frames] = {};  // whether products_ has the input products of a tile
    AlignedArray<std::int32_t> slot_,
        tile_index_;  // columns that fire anywhere in the tile, and their places in its list
    AlignedArray<float> tile_delta_;
    AlignedArray<float> products_;  // (chunk_frames, rows())
    int tile_count_ = 0;
    std::int64_t work_since_refresh_ = 0;
    int refresh_row_ = 0;
    float peak_ = 0;  // how far x̂ has moved M at most since all of M was rebuilt
    Activity activity_;
};

}  // namespace deltarnn
