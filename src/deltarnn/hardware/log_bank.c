/* Log filter bank in integers: docs/embedded.md. Its sizes and tables stand above. */

#if defined(__GNUC__)
#define FE_INLINE inline __attribute__((always_inline))
#else
#define FE_INLINE inline
#endif

/* a * cos / 2^16 and a * sin / 2^16, rounded down, of a pair (sin << 16 | cos); and added to a sum. */
#if defined(__ARM_FEATURE_DSP) && __ARM_FEATURE_DSP
static FE_INLINE int32_t fe_times_cos(int32_t a, int32_t pair)
{
    int32_t product;
    __asm__("smulwb %0, %1, %2" : "=r"(product) : "r"(a), "r"(pair));
    return product;
}

static FE_INLINE int32_t fe_times_sin(int32_t a, int32_t pair)
{
    int32_t product;
    __asm__("smulwt %0, %1, %2" : "=r"(product) : "r"(a), "r"(pair));
    return product;
}

static FE_INLINE int32_t fe_add_times_sin(int32_t sum, int32_t a, int32_t pair)
{
    __asm__("smlawt %0, %1, %2, %3" : "=r"(sum) : "r"(a), "r"(pair), "r"(sum));
    return sum;
}
#define TIMES_COS(a, pair) fe_times_cos(a, pair)
#define TIMES_SIN(a, pair) fe_times_sin(a, pair)
#define ADD_TIMES_SIN(sum, a, pair) fe_add_times_sin(sum, a, pair)
#else
static FE_INLINE int32_t fe_times(int32_t a, int32_t w)
{
    return (a >> 16) * w + (((a & 0xffff) * w) >> 16);
}
#define TIMES_COS(a, pair) fe_times(a, (int16_t)(pair))
#define TIMES_SIN(a, pair) fe_times(a, (pair) >> 16)
#define ADD_TIMES_SIN(sum, a, pair) ((sum) + TIMES_SIN(a, pair))
#endif

#define FE_HALF (2 * FE_POINTS)

static FE_INLINE int32_t fe_product(const int16_t *x, int32_t i, int32_t shift)
{
    return (x[i] * fe_window[i] + ((1 << shift) >> 1)) >> shift;
}

/* Windowed sample i of the first half of the FFT's length, and what lies half of that length later. */
static FE_INLINE int32_t fe_first(const int16_t *x, int32_t i, int32_t shift)
{
    return FE_LENGTH >= FE_HALF || i < FE_LENGTH ? fe_product(x, i, shift) : 0;
}

static FE_INLINE int32_t fe_second(const int16_t *x, int32_t i, int32_t shift)
{
    return FE_LENGTH > FE_HALF && i + FE_HALF < FE_LENGTH ? fe_product(x, i + FE_HALF, shift) : 0;
}

/* The sum of four points, the later three turned already, into p[0], p[stride], … (words). */
static FE_INLINE void fe_combine(int32_t *p, int32_t stride, int32_t a_re, int32_t a_im, int32_t b_re, int32_t b_im,
                                 int32_t c_re, int32_t c_im, int32_t d_re, int32_t d_im)
{
    const int32_t s_re = a_re + c_re, s_im = a_im + c_im, t_re = a_re - c_re, t_im = a_im - c_im;
    const int32_t u_re = b_re + d_re, u_im = b_im + d_im, v_re = b_re - d_re, v_im = b_im - d_im;
    p[0] = s_re + u_re;
    p[1] = s_im + u_im;
    p[stride] = t_re + v_im;
    p[stride + 1] = t_im - v_re;
    p[2 * stride] = s_re - u_re;
    p[2 * stride + 1] = s_im - u_im;
    p[3 * stride] = t_re - v_im;
    p[3 * stride + 1] = t_im + v_re;
}

