// Products of training: chosen columns for event lists, register tiles for held-state products, and the encoder.
#pragma once
#include "deltarnn/event_list.hpp"
#include "deltarnn/training_kernels.hpp"

namespace deltarnn::DELTARNN_ISA {

using Index = std::int64_t;

// Vectors per block of units: as many accumulators (times gates) as the registers hold.
#if defined(DELTARNN_ISA_AVX512) || defined(DELTARNN_ISA_NEON)
constexpr int block_vectors = 4;
#else
constexpr int block_vectors = 2;
#endif
constexpr Index block_units = block_vectors * lanes;

// Calls body(Vectors<N>, unit) for every block of the units first … last − 1: its first unit and, at compile time, its
// vectors.
template <int N>
struct Vectors {
    static constexpr int count = N;
};

template <class Body>
DELTARNN_INLINE void for_each_block(Index first, Index last, Body body) {
    Index unit = first;
    for (; unit + block_units <= last; unit += block_units) body(Vectors<block_vectors>{}, unit);
    if constexpr (block_vectors > 1) {
        const Index rest = (last - unit) / lanes;
        if (rest == 1) body(Vectors<1>{}, unit);
        if constexpr (block_vectors > 2) {
            if (rest == 2) body(Vectors<2>{}, unit);
            if (rest == 3) body(Vectors<3>{}, unit);
        }
    }
}

// Elements unit … unit + lanes − 1 of a row of n values; zeros past its end.
DELTARNN_INLINE vf load_within(const float* row, Index unit, Index n) {
    if (unit + lanes <= n) return load(row + unit);
    vf value{};
    for (int i = 0; i < lanes && unit + i < n; ++i) value[i] = row[unit + i];
    return value;
}

DELTARNN_INLINE void store_within(float* row, vf value, Index unit, Index n) {
    if (unit + lanes <= n) {
        store(row + unit, value);
    } else {
        for (int i = 0; i < lanes && unit + i < n; ++i) row[unit + i] = value[i];
    }
}

#if defined(DELTARNN_ISA_AVX512)
DELTARNN_INLINE __m256 halves_added(vf a) {
    return _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xff, a, 0), _mm512_maskz_extractf32x8_ps(0xff, a, 1));
}
#elif defined(DELTARNN_ISA_AVX2)
DELTARNN_INLINE __m256 halves_added(vf a) { return a; }
#endif

// a where the bit is set, else b.
DELTARNN_INLINE vf choose(std::uint32_t mask, vf a, vf b) {
    vi bit;
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) bit[i] = 1 << i;
    return (splat(static_cast<std::int32_t>(mask)) & bit) != vi{} ? a : b;
}

DELTARNN_INLINE float sum_across(vf a) {
#if defined(DELTARNN_ISA_AVX512) || defined(DELTARNN_ISA_AVX2)
    const __m256 half = halves_added(a);
    __m128 low = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    low = _mm_add_ps(low, _mm_movehl_ps(low, low));
    return _mm_cvtss_f32(_mm_add_ss(low, _mm_movehdup_ps(low)));
#else
    return (a[0] + a[2]) + (a[1] + a[3]);
#endif
}

// The sums of four vectors, to[0:4].
DELTARNN_INLINE void sum_across(const vf (&a)[4], float* to) {
#if defined(DELTARNN_ISA_AVX512) || defined(DELTARNN_ISA_AVX2)
    const __m256 ab = _mm256_hadd_ps(halves_added(a[0]), halves_added(a[1]));
    const __m256 cd = _mm256_hadd_ps(halves_added(a[2]), halves_added(a[3]));
    const __m256 abcd = _mm256_hadd_ps(ab, cd);
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
#else
    for (int i = 0; i < 4; ++i) to[i] = sum_across(a[i]);
#endif
}

// A list of events: element index[k] changed by value[k].
struct Events {
    std::int32_t* index;
    float* value;
};

// Appends the elements of one vector whose bit is set; may write one vector past the end. Returns the new count.
DELTARNN_INLINE Index append(const Events& events, Index count, Index unit, vf value, std::uint32_t mask) {
    return count + list_chosen(mask, static_cast<int>(unit), value, events.index + count, events.value + count);
}

