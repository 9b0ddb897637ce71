#include "deltarnn/engine_kernels.hpp"
#include "deltarnn/event_list.hpp"
#include "deltarnn/integer_gates.hpp"
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

#if defined(DELTARNN_ISA_AVX512)

// Four columns at a time through vpdpbusd, which adds four products of a byte without a sign and one with it to each
// sum. Weights are stored as w + 128, and Δ = 256·high + low of two bytes with signs, each of which meets the weights
// in sums of its own; the 128·Σ Δ too much is taken off before. The columns' bytes are interleaved in the registers;
// unpacking works within 128-bit lanes, so it leaves rows permuted, and the columns are stored permuted the other way.
constexpr int pack_block = 64;
constexpr int pass_quads = 3;

void pack_column(const std::int8_t* natural, std::int8_t* packed, int rows) {
    for (int block = 0; block < rows; block += pack_block) {
        for (int p = 0; p < pack_block; ++p) {
            const int row = 16 * (p % 16 / 4) + 4 * (p / 16) + p % 4;
            packed[block + p] = static_cast<std::int8_t>(natural[block + row] ^ 0x80);
        }
    }
}

template <int quads>
DELTARNN_INLINE void add_some_columns(std::int32_t* acc, const std::int8_t* const* columns, const std::int32_t* deltas,
                                      int rows) {
    __m512i low[quads], high[quads];
    std::int32_t total = 0;
    for (int q = 0; q < quads; ++q) {
        std::uint32_t lows = 0, highs = 0;
        for (int i = 0; i < 4; ++i) {
            const std::int32_t delta = deltas[4 * q + i], low_byte = static_cast<std::int8_t>(delta & 0xff);
            lows |= (static_cast<std::uint32_t>(low_byte) & 0xff) << (8 * i);
            highs |= (static_cast<std::uint32_t>((delta - low_byte) >> 8) & 0xff) << (8 * i);
            total += delta;
        }
        low[q] = _mm512_set1_epi32(static_cast<std::int32_t>(lows));
        high[q] = _mm512_set1_epi32(static_cast<std::int32_t>(highs));
    }
    const __m512i excess = _mm512_set1_epi32(128 * total);
    for (int row = 0; row < rows; row += pack_block) {
        __m512i low_sums[4], high_sums[4];
        for (int i = 0; i < 4; ++i) {
            low_sums[i] = _mm512_sub_epi32((__m512i)load(acc + row + 16 * i), excess);
            high_sums[i] = _mm512_setzero_si512();
        }
#pragma GCC unroll 4
        for (int q = 0; q < quads; ++q) {
            const auto bytes = [&](int i)
                                   DELTARNN_INLINE_LAMBDA { return _mm512_loadu_si512(columns[4 * q + i] + row); };
            const __m512i a = bytes(0), b = bytes(1), c = bytes(2), d = bytes(3);
            const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
            const __m512i ab_end = _mm512_unpackhi_epi8(a, b), cd_end = _mm512_unpackhi_epi8(c, d);
            const __m512i weights[4] = {_mm512_unpacklo_epi16(ab, cd), _mm512_unpackhi_epi16(ab, cd),
                                        _mm512_unpacklo_epi16(ab_end, cd_end), _mm512_unpackhi_epi16(ab_end, cd_end)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                low_sums[i] = _mm512_dpbusd_epi32(low_sums[i], weights[i], low[q]);
                high_sums[i] = _mm512_dpbusd_epi32(high_sums[i], weights[i], high[q]);
            }
        }
        for (int i = 0; i < 4; ++i) {
            const __m512i high_part =
                _mm512_maskz_slli_epi32(0xffff, high_sums[i], 8);  // GCC 12 warns of the plain one
            store(acc + row + 16 * i, (vi)_mm512_add_epi32(low_sums[i], high_part));
        }
    }
}

void add_columns(std::int32_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                 const std::int32_t* delta, int count, int rows) {
    constexpr int pass = 4 * pass_quads;
    for (int k = 0; k < count; k += pass) {
        // The last pass is filled up to whole quads: a column once more, times 0.
        const std::int8_t* columns[pass];
        std::int32_t deltas[pass];
        for (int i = 0; i < pass; ++i) {
            columns[i] = matrix + index[k + i < count ? k + i : count - 1] * stride;
            deltas[i] = k + i < count ? delta[k + i] : 0;
        }
        switch ((count - k + 3) / 4) {
            case 1: add_some_columns<1>(acc, columns, deltas, rows); break;
            case 2: add_some_columns<2>(acc, columns, deltas, rows); break;
            default: add_some_columns<pass_quads>(acc, columns, deltas, rows);
        }
    }
}

