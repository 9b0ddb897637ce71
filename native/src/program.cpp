#include "deltarnn/program.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace deltarnn {

namespace {

Program::Weights packed(const LinearSpec& spec) {
    const int columns = round_up(spec.n, panel_columns);
    Program::Weights weights = {spec.inner, spec.n, AlignedArray<float>(static_cast<std::size_t>(columns) * spec.inner),
                                AlignedArray<float>(columns)};
    for (int column = 0; column < spec.n; ++column) {
        const std::size_t panel = static_cast<std::size_t>(column / panel_columns) * panel_columns * spec.inner;
        for (int j = 0; j < spec.inner; ++j) {
            weights.packed[panel + static_cast<std::size_t>(j) * panel_columns + column % panel_columns] =
                spec.weight[static_cast<std::size_t>(j) * spec.n + column];
        }
    }
    std::copy_n(spec.bias, spec.n, weights.bias.data());
    return weights;
}

constexpr std::size_t shortest_run = 8;  // on average

std::vector<Program::Run> runs_of(const std::vector<std::int32_t>& list, std::size_t arena) {
    std::vector<Program::Run> runs;
    for (std::size_t i = 0; i < list.size(); ++i) {
        if (list[i] < 0 || static_cast<std::size_t>(list[i]) >= arena)
            throw std::invalid_argument("a list points outside of the arena");
        if (!runs.empty() && list[i] == runs.back().from + runs.back().count) {
            ++runs.back().count;
        } else {
            runs.push_back({static_cast<std::int32_t>(i), list[i], 1});
        }
    }
    if (runs.size() * shortest_run > list.size()) runs.clear();
    return runs;
}

template <class Function>
void each(const Instruction& i, float* arena, Function function) {
    for (std::int32_t k = 0; k < i.n; ++k) arena[i.to + k] = function(arena[i.a + k]);
}

template <class Function>
void both(const Instruction& i, float* arena, Function function) {
    float* const to = arena + i.to;
    const float *const a = arena + i.a, *const b = arena + i.b;
    for (std::int32_t k = 0; k < i.n; ++k) to[k] = function(a[k], b[k]);
}

// NaN in, NaN out, in either place.
float larger(float a, float b) { return a > b || a != a ? a : b; }
float smaller(float a, float b) { return a < b || a != a ? a : b; }

}  // namespace

const ProgramKernels& program_kernels(Isa isa){DELTARNN_TABLE(program_kernels, isa)}

Program::Program(const ProgramSpec& spec, Isa isa)
    : float_kernels(deltarnn::float_kernels(isa)), kernels(program_kernels(isa)), arena(spec.arena),
      instructions(spec.instructions), recurrent(spec.recurrent), lists(spec.lists) {
    for (const std::vector<std::int32_t>& list : lists) runs.push_back(runs_of(list, arena.size()));
    for (const LinearSpec& linear : spec.weights) weights.push_back(packed(linear));
    for (const Instruction& instruction : instructions) check(instruction);
}

void Program::check(const Instruction& i) const {
    const auto inside = [&](std::int64_t first, std::int64_t count) {
        if (first < 0 || count < 0 || first + count > static_cast<std::int64_t>(arena.size())) {
            throw std::invalid_argument("an instruction points outside of the arena");
        }
    };
    const std::int64_t rows = i.rows, inner = i.inner;
    const auto resource = [&](std::size_t count) {
        if (i.resource < 0 || static_cast<std::size_t>(i.resource) >= count)
            throw std::invalid_argument("no such resource");
        return i.resource;
    };
    switch (i.operation) {
        case Operation::gather: inside(i.to, lists[resource(lists.size())].size()); break;
        case Operation::linear: {
            const Weights& w = weights[resource(weights.size())];
            if (i.inner != w.inner || i.n != w.n) throw std::invalid_argument("weights of another size");
            inside(i.a, rows * inner);
            inside(i.to, rows * i.n);
            break;
        }
        case Operation::sum:
        case Operation::mean:
        case Operation::highest:
        case Operation::lowest:
            if (inner < 1) throw std::invalid_argument("a reduction of nothing");
            inside(i.a, rows * inner);
            inside(i.to, rows);
            break;
        case Operation::recurrent:
            inside(recurrent[resource(recurrent.size())].next_h, i.n);
            inside(i.a, rows * inner);
            inside(i.to, rows * i.n);
            for (const std::int32_t at :
                 {recurrent[i.resource].h, recurrent[i.resource].c, recurrent[i.resource].next_c}) {
                if (at >= 0) inside(at, i.n);
            }
            break;
        default:
            inside(i.a, i.n);
            inside(i.to, i.n);
            if (i.operation >= Operation::add && i.operation <= Operation::minimum) inside(i.b, i.n);
    }
}

ProgramState::ProgramState(std::shared_ptr<const Program> program, std::vector<Stream*> streams,
                           const std::vector<const Model*>& models)
    : program_(std::move(program)), streams_(std::move(streams)), arena_(program_->arena.size()) {
    if (streams_.size() != program_->recurrent.size() || models.size() != streams_.size()) {
        throw std::invalid_argument("one stream for each recurrent instruction");
    }
    for (const Instruction& i : program_->instructions) {
        if (i.operation != Operation::recurrent) continue;
        const Model& model = *models[i.resource];
        const RecurrentSpec& spec = program_->recurrent[i.resource];
        const std::int64_t cells = model.shapes().front().hidden, size = static_cast<std::int64_t>(arena_.size());
        if (model.shapes().size() != 1 || model.input_size() != i.inner || model.output_size() != i.n ||
            spec.c + cells > size || spec.next_c + cells > size ||
            (model.shapes().front().cell == Cell::lstm && spec.next_c < 0)) {
            throw std::invalid_argument("a stream does not fit its instruction");
        }
    }
    std::copy(program_->arena.begin(), program_->arena.end(), arena_.data());
}

