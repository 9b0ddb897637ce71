// The FFT's arithmetic, shared by the kernel for many frames (signal_kernels.cpp) and that for one frame
// (one_frame_kernels.cpp): the same operations on each element, so that both give the same bits.
#pragma once
#include "deltarnn/signal_kernels.hpp"
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

void one_frame_levels(const BandView& plan, const std::int16_t* frame, double* levels, double* scratch);

constexpr int width = lanes / 2;  // doubles per vector
typedef double vd __attribute__((vector_size(lanes * 4)));

typedef double vd_any __attribute__((vector_size(lanes * 4), aligned(8), may_alias));

DELTARNN_INLINE vd load(const double* from) { return *reinterpret_cast<const vd_any*>(from); }
DELTARNN_INLINE void store(double* to, vd value) { *reinterpret_cast<vd_any*>(to) = value; }
DELTARNN_INLINE vd splat(double value) { return value - vd{}; }

DELTARNN_INLINE vd fma(vd a, vd b, vd c) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_fmadd_pd(a, b, c);
#elif defined(DELTARNN_ISA_AVX2)
    return _mm256_fmadd_pd(a, b, c);
#elif defined(DELTARNN_ISA_NEON)
    return vfmaq_f64(c, a, b);
#else
    return a * b + c;
#endif
}

DELTARNN_INLINE vd square_root(vd a) {
#if defined(DELTARNN_ISA_AVX512)
    return _mm512_maskz_sqrt_pd(0xff, a);  // the plain form makes GCC 12 warn of its own header
#elif defined(DELTARNN_ISA_AVX2)
    return _mm256_sqrt_pd(a);
#elif defined(DELTARNN_ISA_NEON)
    return vsqrtq_f64(a);
#else
    for (int i = 0; i < width; ++i) a[i] = __builtin_sqrt(a[i]);
    return a;
#endif
}

DELTARNN_INLINE vd absolute(vd a) { return a < vd{} ? -a : a; }

struct Complex {
    vd re, im;
};

DELTARNN_INLINE Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
DELTARNN_INLINE Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
// a · e^(−iφ), with c = cos φ, s = sin φ: a forward twiddle factor.
DELTARNN_INLINE Complex twiddled(Complex a, vd c, vd s) { return {fma(a.im, s, a.re * c), fma(a.re, -s, a.im * c)}; }

// The twiddle factors of one radix-4 butterfly: cosine and sine of φ, 2φ and 3φ.
struct Twiddles {
    vd c1, s1, c2, s2, c3, s3;
};

DELTARNN_INLINE void butterfly(Complex a, Complex b, Complex c, Complex d, const Twiddles& t, Complex out[4]) {
    const Complex sum_ac = a + c, diff_ac = a - c, sum_bd = b + d, diff_bd = b - d;
    const Complex rotated_bd = {-diff_bd.im, diff_bd.re};  // i·(b − d)
    out[0] = sum_ac + sum_bd;
    out[1] = twiddled(diff_ac - rotated_bd, t.c1, t.s1);
    out[2] = twiddled(sum_ac - sum_bd, t.c2, t.s2);
    out[3] = twiddled(diff_ac + rotated_bd, t.c3, t.s3);
}

DELTARNN_INLINE Twiddles twiddles_at(const double* twiddles, std::int64_t quarter, std::int64_t p) {
    const double* const t = twiddles + p;
    return {splat(t[0]),           splat(t[quarter]),     splat(t[2 * quarter]),
            splat(t[3 * quarter]), splat(t[4 * quarter]), splat(t[5 * quarter])};
}

DELTARNN_INLINE vd magnitude(Complex a) { return square_root(fma(a.re, a.re, a.im * a.im)); }

// Magnitudes of bins k and half − k of the real transform whose even and odd samples are the real and imaginary parts
// of the complex one: a its element k, b its element half − k.
DELTARNN_INLINE void pair_magnitudes(Complex a, Complex b, vd c, vd s, vd& low, vd& high) {
    const vd one_half = splat(0.5);
    const Complex even = {(a.re + b.re) * one_half, (a.im - b.im) * one_half};
    const Complex odd = {(a.im + b.im) * one_half, (b.re - a.re) * one_half};  // −i·(a − conj b)/2
    const Complex rotated = twiddled(odd, c, s);
    low = magnitude(even + rotated);
    high = magnitude(even - rotated);
}

// Partial sums in a fixed order; T a vector (of one lane per frame) or a number.
template <class T>
DELTARNN_INLINE T total(const T sums[weight_group]) {
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

}  // namespace deltarnn::DELTARNN_ISA
