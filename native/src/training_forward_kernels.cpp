// The forward pass of training: a group of samples in lockstep through a whole sequence (MATH §1–4).
#include "deltarnn/training_sequence.hpp"

#include "deltarnn/gates.hpp"
#include "deltarnn/training_products.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// What the samples of a group carry from step to step; rows of P (x: padded I) floats per sample.
struct Group {
    float *m, *h, *h_hat, *c, *x_hat;
    float *start_x, *start_h;      // the initial memories, for held-state products
    float *product_x, *product_h;  // W·: (chunk rows, G·P) and (count, G·P)
    float *factor_x,
        *factor_h;  // what dense products multiply, rows of the chunk and of the step: x̂ − x̂₀, ĥ − ĥ₀; or Δ
    Events events_x, events_h;
    std::int32_t *begin_x, *begin_h;  // where the events of a row begin
    bool dense_h;                     // of this step's hidden deltas most are events
    float* l1;                        // (count, lanes)
};

template <Cell cell>
Group allocate(const Sequence& job, Index count, Index chunk, Workspace& workspace) {
    constexpr int gates = Parts<cell>::gates;
    const Index rows = count * chunk, p = job.padded, i = job.padded_inputs;
    const bool held_x = job.thx == 0.0f, held_h = job.thh == 0.0f;
    Group group;
    group.m = workspace.floats(count * 4 * p);
    group.h = workspace.floats(count * p);
    group.h_hat = workspace.floats(count * p);
    group.c = workspace.floats(cell == Cell::lstm ? count * p : 0);
    group.x_hat = workspace.floats(count * i);
    group.start_x = workspace.floats(held_x ? count * i : 0);
    group.start_h = workspace.floats(held_h ? count * p : 0);
    group.product_x = workspace.floats(rows * gates * p);
    group.product_h = workspace.floats(held_h ? count * gates * p : 0);
    group.factor_x = workspace.floats(rows * i);
    group.factor_h = workspace.floats(count * p);
    group.events_x = workspace.events(held_x ? 0 : rows * i);
    group.events_h = workspace.events(held_h ? 0 : count * p);
    group.begin_x = workspace.integers(rows + 1);
    group.begin_h = workspace.integers(count + 1);
    group.l1 = workspace.floats(count * lanes);
    return group;
}

// Encodes the inputs of steps first_step … last_step − 1 and multiplies them by the input weights, all rows at once.
template <Cell cell>
void input_products(const Sequence& job, Group& group, Index first, Index count, Index first_step, Index last_step) {
    constexpr int gates = Parts<cell>::gates;
    const Index n = job.inputs, p = job.padded, row_size = gates * p;
    const bool held = job.thx == 0.0f;
    Index events = 0;
    for (Index t = first_step; t < last_step; ++t) {
        for (Index s = 0; s < count; ++s) {
            const Index sample = first + s, row = (t - first_step) * count + s;
            std::uint64_t* mask = job.fired_x + (t * job.batch + sample) * job.words_x;
            group.begin_x[row] = static_cast<std::int32_t>(events);
            if (t >= length_of(job, sample)) {
                for (Index w = 0; w < job.words_x; ++w) mask[w] = 0;
                if (held) clear(group.factor_x + row * job.padded_inputs, job.padded_inputs);
                continue;
            }
            const float* x = job.x + t * job.x_step + sample * job.x_sample;
            float* memory = group.x_hat + s * job.padded_inputs;
            vf unused{};
            if (held) {
                job.events_x[sample] += hold(x, memory, n, group.start_x + s * job.padded_inputs,
                                             group.factor_x + row * job.padded_inputs, mask, unused);
            } else {
                const Index before = events;
                events = encode(x, memory, n, job.thx, group.events_x, events, mask, unused);
                job.events_x[sample] += events - before;
            }
        }
    }
    const Index rows = (last_step - first_step) * count;
    group.begin_x[rows] = static_cast<std::int32_t>(events);
    const bool dense = !held && mostly_events(events, rows * n);
    if (dense) write_rows(group.events_x, group.begin_x, rows, group.factor_x, job.padded_inputs);

    for_each_block(0, p, [&](auto vectors, Index unit) {
        constexpr int V = decltype(vectors)::count;
        const float* block = job.packed_ih + gates * n * unit;
        if (held || dense) {
            for (int v = 0; v < V; ++v) {
                product<gates>(rows, group.factor_x, {job.padded_inputs, 1}, block + v * lanes,
                               {gates * V * lanes, V * lanes}, group.product_x + unit + v * lanes, {row_size, p}, n,
                               false);
            }
            return;
        }
        for (Index row = 0; row < rows; ++row) {
            vf sums[gates][V] = {};
            add_events<gates, V>(sums, block, group.events_x, group.begin_x[row], group.begin_x[row + 1]);
            float* to = group.product_x + row * row_size + unit;
            for (int g = 0; g < gates; ++g) {
                for (int v = 0; v < V; ++v) store(to + g * p + v * lanes, sums[g][v]);
            }
        }
    });
}

