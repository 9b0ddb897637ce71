#include "deltarnn/signal.hpp"

#include <cmath>
#include <numbers>

#include "deltarnn/aligned.hpp"

namespace deltarnn {

const SignalKernels& signal_kernels(Isa isa) { DELTARNN_TABLE(signal_kernels, isa) }

BandPlan::BandPlan(const double* window, std::int64_t length, std::int64_t points, const double* weights, std::int64_t bands)
    : length_(length), points_(points), bands_(bands), offset_{0} {
    if (points < 16 || (points & (points - 1)) != 0 || length < 1 || length > points || bands < 1) {
        throw std::invalid_argument("band levels need a power of two of at least 16 points, and a frame that fits in it");
    }
    window_.assign(window, window + length);
    for (std::int64_t k = 0; k < points; ++k) {
        const double angle = 2.0 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(points);
        cosine_.push_back(std::cos(angle));
        sine_.push_back(std::sin(angle));
    }
    const std::int64_t bins = points / 2 + 1;
    for (std::int64_t band = 0; band < bands; ++band) {
        std::int64_t first = 0, last = bins;
        while (first < bins && weights[first * bands + band] == 0.0) ++first;
        while (last > first && weights[(last - 1) * bands + band] == 0.0) --last;
        first_.push_back(first < bins ? first : 0);
        for (std::int64_t k = first; k < last; ++k) weight_.push_back(weights[k * bands + band]);
        offset_.push_back(static_cast<std::int64_t>(weight_.size()));
    }
}

void BandPlan::levels(const Frames& frames, double* levels) const {
    AlignedArray<double> scratch(static_cast<std::size_t>((5 * points_ / 2 + 1) * signal_lanes));
    const BandView view = {length_,       points_,        bands_,         window_.data(), cosine_.data(),
                           sine_.data(), first_.data(), offset_.data(), weight_.data()};
    signal_kernels(active_isa()).band_levels(view, frames, levels, scratch.data());
}

}  // namespace deltarnn
