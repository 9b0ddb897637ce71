// Programs against loops over plain arrays, for every instruction set of this CPU. Built with sanitizers by
// tests/native, and for AArch64 by check_aarch64.sh. The exit status counts what differs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "deltarnn/program.hpp"

using namespace deltarnn;

namespace {

int failures = 0;
std::mt19937 generator(1);

std::vector<float> random_values(std::size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = std::uniform_real_distribution<float>(-1.0f, 1.0f)(generator);
    return values;
}

void expect(bool ok, Isa isa, const char* what, int rows, int inner, int n) {
    if (ok) return;
    ++failures;
    std::printf("%s: %s differs at %d × %d → %d\n", isa_name(isa), what, rows, inner, n);
}

// σ(reversed(x)·W + b), its mean, and the columns of x in reverse, in an arena that ends where the last value does.
void check(Isa isa, int rows, int inner, int n) {
    const std::vector<float> weight = random_values(static_cast<std::size_t>(inner) * n), bias = random_values(n);
    const std::vector<float> x = random_values(static_cast<std::size_t>(rows) * inner);
    const int reversed = rows * inner, product = 2 * reversed, means = product + rows * n;
    ProgramSpec spec;
    spec.arena.resize(means + rows);
    spec.lists.emplace_back();
    for (int r = 0; r < rows; ++r) {
        for (int j = 0; j < inner; ++j) spec.lists[0].push_back(r * inner + inner - 1 - j);
    }
    spec.weights.push_back({inner, n, weight.data(), bias.data()});
    spec.instructions = {{Operation::gather, reversed, 0, 0, 0, 0, 0, 0, 0.0f, 0.0f},
                         {Operation::linear, product, reversed, 0, n, rows, inner, 0, 0.0f, 0.0f},
                         {Operation::sigmoid, product, product, 0, rows * n, 0, 0, -1, 0.0f, 0.0f},
                         {Operation::mean, means, product, 0, 0, rows, n, -1, 0.0f, 0.0f}};
    ProgramState state(std::make_shared<const Program>(spec, isa), {}, {});
    std::copy(x.begin(), x.end(), state.arena());
    state.run();
    bool same = true;
    for (int r = 0; r < rows; ++r) {
        double mean = 0.0;
        for (int column = 0; column < n; ++column) {
            double sum = bias[column];
            for (int j = 0; j < inner; ++j)
                sum += static_cast<double>(x[r * inner + inner - 1 - j]) *
                       weight[static_cast<std::size_t>(j) * n + column];
            const double expected = 1.0 / (1.0 + std::exp(-sum));
            same &= std::fabs(state.arena()[product + r * n + column] - expected) < 1e-5;
            mean += expected / n;
        }
        same &= std::fabs(state.arena()[means + r] - mean) < 1e-5;
    }
    expect(same, isa, "σ(x·W + b)", rows, inner, n);
    state.reset();
    expect(std::equal(spec.arena.begin(), spec.arena.end(), state.arena()), isa, "the arena after reset", rows, inner,
           n);
}

}  // namespace

int main() {
    int cases = 0;
    for (const Isa isa : available_isas()) {
        for (const int rows : {1, 2, 3, 5, 9, 16}) {
            for (const int inner : {1, 3, 64, 67, 130}) {
                for (const int n : {1, 15, 16, 31, 33, 64, 70}) {
                    check(isa, rows, inner, n);
                    ++cases;
                }
            }
        }
    }
    std::printf("%d cases, %d differ\n", cases, failures);
    return failures > 0;
}
