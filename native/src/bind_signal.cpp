// Band levels and filter cascades for Python. Arrays are numpy's, C-contiguous; results are written into the caller's.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "deltarnn/signal.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class T, std::size_t dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

void require(bool fits, const char* what) {
    if (!fits) throw nb::value_error(what);
}

template <class Sample>
void band_levels(const deltarnn::BandPlan& plan, const Array<const Sample, 2>& samples, std::int64_t hop,
                 Array<double, 3> levels) {
    const auto signals = static_cast<std::int64_t>(samples.shape(0)),
               size = static_cast<std::int64_t>(samples.shape(1));
    const auto frames = static_cast<std::int64_t>(levels.shape(1));
    require(static_cast<std::int64_t>(levels.shape(0)) == signals &&
                static_cast<std::int64_t>(levels.shape(2)) == plan.bands() && hop > 0 && frames > 0 &&
                (frames - 1) * hop + plan.length() <= size,
            "levels: shape does not fit the samples");
    const deltarnn::Frames rows = {samples.data(), sizeof(Sample) == 2, signals, size, frames, hop};
    const nb::gil_scoped_release release;
    plan.levels(rows, levels.data());
}

void rectified_sums(const Array<const double, 2>& signals, const Array<const double, 4>& coefficients,
                    const Array<const std::int64_t, 1>& ends, Array<double, 3> sums) {
    const auto groups = static_cast<std::int64_t>(coefficients.shape(0)),
               sections = static_cast<std::int64_t>(coefficients.shape(1));
    const auto size = static_cast<std::int64_t>(signals.shape(1)), segments = static_cast<std::int64_t>(ends.shape(0));
    require(sections >= 1 && sections <= deltarnn::max_sections && coefficients.shape(2) == 5 &&
                coefficients.shape(3) == deltarnn::signal_lanes,
            "coefficients: must be (groups, 1 to 4 sections, 5, 8)");
    require(sums.shape(0) == signals.shape(0) && sums.shape(1) == ends.shape(0) &&
                static_cast<std::int64_t>(sums.shape(2)) == groups * deltarnn::signal_lanes,
            "sums: must be (signals, segments, groups * 8)");
    for (std::int64_t i = 0; i < segments; ++i) {
        require(ends(i) <= size && ends(i) >= (i ? ends(i - 1) : 0), "ends: must rise within the signal");
    }
    const nb::gil_scoped_release release;
    const deltarnn::SignalKernels& kernels = deltarnn::signal_kernels(deltarnn::active_isa());
    for (std::size_t i = 0; i < signals.shape(0); ++i) {
        kernels.rectified_sums(signals.data() + static_cast<std::int64_t>(i) * size, groups, sections,
                               coefficients.data(), ends.data(), segments,
                               sums.data() + static_cast<std::int64_t>(i) * segments * groups * deltarnn::signal_lanes);
    }
}

}  // namespace

void bind_signal(nb::module_& module) {
    nb::class_<deltarnn::BandPlan>(module, "BandPlan",
                                   "Levels of bands of the magnitude (or power) spectrum of windowed frames.")
        .def(
            "__init__",
            [](deltarnn::BandPlan* self, const Array<const double, 1>& window, std::int64_t points,
               const Array<const double, 2>& weights, bool power) {
                require(static_cast<std::int64_t>(weights.shape(0)) == points / 2 + 1,
                        "weights: must be (points / 2 + 1, bands)");
                new (self) deltarnn::BandPlan(window.data(), static_cast<std::int64_t>(window.shape(0)), points,
                                              weights.data(), static_cast<std::int64_t>(weights.shape(1)), power);
            },
            "window"_a, "points"_a, "weights"_a, "power"_a = false)
        .def("levels", &band_levels<std::int16_t>, "samples"_a, "hop"_a, "levels"_a.noconvert(),
             "samples (B, N) int16 or float64 -> levels (B, T, bands), written in place; frame t begins at t * hop.")
        .def("levels", &band_levels<double>, "samples"_a, "hop"_a, "levels"_a.noconvert());
    module.def(
        "rectified_sums", &rectified_sums, "signals"_a, "coefficients"_a, "ends"_a, "sums"_a.noconvert(),
        "signals (B, N) float64 through cascades (groups, sections, 5, 8) -> sums of |output| between ends, in place.");
}
