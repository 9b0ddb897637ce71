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

// `sequence` without its padded sizes, words and packed weights, which are filled in here. weight_ih (G·H, I),
// weight_hh (G·H, H) in the public gate order. The result does not depend on the number of threads.
void train_forward(Sequence sequence, const float* weight_ih, const float* weight_hh, const ForwardResult& result,
                   int threads);

// Gradients of everything that came in; `arguments` without its weight rows. The gradients of the weights are sums over
// the threads' shares of the batch: equal from run to run for one number of threads.
void train_backward(Sequence sequence, const float* weight_ih, const float* weight_hh, BackwardArguments arguments,
                    float* grad_weight_ih, float* grad_weight_hh, int threads);

}  // namespace deltarnn
