// The spotter for Python. Arrays are numpy's, C-contiguous; scores are written into the caller's.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include "bind_buffer.hpp"
#include "bind_in_use.hpp"
#include "bind_value.hpp"
#include "deltarnn/spotter.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using deltarnn::Peak;

template <class T, std::size_t dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

class PySpotter {
  public:
    PySpotter(const std::shared_ptr<deltarnn::Model>& model, const nb::dict& rule, const std::optional<nb::dict>& front,
              const std::optional<nb::dict>& grid)
        : spotter_(model, front_end(front), score_grid(grid), stream_rule(rule)), has_front_end_(front.has_value()) {}

    void reset() {
        const InUse guard(busy_, remedy);
        spotter_.reset();
    }

    // None where `samples` is no contiguous int16 array (N,): the caller then knows what to say, or converts.
    nb::object accept(nb::handle samples, const std::optional<Array<float, 2>>& scores) {
        const InUse guard(busy_, remedy);
        if (!has_front_end_) throw nb::value_error("this spotter has no front end: it takes frames");
        Buffer<std::int16_t> buffer;
        if (!buffer.open(samples.ptr(), false) || !buffer.is_row()) return nb::none();
        const std::int64_t count = buffer.rows();
        if (scores) check(*scores, spotter_.frames_after(count));
        spotter_.peaks.clear();
        if (count > release_gil_above) {
            const nb::gil_scoped_release release;
            spotter_.accept(buffer.data(), count, scores ? scores->data() : nullptr);
        } else {
            spotter_.accept(buffer.data(), count, scores ? scores->data() : nullptr);
        }
        return peaks();
    }

    nb::list accept_frames(const Array<const float, 2>& frames, const std::optional<Array<float, 2>>& scores) {
        const InUse guard(busy_, remedy);
        const auto count = static_cast<std::int64_t>(frames.shape(0));
        if (static_cast<std::int64_t>(frames.shape(1)) != spotter_.input_size())
            throw nb::value_error("frames: wrong number of features");
        if (scores) check(*scores, count);
        spotter_.peaks.clear();
        bool finite;
        {
            const nb::gil_scoped_release release;
            finite = spotter_.accept_frames(frames.data(), count, scores ? scores->data() : nullptr);
        }
        if (!finite) throw nb::value_error("a frame holds NaN, which has no fixed-point value");
        return peaks();
    }

    std::int64_t frames_after(std::int64_t count) const { return has_front_end_ ? spotter_.frames_after(count) : 0; }

    std::tuple<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t> activity(int layer) {
        const InUse guard(busy_, remedy);
        const deltarnn::Activity a = spotter_.activity(layer);
        return {a.steps, a.fired_x, a.fired_h, a.fired_rh};
    }

  private:
    // Samples: fewer are done sooner than the GIL is handed over.
    static constexpr std::int64_t release_gil_above = 4096;

    static constexpr const char* remedy = "a spotter of its own";

    static std::optional<deltarnn::BandFrontEnd> front_end(const std::optional<nb::dict>& from) {
        if (!from) return std::nullopt;
        return deltarnn::BandFrontEnd{value<std::shared_ptr<deltarnn::BandPlan>>(*from, "plan"),
                                      value<std::int64_t>(*from, "hop"),
                                      value<std::int64_t>(*from, "pool"),
                                      value<std::int64_t>(*from, "ahead"),
                                      level_scale(value<std::string>(*from, "scale")),
                                      value<double>(*from, "offset"),
                                      value<double>(*from, "factor"),
                                      value<double>(*from, "bias"),
                                      value<double>(*from, "low"),
                                      value<double>(*from, "high"),
                                      value<bool>(*from, "pool_scaled"),
                                      value<bool>(*from, "normalise"),
                                      value<float>(*from, "mean"),
                                      value<float>(*from, "deviation")};
    }

    static deltarnn::LevelScale level_scale(const std::string& name) {
        return name == "natural"   ? deltarnn::LevelScale::natural
               : name == "decibel" ? deltarnn::LevelScale::decibel
                                   : deltarnn::LevelScale::plain;
    }

    static std::optional<deltarnn::ScoreGrid> score_grid(const std::optional<nb::dict>& from) {
        if (!from) return std::nullopt;
        return deltarnn::ScoreGrid{value<float>(*from, "scale"), value<float>(*from, "low"),
                                   value<float>(*from, "high"), value<bool>(*from, "down")};
    }

    static deltarnn::StreamRule stream_rule(const nb::dict& from) {
        return {value<int>(from, "smoothing"),  value<int>(from, "bound"), value<int>(from, "hold"),
                value<int>(from, "refractory"), value<int>(from, "unit"),  value<int>(from, "others"),
                value<float>(from, "threshold")};
    }

    void check(const Array<float, 2>& scores, std::int64_t frames) const {
        if (static_cast<std::int64_t>(scores.shape(0)) != frames ||
            static_cast<std::int64_t>(scores.shape(1)) != spotter_.keywords()) {
            throw nb::value_error("scores: must be (frames, keywords)");
        }
    }

    nb::list peaks() const {
        nb::list found;
        for (const Peak& p : spotter_.peaks) found.append(nb::make_tuple(p.frame, p.keyword, p.score, p.decided));
        return found;
    }

    deltarnn::Spotter spotter_;
    bool has_front_end_;
    std::atomic_flag busy_;
};

}  // namespace

void bind_spotter(nb::module_& module) {
    nb::class_<PySpotter>(module, "Spotter",
                          "Front end, network and decision rule over one stream (deltarnn.kws.spotter).")
        .def(nb::init<const std::shared_ptr<deltarnn::Model>&, const nb::dict&, const std::optional<nb::dict>&,
                      const std::optional<nb::dict>&>(),
             "model"_a, "rule"_a, "front"_a = nb::none(), "grid"_a = nb::none())
        .def("accept", &PySpotter::accept, "samples"_a.none(), "scores"_a.noconvert() = nb::none(),
             "accept(samples (N,) int16, scores (frames, keywords) or None) -> peaks (frame, keyword, score, decided); "
             "None for\n"
             "samples of another type, shape or layout.")
        .def("accept_frames", &PySpotter::accept_frames, "frames"_a, "scores"_a.noconvert() = nb::none(),
             "accept_frames(frames (T, I) float32, scores) -> peaks: the same, from the network's input.")
        .def("frames_after", &PySpotter::frames_after, "count"_a, "Frames that `count` more samples complete.")
        .def("reset", &PySpotter::reset, "Begin a new stream.")
        .def("activity", &PySpotter::activity, "layer"_a, "As of Stream.");
}