/* All butterflies of one stage, which combines FFTs of `size` points and halves. */
static FE_INLINE void fe_stage(int32_t *z, int32_t size)
{
    const int32_t stride = 2 * size, step = FE_POINTS / (4 * size);
    int32_t *const end = z + 2 * FE_POINTS;
    int32_t *p, *first, turn = 0;
    for (p = z; p < end; p += 4 * stride) {
        fe_combine(p, stride, p[0] >> 1, p[1] >> 1, p[stride] >> 1, p[stride + 1] >> 1, p[2 * stride] >> 1,
                   p[2 * stride + 1] >> 1, p[3 * stride] >> 1, p[3 * stride + 1] >> 1);
    }
    for (first = z + 2; first < z + stride; first += 2) {
        int32_t w_1, w_2, w_3;
        turn += step;
        w_1 = fe_twiddles[turn];
        w_2 = fe_twiddles[2 * turn];
        w_3 = fe_twiddles[3 * turn];
        for (p = first; p < end; p += 4 * stride) {
            const int32_t b = p[stride], b_im = p[stride + 1], d = p[3 * stride], d_im = p[3 * stride + 1];
            const int32_t c = p[2 * stride], c_im = p[2 * stride + 1];
            fe_combine(p, stride, p[0] >> 1, p[1] >> 1,
                       ADD_TIMES_SIN(TIMES_COS(b, w_1), b_im, w_1), TIMES_COS(b_im, w_1) - TIMES_SIN(b, w_1),
                       ADD_TIMES_SIN(TIMES_COS(c, w_2), c_im, w_2), TIMES_COS(c_im, w_2) - TIMES_SIN(c, w_2),
                       ADD_TIMES_SIN(TIMES_COS(d, w_3), d_im, w_3), TIMES_COS(d_im, w_3) - TIMES_SIN(d, w_3));
        }
    }
}

/* The stages of an FFT of FE_POINTS complex points (re, im) after the first. */
static void fe_transform(int32_t *z)
{
    fe_stage(z, FE_FIRST);
#if FE_POINTS > 4 * FE_FIRST
    fe_stage(z, 4 * FE_FIRST);
#endif
#if FE_POINTS > 16 * FE_FIRST
    fe_stage(z, 16 * FE_FIRST);
#endif
#if FE_POINTS > 64 * FE_FIRST
    fe_stage(z, 64 * FE_FIRST);
#endif
}

typedef struct {
    int32_t re, im;
} fe_point;

/* What the FFT of the even bins, or of the odd ones, takes as its point n. */
static FE_INLINE fe_point fe_input(const int16_t *x, int32_t n, int32_t odd)
{
    fe_point point;
    if (odd) {
        const int32_t w = fe_twists[n];
        const int32_t p = fe_first(x, n, FE_SHIFT - 1) - fe_second(x, n, FE_SHIFT - 1);
        const int32_t q = fe_first(x, n + FE_POINTS, FE_SHIFT - 1) - fe_second(x, n + FE_POINTS, FE_SHIFT - 1);
        point.re = TIMES_COS(p, w) - TIMES_SIN(q, w);
        point.im = -ADD_TIMES_SIN(TIMES_COS(q, w), p, w);
    } else {
        point.re = fe_first(x, 2 * n, FE_SHIFT) + fe_second(x, 2 * n, FE_SHIFT);
        point.im = fe_first(x, 2 * n + 1, FE_SHIFT) + fe_second(x, 2 * n + 1, FE_SHIFT);
    }
    return point;
}

/* Window, and the first stage. */
static FE_INLINE void fe_begin(const int16_t *x, int32_t *z, int32_t odd)
{
    int32_t n;
    for (n = 0; n < FE_BLOCKS; ++n) {
        int32_t *const p = z + 2 * FE_FIRST * fe_order[n];
        const fe_point a = fe_input(x, n, odd), b = fe_input(x, n + FE_BLOCKS, odd);
#if FE_FIRST == 2
        p[0] = a.re + b.re;
        p[1] = a.im + b.im;
        p[2] = a.re - b.re;
        p[3] = a.im - b.im;
#else
        const fe_point c = fe_input(x, n + 2 * FE_BLOCKS, odd), d = fe_input(x, n + 3 * FE_BLOCKS, odd);
        fe_combine(p, 2, a.re, a.im, b.re, b.im, c.re, c.im, d.re, d.im);
#endif
    }
}

/* The bins 0, 2, 4, … */
static void fe_even(const int16_t *x, int32_t *z)
{
    int32_t n;
    fe_begin(x, z, 0);
    fe_transform(z);
    z[0] += z[1];
    z[1] = 0;
    for (n = 1; n < FE_POINTS / 2; ++n) {
        int32_t *const p = z + 2 * n, *const q = z + 2 * (FE_POINTS - n);
        const int32_t w = fe_twists[2 * n];
        const int32_t a_re = (p[0] + q[0]) >> 1, a_im = (p[1] - q[1]) >> 1;
        const int32_t b_re = p[0] - q[0], b_im = p[1] + q[1];
        const int32_t t_re = ADD_TIMES_SIN(TIMES_COS(b_re, w), b_im, w);
        const int32_t t_im = TIMES_COS(b_im, w) - TIMES_SIN(b_re, w);
        p[0] = a_re + t_im;
        p[1] = a_im - t_re;
        q[0] = a_re - t_im;
        q[1] = a_im + t_re;
    }
}

