#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>

#include "bind_stream.hpp"
#include "bind_value.hpp"
#include "deltarnn/program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using deltarnn::Instruction;
using deltarnn::Operation;
using deltarnn::Program;
using deltarnn::PyStream;

// In the order of Operation.
// clang-format off
constexpr std::array operation_names = {
    "gather", "linear", "add", "subtract", "multiply", "divide", "maximum", "minimum", "relu", "sigmoid", "tanh",
    "sqrt", "exp", "log", "absolute", "negate", "reciprocal", "power", "leaky_relu", "elu", "softplus", "erf",
    "clip", "sum", "mean", "highest", "lowest", "recurrent"};
// clang-format on
static_assert(operation_names.size() == static_cast<std::size_t>(Operation::recurrent) + 1);

Operation operation(const std::string& name) {
    const auto found = std::find(operation_names.begin(), operation_names.end(), name);
    if (found == operation_names.end()) throw nb::value_error(("no operation is called " + name).c_str());
    return static_cast<Operation>(found - operation_names.begin());
}

using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Places = std::vector<std::pair<std::int32_t, std::int32_t>>;  // (position in the arena, elements)

template <class T>
T value_or(const nb::dict& from, const char* name, T otherwise) {
    return from.contains(name) ? value<T>(from, name) : otherwise;
}

Instruction instruction(const nb::dict& from) {
    const auto number = [&](const char* name) { return value_or<std::int32_t>(from, name, 0); };
    return {operation(value<std::string>(from, "operation")),
            number("to"),
            number("a"),
            number("b"),
            number("n"),
            number("rows"),
            number("inner"),
            value_or<std::int32_t>(from, "resource", -1),
            value_or(from, "alpha", 0.0f),
            value_or(from, "beta", 0.0f)};
}

// A program, where its inputs and outputs are, and what its streams must be.
class PyProgram {
  public:
    PyProgram(const Floats& arena, const nb::list& instructions, const std::vector<Integers>& lists,
              const std::vector<std::pair<Floats, Floats>>& weights, const nb::list& recurrent, Places inputs,
              Places outputs)
        : inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
        deltarnn::ProgramSpec spec;
        spec.arena.assign(arena.data(), arena.data() + arena.size());
        for (const nb::handle item : instructions) spec.instructions.push_back(instruction(nb::cast<nb::dict>(item)));
        for (const Integers& list : lists) spec.lists.emplace_back(list.data(), list.data() + list.size());
        for (const auto& [weight, bias] : weights) {
            if (weight.ndim() != 2 || bias.size() != weight.shape(1))
                throw nb::value_error("weights must be (inner, n) and (n,)");
            spec.weights.push_back(
                {static_cast<int>(weight.shape(0)), static_cast<int>(weight.shape(1)), weight.data(), bias.data()});
        }
        for (const nb::handle item : recurrent) {
            const nb::dict from = nb::cast<nb::dict>(item);
            const auto place = [&](const char* name) { return value_or<std::int32_t>(from, name, -1); };
            spec.recurrent.push_back(
                {place("h"), place("c"), place("next_h"), place("next_c"), value<bool>(from, "held")});
        }
        for (const Places& places : {inputs_, outputs_}) {
            for (const auto& [position, count] : places) {
                if (position < 0 || count < 0 || static_cast<std::size_t>(position) + count > spec.arena.size()) {
                    throw nb::value_error("an input or output lies outside of the arena");
                }
            }
        }
        program_ = std::make_shared<const Program>(spec, deltarnn::active_isa());
    }

    const std::shared_ptr<const Program>& program() const { return program_; }
    const Places& inputs() const { return inputs_; }
    const Places& outputs() const { return outputs_; }

  private:
    Places inputs_, outputs_;
    std::shared_ptr<const Program> program_;
};

class PyProgramState {
  public:
    PyProgramState(const PyProgram& program, const std::vector<PyStream*>& streams, nb::list alive)
        : inputs_(program.inputs()), outputs_(program.outputs()), alive_(std::move(alive)),
          state_(program.program(), bare(streams), models(streams)) {}

    void call(const nb::list& inputs, const nb::list& outputs) {
        const InUse guard(busy_, "net.stream()");
        transfer(inputs, inputs_, false);
        {
            const nb::gil_scoped_release release;
            state_.run();
        }
        transfer(outputs, outputs_, true);
    }

    nb::object step(nb::handle frame, nb::handle out) { return run_frames(frame, out, false); }
    nb::object run(nb::handle frames, nb::handle out) { return run_frames(frames, out, true); }

