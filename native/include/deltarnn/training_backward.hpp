// What the backward pass carries from step to step, its events, their products, and the gates backwards.
#pragma once
#include "deltarnn/gates.hpp"
#include "deltarnn/training_products.hpp"
#include "deltarnn/training_sequence.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// An event as its weight column sees it: where its row of S begins, and Δ.
struct ColumnEvent {
    std::int32_t row;
    float value;
};

// `floats` rounded up to an odd number of cache lines: with an even stride the same element of many rows would map to
// few sets of the cache.
DELTARNN_INLINE Index odd_lines(Index floats) {
    const Index lines = (floats + 15) / 16;
    return (lines % 2 == 0 ? lines + 1 : lines) * 16;
}

// The events of one side (inputs, or hidden states), of a group of samples.
struct Side {
    Index n, padded, words;  // elements, padded to 16, words of a mask
    bool held, dense;
    int offset;     // its first part of M
    float* q;       // (count, padded)
    float* memory;  // (count, padded): v̂ while lists are rebuilt; the initial v̂
    // Event lists: of the whole sequence by sample and step, and of the chunk by column.
    Events events;
    std::int32_t* begin;         // (T, count), and the end
    std::int32_t* column_count;  // (n,)
    ColumnEvent* columns;        // (n, column_stride)
    Index column_stride;
    float* dots;  // W[:, j]·S of each event
    // Dense products.
    float* difference;  // (chunk rows, padded): v̂_t − v̂_0 if held, else Δ
    float* product;     // (chunk rows, padded): gᵀ W if held, else Sᵀ W
};

struct Group {
    Side x, h;
    float *dh, *dc;          // (count, P)
    float* sums;             // S: (count, 4, P)
    float *rows_s, *rows_g;  // of the chunk: rows of (4, P), row_stride apart
    Index row_stride;
};

Side allocate_side(Index n, Index words, bool held, bool dense, int offset, Index events, Index steps, Index count,
                   Index chunk, Workspace& workspace) {
    const Index padded = (n + 15) / 16 * 16, rows = count * chunk;
    const bool lists = !held && !dense;
    Side side;
    side.n = n;
    side.padded = padded;
    side.words = words;
    side.held = held;
    side.dense = dense;
    side.offset = offset;
    side.q = workspace.floats(count * padded);
    side.memory = workspace.floats(count * padded);
    side.events = workspace.events(held ? 0 : events);
    side.begin = workspace.integers(held ? 0 : count * steps + 1);
    side.column_count = workspace.integers(lists ? n : 0);
    side.column_stride = odd_lines(2 * rows) / 2;
    side.columns = reinterpret_cast<ColumnEvent*>(workspace.floats(lists ? 2 * n * side.column_stride : 0));
    side.dots = workspace.floats(lists ? events + lanes : 0);
    side.difference = workspace.floats(lists ? 0 : rows * padded);
    side.product = workspace.floats(lists ? 0 : rows * padded);
    return side;
}

Group allocate(const Sequence& job, Index first, Index count, Index chunk, Workspace& workspace) {
    Index events_x = 0, events_h = 0;
    for (Index s = first; s < first + count; ++s) {
        events_x += job.events_x[s];
        events_h += job.events_h[s];
    }
    const Index p = job.padded, rows = count * chunk;
    const bool held_x = job.thx == 0.0f, held_h = job.thh == 0.0f;
    Group group;
    group.x =
        allocate_side(job.inputs, job.words_x, held_x, job.dense_x, 0, events_x, job.steps, count, chunk, workspace);
    group.h = allocate_side(job.hidden, job.words_h, held_h, job.dense_h, job.cell == Cell::gru ? 1 : 0, events_h,
                            job.steps, count, chunk, workspace);
    group.dh = workspace.floats(count * p);
    group.dc = workspace.floats(job.cell == Cell::lstm ? count * p : 0);
    group.sums = workspace.floats(count * 4 * p);
    group.row_stride = odd_lines(4 * p);
    group.rows_s = workspace.floats(held_x && held_h ? 0 : rows * group.row_stride);
    group.rows_g = workspace.floats(held_x || held_h ? rows * group.row_stride : 0);
    return group;
}

