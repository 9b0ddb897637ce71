// Training for Python: addresses of tensors come as integers (Tensor.data_ptr(), 0 for none), their shapes have been
// checked there.
#include <nanobind/nanobind.h>

#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "deltarnn/training.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// The arguments that forward and backward share, in the order of the Python side.
struct Shape {
    std::int64_t steps, batch, inputs, hidden;
};

deltarnn::Sequence sequence_of(bool lstm, bool hard, const Shape& shape, float thx, float thh, Address x,
                               std::int64_t x_step, std::int64_t x_sample, Address lengths) {
    deltarnn::Sequence job{};
    job.cell = lstm ? deltarnn::Cell::lstm : deltarnn::Cell::gru;
    job.hard = hard;
    job.steps = shape.steps;
    job.batch = shape.batch;
    job.inputs = shape.inputs;
    job.hidden = shape.hidden;
    job.thx = thx;
    job.thh = thh;
    job.x = at<const float>(x);
    job.x_step = x_step;
    job.x_sample = x_sample;
    job.lengths = at<const std::int64_t>(lengths);
    return job;
}

void set_state(deltarnn::Sequence& job, Address x_hat, Address h, Address h_hat, Address c, Address m) {
    job.x_hat0 = at<const float>(x_hat);
    job.h0 = at<const float>(h);
    job.h_hat0 = at<const float>(h_hat);
    job.c0 = at<const float>(c);
    job.m0 = at<const float>(m);
}

void set_record(deltarnn::Sequence& job, Address y, Address fired_x, Address fired_h, Address events, Address tape) {
    job.y = at<float>(y);
    job.fired_x = at<std::uint64_t>(fired_x);
    job.fired_h = at<std::uint64_t>(fired_h);
    job.events_x = at<std::int64_t>(events);
    job.events_h = job.events_x + job.batch;
    job.tape = at<float>(tape);
}

void forward(bool lstm, bool hard, std::int64_t steps, std::int64_t batch, std::int64_t inputs, std::int64_t hidden,
             float thx, float thh, Address x, std::int64_t x_step, std::int64_t x_sample, Address lengths,
             Address x_hat0, Address h0, Address h_hat0, Address c0, Address m0, Address weight_ih, Address weight_hh,
             Address bias_ih, Address bias_hh, Address y, Address x_hat, Address h, Address h_hat, Address c, Address m,
             Address fired_x, Address fired_h, Address events, Address tape, Address counts, Address l1, int threads) {
    deltarnn::Sequence job =
        sequence_of(lstm, hard, {steps, batch, inputs, hidden}, thx, thh, x, x_step, x_sample, lengths);
    set_state(job, x_hat0, h0, h_hat0, c0, m0);
    set_record(job, y, fired_x, fired_h, events, tape);
    std::vector<double> l1_of(static_cast<std::size_t>(batch));
    const deltarnn::ForwardResult result{at<float>(x_hat), at<float>(h), at<float>(h_hat),
                                         at<float>(c),     at<float>(m), l1_of.data()};
    const deltarnn::Parameters<const float> parameters{at<const float>(weight_ih), at<const float>(weight_hh),
                                                       at<const float>(bias_ih), at<const float>(bias_hh)};
    deltarnn::train_forward(job, parameters, result, threads);

    std::int64_t valid = steps * batch;
    if (job.lengths != nullptr) valid = std::accumulate(job.lengths, job.lengths + batch, std::int64_t{0});
    std::int64_t* to = at<std::int64_t>(counts);  // zeros of x and h, elements of x and h
    to[2] = valid * inputs;
    to[3] = valid * hidden;
    to[0] = std::accumulate(job.events_x, job.events_x + batch, to[2], std::minus<>());
    to[1] = std::accumulate(job.events_h, job.events_h + batch, to[3], std::minus<>());
    *at<float>(l1) = static_cast<float>(std::accumulate(l1_of.begin(), l1_of.end(), 0.0));
}

void backward(bool lstm, bool hard, std::int64_t steps, std::int64_t batch, std::int64_t inputs, std::int64_t hidden,
              float thx, float thh, Address x, std::int64_t x_step, std::int64_t x_sample, Address lengths,
              Address x_hat0, Address h0, Address h_hat0, Address c0, Address weight_ih, Address weight_hh, Address y,
              Address fired_x, Address fired_h, Address events, Address tape, Address grad_y, Address grad_x_hat,
              Address grad_h, Address grad_h_hat, Address grad_c, Address grad_m, Address grad_l1, Address grad_x,
              Address grad_x_hat0, Address grad_h0, Address grad_h_hat0, Address grad_c0, Address grad_m0,
              Address grad_weight_ih, Address grad_weight_hh, Address grad_bias_ih, Address grad_bias_hh, int threads) {
    deltarnn::Sequence job =
        sequence_of(lstm, hard, {steps, batch, inputs, hidden}, thx, thh, x, x_step, x_sample, lengths);
    set_state(job, x_hat0, h0, h_hat0, c0, 0);
    set_record(job, y, fired_x, fired_h, events, tape);
    deltarnn::BackwardArguments arguments{};
    arguments.grad_y = at<const float>(grad_y);
    arguments.grad_x_hat = at<const float>(grad_x_hat);
    arguments.grad_h = at<const float>(grad_h);
    arguments.grad_h_hat = at<const float>(grad_h_hat);
    arguments.grad_c = at<const float>(grad_c);
    arguments.grad_m = at<const float>(grad_m);
    arguments.grad_l1 = grad_l1 == 0 ? 0.0f : *at<const float>(grad_l1);
    arguments.grad_x = at<float>(grad_x);
    arguments.grad_x_hat0 = at<float>(grad_x_hat0);
    arguments.grad_h0 = at<float>(grad_h0);
    arguments.grad_h_hat0 = at<float>(grad_h_hat0);
    arguments.grad_c0 = at<float>(grad_c0);
    arguments.grad_m0 = at<float>(grad_m0);
    const deltarnn::Parameters<const float> parameters{at<const float>(weight_ih), at<const float>(weight_hh), nullptr,
                                                       nullptr};
    const deltarnn::Parameters<float> gradients{at<float>(grad_weight_ih), at<float>(grad_weight_hh),
                                                at<float>(grad_bias_ih), at<float>(grad_bias_hh)};
    deltarnn::train_backward(job, parameters, arguments, gradients, threads);
}

}  // namespace

void bind_training(nb::module_& module) {
    module.def("train_forward", forward, nb::call_guard<nb::gil_scoped_release>(),
               "One layer over a whole sequence; addresses and sizes as nn/native.py passes them.");
    module.def("train_backward", backward, nb::call_guard<nb::gil_scoped_release>(), "The gradients of train_forward.");
}
