// The engine's kernels: one table per instruction set.
#pragma once
#include "deltarnn/dispatch.hpp"

namespace deltarnn {

struct EngineKernels {
    // Activation functions over n values, to[i] = f(from[i]): hard or smooth, σ or tanh.
    void (*apply_gate)(bool hard, bool tanh, const float* from, float* to, int n);
};

DELTARNN_DECLARE_TABLE(EngineKernels, engine_kernels)

const EngineKernels& engine_kernels(Isa isa);

}  // namespace deltarnn
