// Layers step by step as MATH §1–3 and §6 read, in double precision and in whole numbers: the oracle of test_core.cpp.
#pragma once
#include <cmath>
#include <cstdint>
#include <vector>

#include "deltarnn/engine.hpp"

namespace deltarnn {

// One row of a row-major matrix (rows, columns) times a vector (columns,).
template <class T, class V>
V dot(const std::vector<T>& matrix, int row, const std::vector<V>& x) {
    V sum = 0;
    for (std::size_t j = 0; j < x.size(); ++j) sum += static_cast<V>(matrix[row * x.size() + j]) * x[j];
    return sum;
}

template <class V>
bool hold(V value, V& memory, V threshold) {
    const V d = value - memory;
    if ((d < 0 ? -d : d) >= threshold) memory = value;
    return d != 0 && memory == value;
}

struct FloatCase {
    LayerShape shape;
    bool hard, relu;
    float thx, thh;
    std::vector<float> weight_ih, weight_hh, memory, weight_hr;

    FloatLayerSpec spec() const {
        return {shape,         false,           hard, relu, thx, thh, weight_ih.data(), weight_hh.data(),
                memory.data(), weight_hr.data()};
    }
};

// Step by step in double precision, M by the held-state identity.
struct FloatReference {
    const FloatCase& layer;
    std::vector<double> x_hat, h, h_hat, rh_hat, c;
    long long fired = 0;

    explicit FloatReference(const FloatCase& l)
        : layer(l), x_hat(l.shape.input), h(l.shape.outputs()), h_hat(l.shape.outputs()), rh_hat(l.shape.hidden),
          c(l.shape.hidden) {}

    std::vector<double> step(const std::vector<double>& x) {
        const LayerShape& s = layer.shape;
        for (int j = 0; j < s.input; ++j) fired += hold<double>(x[j], x_hat[j], layer.thx);
        for (int j = 0; j < s.outputs(); ++j) hold<double>(h[j], h_hat[j], layer.thh);
        const auto sigmoid = [&](double v) {
            return layer.hard ? std::fmin(std::fmax(v / 4 + 0.5, 0), 1) : 1 / (1 + std::exp(-v));
        };
        const auto tanh = [&](double v) { return layer.hard ? std::fmin(std::fmax(v, -1), 1) : std::tanh(v); };
        const auto candidate = [&](double v) { return layer.relu ? std::fmax(v, 0) : tanh(v); };
        const auto gate_of_h = [&](int gate, int i) {
            return sigmoid(dot(layer.weight_ih, gate * s.hidden + i, x_hat) +
                           dot(layer.weight_hh, gate * s.hidden + i, h_hat) + layer.memory[gate * s.hidden + i]);
        };
        if (s.reset_before) {
            for (int j = 0; j < s.hidden; ++j) hold<double>(gate_of_h(0, j) * h[j], rh_hat[j], layer.thh);
        }
        std::vector<double> full(s.hidden);
        for (int i = 0; i < s.hidden; ++i) {
            const auto from_x = [&](int gate) { return dot(layer.weight_ih, gate * s.hidden + i, x_hat); };
            const auto from_h = [&](int gate) { return dot(layer.weight_hh, gate * s.hidden + i, h_hat); };
            const auto start = [&](int part) { return static_cast<double>(layer.memory[part * s.hidden + i]); };
            if (s.reset_before) {
                const double z = gate_of_h(1, i);
                const double n =
                    candidate(from_x(2) + start(2) + dot(layer.weight_hh, 2 * s.hidden + i, rh_hat) + start(3));
                full[i] = (1 - z) * n + z * h[i];
            } else if (s.cell == Cell::gru) {
                const double r = gate_of_h(0, i), z = gate_of_h(1, i);
                const double n = candidate(from_x(2) + start(2) + r * (from_h(2) + start(3)));
                full[i] = (1 - z) * n + z * h[i];
            } else {
                const auto m = [&](int gate) { return from_x(gate) + from_h(gate) + start(gate); };
                c[i] = sigmoid(m(1)) * c[i] + sigmoid(m(0)) * tanh(m(2));
                full[i] = sigmoid(m(3)) * tanh(c[i]);
            }
        }
        h = full;
        if (s.projection > 0) {
            h.assign(s.projection, 0);
            for (int p = 0; p < s.projection; ++p) h[p] = dot(layer.weight_hr, p, full);
        }
        return h;
    }
};

struct Int8Case {
    LayerShape shape;
    int bits, a, w, n;
    bool floor;
    std::int32_t thx, thh;
    TableSpec sigmoid, tanh;
    std::vector<std::int8_t> weight_ih, weight_hh, weight_hr;
    std::vector<std::int64_t> memory;