/* The bins 1, 5, 9, …; from the middle on the conjugates of … 11, 7, 3. */
static void fe_odd(const int16_t *x, int32_t *z)
{
    fe_begin(x, z, 1);
    fe_transform(z);
}

#if FE_POWERS
/* Adds the weighted powers of every 2^log-th bin from `bin` on, which lie `step` words apart, to the bands' levels. */
static void fe_add(const int32_t *z, int32_t bin, int32_t log, int32_t step, uint64_t *levels)
{
    const uint16_t *weights = fe_weights;
    int32_t band;
    for (band = 0; band < FE_FILTERS; ++band) {
        const int32_t begin = fe_bands[2 * band], end = fe_bands[2 * band + 1];
        int32_t at = begin + ((bin - begin) & ((1 << log) - 1));
        const int32_t *p = z + ((at - bin) >> log) * step;
        uint64_t sum = 0;
        for (; at < end; at += 1 << log) {
            const uint64_t power = (uint64_t)((int64_t)p[0] * p[0] + (int64_t)p[1] * p[1]);
            sum += (power >> FE_POWER_SHIFT) * weights[at - begin];
            p += step;
        }
        levels[band] += sum;
        weights += end - begin;
    }
}
#define FE_BIN_0 0
#define FE_BIN_1 1
#define FE_BIN_3 3
#define FE_SUMS FE_FILTERS
#define FE_OUTER 0
#else
#define FE_SUMS (FE_FILTERS + 2) /* of the corners: first and last are no filter's */
#define FE_OUTER 1
/* Adds the magnitudes of every 2^log-th bin from `bin` on to the triangles' levels. They lie `step` words apart.
 * |re + j im| is, within 1 %, the larger of two projections. Of n magnitudes m_i, i = 0 …, `sums` becomes the sum of
 * (n - i) m_i, from which their sum with rising weights follows. */
static void fe_add(const int32_t *z, int32_t bin, int32_t log, int32_t step, uint32_t *levels)
{
    const int32_t stride = 1 << log;
    int32_t corner;
    for (corner = 0; corner <= FE_FILTERS; ++corner) {
        const int32_t count = (fe_corners[corner + 1] - bin + stride - 1) >> log, first = bin - fe_corners[corner];
        uint32_t sum = 0, rising;
        uint64_t sums = 0;
        int32_t left;
        for (left = count; left > 0; --left) {
            const int32_t re = z[0] < 0 ? -z[0] : z[0], im = z[1] < 0 ? -z[1] : z[1];
            const int32_t both = re + im, apart = re < im ? im - re : re - im;
            const int32_t one = ADD_TIMES_SIN(TIMES_COS(both, FE_PROJECTION_0), apart, FE_PROJECTION_0);
            const int32_t other = ADD_TIMES_SIN(TIMES_COS(both, FE_PROJECTION_1), apart, FE_PROJECTION_1);
            sum += (uint32_t)(one > other ? one : other);
            sums += sum;
            z += step;
        }
        sums = (uint64_t)sum * (uint32_t)(first + stride * count) - sums * (uint32_t)stride;
        rising = (uint32_t)((sums * fe_slopes[corner]) >> 32);
        levels[corner + 1] += rising;
        levels[corner] += sum - rising;
        bin += stride * count;
    }
}
#endif

/* The network's input of the samples at hand. */
static void fe_features(STATE *state)
{
    level_t levels[FE_SUMS];
    int32_t *const z = state->spectrum;
    int32_t i;
    for (i = 0; i < FE_SUMS; ++i) {
        levels[i] = 0;
    }
    fe_even(state->samples, z);
    fe_add(z + FE_BIN_0, FE_BIN_0, 1, 2, levels);
    fe_odd(state->samples, z);
    fe_add(z + (FE_BIN_1 - 1) / 2, FE_BIN_1, 2, 2, levels);
    fe_add(z + (4 * FE_POINTS - 1 - FE_BIN_3) / 2, FE_BIN_3, 2, -2, levels);
    for (i = 0; i < FE_FILTERS; ++i) {
        state->features[i] = fe_feature(levels[i + FE_OUTER]);
    }
    for (i = 0; i < FE_LENGTH - FE_HOP; ++i) {
        state->samples[i] = state->samples[i + FE_HOP];
    }
}

static void fe_take(STATE *state, const int16_t *samples, int32_t count)
{
    int16_t *const to = state->samples + state->filled;
    int32_t i;
    for (i = 0; i < count; ++i) {
        to[i] = samples[i];
    }
}

/* Samples between two frames. */
static void fe_pass(STATE *state, const int16_t *samples, int32_t count)
{
    (void)state;
    (void)samples;
    (void)count;
}
