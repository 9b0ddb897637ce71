#include "deltarnn/training.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "deltarnn/training_threads.hpp"

namespace deltarnn {

const TrainingKernels& training_kernels(Isa isa) { DELTARNN_TABLE(training_kernels, isa) }

namespace {

// Uninitialised floats, aligned to a cache line.
class Buffer {
   public:
    explicit Buffer(std::int64_t floats) {
        const std::size_t bytes = (static_cast<std::size_t>(floats) * sizeof(float) + 63) / 64 * 64;
        data_.reset(static_cast<float*>(std::aligned_alloc(64, std::max<std::size_t>(bytes, 64))));
        if (data_ == nullptr) throw std::bad_alloc();
    }
    float* get() const { return data_.get(); }

   private:
    struct Free {
        void operator()(float* data) const { std::free(data); }
    };
    std::unique_ptr<float, Free> data_;
};

int gates_of(Cell cell) { return cell == Cell::gru ? 3 : 4; }

// How a batch is cut: every thread's samples in groups that go through the sequence together, a chunk of steps at a time.
struct Plan {
    int threads;
    std::int64_t batch, group, chunk;

    std::int64_t begin(int thread) const { return batch * thread / threads; }
};

// Measured (docs/training.md): small weights stay in the second cache, and few samples keep the state in the first; large
// weights, and register tiles, want many samples to share what is read of them.
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

const int* input_order(Cell cell) {
    static constexpr int gru[3] = {2, 0, 1}, lstm[4] = {0, 1, 2, 3};  // n, r, z of r, z, n
    return cell == Cell::gru ? gru : lstm;
}

const int* hidden_order(Cell) {
    static constexpr int same[4] = {0, 1, 2, 3};
    return same;
}

void fill_sizes(Sequence& job) {
    job.padded = padded(job.hidden);
    job.padded_inputs = padded(job.inputs);
    job.words_x = mask_words(job.inputs);
    job.words_h = mask_words(job.hidden);
}

// The first unit of a thread's share of the blocks of packed weights.
std::int64_t first_unit(const Sequence& job, const TrainingKernels& kernels, int thread, int threads) {
    const std::int64_t blocks = (job.padded + kernels.block_width - 1) / kernels.block_width;
    return std::min(job.padded, blocks * thread / threads * kernels.block_width);
}

// Packs both weight matrices, on as many threads as it pays for.
struct PackedWeights {
    Buffer ih, hh;

