#include "deltarnn/spotter.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace deltarnn {

double BandFrontEnd::scaled(double level) const {
    switch (scale) {
        case LevelScale::plain: break;
        case LevelScale::decibel:
            level = std::log10(level == 0.0 ? std::numeric_limits<double>::epsilon() : level) * 20.0;
            break;
        case LevelScale::natural: level = std::log(level + offset) * factor + bias; break;
    }
    return std::clamp(level, low, high);
}

void PeakPicker::reset() {
    frame_ = next_ = opened_ = 0;
    before_ = -std::numeric_limits<float>::infinity();
    candidate_.reset();
}

std::optional<Peak> PeakPicker::feed(float score, int keyword) {
    const std::int64_t frame = frame_++;
    const bool rises = score > before_;
    before_ = score;
    if (score > rule_.threshold && rises && frame >= next_ && (!candidate_ || score > candidate_->score)) {
        if (!candidate_) opened_ = frame;
        candidate_ = Peak{frame, keyword, score, frame};
    }
    if (!candidate_ || (frame - candidate_->frame < rule_.hold && frame - opened_ < rule_.refractory))
        return std::nullopt;
    Peak peak = *candidate_;
    candidate_.reset();
    next_ = peak.frame + rule_.refractory;
    peak.decided = frame;
    return peak;
}

Spotter::Spotter(const std::shared_ptr<const Model>& model, std::optional<BandFrontEnd> front,
                 std::optional<ScoreGrid> grid, const StreamRule& rule)
    : stream_(model->stream()), front_(std::move(front)), grid_(grid), rule_(rule),
      signal_(signal_kernels(model->isa())), classes_(model->output_size()), keywords_(classes_ - rule.others),
      input_size_(model->input_size()), picker_(rule), frame_(input_size_), logits_(classes_) {
    if (rule.smoothing < 1 || rule.bound < 1 || rule.others < 1 || keywords_ < 1) {
        throw std::invalid_argument(
            "a spotter needs a keyword beside the other classes, and at least one frame of smoothing");
    }
    if (front_) {
        const BandView view = front_->plan->view();
        if (view.bands != input_size_ || front_->hop < 1 || front_->pool < 1 || front_->ahead < 0 ||
            front_->low > front_->high || view.points < one_frame_points) {
            throw std::invalid_argument("the front end does not fit the network");
        }
        samples_.resize(static_cast<std::size_t>((front_->pool - 1) * front_->hop + view.length + front_->ahead));
        levels_.resize(static_cast<std::size_t>(view.bands));
        sum_.resize(levels_.size());
        scratch_ = AlignedArray<double>(static_cast<std::size_t>(scratch_size(view.points)));
    }
    margins_.resize(static_cast<std::size_t>(rule.smoothing) * keywords_);
    sums_.resize(keywords_);
    peaks.reserve(16);
    reset();
}

void Spotter::reset() {
    stream_->reset();
    picker_.reset();
    filled_ = skip_ = 0;
    oldest_ = 0;
    std::fill(margins_.begin(), margins_.end(), -rule_.bound);
    std::fill(sums_.begin(), sums_.end(), -static_cast<std::int64_t>(rule_.bound) * rule_.smoothing);
    peaks.clear();
}

std::int64_t Spotter::frames_after(std::int64_t count) const {
    const auto size = static_cast<std::int64_t>(samples_.size());
    const std::int64_t beyond = filled_ + count - skip_ - size;
    return beyond < 0 ? 0 : beyond / (front_->pool * front_->hop) + 1;
}

void Spotter::accept(const std::int16_t* samples, std::int64_t count, float* scores) {
    const auto size = static_cast<std::int64_t>(samples_.size());
    const std::int64_t step = front_->pool * front_->hop;
    while (count > 0) {
        const std::int64_t skipped = std::min(skip_, count);
        skip_ -= skipped;
        const std::int64_t here = std::min(size - filled_, count - skipped);
        std::copy_n(samples + skipped, here, samples_.data() + filled_);
        filled_ += here;
        samples += skipped + here;
        count -= skipped + here;
        if (filled_ < size) return;
        take_frame();
        decide(frame_.data(), scores);  // levels are finite
        if (scores != nullptr) scores += keywords_;
        const std::int64_t kept = std::max<std::int64_t>(0, size - step);
        std::copy_n(samples_.end() - kept, kept, samples_.begin());
        filled_ = kept;
        skip_ = std::max<std::int64_t>(0, step - size);
    }
}

bool Spotter::accept_frames(const float* frames, std::int64_t count, float* scores) {
    for (std::int64_t t = 0; t < count; ++t) {
        if (!decide(frames + t * input_size_, scores)) return false;
        if (scores != nullptr) scores += keywords_;
    }
    return true;
}

// The front end's features of the samples at hand.
void Spotter::take_frame() {
    const BandFrontEnd& front = *front_;
    std::fill(sum_.begin(), sum_.end(), 0.0);
    for (std::int64_t part = 0; part < front.pool; ++part) {
        signal_.one_frame_levels(front.plan->view(), samples_.data() + part * front.hop, levels_.data(),
                                 scratch_.data());
        for (std::size_t i = 0; i < levels_.size(); ++i)
            sum_[i] += front.pool_scaled ? front.scaled(levels_[i]) : levels_[i];
    }
    for (std::size_t i = 0; i < levels_.size(); ++i) {
        const double mean = sum_[i] / static_cast<double>(front.pool);
        const auto value = static_cast<float>(front.pool_scaled ? mean : front.scaled(mean));
        frame_[i] = front.normalise ? (value - front.mean) / front.deviation : value;
    }
}

// One frame through network and rule. False, with nothing changed, where the network cannot represent it (NaN in int8).
bool Spotter::decide(const float* frame, float* scores) {
    if (stream_->run(frame, 1, logits_.data()) != 1) return false;
    if (grid_) {
        for (float& value : logits_) {
            const float scaled = value * grid_->scale;
            value = std::clamp(grid_->down ? std::floor(scaled) : std::nearbyint(scaled), grid_->low, grid_->high) /
                    grid_->scale;
        }
    }
    float first = -std::numeric_limits<float>::infinity(), second = first;
    for (const float value : logits_) {
        second = std::max(second, std::min(first, value));
        first = std::max(first, value);
    }
    std::int32_t* const margins = margins_.data() + static_cast<std::size_t>(oldest_) * keywords_;
    oldest_ = oldest_ + 1 == rule_.smoothing ? 0 : oldest_ + 1;
    const auto bound = static_cast<float>(rule_.bound);
    float best = -std::numeric_limits<float>::infinity();
    int word = 0;
    for (int k = 0; k < keywords_; ++k) {
        const float value = logits_[k + rule_.others];
        const float lead = (value - (value == first ? second : first)) * static_cast<float>(rule_.unit);
        // In this order NaN, the difference of two infinities, becomes -bound.
        const auto margin = static_cast<std::int32_t>(std::min(bound, std::max(-bound, std::nearbyint(lead))));
        sums_[k] += margin - margins[k];
        margins[k] = margin;
        const double divisor = static_cast<double>(rule_.unit) * rule_.smoothing;
        const auto score = static_cast<float>(static_cast<double>(sums_[k]) / divisor);
        if (score > best) {
            best = score;
            word = k;
        }
        if (scores != nullptr) scores[k] = score;
    }
    if (const std::optional<Peak> peak = picker_.feed(best, word)) peaks.push_back(*peak);
    return true;
}

}  // namespace deltarnn
