#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <ctime>

#include "bind_stream.hpp"
#include "bind_value.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using deltarnn::Cell;
using deltarnn::LayerShape;
using deltarnn::Model;
using deltarnn::PyStream;

// Specifications. Arrays are borrowed: they only need to outlive the model's construction.
template <class T>
const T* array(const nb::dict& from, const char* name, std::size_t size) {
    const auto values = nb::cast<nb::ndarray<const T, nb::c_contig, nb::device::cpu>>(from[name], false);
    if (values.size() != size) throw nb::value_error((std::string(name) + ": wrong number of elements").c_str());
    return values.data();
}

LayerShape layer_shape(const nb::dict& from) {
    const LayerShape shape = {value<bool>(from, "lstm") ? Cell::lstm : Cell::gru, value<int>(from, "input"),
                              value<int>(from, "hidden"), value<int>(from, "projection"),
                              value<bool>(from, "reset_before")};
    check(shape);
    return shape;
}

template <class Spec, class Weight, class Memory>
void set_arrays(Spec& spec, const nb::dict& from) {
    const std::size_t hidden = spec.shape.hidden, rows = spec.shape.gates() * hidden, outputs = spec.shape.outputs();
    spec.weight_ih = array<Weight>(from, "weight_ih", rows * spec.shape.input);
    spec.weight_hh = array<Weight>(from, "weight_hh", rows * outputs);
    spec.memory = array<Memory>(from, "memory", 4 * hidden);
    spec.weight_hr = spec.shape.projection > 0 ? array<Weight>(from, "weight_hr", outputs * hidden) : nullptr;
}

deltarnn::FloatLayerSpec float_layer(const nb::dict& from) {
    deltarnn::FloatLayerSpec spec = {};
    spec.shape = layer_shape(from);
    spec.bfloat16 = value<bool>(from, "bfloat16");
    spec.hard = value<bool>(from, "hard");
    spec.relu = value<bool>(from, "relu");
    spec.thx = value<float>(from, "thx");
    spec.thh = value<float>(from, "thh");
    set_arrays<deltarnn::FloatLayerSpec, float, float>(spec, from);
    return spec;
}

deltarnn::TableSpec table(const nb::dict& from, const char* name) {
    const auto [first, entries] = value<std::pair<std::int32_t, std::vector<std::int32_t>>>(from, name);
    return {first, entries};
}

deltarnn::FormatSpec format(const nb::dict& from, const char* name) {
    const auto [bits, fraction] = value<std::pair<int, int>>(from, name);
    return {bits, fraction};
}

deltarnn::Int8LayerSpec int8_layer(const nb::dict& from) {
    deltarnn::Int8LayerSpec spec = {};
    spec.shape = layer_shape(from);
    spec.input = format(from, "input_format");
    spec.hidden = format(from, "hidden_format");
    spec.cell = format(from, "cell_format");
    spec.address = format(from, "address_format");
    spec.memory_fraction = value<int>(from, "memory_fraction");
    spec.gate_fraction = value<int>(from, "gate_fraction");
    spec.projection_fraction = value<int>(from, "projection_fraction");
    spec.floor = value<bool>(from, "floor");
    spec.thx = value<std::int32_t>(from, "thx");
    spec.thh = value<std::int32_t>(from, "thh");
    spec.sigmoid = table(from, "sigmoid");
    spec.tanh = table(from, "tanh");
    check(spec);
    set_arrays<deltarnn::Int8LayerSpec, std::int8_t, std::int64_t>(spec, from);
    return spec;
}

deltarnn::DenseSpec dense_layer(const nb::dict& from) {
    deltarnn::DenseSpec spec = {};
    spec.inputs = value<int>(from, "inputs");
    spec.outputs = value<int>(from, "outputs");
    if (spec.inputs < 1 || spec.outputs < 1) throw nb::value_error("head sizes out of range");
    spec.relu = value<bool>(from, "relu");
    spec.weight = array<float>(from, "weight", static_cast<std::size_t>(spec.inputs) * spec.outputs);
    spec.bias = array<float>(from, "bias", spec.outputs);
    return spec;
}