// Encodes the hidden states of one step.
template <Cell cell>
void encode_hidden(const Sequence& job, Group& group, Index first, Index count, Index t) {
    const Index p = job.padded;
    const bool held = job.thh == 0.0f;
    Index events = 0;
    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        std::uint64_t* mask = job.fired_h + (t * job.batch + sample) * job.words_h;
        group.begin_h[s] = static_cast<std::int32_t>(events);
        if (t >= length_of(job, sample)) {
            for (Index w = 0; w < job.words_h; ++w) mask[w] = 0;
            if (held) clear(group.factor_h + s * p, p);
            continue;
        }
        vf l1 = load(group.l1 + s * lanes);
        if (held) {
            job.events_h[sample] += hold(group.h + s * p, group.h_hat + s * p, job.hidden, group.start_h + s * p,
                                         group.factor_h + s * p, mask, l1);
        } else {
            const Index before = events;
            events =
                encode(group.h + s * p, group.h_hat + s * p, job.hidden, job.thh, group.events_h, events, mask, l1);
            job.events_h[sample] += events - before;
        }
        store(group.l1 + s * lanes, l1);
    }
    group.begin_h[count] = static_cast<std::int32_t>(events);
    group.dense_h = !held && mostly_events(events, count * job.hidden);
    if (group.dense_h) write_rows(group.events_h, group.begin_h, count, group.factor_h, p);
}

template <bool hard, int V>
DELTARNN_INLINE void gru_gates(const vf (&m)[4][V], float* h, float* tape, Index padded) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const vf r = gate_sigmoid<hard>(m[1][v]), z = gate_sigmoid<hard>(m[2][v]);
        const vf n = gate_tanh<hard>(fma(r, m[3][v], m[0][v]));
        const vf before = load(h + v * lanes);
        store(h + v * lanes, fma(z, before - n, n));
        if (tape != nullptr) {
            store(tape + v * lanes, r);
            store(tape + padded + v * lanes, z);
            store(tape + 2 * padded + v * lanes, n);
            store(tape + 3 * padded + v * lanes, m[3][v]);
        }
    }
}

template <bool hard, int V>
DELTARNN_INLINE void lstm_gates(const vf (&m)[4][V], float* h, float* c, float* tape, Index padded) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
        const vf i = gate_sigmoid<hard>(m[0][v]), f = gate_sigmoid<hard>(m[1][v]);
        const vf g = gate_tanh<hard>(m[2][v]), o = gate_sigmoid<hard>(m[3][v]);
        const vf cell = fma(f, load(c + v * lanes), i * g);
        store(c + v * lanes, cell);
        store(h + v * lanes, o * gate_tanh<hard>(cell));
        if (tape != nullptr) {
            store(tape + v * lanes, i);
            store(tape + padded + v * lanes, f);
            store(tape + 2 * padded + v * lanes, g);
            store(tape + 3 * padded + v * lanes, o);
            store(tape + 4 * padded + v * lanes, cell);
        }
    }
}

// One step of the running samples: M, gates, h.
template <Cell cell>
void advance(const Sequence& job, Group& group, Index first, Index count, Index t, Index chunk_row) {
    constexpr int gates = Parts<cell>::gates, offset = Parts<cell>::hidden_offset;
    const Index p = job.padded, n = job.hidden;
    const bool held_x = job.thx == 0.0f, held_h = job.thh == 0.0f;
    for_each_block(0, p, [&](auto vectors, Index unit) {
        constexpr int V = decltype(vectors)::count;
        const float* block = job.packed_hh + gates * n * unit;
        // Deltas that are 0 add nothing, so that the sums below are those of the lists of events, to the last bit.
        if (held_h || group.dense_h) {
            float* to = held_h ? group.product_h + unit : group.m + offset * p + unit;
            const Strides rows{held_h ? gates * p : 4 * p, p};
            for (int v = 0; v < V; ++v) {
                product<gates>(count, group.factor_h, {p, 1}, block + v * lanes, {gates * V * lanes, V * lanes},
                               to + v * lanes, rows, n, group.dense_h);
            }
        }
        for (Index s = 0; s < count; ++s) {
            const Index length = length_of(job, first + s);
            if (t >= length) continue;
            float* memory = group.m + s * 4 * p + unit;
            vf m[4][V];
#pragma GCC unroll 4
            for (int part = 0; part < 4; ++part) {
#pragma GCC unroll 4
                for (int v = 0; v < V; ++v) m[part][v] = load(memory + part * p + v * lanes);
            }
            const auto add = [&](const float* from, int to) __attribute__((always_inline)) {
#pragma GCC unroll 4
                for (int g = 0; g < gates; ++g) {
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) m[to + g][v] += load(from + g * p + v * lanes);
                }
            };
            const auto keep = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 4
                for (int part = 0; part < 4; ++part) {
#pragma GCC unroll 4
                    for (int v = 0; v < V; ++v) store(memory + part * p + v * lanes, m[part][v]);
                }
            };
            // Events add to the memory itself, held-state products to what this step sees of it.
            const float* from_x = group.product_x + (chunk_row + s) * gates * p + unit;
            if (!held_h && !group.dense_h) {
                vf(&hidden_side)[gates][V] = *reinterpret_cast<vf(*)[gates][V]>(&m[offset]);
                add_events<gates, V>(hidden_side, block, group.events_h, group.begin_h[s], group.begin_h[s + 1]);
            }
            if (!held_x) add(from_x, 0);
            if (!held_x || !held_h) keep();
            if (held_x) add(from_x, 0);
            if (held_h) add(group.product_h + s * gates * p + unit, offset);
            if ((held_x || held_h) && t + 1 == length) keep();

            constexpr Index tape_parts = Parts<cell>::tape;
            float* tape = job.tape;
            if (tape != nullptr) {
                tape += ((first + s) * job.steps + t) * tape_parts * p + unit;
                for (int part = 0; part < tape_parts && t + 1 < job.steps; ++part) {
                    for (int v = 0; v < V; ++v) prefetch_to_write(tape + (tape_parts + part) * p + v * lanes);
                }
            }
            if constexpr (cell == Cell::gru) {
                float* h = group.h + s * p + unit;
                job.hard ? gru_gates<true, V>(m, h, tape, p) : gru_gates<false, V>(m, h, tape, p);
            } else {
                float *h = group.h + s * p + unit, *c = group.c + s * p + unit;
                job.hard ? lstm_gates<true, V>(m, h, c, tape, p) : lstm_gates<false, V>(m, h, c, tape, p);
            }
        }
    });
}