DELTARNN_INLINE bool mostly_events(Index events, Index elements) {
    return dense_elements * events > dense_events * elements;
}

// Lists of events as rows, 0 where nothing fired. begin: (rows + 1,), where each row's events begin.
DELTARNN_INLINE void write_rows(const Events& events, const std::int32_t* begin, Index rows, float* to, Index padded) {
    for (Index i = 0; i < rows * padded; i += lanes) store(to + i, vf{});
    for (Index row = 0; row < rows; ++row) {
        for (Index k = begin[row]; k < begin[row + 1]; ++k) to[row * padded + events.index[k]] = events.value[k];
    }
}

// The delta encoder (MATH §1) on a row of n elements; memory is a padded row. Fired deltas are appended to events.
// mask: bit j set where delta j is not 0. l1 gains |Δ|. Returns the new count of events.
DELTARNN_INLINE Index encode(const float* row, float* memory, Index n, float threshold, const Events& events,
                             Index count, std::uint64_t* mask, vf& l1) {
    for (Index unit = 0; unit < n; unit += lanes) {
        const vf value = load_within(row, unit, n), held = load(memory + unit);
        const vf delta = value - held;
        const vi quiet = absolute(delta) < splat(threshold);  // a NaN is never quiet, so that it shows in the result
        std::uint32_t fired = bits(~quiet);
        if (unit + lanes > n) fired &= (1u << (n - unit)) - 1u;
        const vf change = (vf)((vi)delta & ~quiet);
        l1 += absolute(change);
        store(memory + unit, quiet ? held : value);
        count = append(events, count, unit, change, fired);
        if (unit % 64 == 0) mask[unit / 64] = 0;
        mask[unit / 64] |= static_cast<std::uint64_t>(fired) << (unit % 64);
    }
    return count;
}

// The encoder at threshold 0, where everything fires: memory takes the row, difference = row − start (a padded row).
// Returns how many deltas are not 0.
DELTARNN_INLINE Index hold(const float* row, float* memory, Index n, const float* start, float* difference,
                           std::uint64_t* mask, vf& l1) {
    Index events = 0;
    for (Index unit = 0; unit < n; unit += lanes) {
        const vf value = load_within(row, unit, n);
        const vf delta = value - load(memory + unit);
        std::uint32_t fired = bits(delta != vf{});
        if (unit + lanes > n) fired &= (1u << (n - unit)) - 1u;
        l1 += absolute(delta);
        store(memory + unit, value);
        store(difference + unit, value - load(start + unit));
        events += __builtin_popcount(fired);
        if (unit % 64 == 0) mask[unit / 64] = 0;
        mask[unit / 64] |= static_cast<std::uint64_t>(fired) << (unit % 64);
    }
    return events;
}

// sums[g][v] += Σ_k block[index[k]][g][v]·value[k], over one block of packed weights.
template <int G, int V>
DELTARNN_INLINE void add_events(vf (&sums)[G][V], const float* block, const Events& events, Index begin, Index end) {
    constexpr Index stride = G * V * lanes;
    for (Index k = begin; k < end; ++k) {
        const float* column = block + events.index[k] * stride;
        const vf value = splat(events.value[k]);
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sums[g][v] = fma(load(column + (g * V + v) * lanes), value, sums[g][v]);
        }
    }
}

template <int G, int V>
DELTARNN_INLINE vf dot_column(const vf (&row)[G][V], const float* column) {
    vf partial[2] = {};
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) {
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
            vf& part = partial[(g * V + v) % 2];
            part = fma(load(column + (g * V + v) * lanes), row[g][v], part);
        }
    }
    return partial[0] + partial[1];
}

