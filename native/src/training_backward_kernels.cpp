// The backward pass of training: exact back-propagation through time over the fired columns (MATH §5).
//
// Event lists need S_t, the sum of the pre-activation gradients g_s of all s ≥ t. Held-state products (threshold 0)
// need g_t itself: M_t = M_0 + W (v̂_t − v̂_0), so that ∂loss/∂v̂_t = Wᵀ g_t and ∂loss/∂W = Σ_t g_t (v̂_t − v̂_0)ᵀ.
// Both keep q, the gradient of the memory v̂ as seen from later steps: minus that of the delta that fires next.
#include "deltarnn/training_backward.hpp"

namespace deltarnn::DELTARNN_ISA {
namespace {

// ∂loss/∂W of the chunk's rows, added to the packed gradient.
template <int gates>
void weight_gradient(const Sequence& job, const Group& group, const Side& side, Index rows, Index first_unit,
                     Index last_unit, float* grad) {
    const Index p = job.padded;
    for_each_block(first_unit, last_unit, [&](auto vectors, Index unit) {
        constexpr int V = decltype(vectors)::count;
        constexpr Index stride = gates * V * lanes;
        float* block = grad + gates * side.n * unit;
        if (side.held || side.dense) {
            const float* rows_of = (side.held ? group.rows_g : group.rows_s) + side.offset * p + unit;
            for (int v = 0; v < V; ++v) {
                product<gates>(side.n, side.difference, {1, side.padded}, rows_of + v * lanes, {group.row_stride, p},
                               block + v * lanes, {stride, V * lanes}, rows, true);
            }
            return;
        }
        // Two vectors of each gate at a time: then the chunk's S of these units stays in the first cache.
        constexpr int W = V % 2 == 0 ? 2 : 1;
        for (int v0 = 0; v0 < V; v0 += W) {
            const float* from = group.rows_s + side.offset * p + unit + v0 * lanes;
            for (Index j = 0; j < side.n; ++j) {
                const Index events = side.column_count[j];
                if (events == 0) continue;
                float* column = block + j * stride + v0 * lanes;
                vf sums[gates][W];
#pragma GCC unroll 4
                for (int g = 0; g < gates; ++g) {
#pragma GCC unroll 4
                    for (int v = 0; v < W; ++v) sums[g][v] = load(column + (g * V + v) * lanes);
                }
                const ColumnEvent* list = side.columns + j * side.column_stride;
                for (Index k = 0; k < events; ++k) {
                    const float* row = from + list[k].row;
                    const vf value = splat(list[k].value);
#pragma GCC unroll 4
                    for (int g = 0; g < gates; ++g) {
#pragma GCC unroll 4
                        for (int v = 0; v < W; ++v) sums[g][v] = fma(load(row + g * p + v * lanes), value, sums[g][v]);
                    }
                }
#pragma GCC unroll 4
                for (int g = 0; g < gates; ++g) {
#pragma GCC unroll 4
                    for (int v = 0; v < W; ++v) store(column + (g * V + v) * lanes, sums[g][v]);
                }
            }
        }
    });
}

// Through the deltas of h_{t−1}: dh gains what they pass on.
template <int gates>
void hidden_deltas_backward(const Sequence& job, const BackwardArguments& args, Group& group, Index first, Index count,
                            Index t, Index chunk_start) {
    Side& side = group.h;
    const Index p = job.padded, chunk_row = (t - chunk_start) * count;
    float* products = side.product + chunk_row * p;
    if (!side.held) {
        if (side.dense) {
            row_products<gates>(side, group.rows_s + chunk_row * group.row_stride, group.row_stride, p, count,
                                args.rows_hh, products);
            clear(side.difference + chunk_row * p, count * p);
        } else {
            dot_rows<gates>(job, group, side, job.packed_hh, count, chunk_start, t, t + 1);
        }
        for (Index s = 0; s < count; ++s) {
            const std::int32_t* begin = side.begin + t * count + s;
            float* dh = group.dh + s * p;
            float* q = side.q + s * p;
            for (Index k = begin[0]; k < begin[1]; ++k) {
                const Index j = side.events.index[k];
                const float value = side.events.value[k];
                const float product = side.dense ? products[s * p + j] : side.dots[k];
                const float d = product + args.grad_l1 * __builtin_copysignf(1.0f, value);  // no event is 0
                dh[j] += d + q[j];
                q[j] = -d;
                note_event(side, j, chunk_row + s, group.row_stride, value);
            }
        }
        return;
    }
    row_products<gates>(side, group.rows_g + chunk_row * group.row_stride, group.row_stride, p, count, args.rows_hh,
                        products);
    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        float* difference = side.difference + (chunk_row + s) * p;
        if (t >= length_of(job, sample)) {
            clear(difference, p);
            continue;
        }
        const float* before = h_before(job, t, sample);
        const float* earlier = t > 0 ? h_before(job, t - 1, sample) : job.h_hat0 + sample * side.n;
        for (Index u = 0; u < p; u += lanes) {
            const vf value = load_within(before, u, side.n);
            const vf delta = value - load_within(earlier, u, side.n);
            const vf l1 = args.grad_l1 * ((delta > vf{} ? splat(1.0f) : vf{}) - (delta < vf{} ? splat(1.0f) : vf{}));
            float* q = side.q + s * p + u;
            float* dh = group.dh + s * p + u;
            store(dh, load(dh) + load(q) + load(products + s * p + u) + l1);
            store(q, vf{} - l1);
            store(difference + u, value - load(side.memory + s * p + u));
        }
    }
}

// Through the deltas of the chunk's inputs.
template <int gates>
void input_deltas_backward(const Sequence& job, const BackwardArguments& args, Group& group, Index first, Index count,
                           Index first_step, Index last_step) {
    Side& side = group.x;
    const Index p = job.padded, n = side.n;
    const bool wanted = args.grad_x != nullptr || args.grad_x_hat0 != nullptr;
    const Index rows = (last_step - first_step) * count;
    if (wanted && (side.held || side.dense)) {
        row_products<gates>(side, side.held ? group.rows_g : group.rows_s, group.row_stride, p, rows, args.rows_ih,
                            side.product);
    } else if (wanted) {
        dot_rows<gates>(job, group, side, job.packed_ih, count, first_step, first_step, last_step);
    }
    if (side.dense) clear(side.difference, rows * side.padded);
    for (Index t = last_step - 1; t >= first_step; --t) {
        for (Index s = 0; s < count; ++s) {
            const Index sample = first + s, row = (t - first_step) * count + s;
            float* grad = args.grad_x == nullptr ? nullptr : args.grad_x + (t * job.batch + sample) * n;
            float* q = side.q + s * side.padded;
            const bool running = t < length_of(job, sample);
            if (grad != nullptr && !(side.held && running)) clear(grad, n);
            if (!side.held) {
                const std::int32_t* begin = side.begin + t * count + s;
                for (Index k = begin[0]; k < begin[1]; ++k) {
                    const Index j = side.events.index[k];
                    note_event(side, j, row, group.row_stride, side.events.value[k]);
                    if (!wanted) continue;
                    const float product = side.dense ? side.product[row * side.padded + j] : side.dots[k];
                    if (grad != nullptr) grad[j] = product + q[j];
                    q[j] = -product;
                }
                continue;
            }
            float* difference = side.difference + row * side.padded;
            if (!running) {
                clear(difference, side.padded);
                continue;
            }
            const float* x = job.x + t * job.x_step + sample * job.x_sample;
            for (Index u = 0; u < side.padded; u += lanes) {
                store(difference + u, load_within(x, u, n) - load(side.memory + s * side.padded + u));
                if (!wanted) continue;
                if (grad != nullptr) store_within(grad, load(q + u) + load(side.product + row * side.padded + u), u, n);
                store(q + u, vf{});
            }
        }
    }
}

// Held-state products: M_t holds −W v̂_0 at every step, which v̂_0's gradient gets here.
template <int gates>
void subtract_start(const Sequence& job, const Group& group, const Side& side, Index first, Index count,
                    const float* weights) {
    if (!side.held) return;
    row_products<gates>(side, group.sums, 4 * job.padded, job.padded, count, weights, side.product);
    for (Index s = 0; s < count; ++s) {
        if (length_of(job, first + s) == 0) continue;
        float* q = side.q + s * side.padded;
        for (Index u = 0; u < side.padded; u += lanes)
            store(q + u, load(q + u) - load(side.product + s * side.padded + u));
    }
}

DELTARNN_INLINE void load_optional(float* to, const float* from, Index row, Index n, Index padded) {
    if (from == nullptr) {
        clear(to, padded);
    } else {
        load_row(to, from + row * n, n, padded);
    }
}

template <Cell cell>
void begin(const Sequence& job, const BackwardArguments& args, const Group& group, Index first, Index count) {
    const Index n = job.hidden, p = job.padded;
    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        load_row(group.x.memory + s * group.x.padded, job.x_hat0 + sample * job.inputs, job.inputs, group.x.padded);
        load_row(group.h.memory + s * p, job.h_hat0 + sample * n, n, p);
        load_optional(group.x.q + s * group.x.padded, args.grad_x_hat, sample, job.inputs, group.x.padded);
        load_optional(group.h.q + s * p, args.grad_h_hat, sample, n, p);
        load_optional(group.dh + s * p, args.grad_h, sample, n, p);
        if (cell == Cell::lstm) load_optional(group.dc + s * p, args.grad_c, sample, n, p);
        for (int part = 0; part < 4; ++part) {
            load_optional(group.sums + (s * 4 + part) * p, args.grad_m, sample * 4 + Parts<cell>::public_order[part], n,
                          p);
        }
    }
    if (!group.x.held) {
        rebuild_events(group.x, job, job.fired_x, first, count,
                       [&](Index t, Index sample)
                           __attribute__((always_inline)) { return job.x + t * job.x_step + sample * job.x_sample; });
    }
    if (!group.h.held) {
        rebuild_events(group.h, job, job.fired_h, first, count,
                       [&](Index t, Index sample) __attribute__((always_inline)) { return h_before(job, t, sample); });
    }
}

