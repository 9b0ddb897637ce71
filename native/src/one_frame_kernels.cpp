// Band levels of one frame: the lanes of vectors are elements of its transform.
#include "deltarnn/spectrum.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// A complex signal of one frame, real and imaginary parts apart.
struct Split {
    double *re, *im;
};

DELTARNN_INLINE Complex at(Split from, std::int64_t i) { return {load(from.re + i), load(from.im + i)}; }
DELTARNN_INLINE void put(Split to, std::int64_t i, Complex value) {
    store(to.re + i, value.re);
    store(to.im + i, value.im);
}

// The lower (0) or upper (1) halves of two vectors, element by element in turn.
template <int upper>
DELTARNN_INLINE vd zip(vd a, vd b) {
    constexpr int first = upper * width / 2;
#if defined(__clang__)
#define DELTARNN_PICK(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
    typedef std::int64_t vl __attribute__((vector_size(lanes * 4)));
#define DELTARNN_PICK(...) __builtin_shuffle(a, b, vl{__VA_ARGS__})
#endif
    if constexpr (width == 8) {
        return DELTARNN_PICK(first, first + 8, first + 1, first + 9, first + 2, first + 10, first + 3, first + 11);
    } else if constexpr (width == 4) {
        return DELTARNN_PICK(first, first + 4, first + 1, first + 5);
    } else {
        return DELTARNN_PICK(first, first + 2);
    }
#undef DELTARNN_PICK
}

// to (columns, rows) = from (rows, columns), both multiples of width.
void transpose(const double* from, std::int64_t rows, std::int64_t columns, double* to) {
    for (std::int64_t row = 0; row < rows; row += width) {
        for (std::int64_t column = 0; column < columns; column += width) {
            vd tile[width];
            for (int i = 0; i < width; ++i) tile[i] = load(from + (row + i) * columns + column);
            for (int distance = width / 2; distance > 0; distance /= 2) {
                vd next[width];
                for (int i = 0; i < width / 2; ++i) {
                    next[2 * i] = zip<0>(tile[i], tile[i + width / 2]);
                    next[2 * i + 1] = zip<1>(tile[i], tile[i + width / 2]);
                }
                for (int i = 0; i < width; ++i) tile[i] = next[i];
            }
            for (int i = 0; i < width; ++i) store(to + (column + i) * rows + row, tile[i]);
        }
    }
}

// The passes of `transform`, on one frame. While a pass has at least `width` twiddles, vectors hold neighbouring p:
// element (p, q) lies at q·size + p. Then neighbouring q, at p·stride + q as above.
Split transform_one(std::int64_t half, Split from, Split x, Split y, const double* twiddles) {
    std::int64_t size = half, stride = 1;
    const auto swap = [&] {
        from = y;
        y = x;
        x = from;
        twiddles += 6 * (size / 4);
        size /= 4;
        stride *= 4;
    };
    while (size / 4 >= width) {
        const std::int64_t quarter = size / 4;
        for (std::int64_t q = 0; q < stride; ++q) {
            for (std::int64_t p = 0; p < quarter; p += width) {
                const double* const first = twiddles + p;
                const Twiddles t = {load(first),
                                    load(first + quarter),
                                    load(first + 2 * quarter),
                                    load(first + 3 * quarter),
                                    load(first + 4 * quarter),
                                    load(first + 5 * quarter)};
                const std::int64_t i = q * size + p;
                Complex out[4];
                butterfly(at(from, i), at(from, i + quarter), at(from, i + 2 * quarter), at(from, i + 3 * quarter), t,
                          out);
                for (int k = 0; k < 4; ++k) put(y, (q + k * stride) * quarter + p, out[k]);
            }
        }
        swap();
    }
    transpose(from.re, stride, size, y.re);
    transpose(from.im, stride, size, y.im);
    from = y;
    y = x;
    x = from;
    while (size >= 4) {
        const std::int64_t quarter = size / 4;
        for (std::int64_t p = 0; p < quarter; ++p) {
            const Twiddles t = twiddles_at(twiddles, quarter, p);
            for (std::int64_t q = 0; q < stride; q += width) {
                const std::int64_t i = stride * p + q, step = stride * quarter;
                Complex out[4];
                butterfly(at(from, i), at(from, i + step), at(from, i + 2 * step), at(from, i + 3 * step), t, out);
                for (int k = 0; k < 4; ++k) put(y, stride * (4 * p + k) + q, out[k]);
            }
        }
        swap();
    }
    if (size == 2) {
        for (std::int64_t q = 0; q < stride; q += width) {
            const Complex a = at(from, q), b = at(from, q + stride);
            put(y, q, a + b);
            put(y, q + stride, a - b);
        }
        return y;
    }
    return from;
}

}  // namespace