// dots[k] (+)= Σ row[g][v]·block[index[k]][g][v]: the transposed product at the fired columns alone.
template <int G, int V>
DELTARNN_INLINE void dot_events(const vf (&row)[G][V], const float* block, const Events& events, Index begin, Index end,
                                float* dots, bool add) {
    constexpr Index stride = G * V * lanes;
    Index k = begin;
    for (; k + 4 <= end; k += 4) {
        vf sums[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) sums[i] = dot_column<G, V>(row, block + events.index[k + i] * stride);
        float total[4];
        sum_across(sums, total);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) dots[k + i] = add ? dots[k + i] + total[i] : total[i];
    }
    for (; k < end; ++k) {
        const float total = sum_across(dot_column<G, V>(row, block + events.index[k] * stride));
        dots[k] = add ? dots[k] + total : total;
    }
}

// A strided matrix: element (row, k) of the left factor, vector (k, c) of the right one, vector (row, c) of the result.
struct Strides {
    Index row, column;
};

template <int R, int C>
DELTARNN_INLINE void product_tile(const float* a, Strides as, const float* b, Strides bs, float* to, Strides ts,
                                  Index depth, bool add) {
    vf sums[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sums[r][c] = add ? load(to + r * ts.row + c * ts.column) : vf{};
    }
    for (Index k = 0; k < depth; ++k) {
        vf right[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) right[c] = load(b + k * bs.row + c * bs.column);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const vf left = splat(a[r * as.row + k * as.column]);
#pragma GCC unroll 4
            for (int c = 0; c < C; ++c) sums[r][c] = fma(left, right[c], sums[r][c]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) store(to + r * ts.row + c * ts.column, sums[r][c]);
    }
}

// to[row][c] (+)= Σ_k a[row][k]·b[k][c] for C vectors c: register tiles of as many rows as the registers allow.
template <int C>
void product(Index rows, const float* a, Strides as, const float* b, Strides bs, float* to, Strides ts, Index depth,
             bool add) {
#if defined(DELTARNN_ISA_AVX512) || defined(DELTARNN_ISA_NEON)
    constexpr int tile = C == 4 ? 6 : 8;
#else
    constexpr int tile = C == 4 ? 3 : 4;
#endif
    Index row = 0;
    for (; row + tile <= rows; row += tile) {
        product_tile<tile, C>(a + row * as.row, as, b, bs, to + row * ts.row, ts, depth, add);
    }
    for (; row + 2 <= rows; row += 2) {
        product_tile<2, C>(a + row * as.row, as, b, bs, to + row * ts.row, ts, depth, add);
    }
    for (; row < rows; ++row) product_tile<1, C>(a + row * as.row, as, b, bs, to + row * ts.row, ts, depth, add);
}

// A bump allocator over a workspace; counts when there is none.
struct Workspace {
    float* base;
    Index used = 0;

    DELTARNN_INLINE float* floats(Index n) {
        float* result = base == nullptr ? nullptr : base + used;
        used += (n + 15) / 16 * 16;
        return result;
    }
    DELTARNN_INLINE std::int32_t* integers(Index n) { return reinterpret_cast<std::int32_t*>(floats(n)); }
    DELTARNN_INLINE Events events(Index n) {
        std::int32_t* index = integers(n + lanes);
        return {index, floats(n + lanes)};
    }
};

DELTARNN_INLINE void clear(float* to, Index n) {
    for (Index i = 0; i < n; ++i) to[i] = 0.0f;
}

DELTARNN_INLINE void copy(float* to, const float* from, Index n) {
    Index i = 0;
    for (; i + lanes <= n; i += lanes) store(to + i, load(from + i));
    for (; i < n; ++i) to[i] = from[i];
}

DELTARNN_INLINE void prefetch_row(const float* row, Index n) {
    for (Index i = 0; i < n; i += 16) prefetch(row + i);
}

DELTARNN_INLINE void load_row(float* to, const float* from, Index n, Index padded) {
    for (Index u = 0; u < padded; u += lanes) store(to + u, load_within(from, u, n));
}

DELTARNN_INLINE void store_row(float* to, const float* from, Index n) {
    for (Index u = 0; u < n; u += lanes) store_within(to, load(from + u), u, n);
}

}  // namespace deltarnn::DELTARNN_ISA