    void reset() {
        const InUse guard(busy_, remedy);
        state_.reset();
        steps_ = 0;
    }

    std::int64_t steps() const { return steps_; }

  private:
    static constexpr const char* remedy = "engine.stream()";

    static std::vector<deltarnn::Stream*> bare(const std::vector<PyStream*>& streams) {
        std::vector<deltarnn::Stream*> found;
        for (PyStream* stream : streams) found.push_back(&stream->stream());
        return found;
    }

    static std::vector<const deltarnn::Model*> models(const std::vector<PyStream*>& streams) {
        std::vector<const deltarnn::Model*> found;
        for (const PyStream* stream : streams) found.push_back(&stream->model());
        return found;
    }

    void transfer(const nb::list& arrays, const Places& places, bool out) {
        if (arrays.size() != places.size()) throw nb::value_error("one array for each input and output");
        for (std::size_t i = 0; i < places.size(); ++i) {
            Buffer<float> buffer;
            const auto [position, count] = places[i];
            if (!buffer.open(arrays[i].ptr(), out) || buffer.size() != static_cast<std::size_t>(count)) {
                throw nb::value_error("inputs and outputs must be contiguous float32 arrays of the program's sizes");
            }
            float* const here = state_.arena() + position;
            out ? std::copy_n(here, count, buffer.data()) : std::copy_n(buffer.data(), count, here);
        }
    }

    // Of a program with one input and one output, run once for each frame.
    nb::object run_frames(nb::handle frames, nb::handle out, bool many) {
        if (inputs_.size() != 1 || outputs_.size() != 1)
            throw nb::value_error("a program with one input and one output has frames");
        const auto [from, width] = inputs_[0];
        const auto [to, scores] = outputs_[0];
        const deltarnn::FrameArrays arrays(frames, out, many, width, scores);
        const InUse guard(busy_, remedy);
        const float* input = arrays.input();
        float* output = arrays.output();
        const auto all = [&, from = from, width = width, to = to, scores = scores] {
            for (std::int64_t i = 0; i < arrays.count(); ++i, input += width, output += scores) {
                std::copy_n(input, width, state_.arena() + from);
                ++steps_;
                state_.run();
                std::copy_n(state_.arena() + to, scores, output);
            }
        };
        if (arrays.count() > 1) {
            const nb::gil_scoped_release release;
            all();
        } else {
            all();
        }
        return arrays.result();
    }

    Places inputs_, outputs_;
    nb::list alive_;
    deltarnn::ProgramState state_;
    std::int64_t steps_ = 0;
    std::atomic_flag busy_;
};

}  // namespace

void bind_program(nb::module_& module) {
    nb::list names;
    for (const char* name : operation_names) names.append(name);
    module.attr("operations") = names;  // by their numbers
    nb::class_<PyProgram>(module, "Program", "Instructions over an arena of floats (include/deltarnn/program.hpp).")
        .def(nb::init<const Floats&, const nb::list&, const std::vector<Integers>&,
                      const std::vector<std::pair<Floats, Floats>>&, const nb::list&, Places, Places>(),
             "arena"_a, "instructions"_a, "lists"_a, "weights"_a, "recurrent"_a, "inputs"_a, "outputs"_a)
        .def(
            "state",
            [](const PyProgram& program, const nb::list& streams) {
                std::vector<PyStream*> bare;
                for (const nb::handle stream : streams) bare.push_back(nb::cast<PyStream*>(stream));
                return new PyProgramState(program, bare, streams);
            },
            "streams"_a, nb::rv_policy::take_ownership,
            "An arena in use over these streams, one per recurrent instruction.");
    nb::class_<PyProgramState>(module, "ProgramState", "An arena in use.")
        .def("call", &PyProgramState::call, "inputs"_a, "outputs"_a,
             "Reads the inputs, runs all instructions, fills the outputs.")
        .def("step", &PyProgramState::step, "frame"_a.none(), "out"_a = nb::none(),
             "step(frame (I,), out=None) -> (O,) float32: a run of a program with one input and one output.")
        .def("run", &PyProgramState::run, "frames"_a.none(), "out"_a = nb::none(),
             "run(frames (T, I), out=None) -> (T, O) float32: what T calls of step give.")
        .def("reset", &PyProgramState::reset, "As before the first run: values that were kept, and all streams.")
        .def_prop_ro("steps", &PyProgramState::steps, "Frames since the start or the last reset.");
}