// The hidden state before step t.
DELTARNN_INLINE const float* h_before(const Sequence& job, Index t, Index sample) {
    return t > 0 ? job.y + ((t - 1) * job.batch + sample) * job.hidden : job.h0 + sample * job.hidden;
}

// Reads a sequence's events back from its masks: Δ = v − v̂ where the bit is set.
template <class Row>
void rebuild_events(const Side& side, const Sequence& job, const std::uint64_t* masks, Index first, Index count,
                    Row row) {
    Index k = 0;
    for (Index t = 0; t < job.steps; ++t) {
        for (Index s = 0; s < count; ++s) {
            side.begin[t * count + s] = static_cast<std::int32_t>(k);
            if (t >= length_of(job, first + s)) continue;
            float* memory = side.memory + s * side.padded;
            const std::uint64_t* mask = masks + (t * job.batch + first + s) * side.words;
            const float* value = row(t, first + s);
            if (t + 4 < job.steps) {
                prefetch(mask + 4 * job.batch * side.words);
                prefetch_row(row(t + 4, first + s), side.n);
            }
            for (Index unit = 0; unit < side.n; unit += lanes) {
                const auto fired =
                    static_cast<std::uint32_t>(mask[unit / 64] >> (unit % 64)) & ((1u << (lanes - 1)) * 2u - 1u);
                const vf now = load_within(value, unit, side.n), before = load(memory + unit);
                k = append(side.events, k, unit, now - before, fired);
                store(memory + unit, choose(fired, now, before));
            }
        }
    }
    side.begin[job.steps * count] = static_cast<std::int32_t>(k);
}

DELTARNN_INLINE vf sigmoid_slope(vf y, bool hard) {
    return hard ? ((y > vf{}) & (y < splat(1.0f)) ? splat(0.25f) : vf{}) : y * (1.0f - y);
}

DELTARNN_INLINE vf tanh_slope(vf y, bool hard) {
    return hard ? (absolute(y) < splat(1.0f) ? splat(1.0f) : vf{}) : 1.0f - y * y;
}

// The gates of one step backwards: from dh (and dc) to g, which is added to S; dh becomes that of h_{t−1} but for its
// deltas.
template <Cell cell, bool hard>
void gates_backward(const Sequence& job, Group& group, Index sample, Index s, Index t, Index row) {
    const bool last = t + 1 == length_of(job, sample);
    const Index p = job.padded, n = job.hidden;
    const float* tape = job.tape + (sample * job.steps + t) * Parts<cell>::tape * p;
    const float *before = h_before(job, t, sample), *after = h_before(job, t + 1, sample);
    const float* cell_before = nullptr;
    if (cell == Cell::lstm) {
        cell_before = t > 0 ? tape - p : job.c0 + sample * n;
    }
    float* dh_row = group.dh + s * p;
    float* dc_row = group.dc + s * p;
    float* sums = group.sums + s * 4 * p;
    float* to_s = group.rows_s + row * group.row_stride;
    float* to_g = group.rows_g + row * group.row_stride;
    const bool keep_s = !(group.x.held && group.h.held), keep_g = group.x.held || group.h.held;
    for (Index u = 0; u < p; u += lanes) {
        const vf dh = load(dh_row + u);
        if (t > 1) {  // two steps back, since the LSTM already needs the cell state of one step back
            for (int part = 0; part < Parts<cell>::tape; ++part)
                prefetch(tape + (part - 2 * Parts<cell>::tape) * p + u);
        }
        vf g[4];
        if constexpr (cell == Cell::gru) {
            const vf r = load(tape + u), z = load(tape + p + u), nn = load(tape + 2 * p + u),
                     m_nh = load(tape + 3 * p + u);
            g[0] = dh * (1.0f - z) * tanh_slope(nn, hard);
            g[1] = g[0] * m_nh * sigmoid_slope(r, hard);
            g[2] = dh * (load_within(before, u, n) - nn) * sigmoid_slope(z, hard);
            g[3] = g[0] * r;
            store(dh_row + u, dh * z);
        } else {
            const vf i = load(tape + u), f = load(tape + p + u), gg = load(tape + 2 * p + u),
                     o = load(tape + 3 * p + u);
            // tanh c, of h = o·tanh c where o cannot be 0; where it is tiny, so is all that tanh c is multiplied by.
            const vf squashed = hard ? gate_tanh<hard>(load(tape + 4 * p + u)) : load_within(after, u, n) / o;
            const vf c_before = t > 0 ? load(cell_before + u) : load_within(cell_before, u, n);
            const vf dc = fma(dh * o, tanh_slope(squashed, hard), load(dc_row + u));
            g[0] = dc * gg * sigmoid_slope(i, hard);
            g[1] = dc * c_before * sigmoid_slope(f, hard);
            g[2] = dc * i * tanh_slope(gg, hard);
            g[3] = dh * squashed * sigmoid_slope(o, hard);
            store(dc_row + u, dc * f);
            store(dh_row + u, vf{});
        }
#pragma GCC unroll 4
        for (int part = 0; part < 4; ++part) {
            const vf total = load(sums + part * p + u) + g[part];
            store(sums + part * p + u, total);
            if (keep_s) store(to_s + part * p + u, total);
            // The last step's gradient has that of the final M in it, which is what S began with.
            if (keep_g) store(to_g + part * p + u, last ? total : g[part]);
        }
    }
}

