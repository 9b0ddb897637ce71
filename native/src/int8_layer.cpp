#include "deltarnn/int8_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <stdexcept>

namespace deltarnn {

namespace {

constexpr std::int32_t largest_event = 127 * 256 + 127;  // see add_columns of Int8Kernels

IntFormat int_format(const FormatSpec& spec) {
    const std::int32_t limit = std::int32_t{1} << (spec.bits - 1);
    return {spec.fraction, -limit, limit - 1};
}

GateTable gate_table(const TableSpec& spec, AlignedArray<std::int32_t>& entries) {
    std::copy(spec.entries.begin(), spec.entries.end(), entries.data());
    return {entries.data(), spec.first, spec.first + static_cast<std::int32_t>(spec.entries.size()) - 1};
}

// A matrix (blocks·rows_per_block, columns), row-major, stored by columns in the accumulator's order.
template <class Destination>
void store_columns(const Int8Layer& layer, const std::int8_t* weight, int gates, int rows_per_gate, int columns,
                   std::ptrdiff_t stride, Destination destination, AlignedArray<std::int8_t>& stored) {
    std::vector<std::int8_t> column(stride);
    for (int j = 0; j < columns; ++j) {
        for (int gate = 0; gate < gates; ++gate) {
            for (int i = 0; i < rows_per_gate; ++i) {
                column[destination(gate) + i] =
                    weight[(static_cast<std::size_t>(gate) * rows_per_gate + i) * columns + j];
            }
        }
        if (layer.wide) {
            std::copy(column.begin(), column.end(), stored.data() + j * stride);
        } else {
            layer.kernels.pack_column(column.data(), stored.data() + j * stride, static_cast<int>(stride));
        }
    }
}

}  // namespace

void check(const Int8LayerSpec& spec) {
    if (spec.shape.reset_before) throw std::invalid_argument("an int8 layer resets after the product");
    for (const FormatSpec& format : {spec.input, spec.hidden, spec.cell, spec.address}) {
        if (format.bits < 1 || format.bits > 16 || format.fraction < 0 || format.fraction > 15) {
            throw std::invalid_argument("a format has at most 16 bits, 15 of them after the point");
        }
    }
    if (spec.memory_fraction < spec.address.fraction || spec.memory_fraction > spec.address.fraction + 30 ||
        spec.projection_fraction < 0 || spec.projection_fraction > 30 || spec.gate_fraction < 0 ||
        spec.gate_fraction > 15) {
        throw std::invalid_argument(
            "formats out of range: at most 16 bits for gates, and no memory coarser than what gates look up");
    }
    const std::int64_t last = (std::int64_t{1} << (spec.address.bits - 1)) - 1,
                       largest = std::int64_t{1} << spec.gate_fraction;
    for (const TableSpec* table : {&spec.sigmoid, &spec.tanh}) {
        if (table->entries.empty()) throw std::invalid_argument("a table needs at least one entry");
        const std::int64_t end = table->first + static_cast<std::int64_t>(table->entries.size()) - 1;
        const auto beyond = [&](std::int32_t entry) { return std::abs(std::int64_t{entry}) > largest; };
        if (table->first < -last - 1 || end > last ||
            std::any_of(table->entries.begin(), table->entries.end(), beyond)) {
            throw std::invalid_argument("a table is of addresses within their format, and of values within −1…1");
        }
    }
}

bool needs_wide(const Int8LayerSpec& s) {
    const LayerShape& shape = s.shape;
    const std::int64_t limit = std::numeric_limits<std::int32_t>::max();
    const std::int64_t largest_x = std::int64_t{1} << (s.input.bits - 1),
                       largest_h = std::int64_t{1} << (s.hidden.bits - 1);
    const auto magnitude = [](const std::int8_t* row, int n) {
        return std::accumulate(row, row + n, std::int64_t{0},
                               [](std::int64_t sum, std::int8_t w) { return sum + std::abs(int{w}); });
    };
    const int inputs = shape.input, outputs = shape.outputs(), hidden = shape.hidden;
    const std::int64_t largest = std::int64_t{1} << 62;
    if (std::any_of(s.memory, s.memory + 4 * hidden, [&](std::int64_t m) { return m > largest || m < -largest; })) {
        throw std::invalid_argument("a memory has more than 62 bits");
    }
    for (int row = 0; row < shape.gates() * hidden; ++row) {
        const std::int64_t products =
            magnitude(s.weight_ih + static_cast<std::size_t>(row) * inputs, inputs) * largest_x +
            magnitude(s.weight_hh + static_cast<std::size_t>(row) * outputs, outputs) * largest_h;
        // The GRU's n has two memories, nx and nh; the bound is of both together.
        std::int64_t bias = std::abs(s.memory[row]);
        if (shape.cell == Cell::gru && row >= 2 * hidden) bias = std::max(bias, std::abs(s.memory[row + hidden]));
        if (products + bias > limit) return true;
    }
    for (int p = 0; p < shape.projection; ++p) {
        if (magnitude(s.weight_hr + static_cast<std::size_t>(p) * hidden, hidden) * largest_h > limit) return true;
    }
    const int a = s.cell.fraction, w = s.memory_fraction - s.address.fraction, n = s.gate_fraction;
    if (w > 13) return true;                     // 2¹⁷·2^w, see Gates::limited
    if (shape.cell == Cell::gru) return n > 13;  // r ∘ M_nh, as far as M_nx
    const int common = std::max(a, n);
    return s.cell.bits - 1 + n + common - a > 29 || n + common > 29;  // f ∘ c and i ∘ g, to be added
}

Int8Layer::Int8Layer(const Int8LayerSpec& s, const Int8Kernels& kernel_table)
    : kernels(kernel_table), shape(s.shape), thx(s.thx), thh(s.thh),
      stride(column_stride(shape.rows(), int8_row_padding)),
      projection_stride(column_stride(shape.outputs(), int8_row_padding)), wide(needs_wide(s)),
      input_columns(stride * shape.input), hidden_columns(stride * shape.outputs()),
      projection_columns(shape.projection > 0 ? projection_stride * shape.hidden : 0), memory(shape.accumulator_rows()),
      sigmoid_entries(s.sigmoid.entries.size()), tanh_entries(s.tanh.entries.size()) {
    formats.input = int_format(s.input);
    formats.hidden = int_format(s.hidden);
    formats.cell = int_format(s.cell);
    formats.address = int_format(s.address);
    formats.memory_fraction = s.memory_fraction;
    formats.gate_fraction = s.gate_fraction;
    formats.projection_fraction = s.projection_fraction;
    formats.floor = s.floor;
    formats.sigmoid = gate_table(s.sigmoid, sigmoid_entries);
    formats.tanh = gate_table(s.tanh, tanh_entries);
    const int hp = shape.padded_hidden(), hidden = shape.hidden;
    store_columns(
        *this, s.weight_ih, shape.gates(), hidden, shape.input, stride,
        [&](int gate) { return shape.input_block(gate) * hp; }, input_columns);
    store_columns(
        *this, s.weight_hh, shape.gates(), hidden, shape.outputs(), stride,
        [&](int gate) { return shape.hidden_block(gate) * hp - shape.hidden_offset(); }, hidden_columns);
    if (shape.projection > 0) {
        store_columns(
            *this, s.weight_hr, 1, shape.outputs(), hidden, projection_stride, [](int) { return 0; },
            projection_columns);
    }
    for (int part = 0; part < 4; ++part) {
        std::copy_n(s.memory + part * hidden, hidden, memory.data() + shape.memory_block(part) * hp);
    }
}

Int8LayerState::Int8LayerState(const Int8Layer& layer)
    : layer_(layer), x_hat_(layer.shape.padded_input()), h_(layer.shape.padded_outputs()),
      h_hat_(layer.shape.padded_outputs()), c_(layer.shape.cell == Cell::lstm ? layer.shape.padded_hidden() : 0),
      full_h_(layer.shape.projection > 0 ? layer.shape.padded_hidden() : 0),
      acc_(layer.wide ? 0 : layer.shape.accumulator_rows() + int8_row_padding),
      wide_acc_(layer.wide ? layer.shape.accumulator_rows() : 0),
      // A change of more than 16 bits becomes up to three entries.
      index_(3 * std::max({layer.shape.padded_input(), layer.shape.padded_outputs(), layer.shape.padded_hidden()}) +
             row_padding),
      delta_(index_.size()), projected_(layer.shape.projection > 0 && !layer.wide ? layer.projection_stride : 0),
      wide_projected_(layer.shape.projection > 0 && layer.wide ? layer.projection_stride : 0) {
    reset();
}

void Int8LayerState::reset() {
    restart();
    activity_ = {};
}

void Int8LayerState::restart() {
    for (AlignedArray<std::int32_t>* part : {&x_hat_, &h_, &h_hat_, &c_}) std::fill_n(part->data(), part->size(), 0);
    if (layer_.wide) {
        std::copy_n(layer_.memory.data(), layer_.memory.size(), wide_acc_.data());
    } else {
        std::copy_n(layer_.memory.data(), layer_.memory.size(), acc_.data());
    }
}

bool Int8LayerState::set(const float* h, const float* c) {
    const LayerShape& shape = layer_.shape;
    const IntFormats& formats = layer_.formats;
    const int op = shape.padded_outputs(), hp = shape.padded_hidden();
    AlignedArray<float> given(std::max(op, hp));
    AlignedArray<std::int32_t> rounded_h(op), rounded_c(hp);
    if (h != nullptr) std::copy_n(h, shape.outputs(), given.data());
    if (!layer_.kernels.quantize(formats.hidden, formats.floor, given.data(), rounded_h.data(), op)) return false;
    if (shape.cell == Cell::lstm) {
        std::fill_n(given.data(), given.size(), 0.0f);
        if (c != nullptr) std::copy_n(c, shape.hidden, given.data());
        if (!layer_.kernels.quantize(formats.cell, formats.floor, given.data(), rounded_c.data(), hp)) return false;
        std::copy_n(rounded_c.data(), hp, c_.data());
    }
    std::copy_n(rounded_h.data(), op, h_.data());
    return true;
}

void Int8LayerState::run(const std::int32_t* x, int frames, std::int32_t* y) {
    const LayerShape& shape = layer_.shape;
    const Int8Kernels& kernels = layer_.kernels;
    const IntFormats& formats = layer_.formats;
    const int ip = shape.padded_input(), op = shape.padded_outputs(), hp = shape.padded_hidden();
    const bool wide = layer_.wide;
    std::int32_t* const gate_output = shape.projection > 0 ? full_h_.data() : h_.data();
    for (int t = 0; t < frames; ++t) {
        const int count_h = kernels.encode(h_.data(), h_hat_.data(), layer_.thh, op, index_.data(), delta_.data());
        add_columns(shape.hidden_offset(), layer_.hidden_columns, count_h);
        const int count_x = kernels.encode(x + t * ip, x_hat_.data(), layer_.thx, ip, index_.data(), delta_.data());
        add_columns(0, layer_.input_columns, count_x);
        activity_.fired_x += count_x;
        activity_.fired_h += count_h;
        if (shape.cell == Cell::gru) {
            wide ? kernels.gru_gates_wide(formats, wide_acc_.data(), gate_output, hp)
                 : kernels.gru_gates(formats, acc_.data(), gate_output, hp);
        } else {
            wide ? kernels.lstm_gates_wide(formats, wide_acc_.data(), c_.data(), gate_output, hp)
                 : kernels.lstm_gates(formats, acc_.data(), c_.data(), gate_output, hp);
        }
        if (shape.projection > 0) project();
        std::fill(h_.data() + shape.outputs(), h_.data() + op, 0);  // whatever the tables say of 0: no column is theirs
        std::memcpy(y + t * op, h_.data(), op * sizeof(std::int32_t));
    }
    activity_.steps += frames;
}

// The kernels multiply 16-bit deltas, but the difference of two 16-bit values has 17 bits: the excess becomes further
// entries.
int Int8LayerState::split_large(int count) {
    int entries = count;
    for (int k = 0; k < count; ++k) {
        while (std::abs(delta_[k]) > largest_event) {
            const std::int32_t part = delta_[k] > 0 ? largest_event : -largest_event;
            index_[entries] = index_[k];
            delta_[entries++] = part;
            delta_[k] -= part;
        }
    }
    return entries;
}

void Int8LayerState::add_columns(int offset, const AlignedArray<std::int8_t>& columns, int count) {
    const int rows = layer_.shape.rows();
    if (layer_.wide) {
        layer_.kernels.add_columns_wide(wide_acc_.data() + offset, columns.data(), layer_.stride, index_.data(),
                                        delta_.data(), count, rows);
    } else {
        layer_.kernels.add_columns(acc_.data() + offset, columns.data(), layer_.stride, index_.data(), delta_.data(),
                                   split_large(count), rows);
    }
}

// h = W_hr (o ∘ tanh(c)), rounded: dense, every step.
void Int8LayerState::project() {
    const LayerShape& shape = layer_.shape;
    const IntFormats& f = layer_.formats;
    std::iota(index_.data(), index_.data() + shape.hidden, 0);
    std::copy_n(full_h_.data(), shape.hidden, delta_.data());
    std::fill_n(projected_.data(), projected_.size(), 0);
    std::fill_n(wide_projected_.data(), wide_projected_.size(), 0);
    if (layer_.wide) {
        layer_.kernels.add_columns_wide(wide_projected_.data(), layer_.projection_columns.data(),
                                        layer_.projection_stride, index_.data(), delta_.data(), shape.hidden,
                                        shape.outputs());
    } else {
        layer_.kernels.add_columns(projected_.data(), layer_.projection_columns.data(), layer_.projection_stride,
                                   index_.data(), delta_.data(), split_large(shape.hidden), shape.outputs());
    }
    const int shift = f.projection_fraction;
    const std::int64_t nearest = shift > 0 && !f.floor ? 1 : 0;
    const std::int64_t half = nearest << (shift > 0 ? shift - 1 : 0);
    for (int p = 0; p < shape.outputs(); ++p) {
        const std::int64_t sum = layer_.wide ? wide_projected_[p] : projected_[p];
        const std::int64_t rounded = (sum + half - nearest + ((sum >> shift) & nearest)) >> shift;
        h_[p] = static_cast<std::int32_t>(std::clamp<std::int64_t>(rounded, f.hidden.min, f.hidden.max));
    }
}

std::vector<double> Int8LayerState::read(StateField field) const {
    const LayerShape& shape = layer_.shape;
    const IntFormats& formats = layer_.formats;
    const auto values = [](const AlignedArray<std::int32_t>& from, int n, int fraction) {
        std::vector<double> read(from.data(), from.data() + n);
        for (double& value : read) value = std::ldexp(value, -fraction);
        return read;
    };
    const double memory_step = std::ldexp(1.0, -formats.memory_fraction);
    switch (field) {
        case StateField::x_hat: return values(x_hat_, shape.input, formats.input.fraction);
        case StateField::h: return values(h_, shape.outputs(), formats.hidden.fraction);
        case StateField::h_hat: return values(h_hat_, shape.outputs(), formats.hidden.fraction);
        case StateField::rh_hat: return {};  // the reset comes after the product
        case StateField::c: return values(c_, shape.cell == Cell::lstm ? shape.hidden : 0, formats.cell.fraction);
        default:
            return layer_.wide ? unpadded_memory(shape, wide_acc_.data(), memory_step)
                               : unpadded_memory(shape, acc_.data(), memory_step);
    }
}

}  // namespace deltarnn
