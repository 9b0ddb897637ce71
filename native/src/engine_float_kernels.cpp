#include "deltarnn/columns.hpp"
#include "deltarnn/engine_kernels.hpp"
#include "deltarnn/event_list.hpp"
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

int encode(const float* value, float* memory, float threshold, int n, std::int32_t* index, float* delta) {
    int count = 0;
    for (int i = 0; i < n; i += lanes) {
        const vf v = load(value + i), held = load(memory + i), d = v - held;
#if defined(DELTARNN_ISA_AVX512)
        const __mmask16 fires = _mm512_cmp_ps_mask(absolute(d), splat(threshold), _CMP_NLT_UQ);
        if (fires == 0) continue;
        _mm512_mask_storeu_ps(memory + i, fires, v);
        const __mmask16 counts = _mm512_mask_cmp_ps_mask(fires, d, vf{}, _CMP_NEQ_UQ);
        count += list_chosen(std::uint32_t{counts}, i, d, index + count, delta + count);
#else
        const vi fires = ~(absolute(d) < splat(threshold));
        store(memory + i, fires ? v : held);
        count += list_chosen(fires & (d != vf{}), i, d, index + count, delta + count);
#endif
    }
    return count;
}

// Weight: float, or std::uint16_t for bfloat16.
template <class Weight>
void add_columns(float* acc, float* sum, const Weight* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                 const float* delta, int count, int rows) {
    constexpr int pass = pass_columns;
    const Weight* columns[2 * pass];
    for (int k = 0; k < count;) {
        const int left = count - k, known = left < 2 * pass ? left : 2 * pass;
        for (int i = 0; i < known; ++i) columns[i] = matrix + index[k + i] * stride;
        const auto add = [&]<int here>(detail::Vectors<here>) DELTARNN_INLINE_LAMBDA {
            const Weight* const* const next = known == 2 * pass ? columns + pass : nullptr;
            detail::add_some_columns<here>(acc, sum, k == 0, left == here, columns, delta + k, rows, next);
            k += here;
        };
        if (left >= pass) add(detail::Vectors<pass>{});
        else if (left >= 8) add(detail::Vectors<8>{});
        else if (left >= 4) add(detail::Vectors<4>{});
        else if (left >= 2) add(detail::Vectors<2>{});
        else add(detail::Vectors<1>{});
    }
}

// acc[0:vectors·lanes] += Σ_j matrix[:, j]·value[j]. Two sums in turn, so that additions do not wait for each other.
template <int vectors, class Weight>
void add_block_of(float* acc, const Weight* matrix, std::ptrdiff_t stride, const float* value, int n) {
    constexpr int fetch = 12;  // columns
    vf even[vectors], odd[vectors];
    for (int i = 0; i < vectors; ++i) {
        even[i] = load(acc + i * lanes);
        odd[i] = vf{};
    }
    for (int j = 0; j < n; j += 2) {
        const Weight* first = matrix + j * stride;
        const Weight* second = j + 1 < n ? first + stride : first;
        const vf a = splat(value[j]), b = splat(j + 1 < n ? value[j + 1] : 0.0f);
        if (j + fetch + 1 < n) {
            for (int i = 0; i < vectors * lanes; i += 16) {
                prefetch(first + fetch * stride + i);
                prefetch(second + fetch * stride + i);
            }
        }
        for (int i = 0; i < vectors; ++i) {
            even[i] = fma(load(first + i * lanes), a, even[i]);
            odd[i] = fma(load(second + i * lanes), b, odd[i]);
        }
    }
    for (int i = 0; i < vectors; ++i) store(acc + i * lanes, even[i] + odd[i]);
}

template <class Weight>
void add_block(float* acc, const Weight* matrix, std::ptrdiff_t stride, const float* value, int n, int rows) {
    rows == 32 ? add_block_of<32 / lanes>(acc, matrix, stride, value, n)
               : add_block_of<16 / lanes>(acc, matrix, stride, value, n);
}

