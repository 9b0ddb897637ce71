// Kernels over signals in double precision: band levels of spectra, and cascades of second-order sections.
//
// Every vector lane runs one signal (or one channel) with the same straight arithmetic: what comes out of a lane does
// not depend on the others, nor on how many signals there are.
#pragma once
#include <cstdint>

#include "deltarnn/dispatch.hpp"

namespace deltarnn {

// Channels of a cascade come in groups of this many: the doubles of the widest vector.
constexpr std::int64_t signal_lanes = 8;
constexpr std::int64_t max_sections = 4;

// A band's weights come in groups of this many, filled up with zeros, and its level is the sum of as many partial sums.
constexpr std::int64_t weight_group = 8;

// The shortest transform that one_frame_levels takes: below it the vectors of one frame would not fill.
constexpr std::int64_t one_frame_points = 256;

// What band_levels needs to know of the bands; made by BandPlan.
struct BandView {
    std::int64_t length, points, bands;  // of a frame; of the transform, a power of two; how many bands
    const double* window;                // (length,)
    const double *cosine, *sine;         // (points / 4 + 1,): of 2πk/points
    // Per radix-4 pass of `size` points, size / 4 of each: cosine and sine of 2πp/size, of 4πp/size, of 6πp/size.
    const double* twiddles;
    const std::int64_t* first;   // (bands,): first bin with a weight
    const std::int64_t* offset;  // (bands + 1,): where each band's weights begin
    const double* weight;
    bool power;  // sum the squares of the magnitudes
};

// Frames as rows of one or more signals: row r is frame r mod frames of signal r / frames. Strides in samples.
struct Frames {
    const void* samples;
    bool integer;  // int16_t samples, else double
    std::int64_t signals, signal_stride, frames, hop;
};

constexpr std::int64_t scratch_size(std::int64_t points) { return (5 * points / 2 + 1 + weight_group) * signal_lanes; }

struct SignalKernels {
    // levels (signals · frames, bands): Σ_k weight[k]·|rfft(window · frame)[k]|, or of the squares.
    // scratch: scratch_size(points) doubles, aligned to 64 bytes, zero before the first call.
    void (*band_levels)(const BandView& plan, const Frames& frames, double* levels, double* scratch);
    // The same levels (bands,), to the last bit, of a single frame of at least one_frame_points: the vectors' lanes are
    // elements of its transform. scratch: as above, of its own, as what is beyond the frame stays zero in it.
    void (*one_frame_levels)(const BandView& plan, const std::int16_t* frame, double* levels, double* scratch);
    // sums (segments, groups · signal_lanes): Σ|output| of each channel's cascade from one of `ends` to the next, the
    // first from 0. coefficients (groups, sections, 5, signal_lanes): b0, b1, b2, a1, a2 of transposed direct form II.
    void (*rectified_sums)(const double* signal, std::int64_t groups, std::int64_t sections, const double* coefficients,
                           const std::int64_t* ends, std::int64_t segments, double* sums);
};

DELTARNN_DECLARE_TABLE(SignalKernels, signal_kernels)

const SignalKernels& signal_kernels(Isa isa);

}  // namespace deltarnn
