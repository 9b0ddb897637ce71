// Activation functions on vectors, and their hard forms (MATH §2, §3). NaN in, NaN out; no other value gives NaN.
#pragma once
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

namespace detail {

// exp(x) = 2ⁿ·(1 + p) with n whole and |ln(1 + p)| ≤ ln 2 / 2, for −87.4 ≤ x ≤ 88 (no check).
// p = r + r²·q(r) with q fitted at Chebyshev nodes: relative error below 3e−8 before rounding.
struct Exponential {
    vf scale;  // 2ⁿ
    vf p;
};

DELTARNN_INLINE Exponential exponential(vf x) {
    const vf magic = splat(12582912.0f);  // 1.5·2²³: adding it rounds to a whole number, kept in the low bits
    const vf shifted = fma(x, splat(1.44269504f), magic);
    const vf n = shifted - magic;
    vf r = fma(n, splat(-0.693359375f), x);  // ln 2 in two parts, the first exact in n·part
    r = fma(n, splat(2.12194440e-4f), r);
    vf q = splat(0.0013926184f);
    q = fma(q, r, splat(0.00836317893f));
    q = fma(q, r, splat(0.0416665561f));
    q = fma(q, r, splat(0.166665763f));
    q = fma(q, r, splat(0.5f));
    const vu exponent = ((vu)shifted + 127) << 23;  // the magic number's own bits leave by the top; NaN's wrap
    return {(vf)exponent, fma(r * r, q, r)};
}

}  // namespace detail

// 1 / (1 + e^−x), within 3 units in the last place for |x| ≤ 87.
DELTARNN_INLINE vf sigmoid(vf x) {
    const vf y = -minimum(maximum(x, splat(-87.0f)), splat(87.0f));
    const auto [scale, p] = detail::exponential(y);
    return 1.0f / (1.0f + fma(scale, p, scale));
}

// tanh x = −t / (t + 2) with t = e^(−2|x|) − 1, within 4 units in the last place.
DELTARNN_INLINE vf hyperbolic_tangent(vf x) {
    const vf y = maximum(-2.0f * absolute(x), splat(-87.0f));
    const auto [scale, p] = detail::exponential(y);
    const vf t = fma(scale, p, scale - 1.0f);
    const vf magnitude = (vf{} - t) / (t + 2.0f);  // +0 at 0
    return (vf)((vi)magnitude | ((vi)x & static_cast<std::int32_t>(0x80000000)));
}

// clip(x/4 + 1/2, 0, 1)
DELTARNN_INLINE vf hard_sigmoid(vf x) { return minimum(maximum(fma(x, splat(0.25f), splat(0.5f)), vf{}), splat(1.0f)); }

// clip(x, −1, 1)
DELTARNN_INLINE vf hard_hyperbolic_tangent(vf x) { return minimum(maximum(x, splat(-1.0f)), splat(1.0f)); }

// The pair of functions a layer uses, chosen at compile time.
template <bool hard>
DELTARNN_INLINE vf gate_sigmoid(vf x) {
    return hard ? hard_sigmoid(x) : sigmoid(x);
}

template <bool hard>
DELTARNN_INLINE vf gate_tanh(vf x) {
    return hard ? hard_hyperbolic_tangent(x) : hyperbolic_tangent(x);
}

}  // namespace deltarnn::DELTARNN_ISA
