// Training one layer: forward and backward over whole sequences, in parallel over the batch.
#pragma once
#include <cstdint>

#include "deltarnn/training_kernels.hpp"

namespace deltarnn {

constexpr std::int64_t padded(std::int64_t n) { return (n + hidden_padding - 1) / hidden_padding * hidden_padding; }

// 64-bit words in the event mask of n elements.
constexpr std::int64_t mask_words(std::int64_t n) { return (n + 63) / 64; }

// Values per hidden unit and step that the backward pass needs.
constexpr std::int64_t tape_parts(Cell cell) { return cell == Cell::gru ? 4 : 5; }

// One layer's parameters, or their gradients: weights (G·H, I) and (G·H, H), biases (G·H,) in the public gate order.
// Biases may be null; they count where a sequence begins with them as its M.
template <class Float>
struct Parameters {
    Float *weight_ih, *weight_hh, *bias_ih, *bias_hh;
};

// `sequence` without its padded sizes, words and packed weights, which are filled in here. What is null of its initial
// state is 0, M the biases. The result does not depend on the number of threads.
void train_forward(Sequence sequence, const Parameters<const float>& parameters, const ForwardResult& result,
                   int threads);

// Gradients of everything that came in; `arguments` without its weight rows. What is null among the gradients is not
// wanted: of x, of the initial state, and of the biases. The gradients of the parameters are sums over the threads'
// shares of the batch: equal from run to run for one number of threads.
void train_backward(Sequence sequence, const Parameters<const float>& parameters, BackwardArguments arguments,
                    const Parameters<float>& gradients, int threads);

}  // namespace deltarnn
