#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <ctime>

#include "bind_buffer.hpp"
#include "bind_in_use.hpp"
#include "deltarnn/engine.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using deltarnn::Activity;
using deltarnn::Cell;
using deltarnn::LayerShape;
using deltarnn::Model;
using deltarnn::StateField;

// Held for the life of the process: a step makes its result with numpy.empty, a call by far cheaper than nanobind's own arrays.
struct Numpy {
    nb::object empty, float32, ascontiguousarray;
};

const Numpy& numpy() {
    static const Numpy* const held = [] {
        const nb::module_ module = nb::module_::import_("numpy");
        return new Numpy{module.attr("empty"), module.attr("float32"), module.attr("ascontiguousarray")};
    }();
    return *held;
}

// Specifications. Arrays are borrowed: they only need to outlive the model's construction.
template <class T>
const T* array(const nb::dict& from, const char* name, std::size_t size) {
    const auto values = nb::cast<nb::ndarray<const T, nb::c_contig, nb::device::cpu>>(from[name], false);
    if (values.size() != size) throw nb::value_error((std::string(name) + ": wrong number of elements").c_str());
    return values.data();
}

template <class T>
T value(const nb::dict& from, const char* name) {
    return nb::cast<T>(from[name]);
}

LayerShape layer_shape(const nb::dict& from) {
    const LayerShape shape = {value<bool>(from, "lstm") ? Cell::lstm : Cell::gru, value<int>(from, "input"),
                              value<int>(from, "hidden"), value<int>(from, "projection"), value<bool>(from, "reset_before")};
    // A column's offset is computed as index · stride, both well within an int.
    constexpr int limit = 1 << 20;
    if (shape.input < 1 || shape.hidden < 1 || shape.projection < 0 || shape.input > limit || shape.hidden > limit ||
        shape.projection >= shape.hidden || (shape.cell == Cell::gru && shape.projection > 0) ||
        (shape.cell == Cell::lstm && shape.reset_before)) {
        throw nb::value_error("layer sizes out of range");
    }
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
    spec.hard = value<bool>(from, "hard");
    spec.relu = value<bool>(from, "relu");
    spec.thx = value<float>(from, "thx");
    spec.thh = value<float>(from, "thh");
    set_arrays<deltarnn::FloatLayerSpec, float, float>(spec, from);
    return spec;
}

deltarnn::TableSpec table(const nb::dict& from, const char* name) {
    const auto [first, entries] = nb::cast<std::pair<std::int32_t, std::vector<std::int32_t>>>(from[name]);
    if (entries.empty()) throw nb::value_error("a table needs at least one entry");
    return {first, entries};
}

