// Band levels of many frames, a frame to each lane; cascades of second-order sections.
#include "deltarnn/signal_kernels.hpp"

#include "deltarnn/spectrum.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// One radix-4 pass of the Stockham transform of `size` points at `stride`, from x to y (both (size·stride,)).
void pass4(std::int64_t size, std::int64_t stride, const Complex* x, Complex* y, const double* twiddles) {
    const std::int64_t quarter = size / 4;
    for (std::int64_t p = 0; p < quarter; ++p) {
        const Twiddles t = twiddles_at(twiddles, quarter, p);
        const Complex* from = x + stride * p;
        Complex* to = y + stride * 4 * p;
        for (std::int64_t q = 0; q < stride; ++q) {
            Complex out[4];
            butterfly(from[q], from[q + stride * quarter], from[q + stride * 2 * quarter],
                      from[q + stride * 3 * quarter], t, out);
            for (int k = 0; k < 4; ++k) to[q + k * stride] = out[k];
        }
    }
}

void pass2(std::int64_t stride, const Complex* x, Complex* y) {
    for (std::int64_t q = 0; q < stride; ++q) {
        const Complex a = x[q], b = x[q + stride];
        y[q] = a + b;
        y[q + stride] = a - b;
    }
}

// Transform of `half` complex points; the result lies in x or y, whichever is returned.
Complex* transform(std::int64_t half, Complex* x, Complex* y, const double* twiddles) {
    std::int64_t size = half, stride = 1;
    while (size >= 4) {
        pass4(size, stride, x, y, twiddles);
        Complex* last = x;
        x = y;
        y = last;
        twiddles += 6 * (size / 4);
        size /= 4;
        stride *= 4;
    }
    if (size == 2) {
        pass2(stride, x, y);
        return y;
    }
    return x;
}

// Magnitudes (half + 1,) of the real transform whose even and odd samples went into z as real and imaginary parts.
void magnitudes(std::int64_t half, const Complex* z, vd* out, const double* cosine, const double* sine) {
    out[0] = absolute(z[0].re + z[0].im);
    out[half] = absolute(z[0].re - z[0].im);
    for (std::int64_t k = 1; k <= half / 2; ++k) {
        vd low, high;
        pair_magnitudes(z[k], z[half - k], splat(cosine[k]), splat(sine[k]), low, high);
        out[k] = low;
        out[half - k] = high;
    }
}

template <class Sample>
DELTARNN_INLINE void fill(Complex* z, const Frames& frames, std::int64_t row, std::int64_t rows, const double* window,
                          std::int64_t length, std::int64_t half) {
    double* to = reinterpret_cast<double*>(z);
    for (std::int64_t i = 0; i < 2 * half * width; ++i) to[i] = 0.0;
    for (int lane = 0; lane < width && row + lane < rows; ++lane) {
        const std::int64_t signal = (row + lane) / frames.frames, frame = (row + lane) % frames.frames;
        const Sample* from =
            static_cast<const Sample*>(frames.samples) + signal * frames.signal_stride + frame * frames.hop;
        // Sample n goes to the real part of element n / 2 where n is even, to its imaginary part where n is odd.
        for (std::int64_t n = 0; n < length; ++n) to[n * width + lane] = static_cast<double>(from[n]) * window[n];
    }
}

void band_levels(const BandView& plan, const Frames& frames, double* levels, double* scratch) {
    const std::int64_t half = plan.points / 2, rows = frames.signals * frames.frames;
    Complex* x = reinterpret_cast<Complex*>(scratch);
    Complex* y = x + half;
    vd* spectrum = reinterpret_cast<vd*>(y + half);
    for (std::int64_t row = 0; row < rows; row += width) {
        if (frames.integer) {
            fill<std::int16_t>(x, frames, row, rows, plan.window, plan.length, half);
        } else {
            fill<double>(x, frames, row, rows, plan.window, plan.length, half);
        }
        magnitudes(half, transform(half, x, y, plan.twiddles), spectrum, plan.cosine, plan.sine);
        if (plan.power) {
            for (std::int64_t k = 0; k <= half; ++k) spectrum[k] *= spectrum[k];
        }
        for (std::int64_t band = 0; band < plan.bands; ++band) {
            const double* w = plan.weight + plan.offset[band];
            const std::int64_t count = plan.offset[band + 1] - plan.offset[band];
            const vd* bins = spectrum + plan.first[band];
            vd sums[weight_group] = {};
            for (std::int64_t k = 0; k < count; k += weight_group) {
                for (int i = 0; i < weight_group; ++i) sums[i] = fma(splat(w[k + i]), bins[k + i], sums[i]);
            }
            const vd level = total(sums);
            for (int lane = 0; lane < width && row + lane < rows; ++lane) {
                levels[(row + lane) * plan.bands + band] = level[lane];
            }
        }
    }
}

// One group of channels. The state stays in registers, so the number of sections is known here.
template <int sections>
void group_sums(const double* signal, const double* coefficients, const std::int64_t* ends, std::int64_t segments,
                double* sums, std::int64_t sums_stride) {
    constexpr int parts = static_cast<int>(signal_lanes) / width;
    const vd_any* table = reinterpret_cast<const vd_any*>(coefficients);
    vd b0[sections][parts], b1[sections][parts], b2[sections][parts], a1[sections][parts], a2[sections][parts];
    vd first[sections][parts], second[sections][parts];
    for (int s = 0; s < sections; ++s) {
        for (int i = 0; i < parts; ++i) {
            const vd_any* c = table + s * 5 * parts + i;
            b0[s][i] = c[0], b1[s][i] = c[parts], b2[s][i] = c[2 * parts];
            a1[s][i] = -c[3 * parts], a2[s][i] = -c[4 * parts];
            first[s][i] = second[s][i] = vd{};
        }
    }
    std::int64_t n = 0;
    for (std::int64_t segment = 0; segment < segments; ++segment) {
        vd total[parts] = {};
        for (; n < ends[segment]; ++n) {
            for (int i = 0; i < parts; ++i) {
                vd value = splat(signal[n]);
                for (int s = 0; s < sections; ++s) {
                    const vd in = value;
                    value = fma(b0[s][i], in, first[s][i]);
                    first[s][i] = fma(a1[s][i], value, fma(b1[s][i], in, second[s][i]));
                    second[s][i] = fma(a2[s][i], value, b2[s][i] * in);
                }
                total[i] += absolute(value);
            }
        }
        vd_any* to = reinterpret_cast<vd_any*>(sums + segment * sums_stride);
        for (int i = 0; i < parts; ++i) to[i] = total[i];
    }
}

void rectified_sums(const double* signal, std::int64_t groups, std::int64_t sections, const double* coefficients,
                    const std::int64_t* ends, std::int64_t segments, double* sums) {
    const auto run = sections == 1   ? group_sums<1>
                     : sections == 2 ? group_sums<2>
                     : sections == 3 ? group_sums<3>
                                     : group_sums<4>;
    for (std::int64_t group = 0; group < groups; ++group) {
        run(signal, coefficients + group * sections * 5 * signal_lanes, ends, segments, sums + group * signal_lanes,
            groups * signal_lanes);
    }
}

}  // namespace

extern const SignalKernels signal_kernels = {band_levels, one_frame_levels, rectified_sums};

}  // namespace deltarnn::DELTARNN_ISA
