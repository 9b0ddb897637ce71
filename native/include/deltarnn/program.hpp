// A whole network with fixed sizes as a list of instructions over one array of floats, the arena.
//
// Every value of the network has a fixed position in the arena. Operators that only move values (transpose, slice, pad,
// concatenate) cost nothing: the compiler of a program tracks where their elements are, and emits a `gather` where an
// instruction needs them contiguous.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "deltarnn/aligned.hpp"
#include "deltarnn/engine.hpp"
#include "deltarnn/program_kernels.hpp"

namespace deltarnn {

// clang-format off
enum class Operation {
    gather,  // to[i] = arena[list[i]], i < n
    linear,  // to (rows, n) = a (rows, inner)·W + bias
    add, subtract, multiply, divide, maximum, minimum,  // to[i] = a[i] ∘ b[i]
    relu, sigmoid, tanh, sqrt, exp, log, absolute, negate, reciprocal, power,
    leaky_relu, elu, softplus, erf, clip,  // to[i] = f(a[i])
    sum, mean, highest, lowest,  // to[r] = over a[r][0:inner], r < rows
    recurrent,  // rows steps of a stream: a (rows, I) → to (rows, H), see RecurrentSpec
};
// clang-format on

// Positions in the arena: to, a, b. alpha, beta: parameters of power, leaky_relu, elu, clip. resource: which list,
// weights, or stream.
struct Instruction {
    Operation operation;
    std::int32_t to, a, b, n, rows, inner, resource;
    float alpha, beta;
};

// W (inner, n) row-major, bias (n).
struct LinearSpec {
    int inner, n;
    const float *weight, *bias;
};

// Where a stream's initial and final states are in the arena; −1 for none: zeros, a GRU's c.
struct RecurrentSpec {
    std::int32_t h, c, next_h, next_c;
    bool held;
};

struct ProgramSpec {
    std::vector<float> arena;  // constants where they belong, zeros elsewhere
    std::vector<Instruction> instructions;
    std::vector<std::vector<std::int32_t>> lists;
    std::vector<LinearSpec> weights;
    std::vector<RecurrentSpec> recurrent;
};

// Immutable. Instructions are checked against the arena when it is made (std::invalid_argument).
class Program {
  public:
    Program(const ProgramSpec& spec, Isa isa);

    struct Weights {
        int inner, n;
        AlignedArray<float> packed, bias;
    };
    // Neighbours in a list that are neighbours in the arena too are copied at once.
    struct Run {
        std::int32_t to, from, count;
    };

    const FloatKernels& float_kernels;
    const ProgramKernels& kernels;
    const std::vector<float> arena;
    const std::vector<Instruction> instructions;
    const std::vector<RecurrentSpec> recurrent;
    std::vector<std::vector<std::int32_t>> lists;
    std::vector<std::vector<Run>> runs;  // empty where they are too short to be worth it
    std::vector<Weights> weights;

  private:
    void check(const Instruction& instruction) const;
};

// The state of one run of a network: an arena, and a stream for each recurrent resource (std::invalid_argument if one
// does not fit its instruction). Not for two threads at once.
class ProgramState {
  public:
    ProgramState(std::shared_ptr<const Program> program, std::vector<Stream*> streams,
                 const std::vector<const Model*>& models);

    float* arena() { return arena_.data(); }
    // The arena and all streams as they were before the first run.
    void reset();
    // Runs all instructions. std::invalid_argument if a frame or state holds NaN where a stream cannot represent it.
    void run();

  private:
    void execute(const Instruction& instruction);
    void gather(const Instruction& instruction);
    void apply(const Instruction& instruction);
    void combine(const Instruction& instruction);
    void reduce(const Instruction& instruction);
    void step(const Instruction& instruction);

    std::shared_ptr<const Program> program_;
    std::vector<Stream*> streams_;
    AlignedArray<float> arena_;
};

}  // namespace deltarnn
