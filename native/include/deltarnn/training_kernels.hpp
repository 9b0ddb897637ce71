// The kernels of training: whole sequences of one layer, for a group of samples. One table per instruction set.
//
// Shapes below: T steps, B samples, I inputs, H hidden units, G gates (GRU 3, LSTM 4), P = H rounded up to 16
// ("padded"). The parts of a sample's pre-activation memory M are kept in the order that makes each side's gates
// contiguous: GRU (nx, r, z, nh), of which inputs reach the first three and hidden states the last three; LSTM (i, f,
// g, o).
#pragma once
#include <cstdint>

#include "deltarnn/dispatch.hpp"

namespace deltarnn {

enum class Cell { gru, lstm };

// Hidden units are padded to a multiple of this, so that rows are whole vectors in every instruction set.
constexpr std::int64_t hidden_padding = 16;

// Where more than two of three elements fire, products of whole rows take less time than lists of events.
constexpr std::int64_t dense_events = 2, dense_elements = 3;

// What one layer computes, and on what; plain pointers into arrays that the caller owns, C-contiguous but for x.
struct Sequence {
    Cell cell;
    bool hard;                                  // hard activations
    std::int64_t steps, batch, inputs, hidden;  // T, B, I, H
    std::int64_t padded, padded_inputs;         // H and I rounded up to 16
    std::int64_t words_x, words_h;              // 64-bit words of one event mask
    float thx, thh;                             // 0: held-state products; more: events
    bool dense_x, dense_h;                      // backwards, of events: most elements are, so that rows are multiplied
    const float* x;                             // (T, B, I) with strides x_step, x_sample, 1
    std::int64_t x_step, x_sample;
    const std::int64_t* lengths;  // (B,) or null: all T
    const float *x_hat0, *h0, *h_hat0, *c0,
        *m0;                             // (B, I), (B, H), (B, H), (B, H) of the LSTM, (B, 4H) in the public order
    const float *packed_ih, *packed_hh;  // weights in blocks of units, see pack
    float* y;                            // (T, B, H)
    std::uint64_t *fired_x, *fired_h;    // (T, B, words): bit j of a row: delta j is not 0
    std::int64_t *events_x, *events_h;   // (B,): how many deltas are not 0
    float* tape;                         // (B, T, parts, P): gates, GRU r, z, n, M_nh, LSTM i, f, g, o, c; or null
};

struct ForwardResult {
    float *x_hat, *h, *h_hat, *c, *m;  // final state, shaped as the initial one
    double* l1_delta_h;                // (B,)
};

struct BackwardArguments {
    const float *rows_ih, *rows_hh;  // weights by rows, see pack_rows; null unless held
    const float* grad_y;             // (T, B, H)
    const float *grad_x_hat, *grad_h, *grad_h_hat, *grad_c, *grad_m;  // of the final state; each may be null
    float grad_l1;
    float* grad_x;                                                   // (T, B, I), or null: not wanted
    float *grad_x_hat0, *grad_h0, *grad_h_hat0, *grad_c0, *grad_m0;  // of the initial state; each may be null
};

// Samples that go through a sequence together, and the memory for it.
struct SampleGroup {
    std::int64_t first, count;
    float* workspace;
};

struct TrainingKernels {
    // Weights (G·H, columns) to blocks of units: element (column, gate, unit) of the block at unit u₀ of width w is at
    // G·columns·u₀ + (column·G + gate)·w + unit − u₀. `order`: the gate of the matrix that is gate g of the result.
    void (*pack)(const float* weight, float* packed, const int* order, int gates, std::int64_t hidden,
                 std::int64_t padded, std::int64_t columns, std::int64_t first_unit, std::int64_t last_unit);
    // The inverse.
    void (*unpack)(const float* packed, float* weight, const int* order, int gates, std::int64_t hidden,
                   std::int64_t padded, std::int64_t columns, std::int64_t first_unit, std::int64_t last_unit);
    // Weights (G·H, columns) to (G·P, columns padded to 16), gates reordered, zeros in the padding.
    void (*pack_rows)(const float* weight, float* rows, const int* order, int gates, std::int64_t hidden,
                      std::int64_t padded, std::int64_t columns);
    // Samples first … first + count − 1 of a sequence, in lockstep, `chunk` steps at a time.
    std::int64_t (*forward_workspace)(const Sequence&, std::int64_t count, std::int64_t chunk);
    void (*forward)(const Sequence&, const ForwardResult&, std::int64_t first, std::int64_t count, std::int64_t chunk,
                    float* workspace);
    // The same, backwards. In this order: begin; for every chunk from the last, its steps and then its weight
    // gradients, of all units at once or shared out; end. Gradients are packed, and added to.
    std::int64_t (*backward_workspace)(const Sequence&, const SampleGroup&, std::int64_t chunk);
    void (*backward_begin)(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk);
    void (*backward_chunk)(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk,
                           std::int64_t first_step, std::int64_t last_step);
    void (*add_weight_gradients)(const Sequence&, const SampleGroup&, std::int64_t chunk, std::int64_t steps,
                                 std::int64_t first_unit, std::int64_t last_unit, float* grad_ih, float* grad_hh);
    void (*backward_end)(const Sequence&, const BackwardArguments&, const SampleGroup&, std::int64_t chunk);
    // to[0:n] += from[0:n], n a multiple of 16.
    void (*add)(float* to, const float* from, std::int64_t n);
    std::int64_t block_width;  // of packed weights
};

DELTARNN_DECLARE_TABLE(TrainingKernels, training_kernels)

const TrainingKernels& training_kernels(Isa isa);

}  // namespace deltarnn