void ProgramState::reset() {
    std::copy(program_->arena.begin(), program_->arena.end(), arena_.data());
    for (Stream* stream : streams_) stream->reset();
}

void ProgramState::run() {
    for (const Instruction& instruction : program_->instructions) execute(instruction);
}

void ProgramState::execute(const Instruction& i) {
    float* const arena = arena_.data();
    if (i.operation == Operation::gather) {
        gather(i);
    } else if (i.operation == Operation::linear) {
        const Program::Weights& w = program_->weights[i.resource];
        program_->kernels.linear(arena + i.a, i.inner, i.rows, w.packed.data(), w.bias.data(), i.inner, arena + i.to,
                                 i.n, i.n);
    } else if (i.operation == Operation::recurrent) {
        step(i);
    } else if (i.operation >= Operation::sum) {
        reduce(i);
    } else if (i.operation >= Operation::relu) {
        apply(i);
    } else {
        combine(i);
    }
}

void ProgramState::gather(const Instruction& i) {
    float* const arena = arena_.data();
    const std::vector<Program::Run>& runs = program_->runs[i.resource];
    if (!runs.empty()) {
        for (const Program::Run& run : runs) std::copy_n(arena + run.from, run.count, arena + i.to + run.to);
        return;
    }
    float* to = arena + i.to;
    for (const std::int32_t from : program_->lists[i.resource]) *to++ = arena[from];
}

void ProgramState::combine(const Instruction& i) {
    float* const arena = arena_.data();
    switch (i.operation) {
        case Operation::add: return both(i, arena, [](float a, float b) { return a + b; });
        case Operation::subtract: return both(i, arena, [](float a, float b) { return a - b; });
        case Operation::multiply: return both(i, arena, [](float a, float b) { return a * b; });
        case Operation::divide: return both(i, arena, [](float a, float b) { return a / b; });
        case Operation::maximum: return both(i, arena, larger);
        default: return both(i, arena, smaller);
    }
}

void ProgramState::apply(const Instruction& i) {
    float* const arena = arena_.data();
    const float alpha = i.alpha, beta = i.beta;
    switch (i.operation) {
        case Operation::relu: return each(i, arena, [](float v) { return v < 0.0f ? 0.0f : v; });
        case Operation::sigmoid:
            return program_->float_kernels.apply_gate(false, false, arena + i.a, arena + i.to, i.n);
        case Operation::tanh: return program_->float_kernels.apply_gate(false, true, arena + i.a, arena + i.to, i.n);
        case Operation::sqrt: return each(i, arena, [](float v) { return std::sqrt(v); });
        case Operation::exp: return each(i, arena, [](float v) { return std::exp(v); });
        case Operation::log: return each(i, arena, [](float v) { return std::log(v); });
        case Operation::absolute: return each(i, arena, [](float v) { return std::fabs(v); });
        case Operation::negate: return each(i, arena, [](float v) { return -v; });
        case Operation::reciprocal: return each(i, arena, [](float v) { return 1.0f / v; });
        case Operation::power: return each(i, arena, [alpha](float v) { return std::pow(v, alpha); });
        case Operation::leaky_relu: return each(i, arena, [alpha](float v) { return v < 0.0f ? alpha * v : v; });
        case Operation::elu: return each(i, arena, [alpha](float v) { return v < 0.0f ? alpha * std::expm1(v) : v; });
        case Operation::softplus:
            return each(i, arena, [](float v) { return std::max(v, 0.0f) + std::log1p(std::exp(-std::fabs(v))); });
        case Operation::erf: return each(i, arena, [](float v) { return std::erf(v); });
        default: return each(i, arena, [alpha, beta](float v) { return v < alpha ? alpha : v > beta ? beta : v; });
    }
}

void ProgramState::reduce(const Instruction& i) {
    const float* from = arena_.data() + i.a;
    float* const to = arena_.data() + i.to;
    for (std::int32_t row = 0; row < i.rows; ++row, from += i.inner) {
        float total = i.operation == Operation::sum || i.operation == Operation::mean ? 0.0f : from[0];
        for (std::int32_t k = 0; k < i.inner; ++k) {
            total = i.operation == Operation::highest  ? larger(from[k], total)
                    : i.operation == Operation::lowest ? smaller(from[k], total)
                                                       : total + from[k];
        }
        to[row] = i.operation == Operation::mean ? total / static_cast<float>(i.inner) : total;
    }
}

void ProgramState::step(const Instruction& i) {
    const RecurrentSpec& spec = program_->recurrent[i.resource];
    Stream& stream = *streams_[i.resource];
    float* const arena = arena_.data();
    const auto at = [&](std::int32_t position) { return position < 0 ? nullptr : arena + position; };
    stream.enter(at(spec.h), at(spec.c), spec.held);
    if (stream.run(arena + i.a, i.rows, arena + i.to) < i.rows) {
        throw std::invalid_argument("a recurrent part gets NaN, which has no fixed-point value");
    }
    stream.hidden(arena + spec.next_h, at(spec.next_c));
}

}  // namespace deltarnn
