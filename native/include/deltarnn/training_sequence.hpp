// What the forward and the backward kernels share; the entry points that training_kernels.cpp gathers into one table.
#pragma once
#include "deltarnn/simd.hpp"
#include "deltarnn/training_kernels.hpp"

namespace deltarnn::DELTARNN_ISA {

// Which parts of M a cell's gates are, and where the hidden side's begin (training_kernels.hpp).
template <Cell cell>
struct Parts {
    static constexpr int gates = cell == Cell::gru ? 3 : 4;
    static constexpr int hidden_offset = cell == Cell::gru ? 1 : 0;
    static constexpr int tape = cell == Cell::gru ? 4 : 5;
    // part → position in the public order (GRU r, z, nx, nh)
    static constexpr int public_order[4] = {cell == Cell::gru ? 2 : 0, cell == Cell::gru ? 0 : 1,
                                            cell == Cell::gru ? 1 : 2, 3};
};

DELTARNN_INLINE std::int64_t length_of(const Sequence& job, std::int64_t sample) {
    return job.lengths == nullptr ? job.steps : job.lengths[sample];
}

std::int64_t forward_workspace(const Sequence&, std::int64_t count, std::int64_t chunk);
void forward(const Sequence&, const ForwardResult&, std::int64_t first, std::int64_t count, std::int64_t chunk,
             float* workspace);

std::int64_t backward_workspace(const Sequence&, const SampleGroup&, std::int64_t chunk);
void backward_begin(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk);
void backward_chunk(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk,
                    std::int64_t first_step, std::int64_t last_step);
void add_weight_gradients(const Sequence&, const SampleGroup&, std::int64_t chunk, std::int64_t steps,
                          std::int64_t first_unit, std::int64_t last_unit, float* grad_ih, float* grad_hh);
void backward_end(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk);

}  // namespace deltarnn::DELTARNN_ISA
