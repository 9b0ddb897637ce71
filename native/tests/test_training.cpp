// Runs the training kernels over many shapes, for the sanitizers (tests/nn/test_native_sanitizers.py).
//
// Every array is as long as it must be and no longer. With one thread and with several, and with every instruction set,
// the results must be the same: bit for bit from one number of threads to another where nothing is summed over the
// batch, else closely.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "deltarnn/training.hpp"

namespace {

using Floats = std::vector<float>;

struct Case {
    deltarnn::Cell cell;
    std::int64_t steps, batch, inputs, hidden;
    float thx, thh;
    bool hard, ragged, fresh;
};

Floats random_floats(std::mt19937& generator, std::int64_t n, float scale) {
    std::normal_distribution<float> normal(0.0f, scale);
    Floats values(static_cast<std::size_t>(n));
    for (float& value : values) value = normal(generator);
    return values;
}

Floats zeros(std::int64_t n) { return Floats(static_cast<std::size_t>(n), 0.0f); }

// Outputs, final state and gradients of one case.
struct Results {
    Floats exact;   // each sample's own
    Floats summed;  // over the batch
    std::vector<std::uint64_t> fired;
};

Results run(const Case& c, int threads) {
    std::mt19937 generator(7);
    const bool lstm = c.cell == deltarnn::Cell::lstm;
    const std::int64_t t = c.steps, b = c.batch, i = c.inputs, h = c.hidden, rows = (lstm ? 4 : 3) * h,
                       cells = lstm ? b * h : 0;
    const Floats x = random_floats(generator, t * b * i, 0.5f);
    const Floats x_hat0 = random_floats(generator, b * i, 0.3f), h0 = random_floats(generator, b * h, 0.3f);
    const Floats h_hat0 = random_floats(generator, b * h, 0.3f), c0 = random_floats(generator, cells, 0.3f);
    const Floats m0 = random_floats(generator, b * 4 * h, 0.3f);
    const Floats weight_ih = random_floats(generator, rows * i, 0.3f),
                 weight_hh = random_floats(generator, rows * h, 0.3f);
    const Floats bias_ih = random_floats(generator, rows, 0.3f), bias_hh = random_floats(generator, rows, 0.3f);
    const Floats grad_y = random_floats(generator, t * b * h, 1.0f), grad_m = random_floats(generator, b * 4 * h, 1.0f);
    std::vector<std::int64_t> lengths;
    if (c.ragged) {
        for (std::int64_t s = 0; s < b; ++s) lengths.push_back(1 + (s * 5 + 2) % t);
    }

    Floats y = zeros(t * b * h), x_hat = zeros(b * i), h1 = zeros(b * h), h_hat = zeros(b * h), c1 = zeros(cells),
           m = zeros(b * 4 * h);
    std::vector<double> l1(static_cast<std::size_t>(b));
    std::vector<std::uint64_t> fired_x(static_cast<std::size_t>(t * b * deltarnn::mask_words(i)));
    std::vector<std::uint64_t> fired_h(static_cast<std::size_t>(t * b * deltarnn::mask_words(h)));
    std::vector<std::int64_t> events_x(static_cast<std::size_t>(b)), events_h(static_cast<std::size_t>(b));
    Floats tape = zeros(t * b * deltarnn::tape_parts(c.cell) * deltarnn::padded(h));

    deltarnn::Sequence job{};
    job.cell = c.cell;
    job.hard = c.hard;
    job.steps = t;
    job.batch = b;
    job.inputs = i;
    job.hidden = h;
    job.thx = c.thx;
    job.thh = c.thh;
    job.x = x.data();
    job.x_step = b * i;
    job.x_sample = i;
    job.lengths = c.ragged ? lengths.data() : nullptr;
    if (!c.fresh) {
        job.x_hat0 = x_hat0.data();
        job.h0 = h0.data();
        job.h_hat0 = h_hat0.data();
        job.c0 = c0.data();
        job.m0 = m0.data();
    }
    job.y = y.data();
    job.fired_x = fired_x.data();
    job.fired_h = fired_h.data();
    job.events_x = events_x.data();
    job.events_h = events_h.data();
    job.tape = tape.data();
    const deltarnn::Parameters<const float> parameters{weight_ih.data(), weight_hh.data(), bias_ih.data(),
                                                       bias_hh.data()};
    deltarnn::train_forward(job, parameters, {x_hat.data(), h1.data(), h_hat.data(), c1.data(), m.data(), l1.data()},
                            threads);

    Floats grad_x = zeros(t * b * i), grad_x_hat0 = zeros(b * i), grad_h0 = zeros(b * h), grad_h_hat0 = zeros(b * h);
    Floats grad_c0 = zeros(cells), grad_m0 = zeros(b * 4 * h), grad_ih = zeros(rows * i), grad_hh = zeros(rows * h);
    Floats grad_bias_ih = zeros(rows), grad_bias_hh = zeros(rows);
    deltarnn::BackwardArguments arguments{};
    arguments.grad_y = grad_y.data();
    arguments.grad_m = grad_m.data();
    arguments.grad_l1 = 0.1f;
    arguments.grad_x = grad_x.data();
    deltarnn::Parameters<float> gradients{grad_ih.data(), grad_hh.data(), nullptr, nullptr};
    if (c.fresh) {
        gradients.bias_ih = grad_bias_ih.data();
        gradients.bias_hh = grad_bias_hh.data();
    } else {
        arguments.grad_x_hat0 = grad_x_hat0.data();
        arguments.grad_h0 = grad_h0.data();
        arguments.grad_h_hat0 = grad_h_hat0.data();
        arguments.grad_c0 = grad_c0.data();
        arguments.grad_m0 = grad_m0.data();
    }
    deltarnn::train_backward(job, parameters, arguments, gradients, threads);

    Results results;
    for (const Floats* part :
         {&y, &x_hat, &h1, &h_hat, &c1, &m, &grad_x, &grad_x_hat0, &grad_h0, &grad_h_hat0, &grad_c0, &grad_m0}) {
        results.exact.insert(results.exact.end(), part->begin(), part->end());
    }
    for (const Floats* part : {&grad_ih, &grad_hh, &grad_bias_ih, &grad_bias_hh})
        results.summed.insert(results.summed.end(), part->begin(), part->end());
    results.fired = fired_x;
    results.fired.insert(results.fired.end(), fired_h.begin(), fired_h.end());
    return results;
}

// Whether a backward pass over more events than its lists can count is refused. They are claimed, not there.
bool refuses_too_many_events() {
    const Floats x(1), weight(3);
    std::int64_t none = 0, many = std::int64_t{1} << 31;
    deltarnn::Sequence job{};
    job.steps = job.batch = job.inputs = job.hidden = 1;
    job.thx = job.thh = 0.1f;
    job.x = x.data();
    job.events_x = &many;
    job.events_h = &none;
    Floats gradient(3);
    try {
        deltarnn::train_backward(job, {weight.data(), weight.data(), nullptr, nullptr}, {},
                                 {gradient.data(), gradient.data(), nullptr, nullptr}, 1);
    } catch (const std::length_error&) {
        return true;
    }
    return false;
}

bool close(const Floats& a, const Floats& b, float tolerance) {
    float largest = 1.0f;
    for (const float value : a) largest = std::fmax(largest, std::fabs(value));
    for (std::size_t k = 0; k < a.size(); ++k) {
        if (!(std::fabs(a[k] - b[k]) <= tolerance * largest)) return false;
    }
    return true;
}

}  // namespace

