// The core against a literal reading of MATH §1–3 and §6, for every instruction set of this CPU. Built with sanitizers
// by tests/native, and for AArch64 by check_aarch64.sh. Prints what differs; the exit status counts it.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <vector>

#include "deltarnn/engine.hpp"

using namespace deltarnn;

namespace {

int failures = 0;

void expect(bool ok, const char* isa, const char* what, const LayerShape& s, double difference) {
    if (ok) return;
    ++failures;
    std::printf("%s: %s %s %d→%d→%d differs by %g\n", isa, what, s.cell == Cell::gru ? "GRU" : "LSTM", s.input,
                s.hidden, s.projection, difference);
}

std::mt19937 generator(1);

double uniform(double low, double high) { return std::uniform_real_distribution<double>(low, high)(generator); }
int whole(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

// Row-major (rows, columns) times a vector, from `start` rows on.
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

void check_float(Isa isa, LayerShape shape, bool hard, bool relu, float thx) {
    FloatCase layer{shape, hard, relu, thx, 0.0f, {}, {}, {}, {}};
    const double range = 1 / std::sqrt(shape.hidden);
    const auto fill = [&](std::vector<float>& values, int n) {
        for (int i = 0; i < n; ++i) values.push_back(static_cast<float>(uniform(-range, range)));
    };
    fill(layer.weight_ih, shape.gates() * shape.hidden * shape.input);
    fill(layer.weight_hh, shape.gates() * shape.hidden * shape.outputs());
    fill(layer.memory, 4 * shape.hidden);
    fill(layer.weight_hr, shape.projection * shape.hidden);
    const auto model = make_model(isa, std::vector<FloatLayerSpec>{layer.spec()}, {});
    FloatReference reference(layer);
    const auto by_step = model->stream(), by_run = model->stream();
    const int steps = 53;
    std::vector<float> frames, stepped(shape.outputs()), run(static_cast<std::size_t>(steps) * shape.outputs());
    std::vector<double> x(shape.input);
    for (int t = 0; t < steps; ++t) {
        for (double& value : x) {
            if (uniform(0, 1) < 0.3) value = whole(-3, 3) * 0.5;  // no difference is near a threshold
        }
        frames.insert(frames.end(), x.begin(), x.end());
    }
    by_run->run(frames.data(), steps, run.data());
    double difference = 0;
    for (int t = 0; t < steps; ++t) {
        std::copy_n(frames.begin() + static_cast<std::ptrdiff_t>(t) * shape.input, shape.input, x.begin());
        const std::vector<double> y = reference.step(x);
        by_step->run(frames.data() + static_cast<std::ptrdiff_t>(t) * shape.input, 1, stepped.data());
        for (int i = 0; i < shape.outputs(); ++i) {
            difference = std::fmax(difference, std::fabs(stepped[i] - y[i]));
            difference =
                std::fmax(difference, std::fabs(run[static_cast<std::size_t>(t) * shape.outputs() + i] - y[i]));
        }
    }
    expect(difference < 1e-5, isa_name(isa), "float32", shape, difference);
    const Activity activity = by_run->activity(0);
    expect(static_cast<long long>(activity.fired_x) == reference.fired, isa_name(isa), "event count", shape,
           static_cast<double>(activity.fired_x) - static_cast<double>(reference.fired));
}

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

TableSpec table_of(double (*f)(double), int bits, int a, int n) {
    TableSpec table{-(1 << (bits - 1)), {}};
    for (int q = table.first; q < -table.first; ++q) {
        table.entries.push_back(static_cast<std::int32_t>(std::nearbyint(f(std::ldexp(q, -a)) * (1 << n))));
    }
    return table;
}

void check_int8(Isa isa, LayerShape shape, int bits, int a, int w, int n, bool floor, bool full_range) {
    Int8Case layer{shape, bits, a, w, n, floor, whole(0, 3), whole(0, 3), {}, {}, {}, {}, {}, {}};
    layer.sigmoid = table_of([](double v) { return 1 / (1 + std::exp(-v)); }, bits, a, n);
    layer.tanh = table_of([](double v) { return std::tanh(v); }, bits, a, n);
    const int range = full_range ? 127 : 12;
    const auto fill = [&](std::vector<std::int8_t>& values, int count) {
        for (int i = 0; i < count; ++i) values.push_back(static_cast<std::int8_t>(whole(-range - full_range, range)));
    };
    fill(layer.weight_ih, shape.gates() * shape.hidden * shape.input);
    fill(layer.weight_hh, shape.gates() * shape.hidden * shape.outputs());
    fill(layer.weight_hr, shape.projection * shape.hidden);
    for (int i = 0; i < 4 * shape.hidden; ++i) layer.memory.push_back(std::int64_t{whole(-range, range)} << a);
    const auto model = make_model(isa, std::vector<Int8LayerSpec>{layer.spec()}, {});
    Int8Reference reference(layer);
    const auto stream = model->stream();
    const int steps = 41;
    std::vector<float> frames, out(static_cast<std::size_t>(steps) * shape.outputs());
    std::vector<std::int64_t> x(shape.input), all;
    for (int t = 0; t < steps; ++t) {
        for (std::int64_t& value : x) {
            const int limit = full_range ? 1 << (bits - 1) : 40;
            if (uniform(0, 1) < 0.5) value = whole(-limit, limit - 1);
            frames.push_back(static_cast<float>(std::ldexp(static_cast<double>(value), -a)));
        }
        all.insert(all.end(), x.begin(), x.end());
    }
    stream->run(frames.data(), steps, out.data());
    double difference = 0;
    for (int t = 0; t < steps; ++t) {
        std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(t) * shape.input, shape.input, x.begin());
        const std::vector<std::int64_t> y = reference.step(x);
        for (int i = 0; i < shape.outputs(); ++i) {
            const double actual = std::ldexp(out[static_cast<std::size_t>(t) * shape.outputs() + i], a);
            difference = std::fmax(difference, std::fabs(actual - static_cast<double>(y[i])));
        }
    }
    expect(difference == 0, isa_name(isa), model->wide(0) ? "int8 (wide)" : "int8", shape, difference);
}

// NaN and infinity reach every value after them, and no step outside of memory is taken.
void check_not_finite(Isa isa, const LayerShape& shape, float value) {
    const std::size_t rows = static_cast<std::size_t>(shape.gates()) * shape.hidden;
    const std::vector<float> weight_ih(rows * shape.input, 0.03f), weight_hh(rows * shape.outputs(), -0.02f),
        memory(4 * shape.hidden, 0.1f);
    const std::vector<float> weight_hr(static_cast<std::size_t>(shape.projection) * shape.hidden, 0.1f);
    const FloatLayerSpec spec = {
        shape, false, false, false, 0.1f, 0.01f, weight_ih.data(), weight_hh.data(), memory.data(), weight_hr.data()};
    LayerShape next = shape;
    next.input = shape.outputs();
    const std::vector<float> weight_next(rows * next.input, 0.05f);
    const FloatLayerSpec second = {
        next, false, false, false, 0.1f, 0.01f, weight_next.data(), weight_hh.data(), memory.data(), weight_hr.data()};
    const auto model = make_model(isa, std::vector<FloatLayerSpec>{spec, second}, {});
    std::vector<float> frames(static_cast<std::size_t>(30) * shape.input, 0.5f),
        out(static_cast<std::size_t>(30) * shape.outputs());
    std::fill_n(frames.begin() + 10 * shape.input, shape.input, value);
    model->stream()->run(frames.data(), 30, out.data());
    const auto is_nan = [](float y) { return std::isnan(y); };
    expect(std::none_of(out.begin(), out.begin() + 10 * shape.outputs(), is_nan), isa_name(isa), "before NaN", shape,
           0);
    if (std::isnan(value))
        expect(std::all_of(out.begin() + 10 * shape.outputs(), out.end(), is_nan), isa_name(isa), "after NaN", shape,
               0);
}

// Streams over shared weights, each in its own thread, and a head.
void check_threads(Isa isa) {
    const LayerShape shape = {Cell::gru, 19, 33, 0};
    const std::vector<float> weight_ih(99 * 19, 0.03f), weight_hh(99 * 33, -0.02f), memory(132, 0.1f),
        head(7 * 33, 0.5f), bias(7, 1.0f);
    const FloatLayerSpec spec = {shape,         false,  false, false, 0.1f, 0.01f, weight_ih.data(), weight_hh.data(),
                                 memory.data(), nullptr};
    const auto model = make_model(isa, std::vector<FloatLayerSpec>{spec}, {{33, 7, true, head.data(), bias.data()}});
    std::vector<float> frames(200 * 19);
    for (float& value : frames) value = static_cast<float>(uniform(-1, 1));
    std::vector<std::vector<float>> outputs(3, std::vector<float>(200 * 7));
    std::vector<std::thread> threads;
    for (std::vector<float>& output : outputs) {
        threads.emplace_back([&] { model->stream()->run(frames.data(), 200, output.data()); });
    }
    for (std::thread& thread : threads) thread.join();
    expect(outputs[0] == outputs[1] && outputs[1] == outputs[2], isa_name(isa), "threads", shape, 0);
}

}  // namespace

