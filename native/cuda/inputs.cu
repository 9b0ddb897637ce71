#include "inputs.cuh"

#include "entry.cuh"

DELTARNN_KERNEL deltarnn_encode_inputs(int64_t steps, int64_t batch, int64_t inputs, int64_t threshold,
                                       const int64_t* lengths, const float* x, int64_t x_step, int64_t x_sample,
                                       const float* x_hat0, float* deltas, int64_t delta_stride, uint32_t* fired,
                                       float* x_hat, double* sums) {
    using namespace deltarnn;
    encode_inputs({int(steps), int(batch), int(inputs), of_bits(threshold), lengths},
                  {x, x_step, x_sample, x_hat0, deltas, delta_stride, fired, x_hat, sums});
}

DELTARNN_KERNEL deltarnn_multiply_inputs(int64_t rows, int64_t columns, int64_t hidden, const float* deltas,
                                         int64_t delta_stride, const float* weight, float* to) {
    deltarnn::multiply_inputs<gates>(rows, int(columns), int(hidden), deltas, delta_stride, weight, to);
}

DELTARNN_KERNEL deltarnn_pass_inputs_back(int64_t steps, int64_t batch, int64_t inputs, int64_t threshold,
                                          const int64_t* lengths, const float* deltas, int64_t delta_stride,
                                          const float* grad_x_hat, float* grad_x, float* grad_x_hat0) {
    using namespace deltarnn;
    pass_inputs_back({int(steps), int(batch), int(inputs), of_bits(threshold), lengths}, deltas, delta_stride,
                     grad_x_hat, grad_x, grad_x_hat0);
}
