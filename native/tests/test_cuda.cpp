// A forward and a backward pass of the CUDA kernels under sanitizers, on the thread model of cuda_on_cpu.hpp: the
// team's layout comes from the command line, and the results of two runs must be the same.
#include <bit>
#include <random>

#include "backward.cu"
#include "forward.cu"

namespace {

constexpr int steps = 4, batch = 3, inputs = 9, hidden = 70, rows = gates * hidden, tape_parts = lstm ? 5 : 4;
constexpr int width = (tape_parts + 1) * hidden + inputs;

template <class T>
std::uint64_t address(const std::vector<T>& of) {
    return std::bit_cast<std::uint64_t>(of.data());
}

std::uint64_t number(float value) { return std::bit_cast<std::uint32_t>(value); }

struct Layout {
    std::uint64_t blocks, units, samples, parts, teams, input_parts;
    unsigned forward_warps, backward_warps, shared_bytes;

    cuda_on_cpu::Launch launch(unsigned warps) const {
        const auto grid = static_cast<unsigned>(blocks * teams);
        const bool grid_scope = DELTARNN_SCOPE == 2;
        return {grid, 32 * warps, shared_bytes, grid_scope ? grid : static_cast<unsigned>(blocks)};
    }
};

std::vector<float> run(const Layout& layout) {
    std::mt19937 generator(3);
    std::normal_distribution<float> normal(0.0f, 0.3f);
    const auto random = [&](std::size_t count) {
        std::vector<float> values(count);
        for (float& value : values) value = normal(generator);
        return values;
    };
    const auto x = random(steps * batch * inputs), weight_ih = random(rows * inputs), weight_hh = random(rows * hidden);
    const auto bias = random(rows), grad_y = random(steps * batch * hidden);
    const auto products = random(steps * batch * rows);
    std::vector<float> y(steps * batch * hidden), tape(steps * batch * width), sums(steps * batch * 4 * hidden);
    std::vector<float> x_hat(batch * inputs), h(batch * hidden), h_hat(batch * hidden), c(batch * hidden),
        m(batch * 4 * hidden), exchange(2 * batch * hidden), l1(1);
    std::vector<std::uint32_t> counters(9), fired_x(steps * batch * 2), fired_h(steps * batch * 4);
    std::vector<double> sums_x(2 * batch), sums_h(2 * batch * 16);
    std::vector<std::int64_t> counts(4), events(2 * batch);
    const std::uint64_t of_inputs = layout.input_parts > 0 ? 0 : address(products);
    // clang-format off
    const std::uint64_t forward[] = {
        layout.blocks, layout.units, layout.samples, layout.parts, layout.teams, address(counters), 0,
        steps, batch, inputs, hidden, number(0.1f), number(0.05f), 0,
        address(x), batch * inputs, inputs, of_inputs, layout.input_parts, 0, 0, 0, 0, 0,
        address(weight_ih), address(weight_hh), address(bias), address(bias),
        address(y), address(x_hat), address(h), address(h_hat), address(c), address(m),
        address(fired_x), address(fired_h), address(sums_x), address(sums_h), layout.input_parts, address(l1),
        address(counts), address(events), address(tape), address(exchange)};
    // clang-format on
    cuda_on_cpu::launch(deltarnn_forward, layout.launch(layout.forward_warps), forward);
    // clang-format off
    const std::uint64_t backward[] = {
        layout.blocks, layout.units, layout.samples, layout.parts, layout.teams, address(counters), 0,
        steps, batch, inputs, hidden, number(0.05f), 0, 0, 0, address(weight_hh), address(y), address(tape),
        address(grad_y), 0, 0, 0, 0, 0, address(sums), 0, 0, 0, 0};
    // clang-format on
    cuda_on_cpu::launch(deltarnn_backward, layout.launch(layout.backward_warps), backward);
    y.insert(y.end(), sums.begin(), sums.end());
    return y;
}

}  // namespace

int main() {
#if DELTARNN_SCOPE == 0 && !DELTARNN_SPREAD
    const Layout layout{1, 70, 2, 4, 2, 1, 12, 6, 160 * 1024};
#elif DELTARNN_SCOPE == 0
    const Layout layout{1, 70, 1, 4, 3, 1, 18, 15, 160 * 1024};
#elif DELTARNN_SCOPE == 1
    const Layout layout{3, 32, 2, 4, 2, 1, 12, 10, 160 * 1024};
#else
    const Layout layout{4, 18, 2, 1, 2, 0, 2, 2, 160 * 1024};
#endif
    const std::vector<float> first = run(layout), second = run(layout);
    float largest = 0.0f;
    for (const float value : first) largest = std::fmax(largest, std::fabs(value));
    std::printf("%s, largest %g\n", first == second ? "0 differ" : "they differ", largest);
    return first == second && largest > 0.1f ? 0 : 1;
}
