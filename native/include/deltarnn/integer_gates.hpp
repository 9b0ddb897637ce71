// Fixed-point gates (MATH §6) on stored integers, for 32-bit vectors and 64-bit scalars by the same source.
//
// The 32-bit form is exact where the layer's `wide` (int8_layer.hpp) is false; the 64-bit form always.
#pragma once
#include "deltarnn/engine_kernels.hpp"
#include "deltarnn/simd.hpp"

namespace deltarnn::DELTARNN_ISA {

// What the two forms are written in: a word, how it is loaded, stored and looked up.
struct Narrow {
    using Word = vi;
    static constexpr int width = lanes;
    static DELTARNN_INLINE Word splat(std::int64_t value) {
        return DELTARNN_ISA::splat(static_cast<std::int32_t>(value));
    }
    static DELTARNN_INLINE Word load(const std::int32_t* from) { return DELTARNN_ISA::load(from); }
    static DELTARNN_INLINE void store(std::int32_t* to, Word value) { DELTARNN_ISA::store(to, value); }
    static DELTARNN_INLINE Word at(const std::int32_t* table, Word i) {
#if defined(DELTARNN_ISA_AVX512)
        // The masked form: GCC 12 warns of an uninitialised register in the plain one.
        return (vi)_mm512_mask_i32gather_epi32((__m512i)vi{}, 0xffff, (__m512i)i, table, 4);
#elif defined(DELTARNN_ISA_AVX2)
        return (vi)_mm256_i32gather_epi32(table, (__m256i)i, 4);
#else
        Word found;
        for (int lane = 0; lane < lanes; ++lane) found[lane] = table[i[lane]];
        return found;
#endif
    }
    using Accumulator = std::int32_t;
};

struct Wide {
    using Word = std::int64_t;
    static constexpr int width = 1;
    static DELTARNN_INLINE Word splat(std::int64_t value) { return value; }
    static DELTARNN_INLINE Word load(const std::int64_t* from) { return *from; }
    static DELTARNN_INLINE Word load(const std::int32_t* from) { return *from; }
    static DELTARNN_INLINE void store(std::int32_t* to, Word value) { *to = static_cast<std::int32_t>(value); }
    static DELTARNN_INLINE Word at(const std::int32_t* table, Word i) { return table[i]; }
    using Accumulator = std::int64_t;
};

// value / 2^bits, rounded half to even or down; bits < 0 multiplies. The parts that do not depend on the value.
template <class Form>
struct Shift {
    using Word = typename Form::Word;
    int right, left;
    Word add, odd;

    DELTARNN_INLINE Shift(int bits, bool floor) {
        right = bits > 0 ? bits : 0;
        left = bits < 0 ? -bits : 0;
        const bool nearest = bits > 0 && !floor;
        add = Form::splat(nearest ? (std::int64_t{1} << (bits - 1)) - 1 : 0);
        odd = Form::splat(nearest ? 1 : 0);
    }

