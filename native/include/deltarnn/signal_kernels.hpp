// Kernels over signals in double precision: band levels of spectra, and cascades of second-order sections.
//
// Every vector lane runs one signal (or one channel) with the same straight arithmetic: what comes out of a lane does not
// depend on the others, nor on how many signals there are.
#pragma once
#include <cstdint>

#include "deltarnn/dispatch.hpp"

namespace deltarnn {

// Channels of a cascade come in groups of this many: the doubles of the widest vector.
constexpr std::int64_t signal_lanes = 8;
constexpr std::int64_t max_sections = 4;

// What band_levels needs to know of the bands; see make_band_plan.
struct BandView {
    std::int64_t length, points, bands;       // of a frame; of the transform, a power of two; how many bands
    const double* window;                     // (length,)
    const double *cosine, *sine;              // (points,): of 2πk/points
    const std::int64_t* first;                // (bands,): first bin with a weight
    const std::int64_t* offset;               // (bands + 1,): where each band's weights begin
    const double* weight;
};

// Frames as rows of one or more signals: row r is frame r mod frames of signal r / frames. Strides in samples.
struct Frames {
    const void* samples;
    bool integer;                             // int16_t samples, else double
    std::int64_t signals, signal_stride, frames, hop;
};

struct SignalKernels {
    // levels (signals · frames, bands): Σ_k weight[k]·|rfft(window · frame)[k]|.
    // scratch: 5 · points / 2 · signal_lanes + signal_lanes doubles, aligned to 64 bytes.
    void (*band_levels)(const BandView& plan, const Frames& frames, double* levels, double* scratch);
    // sums (segments, groups · signal_lanes): Σ|output| of each channel's cascade from one of `ends` to the next, the first
    // from 0. coefficients (groups, sections, 5, signal_lanes): b0, b1, b2, a1, a2 of transposed direct form II.
    void (*rectified_sums)(const double* signal, std::int64_t groups, std::int64_t sections, const double* coefficients,
                           const std::int64_t* ends, std::int64_t segments, double* sums);
};

DELTARNN_DECLARE_TABLE(SignalKernels, signal_kernels)

const SignalKernels& signal_kernels(Isa isa);

}  // namespace deltarnn