template <Cell cell>
void run_chunk(const Sequence& job, const BackwardArguments& args, Group& group, Index first, Index count,
               Index first_step, Index last_step) {
    constexpr int gates = Parts<cell>::gates;
    const auto gates_of = job.hard ? gates_backward<cell, true> : gates_backward<cell, false>;
    const Index n = job.hidden, p = job.padded;
    for (const Side* side : {&group.x, &group.h}) {
        for (Index j = 0; j < side->n && !side->held && !side->dense; ++j) side->column_count[j] = 0;
    }
    for (Index t = last_step - 1; t >= first_step; --t) {
        for (Index s = 0; s < count; ++s) {
            const Index sample = first + s, row = (t - first_step) * count + s;
            if (t >= length_of(job, sample)) {
                if (group.x.held || group.h.held) clear(group.rows_g + row * group.row_stride, 4 * p);
                if (group.x.dense || group.h.dense) clear(group.rows_s + row * group.row_stride, 4 * p);
                continue;
            }
            const float* grad_y = args.grad_y + (t * job.batch + sample) * n;
            float* dh = group.dh + s * p;
            for (Index u = 0; u < p; u += lanes) store(dh + u, load(dh + u) + load_within(grad_y, u, n));
            // The rows of one sample lie B rows apart, too far for the hardware to foresee.
            if (t > 0) prefetch_row(grad_y - job.batch * n, n);
            if (t > 1) prefetch_row(h_before(job, t - 1, sample), n);
            gates_of(job, group, sample, s, t, row);
        }
        hidden_deltas_backward<gates>(job, args, group, first, count, t, first_step);
    }
    input_deltas_backward<gates>(job, args, group, first, count, first_step, last_step);
}

