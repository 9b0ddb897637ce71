// Weight matrices as the training kernels read them, in memory of their own.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "deltarnn/training.hpp"
#include "deltarnn/training_threads.hpp"

namespace deltarnn {

// Uninitialised floats, aligned to a cache line.
class FloatBuffer {
  public:
    explicit FloatBuffer(std::int64_t floats) {
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

inline int gates_of(Cell cell) { return cell == Cell::gru ? 3 : 4; }

inline const int* input_order(Cell cell) {
    static constexpr int gru[3] = {2, 0, 1}, lstm[4] = {0, 1, 2, 3};  // n, r, z of r, z, n
    return cell == Cell::gru ? gru : lstm;
}

inline constexpr int hidden_order[4] = {0, 1, 2, 3};

// The first unit of a thread's share of the blocks of packed weights.
inline std::int64_t first_unit(const Sequence& job, const TrainingKernels& kernels, int thread, int threads) {
    const std::int64_t blocks = (job.padded + kernels.block_width - 1) / kernels.block_width;
    return std::min(job.padded, blocks * thread / threads * kernels.block_width);
}

// Below so many values, waking threads costs more than they save.
inline constexpr std::int64_t worth_sharing = 1 << 16;

// Weight matrices as the kernels read them; only those that are asked for.
struct TrainingWeights {
    FloatBuffer packed_ih, packed_hh, rows_ih, rows_hh;

    struct Wanted {
        bool packed_ih, packed_hh, rows_ih, rows_hh;
    };

    TrainingWeights(const Sequence& job, const TrainingKernels& kernels, const Parameters<const float>& parameters,
                    Wanted wanted, int threads)
        : packed_ih(wanted.packed_ih ? gates_of(job.cell) * job.padded * job.inputs : 0),
          packed_hh(wanted.packed_hh ? gates_of(job.cell) * job.padded * job.hidden : 0),
          rows_ih(wanted.rows_ih ? gates_of(job.cell) * job.padded * job.padded_inputs : 0),
          rows_hh(wanted.rows_hh ? gates_of(job.cell) * job.padded * job.padded : 0) {
        const int gates = gates_of(job.cell);
        const int *order_ih = input_order(job.cell), *order_hh = hidden_order;
        const int share = job.padded * (job.inputs + job.hidden) > worth_sharing ? threads : 1;
        parallel(share, [&](int thread) {
            const std::int64_t from = first_unit(job, kernels, thread, share),
                               to = first_unit(job, kernels, thread + 1, share);
            if (wanted.packed_ih) {
                kernels.pack(parameters.weight_ih, packed_ih.get(), order_ih, gates, job.hidden, job.padded, job.inputs,
                             from, to);
            }
            if (wanted.packed_hh) {
                kernels.pack(parameters.weight_hh, packed_hh.get(), order_hh, gates, job.hidden, job.padded, job.hidden,
                             from, to);
            }
            if (wanted.rows_ih && thread == 0) {
                kernels.pack_rows(parameters.weight_ih, rows_ih.get(), order_ih, gates, job.hidden, job.padded,
                                  job.inputs);
            }
            if (wanted.rows_hh && thread == share - 1) {
                kernels.pack_rows(parameters.weight_hh, rows_hh.get(), order_hh, gates, job.hidden, job.padded,
                                  job.hidden);
            }
        });
    }
};

}  // namespace deltarnn