template <class Spec>
std::shared_ptr<Model> make_model(Spec (*convert)(const nb::dict&), const nb::list& layers, const nb::list& head) {
    std::vector<Spec> layer_specs;
    for (const nb::handle layer : layers) layer_specs.push_back(convert(nb::cast<nb::dict>(layer)));
    std::vector<deltarnn::DenseSpec> head_specs;
    for (const nb::handle dense : head) head_specs.push_back(dense_layer(nb::cast<nb::dict>(dense)));
    const std::shared_ptr<const Model> model = deltarnn::make_model(deltarnn::active_isa(), layer_specs, head_specs);
    return std::const_pointer_cast<Model>(model);  // nanobind knows no pointers to const; nothing changes it
}

using FloatVector = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void apply_gate(bool hard, bool tanh, const FloatVector& from, const FloatVector& to) {
    if (from.shape(0) != to.shape(0)) throw nb::value_error("apply_gate: both arrays must have the same length");
    deltarnn::float_kernels(deltarnn::active_isa())
        .apply_gate(hard, tanh, from.data(), to.data(), static_cast<int>(from.shape(0)));
}

// Processor time of this thread.
double thread_seconds() {
    timespec now = {};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds to sum a buffer of `bytes`, the mean of `repetitions` after one untimed: memory as the engine's weights lie
// in it.
double time_reading(std::int64_t bytes, int repetitions) {
    const std::int64_t n = (bytes / 512 + 1) * 128;
    const deltarnn::AlignedArray<float> buffer(n);
    const deltarnn::FloatKernels& kernels = deltarnn::float_kernels(deltarnn::active_isa());
    volatile float sink = kernels.sum(buffer.data(), n);
    const double start = thread_seconds();
    for (int i = 0; i < repetitions; ++i) sink = sink + kernels.sum(buffer.data(), n);
    return (thread_seconds() - start) / repetitions;
}

}  // namespace

void bind_engine(nb::module_& module) {
    deltarnn::numpy();
    module.def("apply_gate", apply_gate, "hard"_a, "tanh"_a, "from_"_a, "to"_a,
               "The core's σ or tanh, element by element (for tests of each instruction set).");

    module.def("time_reading", time_reading, "bytes"_a, "repetitions"_a,
               "Processor seconds that one thread takes to sum a buffer of that size (for benchmarks).");

    module.def(
        "needs_wide", [](const nb::dict& layer) { return deltarnn::needs_wide(int8_layer(layer)); }, "layer"_a,
        "Whether an int8 layer needs 64-bit accumulators.");

    nb::class_<Model>(module, "Model", "Weights of a compiled model, shared by its streams.")
        .def_static(
            "float32",
            [](const nb::list& layers, const nb::list& head) { return make_model(float_layer, layers, head); },
            "layers"_a, "head"_a)
        .def_static(
            "int8", [](const nb::list& layers, const nb::list& head) { return make_model(int8_layer, layers, head); },
            "layers"_a, "head"_a)
        .def_prop_ro(
            "isa", [](const Model& model) { return deltarnn::isa_name(model.isa()); }, "Instruction set in use.")
        .def_prop_ro("weight_bytes", &Model::weight_bytes, "Size of the recurrent weights as stored.")
        .def("wide", &Model::wide, "layer"_a, "Whether an int8 layer computes in 64 bits.")
        .def(
            "stream", [](std::shared_ptr<Model> model) { return new PyStream(std::move(model)); },
            nb::rv_policy::take_ownership, "A new state over these weights.");

    nb::class_<PyStream>(module, "Stream", "The state of one sequence.")
        .def("step", &PyStream::step, "frame"_a.none(), "out"_a = nb::none(),
             "step(frame (I,), out=None) -> (H,) float32: one time step; a new array unless out is given.")
        .def("run", &PyStream::run, "frames"_a.none(), "out"_a = nb::none(),
             "run(frames (T, I), out=None) -> (T, H) float32: T time steps, as that many calls of step.")
        .def("reset", &PyStream::reset, "Back to the state before the first step, counts included.")
        .def("enter", &PyStream::enter, "h"_a = nb::none(), "c"_a = nb::none(), "held"_a = false,
             "enter(h, c, held): goes on (True) if h and c are the present ones, else begins a sequence from them.")
        .def("hidden", &PyStream::hidden, "h"_a, "c"_a = nb::none(),
             "The present h and, for the LSTM, c into float32 arrays.")
        .def("activity", &PyStream::activity, "layer"_a,
             "(steps, deltas that were not 0 of x, of h, and of r ∘ h where that has its own)")
        .def("read", &PyStream::read, "layer"_a, "field"_a, "A part of the layer's state, as float64.");
}
