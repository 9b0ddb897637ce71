#include "weights.cuh"

#include "entry.cuh"

DELTARNN_KERNEL deltarnn_take_gradients(int64_t batch, int64_t inputs, int64_t hidden, const float* products,
                                        const float* sums, float* grad_ih, float* grad_hh, float* grad_bias_ih,
                                        float* grad_bias_hh) {
    deltarnn::take_gradients<lstm>(int(batch), int(inputs), int(hidden), products, sums, grad_ih, grad_hh, grad_bias_ih,
                                   grad_bias_hh);
}