int main() {
    std::vector<Case> cases;
    const std::int64_t shapes[][4] = {{1, 1, 1, 1}, {5, 3, 7, 20}, {9, 7, 65, 48}, {4, 2, 3, 70}, {18, 5, 16, 64}};
    for (const auto& [t, b, i, h] : shapes) {
        for (const auto cell : {deltarnn::Cell::gru, deltarnn::Cell::lstm}) {
            int k = 0;
            for (const float thx : {0.0f, 0.4f}) {
                for (const float thh : {0.0f, 0.05f})
                    cases.push_back({cell, t, b, i, h, thx, thh, ++k % 2 == 0, k < 4, k % 3 == 0});
            }
        }
    }
    cases.push_back(
        {deltarnn::Cell::gru, 3, 5, 500, 400, 0.4f, 0.05f, false, true, true});  // the threads share one gradient
    int checked = 0, differ = 0, undecided = 0;
    for (const Case& c : cases) {
        const auto check = [&](bool same, const char* what) {
            ++checked;
            if (same) return;
            ++differ;
            std::printf("%s: cell %d, (%d, %d, %d, %d), thresholds %g, %g\n", what, static_cast<int>(c.cell),
                        static_cast<int>(c.steps), static_cast<int>(c.batch), static_cast<int>(c.inputs),
                        static_cast<int>(c.hidden), c.thx, c.thh);
        };
        setenv("DELTARNN_ISA", "portable", 1);
        const Results expected = run(c, 1);
        for (const deltarnn::Isa isa : deltarnn::available_isas()) {
            setenv("DELTARNN_ISA", deltarnn::isa_name(isa), 1);
            const Results one = run(c, 1), three = run(c, 3), again = run(c, 3);
            // Instruction sets round differently, which may decide an event; what follows from it is not compared.
            if (one.fired == expected.fired) {
                check(close(expected.exact, one.exact, 1e-4f) && close(expected.summed, one.summed, 1e-4f),
                      "instruction sets");
            } else {
                ++undecided;
            }
            check(one.exact == three.exact, "threads");
            check(close(one.summed, three.summed, 1e-5f), "threads, summed");
            check(three.exact == again.exact && three.summed == again.summed, "repetition");
        }
    }
    // Two callers at once: one gets the pool, the other does its own work.
    const Results alone = run(cases.back(), 3);
    Results first, second;
    std::thread other([&] { first = run(cases.back(), 3); });
    second = run(cases.back(), 3);
    other.join();
    ++checked;
    if (first.summed != alone.summed || second.summed != alone.summed) ++differ;
    ++checked;
    if (!refuses_too_many_events()) ++differ;
    std::printf("%d comparisons, %d undecided, %d differ\n", checked, undecided, differ);
    return differ == 0 && undecided < checked / 10 ? 0 : 1;
}
