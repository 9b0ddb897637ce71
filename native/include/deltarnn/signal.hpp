// Band levels of many frames, and filter cascades: the arithmetic of front ends, without their meaning.
#pragma once
#include <cstdint>
#include <vector>

#include "deltarnn/signal_kernels.hpp"

namespace deltarnn {

class BandPlan {
  public:
    // window (length,); points: a power of two from 16, at least `length`; weights (points / 2 + 1, bands), row by row;
    // power: sum the squares of magnitudes. Throws std::invalid_argument where sizes do not fit.
    BandPlan(const double* window, std::int64_t length, std::int64_t points, const double* weights, std::int64_t bands,
             bool power = false);

    // levels: (signals · frames, bands).
    void levels(const Frames& frames, double* levels) const;

    // What the kernels take; valid as long as this plan.
    BandView view() const;

    std::int64_t length() const { return length_; }
    std::int64_t bands() const { return bands_; }

  private:
    std::int64_t length_, points_, bands_;
    std::vector<double> window_, cosine_, sine_, twiddles_, weight_;
    std::vector<std::int64_t> first_, offset_;
    bool power_;
};

}  // namespace deltarnn
