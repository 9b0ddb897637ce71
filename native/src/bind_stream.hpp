// A stream of the engine as Python sees it, and views of Python's arrays.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <atomic>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bind_buffer.hpp"
#include "bind_in_use.hpp"
#include "deltarnn/engine.hpp"

namespace deltarnn {

namespace nb = nanobind;
using namespace nb::literals;

// Held for the life of the process: a step makes its result with numpy.empty, a call by far cheaper than nanobind's own
// arrays.
struct Numpy {
    nb::object empty, float32, ascontiguousarray;
};

inline const Numpy& numpy() {
    static const Numpy* const held = [] {
        const nb::module_ module = nb::module_::import_("numpy");
        return new Numpy{module.attr("empty"), module.attr("float32"), module.attr("ascontiguousarray")};
    }();
    return *held;
}

// Below this size a step is shorter than handing the GIL over.
constexpr std::size_t release_gil_above = std::size_t{1} << 18;

// The frames (T, I) of a call, or one frame (I,), and the array for what it gives: `out`, or a new one.
class FrameArrays {
  public:
    FrameArrays(nb::handle frames, nb::handle out, bool many, std::int64_t inputs, std::int64_t outputs) {
        as_given_ = direct_.open(frames.ptr(), false);
        if (!as_given_) {
            converted_ = numpy().ascontiguousarray(frames, "dtype"_a = numpy().float32);
            copy_.open(converted_.ptr(), false);
        }
        const Buffer<float>& input = as_given_ ? direct_ : copy_;
        if (!input.fits(many, inputs)) {
            const std::string wanted =
                many ? "(T, " + std::to_string(inputs) + ")" : "(" + std::to_string(inputs) + ",)";
            const std::string hint =
                many ? "; for one frame there is step(frame)" : "; for several frames there is run(frames)";
            throw nb::value_error(("input has shape " + input.shape() + ": must be " + wanted + hint).c_str());
        }
        count_ = many ? input.rows() : 1;
        if (out.is_none()) {
            result_ = many ? numpy().empty(nb::make_tuple(count_, outputs), numpy().float32)
                           : numpy().empty(outputs, numpy().float32);
        } else {
            result_ = nb::borrow(out);
        }
        if (!output_.open(result_.ptr(), true) || !output_.fits(many, outputs) || (many && output_.rows() != count_)) {
            const std::string wanted =
                many ? std::to_string(count_) + ", " + std::to_string(outputs) : std::to_string(outputs) + ",";
            throw nb::value_error(
                ("out must be a writable C-contiguous float32 array of shape (" + wanted + ")").c_str());
        }
        // Frames are read in chunks, each before its results are written: in place, row by row, that is safe.
        const bool in_place = output_.data() == input.data() && inputs == outputs;
        if (many && !in_place && output_.overlaps(input)) {
            throw nb::value_error("out overlaps the input: give an array of its own, or the input itself");
        }
    }

    std::int64_t count() const { return count_; }
    const float* input() const { return (as_given_ ? direct_ : copy_).data(); }
    float* output() const { return output_.data(); }
    const nb::object& result() const { return result_; }

  private:
    Buffer<float> direct_, copy_, output_;
    nb::object converted_, result_;
    bool as_given_ = false;
    std::int64_t count_ = 0;
};

class PyStream {
  public:
    explicit PyStream(std::shared_ptr<const Model> model)
        : model_(std::move(model)), stream_(model_->stream()), releases_(model_->weight_bytes() > release_gil_above) {}

    nb::object step(nb::handle frame, nb::handle out) { return run_frames(frame, out, false); }
    nb::object run(nb::handle frames, nb::handle out) { return run_frames(frames, out, true); }

    void reset() {
        const InUse guard(busy_, remedy);
        stream_->reset();
    }

    bool enter(nb::handle h, nb::handle c, bool held) {
        const State hidden(h, h_size(), false), cell(c, is_lstm() ? c_size() : 0, false);
        const InUse guard(busy_, remedy);
        return stream_->enter(hidden.data(), cell.data(), held);
    }

    void hidden(nb::handle h, nb::handle c) {
        const State hidden(h, h_size(), true), cell(c, is_lstm() ? c_size() : 0, true);
        const InUse guard(busy_, remedy);
        stream_->hidden(hidden.data(), cell.data());
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

    // For programs, which do not look whether it is in use.
    Stream& stream() { return *stream_; }
    const Model& model() const { return *model_; }

  private:
    static constexpr const char* remedy = "engine.stream()";

    // A float32 array of `size` elements, or none.
    class State {
      public:
        State(nb::handle array, std::size_t size, bool writable) {
            if (array.is_none() || size == 0) return;
            if (!buffer_.open(array.ptr(), writable) || buffer_.size() != size) {
                throw nb::value_error("h and c must be C-contiguous float32 arrays with one row per layer");
            }
            given_ = true;
        }
        float* data() const { return given_ ? buffer_.data() : nullptr; }

      private:
        Buffer<float> buffer_;
        bool given_ = false;
    };

    bool is_lstm() const { return model_->shapes().front().cell == Cell::lstm; }
    std::size_t h_size() const { return model_->shapes().size() * model_->shapes().front().outputs(); }
    std::size_t c_size() const { return model_->shapes().size() * model_->shapes().front().hidden; }

    nb::object run_frames(nb::handle frames, nb::handle out, bool many) {
        const FrameArrays arrays(frames, out, many, model_->input_size(), model_->output_size());
        const std::int64_t count = arrays.count();
        const InUse guard(busy_, remedy);
        std::int64_t done = 0;
        if (releases_ || count > 1) {
            const nb::gil_scoped_release release;
            done = stream_->run(arrays.input(), count, arrays.output());
        } else {
            done = stream_->run(arrays.input(), count, arrays.output());
        }
        if (done < count) {
            const std::string where = many ? "frame " + std::to_string(done) : "the frame";
            throw nb::value_error(
                (where + " holds NaN, which has no fixed-point value; the state is as before it").c_str());
        }
        return arrays.result();
    }

    std::shared_ptr<const Model> model_;
    std::unique_ptr<Stream> stream_;
    bool releases_;
    std::atomic_flag busy_;
};

}  // namespace deltarnn
