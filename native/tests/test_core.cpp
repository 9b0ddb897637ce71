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
#include "layer_reference.hpp"

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