// W[:, j]·S for every event of steps first_step … last_step − 1, into side.dots. S of step chunk_start is row 0.
template <int gates>
void dot_rows(const Sequence& job, const Group& group, const Side& side, const float* packed, Index count,
              Index chunk_start, Index first_step, Index last_step) {
    const Index p = job.padded;
    for_each_block(0, p, [&](auto vectors, Index unit) {
        constexpr int V = decltype(vectors)::count;
        const float* block = packed + gates * side.n * unit;
        for (Index t = first_step; t < last_step; ++t) {
            for (Index s = 0; s < count; ++s) {
                const std::int32_t* begin = side.begin + t * count + s;
                if (begin[0] == begin[1]) continue;
                const float* from =
                    group.rows_s + ((t - chunk_start) * count + s) * group.row_stride + side.offset * p + unit;
                vf row[gates][V];
#pragma GCC unroll 4
                for (int g = 0; g < gates; ++g) {
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) row[g][v] = load(from + g * p + v * lanes);
                }
                dot_events<gates, V>(row, block, side.events, begin[0], begin[1], side.dots, unit > 0);
            }
        }
    });
}

// gᵀ W of `count` rows of g (or of S), into `to`.
template <int gates>
void row_products(const Side& side, const float* g, Index g_stride, Index p, Index count, const float* weights,
                  float* to) {
    const Strides rows{g_stride, 1}, right{side.padded, lanes}, result{side.padded, lanes};
    const Index vectors = side.padded / lanes;
    const float* from = g + side.offset * p;
    Index v = 0;
    for (; v + 3 <= vectors; v += 3) {
        product<3>(count, from, rows, weights + v * lanes, right, to + v * lanes, result, gates * p, false);
    }
    for (; v < vectors; ++v) {
        product<1>(count, from, rows, weights + v * lanes, right, to + v * lanes, result, gates * p, false);
    }
}

// Takes note of an event for the gradient of its weight column. row: of the chunk.
DELTARNN_INLINE void note_event(const Side& side, Index column, Index row, Index row_stride, float value) {
    if (side.dense) {
        side.difference[row * side.padded + column] = value;
    } else {
        side.columns[column * side.column_stride + side.column_count[column]++] = {
            static_cast<std::int32_t>(row * row_stride), value};
    }
}

}  // namespace
}  // namespace deltarnn::DELTARNN_ISA