#elif defined(DELTARNN_ISA_AVX2)

// Two columns at a time through the multiply-add of 16-bit pairs, vpmaddwd: the columns' words are interleaved, and
// each pair of them meets the pair of deltas. Unpacking works within 128-bit lanes, so it leaves rows permuted; the
// columns are stored permuted the other way.
constexpr int pack_block = 2 * lanes;

void pack_column(const std::int8_t* natural, std::int8_t* packed, int rows) {
    for (int block = 0; block < rows; block += pack_block) {
        for (int p = 0; p < pack_block; ++p) {
            const int lane = p / 8, word = p % 8;
            const int row = word < 4 ? 4 * lane + word : lanes + 4 * lane + word - 4;
            packed[block + p] = natural[block + row];
        }
    }
}

using Words = __m256i;
DELTARNN_INLINE Words widen(const std::int8_t* from) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
DELTARNN_INLINE Words low_pairs(Words a, Words b) { return _mm256_unpacklo_epi16(a, b); }
DELTARNN_INLINE Words high_pairs(Words a, Words b) { return _mm256_unpackhi_epi16(a, b); }
DELTARNN_INLINE vi add_pairs(vi sum, Words weights, vi deltas) {
    return (vi)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(weights, (__m256i)deltas));  // may wrap on the way
}

template <int pairs>
DELTARNN_INLINE void add_some_columns(std::int32_t* acc, const std::int8_t* const* columns, const std::int32_t* deltas,
                                      int rows) {
    const std::int8_t* column[2 * pairs];
    vi delta[pairs];
    for (int k = 0; k < pairs; ++k) {
        column[2 * k] = columns[2 * k];
        column[2 * k + 1] = columns[2 * k + 1];
        const std::uint32_t first = static_cast<std::uint32_t>(deltas[2 * k]) & 0xffff;
        const std::uint32_t second = static_cast<std::uint32_t>(deltas[2 * k + 1]) << 16;
        delta[k] = splat(static_cast<std::int32_t>(first | second));
    }
    for (int row = 0; row < rows; row += pack_block) {
        vi low = load(acc + row), high = load(acc + row + lanes);
#pragma GCC unroll 4
        for (int k = 0; k < pairs; ++k) {
            const Words a = widen(column[2 * k] + row), b = widen(column[2 * k + 1] + row);
            low = add_pairs(low, low_pairs(a, b), delta[k]);
            high = add_pairs(high, high_pairs(a, b), delta[k]);
        }
        store(acc + row, low);
        store(acc + row + lanes, high);
    }
}

void add_columns(std::int32_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                 const std::int32_t* delta, int count, int rows) {
    for (int k = 0; k < count; k += 8) {
        // The last pass is filled up to whole pairs: a column once more, times 0.
        const std::int8_t* columns[8];
        std::int32_t deltas[8];
        for (int i = 0; i < 8; ++i) {
            columns[i] = matrix + index[k + i < count ? k + i : count - 1] * stride;
            deltas[i] = k + i < count ? delta[k + i] : 0;
        }
        switch ((count - k + 1) / 2) {
            case 1: add_some_columns<1>(acc, columns, deltas, rows); break;
            case 2: add_some_columns<2>(acc, columns, deltas, rows); break;
            case 3: add_some_columns<3>(acc, columns, deltas, rows); break;
            default: add_some_columns<4>(acc, columns, deltas, rows);
        }
    }
}

#else

constexpr int pack_block = 16;

void pack_column(const std::int8_t* natural, std::int8_t* packed, int rows) {
    for (int row = 0; row < rows; ++row) packed[row] = natural[row];
}

