#include "forward.cuh"

#include "entry.cuh"

DELTARNN_KERNEL deltarnn_forward(int64_t blocks, int64_t units, int64_t samples, int64_t parts, int64_t teams,
                                 uint32_t* counters, int64_t hard, int64_t steps, int64_t batch, int64_t inputs,
                                 int64_t hidden, int64_t thx, int64_t thh, const int64_t* lengths, const float* x,
                                 int64_t x_step, int64_t x_sample, const float* products, int64_t input_parts,
                                 const float* x_hat0, const float* h0, const float* h_hat0, const float* c0,
                                 const float* m0, const float* weight_ih, const float* weight_hh, const float* bias_ih,
                                 const float* bias_hh, float* y, float* x_hat, float* h, float* h_hat, float* c,
                                 float* m, uint32_t* fired_x, uint32_t* fired_h, double* sums_x, double* sums_h,
                                 int64_t sums_of_x, float* l1, int64_t* counts, int64_t* events, float* tape,
                                 float* exchange) {
    using namespace deltarnn;
    const Team team(int(blocks), int(units), int(samples), int(parts), int(teams), counters + 1);
    // clang-format off
    const Forward job{int(steps), int(batch), constant_or(constant_inputs, int(inputs)),
                      constant_or(constant_hidden, int(hidden)), lstm ? 5 : 4, of_bits(thx), of_bits(thh),
                      hard_or(hard != 0), lengths, x, x_step, x_sample, products, input_parts_or(int(input_parts)),
                      x_hat0, h0, h_hat0, c0, m0, weight_ih, weight_hh, bias_ih, bias_hh, y, x_hat, h, h_hat, c, m,
                      fired_x, fired_h, sums_x, sums_h, int(sums_of_x), l1, counts, events, tape, exchange, counters};
    // clang-format on
    deltarnn::forward<lstm, scope, resident, inputs_resident, spread>(job, team);
}
