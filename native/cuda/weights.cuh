// The parameters' gradients, out of the product of all S with all deltas.
#pragma once
#include "team.cuh"

namespace deltarnn {

// products (4H, H + I) = Σ S (Δh, Δx)ᵀ, rows in the public order of M's parts, to the gradients of the weights, (G·H,
// ·). The last blocks make those of the biases, if wanted: S of the first step (B, 4H), summed; 8 warps, each an eighth
// of the samples, of 32 of the 4H elements.
template <bool lstm>
__device__ __forceinline__ void take_gradients(int batch, int inputs, int hidden, const float* products,
                                               const float* sums, float* grad_ih, float* grad_hh, float* grad_bias_ih,
                                               float* grad_bias_hh) {
    constexpr int gates = lstm ? 4 : 3;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    const int width = hidden + inputs, rows_of_blocks = (gates * hidden + 7) / 8;
    if (static_cast<int>(blockIdx.x) < rows_of_blocks) {  // a warp for each row
        const int row = static_cast<int>(blockIdx.x) * 8 + warp;
        if (row >= gates * hidden) return;
        const float* of_input = products + static_cast<int64_t>(row) * width + hidden;
        const float* of_hidden = products + static_cast<int64_t>(lstm || row < 2 * hidden ? row : row + hidden) * width;
        for (int k = lane; k < inputs; k += 32) grad_ih[static_cast<int64_t>(row) * inputs + k] = of_input[k];
        for (int k = lane; k < hidden; k += 32) grad_hh[static_cast<int64_t>(row) * hidden + k] = of_hidden[k];
        return;
    }
    const int at = (static_cast<int>(blockIdx.x) - rows_of_blocks) * 32 + lane;
    const bool there = at < 4 * hidden;
    float sum = 0.0f;
#pragma unroll 8
    for (int64_t sample = warp; sample < batch; sample += 8) sum += there ? sums[sample * 4 * hidden + at] : 0.0f;
    float* partial = shared_memory();
    partial[warp * 32 + lane] = sum;
    __syncthreads();
    if (warp != 0 || !there) return;
    for (int other = 1; other < 8; ++other) sum += partial[other * 32 + lane];
    if (lstm || at < 3 * hidden) grad_bias_ih[at] = sum;
    if (lstm || at < 2 * hidden) grad_bias_hh[at] = sum;
    if (!lstm && at >= 3 * hidden) grad_bias_hh[at - hidden] = sum;
}

}  // namespace deltarnn