template <int count>
DELTARNN_INLINE void add_some_columns(std::int32_t* acc, const std::int8_t* const* columns, const std::int32_t* deltas,
                                      int rows) {
#if defined(DELTARNN_ISA_NEON)
    for (int row = 0; row < rows; row += 16) {
        int32x4_t sum[4];
        for (int i = 0; i < 4; ++i) sum[i] = vld1q_s32(acc + row + 4 * i);
        for (int k = 0; k < count; ++k) {
            const int8x16_t weights = vld1q_s8(columns[k] + row);
            const int16x8_t low = vmovl_s8(vget_low_s8(weights)), high = vmovl_s8(vget_high_s8(weights));
            const std::int16_t d = static_cast<std::int16_t>(deltas[k]);
            sum[0] = vmlal_n_s16(sum[0], vget_low_s16(low), d);
            sum[1] = vmlal_n_s16(sum[1], vget_high_s16(low), d);
            sum[2] = vmlal_n_s16(sum[2], vget_low_s16(high), d);
            sum[3] = vmlal_n_s16(sum[3], vget_high_s16(high), d);
        }
        for (int i = 0; i < 4; ++i) vst1q_s32(acc + row + 4 * i, sum[i]);
    }
#else
    for (int row = 0; row < rows; ++row) {
        std::uint32_t sum = static_cast<std::uint32_t>(acc[row]);  // unsigned: a wrap on the way is not an error
        for (int k = 0; k < count; ++k) {
            sum += static_cast<std::uint32_t>(std::int32_t{columns[k][row]} * deltas[k]);
        }
        acc[row] = static_cast<std::int32_t>(sum);
    }
#endif
}

void add_columns(std::int32_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                 const std::int32_t* delta, int count, int rows) {
    rows = (rows + pack_block - 1) / pack_block * pack_block;
    int k = 0;
    for (; k + 4 <= count; k += 4) {
        const std::int8_t* columns[4];
        for (int i = 0; i < 4; ++i) columns[i] = matrix + index[k + i] * stride;
        add_some_columns<4>(acc, columns, delta + k, rows);
    }
    for (; k < count; ++k) {
        const std::int8_t* column = matrix + index[k] * stride;
        add_some_columns<1>(acc, &column, delta + k, rows);
    }
}

#endif

bool quantize(const IntFormat& f, bool floor, const float* from, std::int32_t* to, int n) {
    // Scaling by a power of two is exact, and the ends of the format are exact in float: at most 2¹⁵.
    const vf scale = splat(static_cast<float>(1 << f.fraction));
    const vf low = splat(static_cast<float>(f.min)), high = splat(static_cast<float>(f.max));
    const vf magic = splat(12582912.0f);  // 1.5·2²³: adding it rounds |values| ≤ 2¹⁵ half to even
    vi unordered = {};
    for (int i = 0; i < n; i += lanes) {
        const vf scaled = load(from + i) * scale;
        unordered |= scaled != scaled;
        const vf bounded = minimum(maximum(scaled, low), high);
        const vf shifted = bounded + magic;
        const vf nearest = shifted - magic;
        vi whole = (vi)shifted - (vi)magic;
        if (floor) whole += nearest > bounded;  // a comparison gives −1 where true
        store(to + i, whole);
    }
    for (int lane = 0; lane < lanes; ++lane) {
        if (unordered[lane]) return false;
    }
    return true;
}

void rescale(const IntFormat& to, int shift, bool floor, std::int32_t* values, int n) {
    const Shift<Narrow> shifted(shift, floor);
    const vi low = splat(to.min), high = splat(to.max);
    for (int i = 0; i < n; i += lanes) store(values + i, clamp(shifted(load(values + i)), low, high));
}

int encode(const std::int32_t* value, std::int32_t* memory, std::int32_t threshold, int n, std::int32_t* index,
           std::int32_t* delta) {
    int count = 0;
    for (int i = 0; i < n; i += lanes) {
        const vi v = load(value + i), held = load(memory + i), d = v - held;
        const vi magnitude = d < 0 ? -d : d;
        const vi fires = (magnitude >= threshold) & (d != 0);
#if defined(DELTARNN_ISA_AVX512)
        const std::uint32_t mask = bits(fires);
        if (mask == 0) continue;
        _mm512_mask_storeu_epi32(memory + i, static_cast<__mmask16>(mask), (__m512i)v);
        count += list_chosen(mask, i, d, index + count, delta + count);
#else
        store(memory + i, fires ? v : held);
        count += list_chosen(fires, i, d, index + count, delta + count);
#endif
    }
    return count;
}

void add_columns_wide(std::int64_t* acc, const std::int8_t* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                      const std::int32_t* delta, int count, int rows) {
    for (int k = 0; k < count; ++k) {
        const std::int8_t* column = matrix + index[k] * stride;
        for (int row = 0; row < rows; ++row) acc[row] += std::int64_t{column[row]} * delta[k];
    }
}

}  // namespace

extern const Int8Kernels int8_kernels = {
    pack_block,
    pack_column,
    quantize,
    rescale,
    encode,
    add_columns,
    integer_gru<Narrow>,
    integer_lstm<Narrow>,
    add_columns_wide,
    integer_gru<Wide>,
    integer_lstm<Wide>,
};

}  // namespace deltarnn::DELTARNN_ISA
