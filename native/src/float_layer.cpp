#include "deltarnn/float_layer.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace deltarnn {

namespace {

// Work of rebuilding memories from the held state, as a part of the work of updating them. An element is rebuilt after
// at most as many additions as 64 full products make, however often its columns fire.
constexpr std::int64_t refresh_share = 64;
constexpr int refresh_rows = 32;
// All memories are rebuilt when the inputs move them this much less than before, and less than they may round then.
constexpr float refresh_fall = 16;

// Tile products read each weight once for 8 frames; the event form reads it for each frame in which its column fires,
// but multiplies only then. Cost of a multiplication in the event form over one in the tile form, measured
// (docs/engine.md) by where the weights stay: the first-level cache, the core's own caches, or beyond.
double event_cost(std::size_t bytes) { return bytes <= 16 << 10 ? 0.8 : bytes <= 512 << 10 ? 1.55 : 2.2; }

// To the nearest bfloat16, ties to even. Finite weights only.
std::uint16_t to_bfloat16(float weight) {
    std::uint32_t bits;
    std::memcpy(&bits, &weight, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

std::int32_t magnitude_bits(float value) { return std::bit_cast<std::int32_t>(value) & 0x7fffffff; }

}  // namespace

WeightColumns::WeightColumns(bool half, int rows, int count)
    : half_(half), stride_(column_stride(rows, half ? 2 * row_padding : row_padding)),
      float32_(half ? 0 : static_cast<std::size_t>(stride_) * count),
      bfloat16_(half ? static_cast<std::size_t>(stride_) * count : 0) {}

void WeightColumns::set(int column, int row, float weight) {
    const std::size_t at = static_cast<std::size_t>(column) * stride_ + row;
    if (half_) {
        bfloat16_[at] = to_bfloat16(weight);
    } else {
        float32_[at] = weight;
    }
}

void WeightColumns::add(const FloatKernels& kernels, float* acc, float* sum, const std::int32_t* index,
                        const float* delta, int count, int rows) const {
    half_ ? kernels.bfloat16.add_columns(acc, sum, bfloat16_.data(), stride_, index, delta, count, rows)
          : kernels.float32.add_columns(acc, sum, float32_.data(), stride_, index, delta, count, rows);
}

void WeightColumns::add_block(const FloatKernels& kernels, float* acc, int first, const float* value, int n,
                              int rows) const {
    half_ ? kernels.bfloat16.add_block(acc, bfloat16_.data() + first, stride_, value, n, rows)
          : kernels.float32.add_block(acc, float32_.data() + first, stride_, value, n, rows);
}

void WeightColumns::tile_products(const FloatKernels& kernels, float* out, const std::int32_t* index,
                                  const float* delta, int count, int rows) const {
    half_ ? kernels.bfloat16.tile_products(out, bfloat16_.data(), stride_, index, delta, count, rows)
          : kernels.float32.tile_products(out, float32_.data(), stride_, index, delta, count, rows);
}

FloatLayer::FloatLayer(const FloatLayerSpec& spec, const FloatKernels& kernel_table)
    : kernels(kernel_table), shape(spec.shape), hard(spec.hard), relu(spec.relu), thx(spec.thx), thh(spec.thh),
      input_columns(spec.bfloat16, shape.rows(), shape.input),
      hidden_columns(spec.bfloat16, shape.hidden_rows(), shape.outputs()),
      reset_columns(spec.bfloat16, shape.reset_rows(), shape.reset_before ? shape.hidden : 0),
      projection_columns(spec.bfloat16, shape.padded_outputs(), shape.projection > 0 ? shape.hidden : 0),
      memory(shape.accumulator_rows()) {
    const int hidden = shape.hidden, hp = shape.padded_hidden(), inputs = shape.input, outputs = shape.outputs();
    for (int gate = 0; gate < shape.gates(); ++gate) {
        for (int i = 0; i < hidden; ++i) {
            const std::size_t from = static_cast<std::size_t>(gate) * hidden + i;
            const int to_x = shape.input_block(gate) * hp + i;
            const bool resets = shape.reset_before && gate == 2;
            WeightColumns& columns_h = resets ? reset_columns : hidden_columns;
            const int to_h = resets ? i : shape.hidden_block(gate) * hp + i - shape.hidden_offset();
            for (int j = 0; j < inputs; ++j) input_columns.set(j, to_x, spec.weight_ih[from * inputs + j]);
            for (int j = 0; j < outputs; ++j) columns_h.set(j, to_h, spec.weight_hh[from * outputs + j]);
        }
    }
    for (int part = 0; part < 4; ++part) {
        std::copy_n(spec.memory + part * hidden, hidden, memory.data() + shape.memory_block(part) * hp);
    }
    for (std::size_t row = 0; row < static_cast<std::size_t>(shape.gates()) * hidden; ++row) {
        double squares = 0;
        for (int j = 0; j < inputs; ++j) {
            const double weight = spec.weight_ih[row * inputs + j];
            squares += weight * weight;
        }
        input_gain = std::max(input_gain, static_cast<float>(std::sqrt(squares)));
    }
    if (shape.projection > 0) {
        for (int p = 0; p < outputs; ++p) {
            for (int i = 0; i < hidden; ++i) {
                projection_columns.set(i, p, spec.weight_hr[static_cast<std::size_t>(p) * hidden + i]);
            }
        }
    }
}

FloatLayerState::FloatLayerState(const FloatLayer& layer)
    : layer_(layer), x_hat_(layer.shape.padded_input()), h_(layer.shape.padded_outputs()),
      h_hat_(layer.shape.padded_outputs()), c_(layer.shape.cell == Cell::lstm ? layer.shape.padded_hidden() : 0),
      full_h_(layer.shape.projection > 0 ? layer.shape.padded_hidden() : 0), rh_(layer.shape.reset_rows()),
      rh_hat_(layer.shape.reset_rows()), acc_(layer.shape.accumulator_rows()), sum_(layer.shape.rows()),
      held_(static_cast<std::size_t>(chunk_frames) * layer.shape.padded_input()),
      index_(static_cast<std::size_t>(chunk_frames) * (layer.shape.padded_input() + row_padding) +
             layer.shape.padded_outputs() + row_padding),
      delta_(index_.size()), slot_(layer.shape.padded_input()), tile_index_(layer.shape.padded_input()),
      tile_delta_(static_cast<std::size_t>(tile_frames) * layer.shape.padded_input()),
      products_(static_cast<std::size_t>(chunk_frames) * layer.shape.rows()) {
    reset();
}

void FloatLayerState::reset() {
    restart();
    activity_ = {};
}

void FloatLayerState::restart() {
    for (AlignedArray<float>* part : {&x_hat_, &h_, &h_hat_, &c_, &rh_hat_})
        std::fill_n(part->data(), part->size(), 0.0f);
    std::copy_n(layer_.memory.data(), acc_.size(), acc_.data());
    work_since_refresh_ = 0;
    refresh_row_ = 0;
    peak_ = 0;
}

void FloatLayerState::set(const float* h, const float* c) {
    if (h != nullptr) std::copy_n(h, layer_.shape.outputs(), h_.data());
    if (c != nullptr && layer_.shape.cell == Cell::lstm) std::copy_n(c, layer_.shape.hidden, c_.data());
}

void FloatLayerState::run(const float* x, int frames, float* y) {
    const LayerShape& shape = layer_.shape;
    const FloatKernels& kernels = layer_.kernels;
    const int ip = shape.padded_input(), op = shape.padded_outputs(), hp = shape.padded_hidden(), rows = shape.rows();
    const int per_frame = ip + row_padding;
    encode_inputs(x, frames);
    for (int t = 0; t < frames; ++t) {
        const int count_h = add_events(h_, h_hat_, layer_.hidden_columns, shape.hidden_offset(), shape.hidden_rows());
        if (tiled_[t / tile_frames]) {
            const float* product = products_.data() + t * rows;
            for (int row = 0; row < rows; ++row) acc_[row] += product[row];
        } else {
            layer_.input_columns.add(kernels, acc_.data(), sum_.data(), index_.data() + t * per_frame,
                                     delta_.data() + t * per_frame, count_[t], rows);
        }
        if (count_[t] > 0) refresh_after_fall(held_.data() + t * ip, index_.data() + t * per_frame, count_[t]);
        int count_rh = 0;
        if (shape.reset_before) {
            kernels.gru_reset(layer_.hard, acc_.data(), h_.data(), rh_.data(), hp);
            std::fill(rh_.data() + shape.hidden, rh_.data() + hp, 0.0f);
            count_rh = add_events(rh_, rh_hat_, layer_.reset_columns, shape.reset_offset(), shape.reset_rows());
        }
        activity_.fired_x += count_[t];
        activity_.fired_h += count_h;
        activity_.fired_rh += count_rh;
        if (shape.cell == Cell::gru) {
            kernels.gru_gates({layer_.hard, layer_.relu, shape.reset_before}, acc_.data(), h_.data(), hp);
        } else if (shape.projection == 0) {
            kernels.lstm_gates(layer_.hard, acc_.data(), c_.data(), h_.data(), hp);
        } else {
            kernels.lstm_gates(layer_.hard, acc_.data(), c_.data(), full_h_.data(), hp);
            project();
        }
        // NaN and infinity times the zeros that columns are padded with are NaN, which must not fire there: no column
        // is theirs.
        std::fill(h_.data() + shape.outputs(), h_.data() + op, 0.0f);
        std::memcpy(y + t * op, h_.data(), op * sizeof(float));
        work_since_refresh_ += std::int64_t{count_[t]} * rows + std::int64_t{count_h} * shape.hidden_rows() +
                               std::int64_t{count_rh} * shape.reset_rows();
        refresh(held_.data() + t * ip);
    }
    activity_.steps += frames;
}

// The changes of h, or of r ∘ h, and their products. Returns how many there were.
int FloatLayerState::add_events(const AlignedArray<float>& value, AlignedArray<float>& memory,
                                const WeightColumns& columns, int offset, int rows) {
    const std::size_t free = static_cast<std::size_t>(chunk_frames) * (layer_.shape.padded_input() + row_padding);
    std::int32_t* const index = index_.data() + free;
    float* const delta = delta_.data() + free;
    const int count =
        layer_.kernels.encode(value.data(), memory.data(), layer_.thh, static_cast<int>(value.size()), index, delta);
    columns.add(layer_.kernels, acc_.data() + offset, sum_.data(), index, delta, count, rows);
    return count;
}

// The events of all frames, which do not wait for h, and where it is cheaper their products, tile by tile.
void FloatLayerState::encode_inputs(const float* x, int frames) {
    const int ip = layer_.shape.padded_input(), rows = layer_.shape.rows(), per_frame = ip + row_padding;
    for (int t = 0; t < frames; ++t) {
        count_[t] = layer_.kernels.encode(x + t * ip, x_hat_.data(), layer_.thx, ip, index_.data() + t * per_frame,
                                          delta_.data() + t * per_frame);
        std::copy_n(x_hat_.data(), ip, held_.data() + t * ip);
    }
    for (int first = 0; first < frames; first += tile_frames) {
        const bool tiled = frames - first > 1 && gather_tile(first, std::min(tile_frames, frames - first));
        tiled_[first / tile_frames] = tiled;
        if (tiled) {
            layer_.input_columns.tile_products(layer_.kernels, products_.data() + first * rows, tile_index_.data(),
                                               tile_delta_.data(), tile_count_, rows);
        }
    }
}

// The columns that fire in any of the tile's frames, with their deltas in all of them. False where the event form is
// cheaper.
bool FloatLayerState::gather_tile(int first, int frames) {
    const int per_frame = layer_.shape.padded_input() + row_padding;
    const double cost = event_cost(layer_.input_columns.bytes());
    double events = 0;
    int most = 0;
    for (int t = first; t < first + frames; ++t) {
        events += count_[t];
        most = std::max(most, count_[t]);
    }
    if (events * cost <= static_cast<double>(most) * tile_frames) return false;
    std::fill_n(slot_.data(), slot_.size(), -1);
    for (int t = first; t < first + frames; ++t) {
        for (int k = 0; k < count_[t]; ++k) slot_[index_[t * per_frame + k]] = 0;
    }
    // Columns in rising order, as in each frame's own list: the order of the sums.
    tile_count_ = 0;
    for (int j = 0; j < layer_.shape.input; ++j) {
        if (slot_[j] < 0) continue;
        tile_index_[tile_count_] = j;
        slot_[j] = tile_count_++;
    }
    if (events * cost <= static_cast<double>(tile_count_) * tile_frames) return false;
    std::fill_n(tile_delta_.data(), tile_count_ * tile_frames, 0.0f);
    for (int t = 0; t < frames; ++t) {
        const int from = (first + t) * per_frame;
        for (int k = 0; k < count_[first + t]; ++k)
            tile_delta_[slot_[index_[from + k]] * tile_frames + t] = delta_[from + k];
    }
    return true;
}

// h = W_hr (o ∘ tanh(c)): dense, every step.
void FloatLayerState::project() {
    const int op = layer_.shape.padded_outputs();
    std::fill_n(h_.data(), op, 0.0f);
    for (int row = 0; row < op;) {
        const int here = op - row >= refresh_rows ? refresh_rows : row_padding;
        layer_.projection_columns.add_block(layer_.kernels, h_.data() + row, row, full_h_.data(), layer_.shape.hidden,
                                            here);
        row += here;
    }
}

// Every addition to M rounds. M = W x̂ + U ĥ + b by the held-state identity (MATH §4), so it can be computed anew at any
// time: a few rows at once, when enough was added to have paid for it. x_hat is that of the frame just computed,
// however far inputs are encoded: a row is refreshed at the same frame, from the same values, whether frames come
// singly or together.
void FloatLayerState::refresh(const float* x_hat) {
    const std::int64_t block_work =
        static_cast<std::int64_t>(refresh_rows) * (layer_.shape.input + layer_.shape.outputs());
    while (work_since_refresh_ >= refresh_share * block_work) {
        work_since_refresh_ -= refresh_share * block_work;
        refresh_block(x_hat);
    }
}

// What a sum rounds stays in it when the large values that made it round are gone, where a dense product would forget
// it: the fall of an input from 10⁴ to 1 would leave 10⁻³. So all of M is rebuilt there, before the gates read it, and
// after an infinity, whose difference to the next one is none.
void FloatLayerState::refresh_after_fall(const float* x_hat, const std::int32_t* fired, int count) {
    std::int32_t bits = 0;  // of the largest |x̂|: their order is that of the numbers
    for (int k = 0; k < count; ++k) bits = std::max(bits, magnitude_bits(x_hat[fired[k]]));
    const float reached = std::max(peak_, layer_.input_gain * std::bit_cast<float>(bits));
    if (reached <= refresh_fall) {  // as nearly always: then no fall matters, and only what fired can have risen
        peak_ = reached;
        return;
    }
    for (int j = 0; j < layer_.shape.padded_input(); ++j) bits = std::max(bits, magnitude_bits(x_hat[j]));
    const float now = layer_.input_gain * std::bit_cast<float>(bits);
    if (std::isfinite(peak_) && peak_ <= refresh_fall * std::max(1.0f, now)) {
        peak_ = std::max(peak_, now);
        return;
    }
    peak_ = now;
    work_since_refresh_ = 0;
    const int first = refresh_row_;
    do refresh_block(x_hat);
    while (refresh_row_ != first);
}

void FloatLayerState::refresh_block(const float* x_hat) {
    const LayerShape& shape = layer_.shape;
    const int hp = shape.padded_hidden(), rows = shape.rows();
    const int row = refresh_row_;
    const int here = row % hp + refresh_rows <= hp ? refresh_rows : row_padding;
    std::copy_n(layer_.memory.data() + row, here, acc_.data() + row);
    if (row < rows) {
        layer_.input_columns.add_block(layer_.kernels, acc_.data() + row, row, x_hat, shape.input, here);
    }
    if (shape.reset_before && row >= shape.reset_offset()) {
        layer_.reset_columns.add_block(layer_.kernels, acc_.data() + row, row - shape.reset_offset(), rh_hat_.data(),
                                       shape.hidden, here);
    } else if (row >= shape.hidden_offset()) {
        layer_.hidden_columns.add_block(layer_.kernels, acc_.data() + row, row - shape.hidden_offset(), h_hat_.data(),
                                        shape.outputs(), here);
    }
    refresh_row_ = (row + here) % shape.accumulator_rows();
}

std::vector<double> FloatLayerState::read(StateField field) const {
    const LayerShape& shape = layer_.shape;
    switch (field) {
        case StateField::x_hat: return {x_hat_.data(), x_hat_.data() + shape.input};
        case StateField::h: return {h_.data(), h_.data() + shape.outputs()};
        case StateField::h_hat: return {h_hat_.data(), h_hat_.data() + shape.outputs()};
        case StateField::rh_hat: return {rh_hat_.data(), rh_hat_.data() + (shape.reset_before ? shape.hidden : 0)};
        case StateField::c: return {c_.data(), c_.data() + (shape.cell == Cell::lstm ? shape.hidden : 0)};
        default: return unpadded_memory(shape, acc_.data(), 1.0);
    }
}

}  // namespace deltarnn