deltarnn::Int8LayerSpec int8_layer(const nb::dict& from) {
    deltarnn::Int8LayerSpec spec = {};
    spec.shape = layer_shape(from);
    if (spec.shape.reset_before) throw nb::value_error("an int8 layer resets after the product");
    spec.activation_bits = value<int>(from, "activation_bits");
    spec.activation_fraction = value<int>(from, "activation_fraction");
    spec.weight_fraction = value<int>(from, "weight_fraction");
    spec.gate_fraction = value<int>(from, "gate_fraction");
    if (spec.activation_bits < 1 || spec.activation_bits > 16 || spec.activation_fraction < 0 ||
        spec.activation_fraction >= spec.activation_bits || spec.weight_fraction < 0 || spec.weight_fraction > 7 ||
        spec.gate_fraction < 0 || spec.gate_fraction > 15) {
        throw nb::value_error("formats out of range: at most 16 bits for activations and gates, 8 for weights");
    }
    spec.floor = value<bool>(from, "floor");
    spec.thx = value<std::int32_t>(from, "thx");
    spec.thh = value<std::int32_t>(from, "thh");
    spec.sigmoid = table(from, "sigmoid");
    spec.tanh = table(from, "tanh");
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

// Below this size a step is shorter than handing the GIL over.
constexpr std::size_t release_gil_above = std::size_t{1} << 18;

class PyStream {
  public:
    explicit PyStream(std::shared_ptr<const Model> model)
        : model_(std::move(model)),
          stream_(model_->stream()),
          output_size_(nb::int_(model_->output_size())),
          releases_(model_->weight_bytes() > release_gil_above) {}

    nb::object step(nb::handle frame, nb::handle out) { return run_frames(frame, out, false); }
    nb::object run(nb::handle frames, nb::handle out) { return run_frames(frames, out, true); }

    void reset() {
        const InUse guard(busy_, remedy);
        stream_->reset();
    }

    void start(nb::handle h, nb::handle c) {
        const std::size_t layers = model_->shapes().size();
        const deltarnn::LayerShape& shape = model_->shapes().front();
        const bool lstm = shape.cell == Cell::lstm;
        Buffer<float> hidden, cell;
        if (!hidden.open(h.ptr(), false) || hidden.size() != layers * shape.outputs() ||
            (lstm && (!cell.open(c.ptr(), false) || cell.size() != layers * shape.hidden))) {
            throw nb::value_error("h and c must be C-contiguous float32 arrays with one row per layer");
        }
        const InUse guard(busy_, remedy);
        if (!stream_->start(hidden.data(), lstm ? cell.data() : nullptr)) {
            throw nb::value_error("the initial state holds NaN, which has no fixed-point value");
        }
    }

    std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t> activity(int layer) {
        const InUse guard(busy_, remedy);
        const Activity a = stream_->activity(layer);
        return {a.steps, a.fired_x, a.fired_h, a.fired_rh};
    }

    std::vector<double> read(int layer, const std::string& field) {
        const InUse guard(busy_, remedy);
        if (field == "x_hat") return stream_->read(layer, StateField::x_hat);
        if (field == "h") return stream_->read(layer, StateField::h);
        if (field == "h_hat") return stream_->read(layer, StateField::h_hat);
        if (field == "rh_hat") return stream_->read(layer, StateField::rh_hat);
        if (field == "c") return stream_->read(layer, StateField::c);
        if (field == "m") return stream_->read(layer, StateField::m);
        throw nb::value_error("no such part of the state");
    }

    void copy(int layer, const std::string& field, nb::handle out) {
        const std::vector<double> values = read(layer, field);
        Buffer<float> to;
        if (!to.open(out.ptr(), true) || to.size() != values.size()) {
            throw nb::value_error("out must be a writable C-contiguous float32 array of the state's size");
        }
        std::copy(values.begin(), values.end(), to.data());
    }

  private:
    static constexpr const char* remedy = "engine.stream()";

    nb::object run_frames(nb::handle frames, nb::handle out, bool many) {
        Buffer<float> direct, copy, output;
        nb::object converted, result;
        const std::int64_t inputs = model_->input_size(), outputs = model_->output_size();
        const bool as_given = direct.open(frames.ptr(), false);
        if (!as_given) {
            converted = numpy().ascontiguousarray(frames, "dtype"_a = numpy().float32);
            copy.open(converted.ptr(), false);
        }
        const Buffer<float>& input = as_given ? direct : copy;
        if (!input.fits(many, inputs)) {
            const std::string wanted = many ? "(T, " + std::to_string(inputs) + ")" : "(" + std::to_string(inputs) + ",)";
            const std::string hint = many ? "; for one frame there is step(frame)" : "; for several frames there is run(frames)";
            throw nb::value_error(("input has shape " + input.shape() + ": must be " + wanted + hint).c_str());
        }
        const std::int64_t count = many ? input.rows() : 1;
        if (out.is_none()) {
            result = many ? numpy().empty(nb::make_tuple(count, outputs), numpy().float32)
                          : numpy().empty(output_size_, numpy().float32);
        } else {
            result = nb::borrow(out);
        }
        if (!output.open(result.ptr(), true) || !output.fits(many, outputs) || (many && output.rows() != count)) {
            const std::string wanted = many ? std::to_string(count) + ", " + std::to_string(outputs) : std::to_string(outputs) + ",";
            throw nb::value_error(("out must be a writable C-contiguous float32 array of shape (" + wanted + ")").c_str());
        }
        const InUse guard(busy_, remedy);
        std::int64_t done = 0;
        if (releases_ || count > 1) {
            const nb::gil_scoped_release release;
            done = stream_->run(input.data(), count, output.data());
        } else {
            done = stream_->run(input.data(), count, output.data());
        }
        if (done < count) {
            const std::string where = many ? "frame " + std::to_string(done) : "the frame";
            throw nb::value_error((where + " holds NaN, which has no fixed-point value; the state is as before it").c_str());
        }
        return result;
    }

    std::shared_ptr<const Model> model_;
    std::unique_ptr<deltarnn::Stream> stream_;
    nb::int_ output_size_;
    bool releases_;
    std::atomic_flag busy_;
};

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

// Seconds to sum a buffer of `bytes`, the mean of `repetitions` after one untimed: memory as the engine's weights lie in it.
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
    numpy();
    module.def("apply_gate", apply_gate, "hard"_a, "tanh"_a, "from_"_a, "to"_a,
               "The core's σ or tanh, element by element (for tests of each instruction set).");

    module.def("time_reading", time_reading, "bytes"_a, "repetitions"_a,
               "Processor seconds that one thread takes to sum a buffer of that size (for benchmarks).");

    nb::class_<Model>(module, "Model", "Weights of a compiled model, shared by its streams.")
        .def_static("float32", [](const nb::list& layers, const nb::list& head) { return make_model(float_layer, layers, head); },
                    "layers"_a, "head"_a)
        .def_static("int8", [](const nb::list& layers, const nb::list& head) { return make_model(int8_layer, layers, head); },
                    "layers"_a, "head"_a)
        .def_prop_ro("isa", [](const Model& model) { return deltarnn::isa_name(model.isa()); }, "Instruction set in use.")
        .def_prop_ro("weight_bytes", &Model::weight_bytes, "Size of the recurrent weights as stored.")
        .def("wide", &Model::wide, "layer"_a, "Whether an int8 layer computes in 64 bits.")
        .def("stream", [](std::shared_ptr<Model> model) { return new PyStream(std::move(model)); },
             nb::rv_policy::take_ownership, "A new state over these weights.");

    nb::class_<PyStream>(module, "Stream", "The state of one sequence.")
        .def("step", &PyStream::step, "frame"_a, "out"_a = nb::none(),
             "step(frame (I,), out=None) -> (H,) float32: one time step; a new array unless out is given.")
        .def("run", &PyStream::run, "frames"_a, "out"_a = nb::none(),
             "run(frames (T, I), out=None) -> (T, H) float32: T time steps, as that many calls of step.")
        .def("reset", &PyStream::reset, "Back to the state before the first step, counts included.")
        .def("start", &PyStream::start, "h"_a, "c"_a = nb::none(),
             "Begins a sequence from the state h (layers, H) and, for the LSTM, c (layers, H); counts go on.")
        .def("activity", &PyStream::activity, "layer"_a, "(steps, deltas that were not 0 of x, of h, and of r ∘ h where that has its own)")
        .def("copy", &PyStream::copy, "layer"_a, "field"_a, "out"_a, "A part of the layer's state into a float32 array.")
        .def("read", &PyStream::read, "layer"_a, "field"_a, "A part of the layer's state, as float64.");
}