// Eight columns over all rows, for each vector of rows all frames: columns are read in sequence, as memory likes it,
// and meet sums that stay in the second-level cache.
template <class Weight>
void tile_products(float* out, const Weight* matrix, std::ptrdiff_t stride, const std::int32_t* index,
                   const float* delta, int count, int rows) {
    constexpr int pass = 8;
    for (int i = 0; i < tile_frames * rows; i += lanes) store(out + i, vf{});
    for (int k = 0; k < count; k += pass) {
        const Weight* columns[pass];
        float deltas[tile_frames][pass];
        for (int i = 0; i < pass; ++i) {  // the last pass is filled up with a column once more, times 0
            const bool here = k + i < count;
            columns[i] = matrix + index[here ? k + i : count - 1] * stride;
            for (int t = 0; t < tile_frames; ++t) deltas[t][i] = here ? delta[(k + i) * tile_frames + t] : 0.0f;
        }
        for (int row = 0; row < rows; row += lanes) {
            vf weight[pass];
            for (int i = 0; i < pass; ++i) weight[i] = load(columns[i] + row);
            for (int t = 0; t < tile_frames; ++t) {
                vf total = load(out + t * rows + row);
#pragma GCC unroll 8
                for (int i = 0; i < pass; ++i) total = fma(weight[i], splat(deltas[t][i]), total);
                store(out + t * rows + row, total);
            }
        }
    }
}

template <bool hard, bool relu, bool reset_before>
void gru_gates_of(const float* acc, float* h, int hp) {
    for (int i = 0; i < hp; i += lanes) {
        const vf m_nh = load(acc + 3 * hp + i), m_nx = load(acc + i);
        const vf z = gate_sigmoid<hard>(load(acc + 2 * hp + i));
        const vf m_n = reset_before ? m_nx + m_nh : fma(gate_sigmoid<hard>(load(acc + hp + i)), m_nh, m_nx);
        const vf n = relu ? maximum(m_n, vf{}) : gate_tanh<hard>(m_n);
        store(h + i, fma(z, load(h + i) - n, n));
    }
}

void gru_gates(GruForm form, const float* acc, float* h, int hp) {
    static constexpr decltype(&gru_gates_of<false, false, false>) gates[2][2][2] = {
        {{gru_gates_of<false, false, false>, gru_gates_of<false, false, true>},
         {gru_gates_of<false, true, false>, gru_gates_of<false, true, true>}},
        {{gru_gates_of<true, false, false>, gru_gates_of<true, false, true>},
         {gru_gates_of<true, true, false>, gru_gates_of<true, true, true>}}};
    gates[form.hard][form.relu][form.reset_before](acc, h, hp);
}

template <bool hard>
void gru_reset_of(const float* acc, const float* h, float* rh, int hp) {
    for (int i = 0; i < hp; i += lanes) store(rh + i, gate_sigmoid<hard>(load(acc + hp + i)) * load(h + i));
}

void gru_reset(bool hard, const float* acc, const float* h, float* rh, int hp) {
    hard ? gru_reset_of<true>(acc, h, rh, hp) : gru_reset_of<false>(acc, h, rh, hp);
}

template <bool hard>
void lstm_gates_of(const float* acc, float* c, float* h, int hp) {
    for (int row = 0; row < hp; row += lanes) {
        const vf i = gate_sigmoid<hard>(load(acc + row));
        const vf f = gate_sigmoid<hard>(load(acc + hp + row));
        const vf g = gate_tanh<hard>(load(acc + 2 * hp + row));
        const vf o = gate_sigmoid<hard>(load(acc + 3 * hp + row));
        const vf cell = fma(f, load(c + row), i * g);
        store(c + row, cell);
        store(h + row, o * gate_tanh<hard>(cell));
    }
}

void lstm_gates(bool hard, const float* acc, float* c, float* h, int hp) {
    hard ? lstm_gates_of<true>(acc, c, h, hp) : lstm_gates_of<false>(acc, c, h, hp);
}

float sum_of(const float* values, std::int64_t n) {
    vf sums[128 / lanes] = {};
    for (std::int64_t i = 0; i < n; i += 128) {
        for (int k = 0; k < 128 / lanes; ++k) sums[k] += load(values + i + k * lanes);
    }
    for (int k = 1; k < 128 / lanes; ++k) sums[0] += sums[k];
    return sum(sums[0]);
}

}  // namespace

extern const FloatKernels float_kernels = {
    apply_gate,
    encode,
    {add_columns, add_block, tile_products},
    {add_columns, add_block, tile_products},
    gru_gates,
    gru_reset,
    lstm_gates,
    sum_of,
};

}  // namespace deltarnn::DELTARNN_ISA
