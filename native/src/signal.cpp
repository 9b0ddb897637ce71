#include "deltarnn/signal.hpp"

#include <cmath>
#include <numbers>

#include "deltarnn/aligned.hpp"

namespace deltarnn {

const SignalKernels& signal_kernels(Isa isa){DELTARNN_TABLE(signal_kernels, isa)}

BandPlan::BandPlan(const double* window, std::int64_t length, std::int64_t points, const double* weights,
                   std::int64_t bands, bool power)
    : length_(length), points_(points), bands_(bands), offset_{0}, power_(power) {
    if (points < 16 || (points & (points - 1)) != 0 || length < 1 || length > points || bands < 1) {
        throw std::invalid_argument(
            "band levels need a power of two of at least 16 points, and a frame that fits in it");
    }
    window_.assign(window, window + length);
    const auto angle = [&](std::int64_t k) {
        return 2.0 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(points);
    };
    for (std::int64_t k = 0; k <= points / 4; ++k) {
        cosine_.push_back(std::cos(angle(k)));
        sine_.push_back(std::sin(angle(k)));
    }
    for (std::int64_t size = points / 2; size >= 4; size /= 4) {
        for (std::int64_t times = 1; times <= 3; ++times) {
            for (std::int64_t p = 0; p < size / 4; ++p) twiddles_.push_back(std::cos(angle(times * p * points / size)));
            for (std::int64_t p = 0; p < size / 4; ++p) twiddles_.push_back(std::sin(angle(times * p * points / size)));
        }
    }
    const std::int64_t bins = points / 2 + 1;
    for (std::int64_t band = 0; band < bands; ++band) {
        std::int64_t first = 0, last = bins;
        while (first < bins && weights[first * bands + band] == 0.0) ++first;
        while (last > first && weights[(last - 1) * bands + band] == 0.0) --last;
        first_.push_back(first < bins ? first : 0);
        for (std::int64_t k = first; k < last; ++k) weight_.push_back(weights[k * bands + band]);
        while (weight_.size() % weight_group != 0) weight_.push_back(0.0);
        offset_.push_back(static_cast<std::int64_t>(weight_.size()));
    }
}

void BandPlan::levels(const Frames& frames, double* levels) const {
    AlignedArray<double> scratch(static_cast<std::size_t>(scratch_size(points_)));
    const SignalKernels& kernels = signal_kernels(active_isa());
    if (frames.integer && frames.signals * frames.frames == 1 && points_ >= one_frame_points) {
        kernels.one_frame_levels(view(), static_cast<const std::int16_t*>(frames.samples), levels, scratch.data());
    } else {
        kernels.band_levels(view(), frames, levels, scratch.data());
    }
}

BandView BandPlan::view() const {
    return {length_,          points_,       bands_,         window_.data(), cosine_.data(), sine_.data(),
            twiddles_.data(), first_.data(), offset_.data(), weight_.data(), power_};
}

}  // namespace deltarnn