template <Cell cell>
void run(const Sequence& job, const ForwardResult& result, Index first, Index count, Index chunk,
         float* workspace_base) {
    Workspace workspace{workspace_base};
    Group group = allocate<cell>(job, count, chunk, workspace);
    const Index n = job.hidden, p = job.padded, i = job.padded_inputs, tape_row = Parts<cell>::tape * p;
    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        load_row(group.x_hat + s * i, job.x_hat0 + sample * job.inputs, job.inputs, i);
        load_row(group.h + s * p, job.h0 + sample * n, n, p);
        load_row(group.h_hat + s * p, job.h_hat0 + sample * n, n, p);
        if (cell == Cell::lstm) load_row(group.c + s * p, job.c0 + sample * n, n, p);
        for (int part = 0; part < 4; ++part) {
            load_row(group.m + (s * 4 + part) * p, job.m0 + (sample * 4 + Parts<cell>::public_order[part]) * n, n, p);
        }
        if (job.thx == 0.0f) copy(group.start_x + s * i, group.x_hat + s * i, i);
        if (job.thh == 0.0f) copy(group.start_h + s * p, group.h_hat + s * p, p);
        job.events_x[sample] = 0;
        job.events_h[sample] = 0;
        result.l1_delta_h[sample] = 0.0;
    }
    clear(group.l1, count * lanes);

    for (Index first_step = 0; first_step < job.steps; first_step += chunk) {
        const Index last_step = first_step + chunk < job.steps ? first_step + chunk : job.steps;
        input_products<cell>(job, group, first, count, first_step, last_step);
        for (Index t = first_step; t < last_step; ++t) {
            encode_hidden<cell>(job, group, first, count, t);
            advance<cell>(job, group, first, count, t, (t - first_step) * count);
            for (Index s = 0; s < count; ++s) {
                float* y = job.y + (t * job.batch + first + s) * n;
                for (Index u = 0; u < n && t + 1 < job.steps; u += 16) prefetch_to_write(y + job.batch * n + u);
                if (t < length_of(job, first + s)) {
                    store_row(y, group.h + s * p, n);
                } else {
                    clear(y, n);
                    if (job.tape != nullptr) clear(job.tape + ((first + s) * job.steps + t) * tape_row, tape_row);
                }
            }
        }
        for (Index s = 0; s < count; ++s) {
            result.l1_delta_h[first + s] += static_cast<double>(sum_across(load(group.l1 + s * lanes)));
            store(group.l1 + s * lanes, vf{});
        }
    }

    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        store_row(result.x_hat + sample * job.inputs, group.x_hat + s * i, job.inputs);
        store_row(result.h + sample * n, group.h + s * p, n);
        store_row(result.h_hat + sample * n, group.h_hat + s * p, n);
        if (cell == Cell::lstm) store_row(result.c + sample * n, group.c + s * p, n);
        for (int part = 0; part < 4; ++part) {
            store_row(result.m + (sample * 4 + Parts<cell>::public_order[part]) * n, group.m + (s * 4 + part) * p, n);
        }
    }
}

}  // namespace

std::int64_t forward_workspace(const Sequence& job, std::int64_t count, std::int64_t chunk) {
    Workspace workspace{nullptr};
    if (job.cell == Cell::gru) {
        allocate<Cell::gru>(job, count, chunk, workspace);
    } else {
        allocate<Cell::lstm>(job, count, chunk, workspace);
    }
    return workspace.used;
}

void forward(const Sequence& job, const ForwardResult& result, std::int64_t first, std::int64_t count,
             std::int64_t chunk, float* workspace) {
    const auto run_cell = job.cell == Cell::gru ? run<Cell::gru> : run<Cell::lstm>;
    run_cell(job, result, first, count, chunk, workspace);
}

}  // namespace deltarnn::DELTARNN_ISA
