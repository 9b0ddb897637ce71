// Keywords in a stream of samples: front end, network and decision rule, a frame at a time. No allocation in a frame,
// but for the detections themselves.
#pragma once
#include <optional>

#include "deltarnn/engine.hpp"
#include "deltarnn/signal.hpp"

namespace deltarnn {

// How the levels of bands become features: the levels themselves; 20·log10(level), a level of 0 counting as epsilon; or
// factor·ln(level + offset) + bias.
enum class LevelScale { plain, decibel, natural };

// Features of frames `hop` samples apart: scaled levels within [low, high], the mean over `pool` frames (of the levels
// before they are scaled unless pool_scaled), then (· − mean) / deviation in float32 if normalise. ahead: samples after
// a frame's last that must be there before it counts.
struct BandFrontEnd {
    std::shared_ptr<const BandPlan> plan;
    std::int64_t hop, pool, ahead;
    LevelScale scale;
    double offset, factor, bias, low, high;
    bool pool_scaled, normalise;
    float mean, deviation;

    double scaled(double level) const;
};

// Class scores rounded to the multiples of 1/scale from low/scale to high/scale, to nearest or down.
struct ScoreGrid {
    float scale, low, high;
    bool down;
};

// The decision rule of deltarnn.kws.spotter.rule, its times in frames, its margins in units of 1/unit. The first
// `others` classes are no keywords.
struct StreamRule {
    int smoothing, bound, hold, refractory, unit, others;
    float threshold;
};

struct Peak {
    std::int64_t frame;
    int keyword;
    float score;
    std::int64_t decided;
};

// Peaks of a score, decided as its frames come.
class PeakPicker {
  public:
    explicit PeakPicker(const StreamRule& rule) : rule_(rule) { reset(); }

    void reset();

    // score: the largest of the next frame's; keyword: whose. The detection that is decided at that frame, if any.
    std::optional<Peak> feed(float score, int keyword);

  private:
    const StreamRule rule_;
    std::int64_t frame_, next_, opened_;
    float before_;
    std::optional<Peak> candidate_;
};

class Spotter {
  public:
    // front: or none, and frames come ready-made. std::invalid_argument where sizes do not fit.
    Spotter(const std::shared_ptr<const Model>& model, std::optional<BandFrontEnd> front, std::optional<ScoreGrid> grid,
            const StreamRule& rule);

    void reset();

    // The next samples. scores (frames_after(count), keywords()) receives each frame's, or nullptr.
    void accept(const std::int16_t* samples, std::int64_t count, float* scores);

    // The next frames (count, input size), normalised. False, having stopped before it, at a frame with a NaN.
    bool accept_frames(const float* frames, std::int64_t count, float* scores);

    // How many frames `count` more samples complete.
    std::int64_t frames_after(std::int64_t count) const;

    int keywords() const { return keywords_; }
    int input_size() const { return input_size_; }
    Activity activity(int layer) const { return stream_->activity(layer); }

    // Detections since they were last cleared.
    std::vector<Peak> peaks;

  private:
    void take_frame();
    bool decide(const float* frame, float* scores);

    std::unique_ptr<Stream> stream_;
    const std::optional<BandFrontEnd> front_;
    const std::optional<ScoreGrid> grid_;
    const StreamRule rule_;
    const SignalKernels& signal_;
    const int classes_, keywords_, input_size_;
    PeakPicker picker_;
    std::vector<std::int16_t> samples_;  // of the frame to come, and those ahead
    std::int64_t filled_, skip_;
    AlignedArray<double> scratch_;
    std::vector<double> levels_, sum_;
    std::vector<float> frame_, logits_;
    std::vector<std::int32_t> margins_;  // (smoothing, keywords), a ring
    std::vector<std::int64_t> sums_;
    int oldest_;
};

}  // namespace deltarnn