    PackedWeights(Sequence& job, const TrainingKernels& kernels, const float* weight_ih, const float* weight_hh, int threads)
        : ih(gates_of(job.cell) * job.padded * job.inputs), hh(gates_of(job.cell) * job.padded * job.hidden) {
        const int gates = gates_of(job.cell);
        const int share = job.padded * (job.inputs + job.hidden) > 65536 ? threads : 1;
        parallel(share, [&](int thread) {
            const std::int64_t from = first_unit(job, kernels, thread, share), to = first_unit(job, kernels, thread + 1, share);
            kernels.pack(weight_ih, ih.get(), input_order(job.cell), gates, job.hidden, job.padded, job.inputs, from, to);
            kernels.pack(weight_hh, hh.get(), hidden_order(job.cell), gates, job.hidden, job.padded, job.hidden, from, to);
        });
        job.packed_ih = ih.get();
        job.packed_hh = hh.get();
    }
};

}  // namespace

void train_forward(Sequence job, const float* weight_ih, const float* weight_hh, const ForwardResult& result, int threads) {
    fill_sizes(job);
    const TrainingKernels& kernels = training_kernels(active_isa());
    const Plan plan = plan_for(job, threads);
    const PackedWeights weights(job, kernels, weight_ih, weight_hh, plan.threads);
    const std::int64_t size = kernels.forward_workspace(job, plan.group, plan.chunk);
    const Buffer workspaces(size * plan.threads);
    parallel(plan.threads, [&](int thread) {
        const std::int64_t end = plan.begin(thread + 1);
        for (std::int64_t first = plan.begin(thread); first < end; first += plan.group) {
            kernels.forward(job, result, first, std::min(plan.group, end - first), plan.chunk, workspaces.get() + size * thread);
        }
    });
}

void train_backward(Sequence job, const float* weight_ih, const float* weight_hh, BackwardArguments arguments,
                    float* grad_weight_ih, float* grad_weight_hh, int threads) {
    fill_sizes(job);
    const TrainingKernels& kernels = training_kernels(active_isa());
    const Plan plan = plan_for(job, threads);
    const int gates = gates_of(job.cell);
    const PackedWeights weights(job, kernels, weight_ih, weight_hh, plan.threads);
    const bool rows_x = job.thx == 0.0f && (arguments.grad_x != nullptr || arguments.grad_x_hat0 != nullptr);
    const Buffer rows_ih(rows_x ? gates * job.padded * job.padded_inputs : 0);
    const Buffer rows_hh(job.thh == 0.0f ? gates * job.padded * job.padded : 0);
    if (rows_x) {
        kernels.pack_rows(weight_ih, rows_ih.get(), input_order(job.cell), gates, job.hidden, job.padded, job.inputs);
        arguments.rows_ih = rows_ih.get();
    }
    if (job.thh == 0.0f) {
        kernels.pack_rows(weight_hh, rows_hh.get(), hidden_order(job.cell), gates, job.hidden, job.padded, job.hidden);
        arguments.rows_hh = rows_hh.get();
    }

    // A group's workspace holds its events, so that it differs from group to group.
    const auto groups_of = [&](int thread, auto&& visit) {
        const std::int64_t end = plan.begin(thread + 1);
        for (std::int64_t first = plan.begin(thread); first < end; first += plan.group) {
            visit(first, std::min(plan.group, end - first));
        }
    };
    std::vector<std::int64_t> offsets(static_cast<std::size_t>(plan.threads) + 1, 0);
    for (int thread = 0; thread < plan.threads; ++thread) {
        std::int64_t size = 0;
        groups_of(thread, [&](std::int64_t first, std::int64_t count) {
            size = std::max(size, kernels.backward_workspace(job, first, count, plan.chunk));
        });
        offsets[static_cast<std::size_t>(thread) + 1] = offsets[static_cast<std::size_t>(thread)] + size;
    }
    const Buffer workspaces(offsets.back());
    const std::int64_t size_ih = gates * job.padded * job.inputs, size = size_ih + gates * job.padded * job.hidden;
    const Buffer grads(size * plan.threads);
    parallel(plan.threads, [&](int thread) {
        float* grad = grads.get() + size * thread;
        std::fill(grad, grad + size, 0.0f);
        groups_of(thread, [&](std::int64_t first, std::int64_t count) {
            kernels.backward(job, arguments, first, count, plan.chunk,
                             workspaces.get() + offsets[static_cast<std::size_t>(thread)], grad, grad + size_ih);
        });
    });

    parallel(size > 65536 ? plan.threads : 1, [&](int thread) {
        const int share = size > 65536 ? plan.threads : 1;
        const std::int64_t from = first_unit(job, kernels, thread, share), to = first_unit(job, kernels, thread + 1, share);
        float *ih = grads.get(), *hh = grads.get() + size_ih;
        for (int other = 1; other < plan.threads; ++other) {
            kernels.add(ih + gates * job.inputs * from, ih + size * other + gates * job.inputs * from,
                        gates * job.inputs * (to - from));
            kernels.add(hh + gates * job.hidden * from, hh + size * other + gates * job.hidden * from,
                        gates * job.hidden * (to - from));
        }
        kernels.unpack(ih, grad_weight_ih, input_order(job.cell), gates, job.hidden, job.padded, job.inputs, from, to);
        kernels.unpack(hh, grad_weight_hh, hidden_order(job.cell), gates, job.hidden, job.padded, job.hidden, from, to);
    });
}

}  // namespace deltarnn