    // A value just below a half stays below with half − 1 added; a tie is lifted over it where the quotient is odd.
    DELTARNN_INLINE Word operator()(Word value) const {
        return ((value << left) + add + ((value >> right) & odd)) >> right;
    }
};

template <class Word>
DELTARNN_INLINE Word clamp(Word value, Word low, Word high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

template <class Form>
struct Table {
    using Word = typename Form::Word;
    const std::int32_t* entry;
    Word first, last;

    DELTARNN_INLINE explicit Table(const GateTable& table)
        : entry(table.entry), first(Form::splat(table.first)), last(Form::splat(table.last)) {}

    // q needs no saturation to A first: the table is constant from its ends on, and they lie within A.
    DELTARNN_INLINE Word operator()(Word q) const { return Form::at(entry, clamp(q, first, last) - first); }
};

// The constants and the rounding steps that both cells share.
template <class Form>
struct Gates {
    using Word = typename Form::Word;
    int excess;  // fraction bits of M beyond the address's
    Word low, high, hidden_low, hidden_high, memory_limit;
    Shift<Form> memory_to_address;
    Table<Form> sigmoid, tanh;

    DELTARNN_INLINE explicit Gates(const IntFormats& f)
        : excess(f.memory_fraction - f.address.fraction), low(Form::splat(f.address.min)),
          high(Form::splat(f.address.max)), hidden_low(Form::splat(f.hidden.min)),
          hidden_high(Form::splat(f.hidden.max)), memory_limit(Form::splat(std::int64_t{1} << (17 + excess))),
          memory_to_address(excess, f.floor), sigmoid(f.sigmoid), tanh(f.tanh) {}

    // M limited to four times the range of the address, at most 2¹⁵: whatever is then added, |·| ≤ 2¹⁵, the sum still
    // saturates.
    DELTARNN_INLINE Word limited(Word m) const { return clamp(m, -memory_limit, memory_limit); }
    DELTARNN_INLINE Word address(Word value) const { return clamp(value, low, high); }
    DELTARNN_INLINE Word hidden(Word value) const { return clamp(value, hidden_low, hidden_high); }
};

template <class Form>
void integer_gru(const IntFormats& f, const typename Form::Accumulator* acc, std::int32_t* h, int hp) {
    using Word = typename Form::Word;
    const Gates<Form> gates(f);
    const int w = gates.excess, n = f.gate_fraction;
    const int common = w > n ? w : n;  // fraction bits beyond the address's of M_nx + r ∘ M_nh
    const Shift<Form> sum_to_address(common, f.floor), product_to_hidden(2 * n - f.hidden.fraction, f.floor),
        carry_to_hidden(n, f.floor);
    const Word one = Form::splat(std::int64_t{1} << n);
    for (int i = 0; i < hp; i += Form::width) {
        const Word m_nx = gates.limited(Form::load(acc + i));
        const Word m_r = gates.limited(Form::load(acc + hp + i));
        const Word m_z = gates.limited(Form::load(acc + 2 * hp + i));
        const Word m_nh = gates.limited(Form::load(acc + 3 * hp + i));
        const Word r = gates.sigmoid(gates.memory_to_address(m_r));
        const Word z = gates.sigmoid(gates.memory_to_address(m_z));
        const Word new_h = gates.address(gates.memory_to_address(m_nh));
        const Word sum = (m_nx << (common - w)) + ((r * new_h) << (common - n));
        const Word new_gate = gates.tanh(sum_to_address(sum));
        const Word fresh = gates.hidden(product_to_hidden((one - z) * new_gate));
        const Word carried = gates.hidden(carry_to_hidden(z * Form::load(h + i)));
        Form::store(h + i, gates.hidden(fresh + carried));
    }
}

template <class Form>
void integer_lstm(const IntFormats& f, const typename Form::Accumulator* acc, std::int32_t* c, std::int32_t* h,
                  int hp) {
    using Word = typename Form::Word;
    const Gates<Form> gates(f);
    const int a = f.cell.fraction, n = f.gate_fraction;
    const int common = a > n ? a : n;  // fraction bits of c and i ∘ g beyond N's
    const Shift<Form> sum_to_cell(n + common - a, f.floor), product_to_hidden(2 * n - f.hidden.fraction, f.floor),
        cell_to_address(a - f.address.fraction, f.floor);
    const Word cell_low = Form::splat(f.cell.min), cell_high = Form::splat(f.cell.max);
    for (int row = 0; row < hp; row += Form::width) {
        const auto activation = [&](int block) DELTARNN_INLINE_LAMBDA {
            return gates.memory_to_address(gates.limited(Form::load(acc + block * hp + row)));
        };
        const Word i = gates.sigmoid(activation(0)), forget = gates.sigmoid(activation(1));
        const Word g = gates.tanh(activation(2)), o = gates.sigmoid(activation(3));
        const Word kept = (forget * Form::load(c + row)) << (common - a);
        const Word cell = clamp(sum_to_cell(kept + ((i * g) << (common - n))), cell_low, cell_high);
        Form::store(c + row, cell);
        Form::store(h + row, gates.hidden(product_to_hidden(o * gates.tanh(cell_to_address(cell)))));
    }
}

}  // namespace deltarnn::DELTARNN_ISA
