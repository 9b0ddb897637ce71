#include "deltarnn/engine_kernels.hpp"

#include "deltarnn/gates.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

template <vf (*function)(vf)>
void apply(const float* from, float* to, int n) {
    int i = 0;
    for (; i + lanes <= n; i += lanes) store(to + i, function(load(from + i)));
    for (; i < n; ++i) to[i] = function(splat(from[i]))[0];
}

void apply_gate(bool hard, bool tanh, const float* from, float* to, int n) {
    if (hard) {
        tanh ? apply<hard_hyperbolic_tangent>(from, to, n) : apply<hard_sigmoid>(from, to, n);
    } else {
        tanh ? apply<hyperbolic_tangent>(from, to, n) : apply<sigmoid>(from, to, n);
    }
}

}  // namespace

extern const EngineKernels engine_kernels = {apply_gate};

}  // namespace deltarnn::DELTARNN_ISA