template <Cell cell>
void finish(const Sequence& job, const BackwardArguments& args, const Group& group, Index first, Index count) {
    constexpr int gates = Parts<cell>::gates;
    const Index n = job.hidden, p = job.padded;
    if (args.grad_x_hat0 != nullptr) subtract_start<gates>(job, group, group.x, first, count, args.rows_ih);
    if (args.grad_h_hat0 != nullptr) subtract_start<gates>(job, group, group.h, first, count, args.rows_hh);
    for (Index s = 0; s < count; ++s) {
        const Index sample = first + s;
        if (args.grad_x_hat0 != nullptr) {
            store_row(args.grad_x_hat0 + sample * job.inputs, group.x.q + s * group.x.padded, job.inputs);
        }
        if (args.grad_h0 != nullptr) store_row(args.grad_h0 + sample * n, group.dh + s * p, n);
        if (args.grad_h_hat0 != nullptr) store_row(args.grad_h_hat0 + sample * n, group.h.q + s * p, n);
        if (args.grad_c0 != nullptr) store_row(args.grad_c0 + sample * n, group.dc + s * p, n);
        for (int part = 0; part < 4 && args.grad_m0 != nullptr; ++part) {
            store_row(args.grad_m0 + (sample * 4 + Parts<cell>::public_order[part]) * n,
                      group.sums + (s * 4 + part) * p, n);
        }
    }
}