void one_frame_levels(const BandView& plan, const std::int16_t* frame, double* levels, double* scratch) {
    const std::int64_t half = plan.points / 2;
    const auto take = [&](std::int64_t count) {
        double* const taken = scratch;
        scratch += count;
        return taken;
    };
    const Split input = {take(half), take(half)}, x = {take(half), take(half)}, y = {take(half), take(half)};
    // Bins are computed from 1 on: element 1 is aligned.
    const auto take_from_one = [&](std::int64_t count) { return take(count / 8 * 8 + 16) + 7; };
    double* const spectrum = take_from_one(half + 1 + weight_group);
    const Split mirror = {take_from_one(half / 2 + 1), take_from_one(half / 2 + 1)};
    double* const high = take_from_one(half / 2 + 1);
    for (std::int64_t n = 0; n < plan.length / 2; ++n) {
        input.re[n] = static_cast<double>(frame[2 * n]) * plan.window[2 * n];
        input.im[n] = static_cast<double>(frame[2 * n + 1]) * plan.window[2 * n + 1];
    }
    if (plan.length % 2 != 0)
        input.re[plan.length / 2] = static_cast<double>(frame[plan.length - 1]) * plan.window[plan.length - 1];
    const Split z = transform_one(half, input, x, y, plan.twiddles);
    for (std::int64_t k = 1; k <= half / 2; ++k) {
        mirror.re[k] = z.re[half - k];
        mirror.im[k] = z.im[half - k];
    }
    for (std::int64_t k = 1; k <= half / 2; k += width) {
        vd low, upper;
        pair_magnitudes(at(z, k), at(mirror, k), load(plan.cosine + k), load(plan.sine + k), low, upper);
        store(spectrum + k, low);
        store(high + k, upper);
    }
    for (std::int64_t k = 1; k <= half / 2; ++k) spectrum[half - k] = high[k];
    const double first = z.re[0] + z.im[0], last = z.re[0] - z.im[0];
    spectrum[0] = first < 0.0 ? -first : first;
    spectrum[half] = last < 0.0 ? -last : last;
    if (plan.power) {
        for (std::int64_t k = 0; k <= half; ++k) spectrum[k] *= spectrum[k];
    }
    for (std::int64_t band = 0; band < plan.bands; ++band) {
        const double* const w = plan.weight + plan.offset[band];
        const double* const bins = spectrum + plan.first[band];
        const std::int64_t count = plan.offset[band + 1] - plan.offset[band];
        constexpr int parts = static_cast<int>(weight_group) / width;
        vd sums[parts] = {};
        for (std::int64_t k = 0; k < count; k += weight_group) {
            for (int i = 0; i < parts; ++i) sums[i] = fma(load(w + k + i * width), load(bins + k + i * width), sums[i]);
        }
        double lane[weight_group];
        for (int i = 0; i < parts; ++i) store(lane + i * width, sums[i]);
        levels[band] = total(lane);
    }
}

}  // namespace deltarnn::DELTARNN_ISA
