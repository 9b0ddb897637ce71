#include "deltarnn/training.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "deltarnn/training_threads.hpp"
#include "deltarnn/training_weights.hpp"

namespace deltarnn {

const TrainingKernels& training_kernels(Isa isa) { DELTARNN_TABLE(training_kernels, isa) }

namespace {

// How a batch is cut: every thread's samples in groups that go through the sequence together, a chunk of steps at a
// time.
struct Plan {
    int threads;
    std::int64_t batch, group, chunk;

    std::int64_t begin(int thread) const { return batch * thread / threads; }
};

// Measured (docs/training.md): small weights stay in the second cache, and few samples keep the state in the first;
// large weights, and register tiles, want many samples to share what is read of them.
Plan plan_for(const Sequence& job, int threads) {
    constexpr std::int64_t few = 4, many = 16, rows = 128, second_cache = 1 << 16;
    Plan plan;
    plan.batch = job.batch;
    plan.threads = static_cast<int>(std::clamp<std::int64_t>(threads, 1, std::max<std::int64_t>(job.batch, 1)));
    const std::int64_t share = (job.batch + plan.threads - 1) / plan.threads;
    const bool held = job.thx == 0.0f || job.thh == 0.0f;
    const bool large = gates_of(job.cell) * job.padded * (job.inputs + job.hidden) > second_cache;
    plan.group = std::clamp<std::int64_t>(held || large ? many : few, 1, std::max<std::int64_t>(share, 1));
    plan.chunk = std::clamp<std::int64_t>(rows / plan.group, 1, std::max<std::int64_t>(job.steps, 1));
    return plan;
}

void fill_sizes(Sequence& job) {
    job.padded = padded(job.hidden);
    job.padded_inputs = padded(job.inputs);
    job.words_x = mask_words(job.inputs);
    job.words_h = mask_words(job.hidden);
}

// Which of M's parts, in the public order, gate g of the input and of the hidden side is: the GRU's new gate has one
// part for each (r, z, nx, nh).
int part_of(Cell cell, bool hidden_side, int gate) { return cell == Cell::gru && hidden_side && gate == 2 ? 3 : gate; }

// Zeros for what is null of a sequence's initial x̂, h, ĥ, c.
FloatBuffer zero_start(Sequence& job) {
    const std::int64_t size = job.batch * std::max(job.inputs, job.hidden);
    FloatBuffer zeros(size);
    std::fill_n(zeros.get(), size, 0.0f);
    for (const float** start : {&job.x_hat0, &job.h0, &job.h_hat0, &job.c0}) {
        if (*start == nullptr) *start = zeros.get();
    }
    return zeros;
}

// M of the biases for every sample, if the initial M is null.
FloatBuffer memory_start(Sequence& job, const Parameters<const float>& parameters) {
    const std::int64_t n = job.hidden;
    FloatBuffer m(job.m0 == nullptr ? job.batch * 4 * n : 0);
    if (job.m0 != nullptr || job.batch == 0) return m;
    std::fill_n(m.get(), 4 * n, 0.0f);
    for (const bool hidden_side : {false, true}) {
        const float* bias = hidden_side ? parameters.bias_hh : parameters.bias_ih;
        for (int gate = 0; gate < gates_of(job.cell) && bias != nullptr; ++gate) {
            float* part = m.get() + part_of(job.cell, hidden_side, gate) * n;
            for (std::int64_t unit = 0; unit < n; ++unit) part[unit] += bias[gate * n + unit];
        }
    }
    for (std::int64_t sample = 1; sample < job.batch; ++sample) {
        std::copy_n(m.get(), 4 * n, m.get() + sample * 4 * n);
    }
    job.m0 = m.get();
    return m;
}

// The gradients of the biases that were every sample's first M.
void sum_biases(const Sequence& job, const float* grad_m0, const Parameters<float>& gradients) {
    const std::int64_t n = job.hidden;
    const FloatBuffer sums(4 * n);
    std::fill_n(sums.get(), 4 * n, 0.0f);
    for (std::int64_t sample = 0; sample < job.batch; ++sample) {
        for (std::int64_t i = 0; i < 4 * n; ++i) sums.get()[i] += grad_m0[sample * 4 * n + i];
    }
    for (const bool hidden_side : {false, true}) {
        float* bias = hidden_side ? gradients.bias_hh : gradients.bias_ih;
        for (int gate = 0; gate < gates_of(job.cell) && bias != nullptr; ++gate) {
            std::copy_n(sums.get() + part_of(job.cell, hidden_side, gate) * n, n, bias + gate * n);
        }
    }
}

// Every thread's samples in groups, with room to work in: a group's workspace holds its events, so that it differs from
// group to group; a thread's groups share the largest.
struct Groups {
    std::vector<std::vector<SampleGroup>> of_thread;
    FloatBuffer workspaces;
};

// The kernels' lists count the events of a group in 32 bits.
void check_events(const Sequence& job, const SampleGroup& group) {
    for (const auto& [threshold, events] : {std::pair{job.thx, job.events_x}, std::pair{job.thh, job.events_h}}) {
        const std::int64_t* const own = events + group.first;
        if (threshold > 0.0f &&
            std::accumulate(own, own + group.count, std::int64_t{0}) > std::numeric_limits<std::int32_t>::max()) {
            throw std::length_error(
                "more than 2³¹ events in a few samples' sequences: train on shorter chunks, the state carried on");
        }
    }
}

Groups groups_of(const Sequence& job, const TrainingKernels& kernels, const Plan& plan) {
    std::vector<std::vector<SampleGroup>> groups(static_cast<std::size_t>(plan.threads));
    std::vector<std::int64_t> offsets{0};
    for (int thread = 0; thread < plan.threads; ++thread) {
        std::int64_t largest = 0;
        const std::int64_t end = plan.begin(thread + 1);
        for (std::int64_t first = plan.begin(thread); first < end; first += plan.group) {
            const SampleGroup group{first, std::min(plan.group, end - first), nullptr};
            check_events(job, group);
            largest = std::max(largest, kernels.backward_workspace(job, group, plan.chunk));
            groups[static_cast<std::size_t>(thread)].push_back(group);
        }
        offsets.push_back(offsets.back() + largest);
    }
    FloatBuffer workspaces(offsets.back());
    for (std::size_t thread = 0; thread < groups.size(); ++thread) {
        for (SampleGroup& group : groups[thread]) group.workspace = workspaces.get() + offsets[thread];
    }
    return {std::move(groups), std::move(workspaces)};
}

// Calls visit(first step, end) for the chunks of a sequence, the last one first.
template <class Visit>
void each_chunk_backwards(const Sequence& job, const Plan& plan, Visit visit) {
    for (std::int64_t last = job.steps; last > 0;) {
        const std::int64_t first = (last - 1) / plan.chunk * plan.chunk;
        visit(first, last);
        last = first;
    }
}

// Weight gradients, packed: those of the inputs in the first size_ih of `size` floats.
struct PackedGradients {
    std::int64_t size_ih, size;
    int copies;  // one behind the other, whose sum it is: one of each thread, or one in all
    FloatBuffer values;
};

// The threads go their own ways, each with a copy.
void add_by_thread(const Sequence& job, const TrainingKernels& kernels, const Plan& plan,
                   const BackwardArguments& arguments, const Groups& groups, PackedGradients& gradients) {
    parallel(plan.threads, [&](int thread) {
        float* const grad = gradients.values.get() + gradients.size * thread;
        std::fill_n(grad, gradients.size, 0.0f);
        for (const SampleGroup& group : groups.of_thread[static_cast<std::size_t>(thread)]) {
            kernels.backward_begin(job, arguments, group, plan.chunk);
            each_chunk_backwards(job, plan, [&](std::int64_t first, std::int64_t last) {
                kernels.backward_chunk(job, arguments, group, plan.chunk, first, last);
                kernels.add_weight_gradients(job, group, plan.chunk, last - first, 0, job.padded, grad,
                                             grad + gradients.size_ih);
            });
            kernels.backward_end(job, arguments, group, plan.chunk);
        }
    });
}

// One copy for all: the threads take turns between their samples' steps and their units' weights.
void add_in_turns(const Sequence& job, const TrainingKernels& kernels, const Plan& plan,
                  const BackwardArguments& arguments, const Groups& groups, PackedGradients& gradients) {
    float* const grad = gradients.values.get();
    std::fill_n(grad, gradients.size, 0.0f);
    const std::size_t rounds = groups.of_thread.back().size();  // the last thread has the largest share
    for (std::size_t round = 0; round < rounds; ++round) {
        const auto with_group = [&](auto&& work) {
            parallel(plan.threads, [&](int thread) {
                const std::vector<SampleGroup>& own = groups.of_thread[static_cast<std::size_t>(thread)];
                if (round < own.size()) work(own[round]);
            });
        };
        with_group([&](const SampleGroup& group) { kernels.backward_begin(job, arguments, group, plan.chunk); });
        each_chunk_backwards(job, plan, [&](std::int64_t first, std::int64_t last) {
            with_group([&](const SampleGroup& group) {
                kernels.backward_chunk(job, arguments, group, plan.chunk, first, last);
            });
            parallel(plan.threads, [&](int thread) {
                const std::int64_t from = first_unit(job, kernels, thread, plan.threads);
                const std::int64_t to = first_unit(job, kernels, thread + 1, plan.threads);
                for (const std::vector<SampleGroup>& own : groups.of_thread) {
                    if (round >= own.size()) continue;
                    kernels.add_weight_gradients(job, own[round], plan.chunk, last - first, from, to, grad,
                                                 grad + gradients.size_ih);
                }
            });
        });
        with_group([&](const SampleGroup& group) { kernels.backward_end(job, arguments, group, plan.chunk); });
    }
}

PackedGradients packed_gradients(Sequence& job, const TrainingKernels& kernels, const Plan& plan,
                                 const Parameters<const float>& parameters, BackwardArguments& arguments) {
    const bool through_inputs = arguments.grad_x != nullptr || arguments.grad_x_hat0 != nullptr;
    const bool rows_x = job.thx == 0.0f || job.dense_x, rows_h = job.thh == 0.0f || job.dense_h;
    const TrainingWeights::Wanted wanted{through_inputs && !rows_x, !rows_h, through_inputs && rows_x, rows_h};
    const TrainingWeights weights(job, kernels, parameters, wanted, plan.threads);
    job.packed_ih = weights.packed_ih.get();
    job.packed_hh = weights.packed_hh.get();
    arguments.rows_ih = weights.rows_ih.get();
    arguments.rows_hh = weights.rows_hh.get();

    const std::int64_t per_column = gates_of(job.cell) * job.padded;
    const std::int64_t size_ih = per_column * job.inputs, size = size_ih + per_column * job.hidden;
    // A copy for each thread costs least time, until the copies are what memory is spent on.
    const int copies = size > (std::int64_t{1} << 20) ? 1 : plan.threads;
    PackedGradients gradients{size_ih, size, copies, FloatBuffer(size * copies)};
    const Groups groups = groups_of(job, kernels, plan);
    (copies == plan.threads ? add_by_thread : add_in_turns)(job, kernels, plan, arguments, groups, gradients);
    return gradients;
}

}  // namespace

void train_forward(Sequence job, const Parameters<const float>& parameters, const ForwardResult& result, int threads) {
    fill_sizes(job);
    const FloatBuffer zeros = zero_start(job), m0 = memory_start(job, parameters);
    const TrainingKernels& kernels = training_kernels(active_isa());
    const Plan plan = plan_for(job, threads);
    const TrainingWeights weights(job, kernels, parameters, {true, true, false, false}, plan.threads);
    job.packed_ih = weights.packed_ih.get();
    job.packed_hh = weights.packed_hh.get();
    const std::int64_t size = kernels.forward_workspace(job, plan.group, plan.chunk);
    const FloatBuffer workspaces(size * plan.threads);
    parallel(plan.threads, [&](int thread) {
        const std::int64_t end = plan.begin(thread + 1);
        for (std::int64_t first = plan.begin(thread); first < end; first += plan.group) {
            const std::int64_t count = std::min(plan.group, end - first);
            kernels.forward(job, result, first, count, plan.chunk, workspaces.get() + size * thread);
        }
    });
}

void train_backward(Sequence job, const Parameters<const float>& parameters, BackwardArguments arguments,
                    const Parameters<float>& gradients, int threads) {
    fill_sizes(job);
    const FloatBuffer zeros = zero_start(job);
    const auto dense = [&](float threshold, const std::int64_t* events, std::int64_t elements) {
        const std::int64_t all = std::accumulate(events, events + job.batch, std::int64_t{0});
        return threshold > 0.0f && dense_elements * all > dense_events * job.steps * job.batch * elements;
    };
    job.dense_x = dense(job.thx, job.events_x, job.inputs);
    job.dense_h = dense(job.thh, job.events_h, job.hidden);
    const bool biases = gradients.bias_ih != nullptr || gradients.bias_hh != nullptr;
    const FloatBuffer grad_m0(biases && arguments.grad_m0 == nullptr ? job.batch * 4 * job.hidden : 0);
    if (biases && arguments.grad_m0 == nullptr) arguments.grad_m0 = grad_m0.get();
    const TrainingKernels& kernels = training_kernels(active_isa());
    const Plan plan = plan_for(job, threads);
    const PackedGradients packed = packed_gradients(job, kernels, plan, parameters, arguments);
    if (biases) sum_biases(job, arguments.grad_m0, gradients);

    const int gates = gates_of(job.cell), share = packed.size > worth_sharing ? plan.threads : 1;
    parallel(share, [&](int thread) {
        const std::int64_t from = first_unit(job, kernels, thread, share),
                           to = first_unit(job, kernels, thread + 1, share);
        const auto add_up = [&](float* first, std::int64_t columns) {
            const std::int64_t begin = gates * columns * from, count = gates * columns * (to - from);
            for (int other = 1; other < packed.copies; ++other) {
                kernels.add(first + begin, first + packed.size * other + begin, count);
            }
        };
        float *ih = packed.values.get(), *hh = ih + packed.size_ih;
        add_up(ih, job.inputs);
        add_up(hh, job.hidden);
        kernels.unpack(ih, gradients.weight_ih, input_order(job.cell), gates, job.hidden, job.padded, job.inputs, from,
                       to);
        kernels.unpack(hh, gradients.weight_hh, hidden_order, gates, job.hidden, job.padded, job.hidden, from, to);
    });
}

}  // namespace deltarnn
