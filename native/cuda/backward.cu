#include "backward.cuh"

#include "entry.cuh"

DELTARNN_KERNEL deltarnn_backward(int64_t blocks, int64_t units, int64_t samples, int64_t parts, int64_t teams,
                                  uint32_t* counters, int64_t hard, int64_t steps, int64_t batch, int64_t inputs,
                                  int64_t hidden, int64_t thh, const int64_t* lengths, const float* h0, const float* c0,
                                  const float* weight_hh, const float* y, const float* tape, const float* grad_y,
                                  const float* grad_h, const float* grad_h_hat, const float* grad_c,
                                  const float* grad_m, const float* grad_l1, float* sums, float* grad_h0,
                                  float* grad_h_hat0, float* grad_c0, float* grad_m0) {
    using namespace deltarnn;
    const Team team(int(blocks), int(units), int(samples), int(parts), int(teams), counters + 1);
    // clang-format off
    const Backward job{int(steps), int(batch), constant_or(constant_inputs, int(inputs)),
                       constant_or(constant_hidden, int(hidden)), of_bits(thh), hard_or(hard != 0), lengths, h0, c0,
                       weight_hh, y, tape, grad_y, grad_h, grad_h_hat, grad_c, grad_m, grad_l1,
                       sums, grad_h0, grad_h_hat0, grad_c0, grad_m0, counters};
    // clang-format on
    deltarnn::backward<lstm, scope, resident, spread>(job, team);
}