// Where a group's data lie in its workspace follows from the group alone.
Group group_of(const Sequence& job, const SampleGroup& samples, Index chunk) {
    Workspace workspace{samples.workspace};
    return allocate(job, samples.first, samples.count, chunk, workspace);
}

}  // namespace

std::int64_t backward_workspace(const Sequence& job, const SampleGroup& samples, std::int64_t chunk) {
    Workspace workspace{nullptr};
    allocate(job, samples.first, samples.count, chunk, workspace);
    return workspace.used;
}

void backward_begin(const Sequence& job, const BackwardArguments& args, const SampleGroup& samples,
                    std::int64_t chunk) {
    const Group group = group_of(job, samples, chunk);
    (job.cell == Cell::gru ? begin<Cell::gru> : begin<Cell::lstm>)(job, args, group, samples.first, samples.count);
}

void backward_chunk(const Sequence& job, const BackwardArguments& args, const SampleGroup& samples, std::int64_t chunk,
                    std::int64_t first_step, std::int64_t last_step) {
    Group group = group_of(job, samples, chunk);
    const auto run = job.cell == Cell::gru ? run_chunk<Cell::gru> : run_chunk<Cell::lstm>;
    run(job, args, group, samples.first, samples.count, first_step, last_step);
}

void add_weight_gradients(const Sequence& job, const SampleGroup& samples, std::int64_t chunk, std::int64_t steps,
                          std::int64_t first_unit, std::int64_t last_unit, float* grad_ih, float* grad_hh) {
    const Group group = group_of(job, samples, chunk);
    const auto of_side = job.cell == Cell::gru ? weight_gradient<3> : weight_gradient<4>;
    of_side(job, group, group.x, steps * samples.count, first_unit, last_unit, grad_ih);
    of_side(job, group, group.h, steps * samples.count, first_unit, last_unit, grad_hh);
}

void backward_end(const Sequence& job, const BackwardArguments& args, const SampleGroup& samples, std::int64_t chunk) {
    const Group group = group_of(job, samples, chunk);
    (job.cell == Cell::gru ? finish<Cell::gru> : finish<Cell::lstm>)(job, args, group, samples.first, samples.count);
}

}  // namespace deltarnn::DELTARNN_ISA