    Int8LayerSpec spec() const {
        const FormatSpec activation = {bits, a};
        return {shape,
                activation,
                activation,
                activation,
                activation,
                a + w,
                n,
                w,
                floor,
                thx,
                thh,
                sigmoid,
                tanh,
                weight_ih.data(),
                weight_hh.data(),
                memory.data(),
                weight_hr.data()};
    }
    std::int64_t clip(std::int64_t value) const {
        const std::int64_t limit = std::int64_t{1} << (bits - 1);
        return value < -limit ? -limit : value >= limit ? limit - 1 : value;
    }
    // value / 2^shift rounded by remainders, not by the kernel's trick; then clipped to A.
    std::int64_t to_activation(std::int64_t value, int shift) const {
        if (shift <= 0) return clip(value << -shift);
        const std::int64_t quotient = value >> shift, remainder = value - (quotient << shift),
                           half = std::int64_t{1} << (shift - 1);
        const bool up = !floor && (remainder > half || (remainder == half && quotient % 2 != 0));
        return clip(quotient + up);
    }
    static std::int64_t look_up(const TableSpec& table, std::int64_t q) {
        const std::int64_t last = static_cast<std::int64_t>(table.entries.size()) - 1, k = q - table.first;
        return table.entries[static_cast<std::size_t>(k < 0 ? 0 : k > last ? last : k)];
    }
};

struct Int8Reference {
    const Int8Case& layer;
    std::vector<std::int64_t> x_hat, h, h_hat, c;

    explicit Int8Reference(const Int8Case& l)
        : layer(l), x_hat(l.shape.input), h(l.shape.outputs()), h_hat(l.shape.outputs()), c(l.shape.hidden) {}

    std::vector<std::int64_t> step(const std::vector<std::int64_t>& x) {
        const LayerShape& s = layer.shape;
        for (int j = 0; j < s.input; ++j) hold<std::int64_t>(x[j], x_hat[j], layer.thx);
        for (int j = 0; j < s.outputs(); ++j) hold<std::int64_t>(h[j], h_hat[j], layer.thh);
        const int a = layer.a, w = layer.w, n = layer.n, top = 16;
        std::vector<std::int64_t> full(s.hidden);
        for (int i = 0; i < s.hidden; ++i) {
            const auto m = [&](int part, int gate, bool from_x, bool from_h) {
                return layer.memory[part * s.hidden + i] +
                       (from_x ? dot(layer.weight_ih, gate * s.hidden + i, x_hat) : 0) +
                       (from_h ? dot(layer.weight_hh, gate * s.hidden + i, h_hat) : 0);
            };
            const auto gate = [&](const TableSpec& table, std::int64_t value) {
                return Int8Case::look_up(table, layer.to_activation(value, w));
            };
            if (s.cell == Cell::gru) {
                const std::int64_t r = gate(layer.sigmoid, m(0, 0, true, true)),
                                   z = gate(layer.sigmoid, m(1, 1, true, true));
                const std::int64_t m_nh = layer.to_activation(m(3, 2, false, true), w);
                const std::int64_t sum = (m(2, 2, true, false) << (top - w)) + ((r * m_nh) << (top - n));
                const std::int64_t fresh = Int8Case::look_up(layer.tanh, layer.to_activation(sum, top));
                full[i] = layer.clip(layer.to_activation(((std::int64_t{1} << n) - z) * fresh, 2 * n - a) +
                                     layer.to_activation(z * h[i], n));
            } else {
                const std::int64_t in = gate(layer.sigmoid, m(0, 0, true, true)),
                                   f = gate(layer.sigmoid, m(1, 1, true, true));
                const std::int64_t g = gate(layer.tanh, m(2, 2, true, true)),
                                   o = gate(layer.sigmoid, m(3, 3, true, true));
                c[i] = layer.to_activation(((f * c[i]) << (top - a)) + ((in * g) << (top - n)), n + top - a);
                full[i] = layer.to_activation(o * Int8Case::look_up(layer.tanh, c[i]), 2 * n - a);
            }
        }
        h = full;
        if (s.projection > 0) {
            h.assign(s.projection, 0);
            for (int p = 0; p < s.projection; ++p) h[p] = layer.to_activation(dot(layer.weight_hr, p, full), w);
        }
        return h;
    }
};

inline TableSpec table_of(double (*f)(double), int bits, int a, int n) {
    TableSpec table{-(1 << (bits - 1)), {}};
    for (int q = table.first; q < -table.first; ++q) {
        table.entries.push_back(static_cast<std::int32_t>(std::nearbyint(f(std::ldexp(q, -a)) * (1 << n))));
    }
    return table;
}

}  // namespace deltarnn