int main() {
    int cases = 0;
    for (const Isa isa : available_isas()) {
        for (const Cell cell : {Cell::gru, Cell::lstm}) {
            for (const int hidden : {1, 15, 16, 17, 33, 64, 70}) {
                for (const int input : {1, 8, 31}) {
                    for (const int projection : {0, 9}) {
                        if (projection > 0 && (cell == Cell::gru || hidden < 15)) continue;
                        const LayerShape shape = {cell, input, hidden, projection};
                        check_float(isa, shape, hidden == 33, hidden == 64, input == 1 ? 0.0f : 0.25f);
                        if (cell == Cell::gru) {
                            check_float(isa, {cell, input, hidden, 0, true}, hidden == 33, hidden == 17,
                                        input == 1 ? 0.0f : 0.25f);
                            ++cases;
                        }
                        check_int8(isa, shape, 16, 8, 7, 6, false, false);
                        check_int8(isa, shape, 16, 8, 7, 6, hidden == 17, true);
                        check_int8(isa, shape, 8, 5, 7, 6, input == 8, false);
                        check_int8(isa, shape, 12, 10, 3, 4, false, false);
                        cases += 5;
                    }
                }
            }
        }
        check_float(isa, {Cell::gru, 500, 90, 0}, false, false, 0.25f);     // tile products
        check_int8(isa, {Cell::gru, 700, 5, 0}, 16, 8, 7, 6, false, true);  // 64-bit accumulators
        check_threads(isa);
        cases += 3;
        for (const float value : {std::nanf(""), INFINITY, -INFINITY}) {
            check_not_finite(isa, {Cell::gru, 3, 5, 0}, value);
            check_not_finite(isa, {Cell::gru, 3, 5, 0, true}, value);
            check_not_finite(isa, {Cell::lstm, 31, 17, 0}, value);
            check_not_finite(isa, {Cell::lstm, 3, 33, 9}, value);
            cases += 4;
        }
        std::printf("%s: checked\n", isa_name(isa));
    }
    std::printf("%d cases, %d differ\n", cases, failures);
    return failures > 0;
}
