// What depends on the inputs alone, for all steps at once: their deltas, W_ih Δx, and the way back from ∂loss/∂Δx.
#pragma once
#include "team.cuh"

namespace deltarnn {

struct Inputs {
    int steps, batch, inputs;
    float threshold;
    const int64_t* lengths;  // (B,) or null
};

struct Encoding {
    const float* x;  // (T, B, I) with strides x_step, x_sample, 1
    int64_t x_step, x_sample;
    const float* x_hat0;  // (B, I) or null
    float* deltas;        // rows (t, b) of I floats, delta_stride apart
    int64_t delta_stride;
    uint32_t* fired;  // (T, B, ·): rows of whole 64-bit words, or null
    float* x_hat;     // (B, I) or null
    double* sums;     // (B, 2·⌈I/64⌉, 2): Σ|Δ| and how many Δ are not 0; or null
};

// The delta encoder (MATH §1): one warp takes 32 inputs of one sample through all steps.
__device__ __forceinline__ void encode_inputs(const Inputs& job, const Encoding& to) {
    const int lane = static_cast<int>(threadIdx.x) % 32, words = (job.inputs + 63) / 64 * 2;
    const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
    const int64_t sample = warp / words;
    const int word = static_cast<int>(warp % words), input = word * 32 + lane;
    if (sample >= job.batch) return;
    const bool there = input < job.inputs;
    const int length = job.lengths == nullptr ? job.steps : static_cast<int>(job.lengths[sample]);
    const float* x = to.x + sample * to.x_sample + input;
    float x_hat = there && to.x_hat0 != nullptr ? to.x_hat0[sample * job.inputs + input] : 0.0f;
    float l1 = 0.0f;
    int events = 0;
    constexpr int loads = 8;  // in flight
    for (int first = 0; first < job.steps; first += loads) {
        float values[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i) values[i] = there && first + i < length ? x[(first + i) * to.x_step] : 0.0f;
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int t = first + i;
            if (t >= job.steps) continue;
            const float difference = values[i] - x_hat;
            const bool fired = there && t < length && fires(difference, job.threshold);
            const float delta = fired ? difference : 0.0f;
            if (fired) x_hat = values[i];
            const uint32_t mask = __ballot_sync(all_lanes, delta != 0.0f);
            const int64_t row = static_cast<int64_t>(t) * job.batch + sample;
            if (lane == 0 && to.fired != nullptr) to.fired[row * words + word] = mask;
            if (there) to.deltas[row * to.delta_stride + input] = delta;
            l1 += fabsf(delta);
            events += __popc(mask);
        }
    }
    if (there && to.x_hat != nullptr) to.x_hat[sample * job.inputs + input] = x_hat;
    l1 = sum_over_warp(l1);
    if (lane == 0 && to.sums != nullptr) {
        to.sums[warp * 2] = l1;
        to.sums[warp * 2 + 1] = events;
    }
}

// W Δ of every row (t, b), the fired columns alone: to (rows, G, H). A block has 32 units and rows_per_warp rows of
// each of its warps, and takes 64 columns at a time through shared memory, (64, G·32 | 1), after a list of each warp.
constexpr int rows_per_warp = 4, tile_columns = 64;

// Weights of 32 units and tile_columns columns, zeros beyond the layer; several loads in flight.
template <int gates>
__device__ __forceinline__ void load_tile(const float* weight, int first_unit, int hidden, int first, int columns,
                                          float* tile) {
    constexpr int loads = 8, stride = gates * 32 | 1, size = gates * 32 * tile_columns;
    const int threads = static_cast<int>(blockDim.x);
    for (int begin = static_cast<int>(threadIdx.x); begin < size; begin += loads * threads) {
        float value[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads, row = at / tile_columns, k = first + at % tile_columns;
            const int unit = first_unit + row % 32;
            const bool there = at < size && unit < hidden && k < columns;
            value[i] = there ? weight[static_cast<int64_t>(row / 32 * hidden + unit) * columns + k] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads;
            if (at < size) tile[at % tile_columns * stride + at / tile_columns] = value[i];
        }
    }
}

template <int gates>
__device__ __forceinline__ void multiply_inputs(int64_t rows, int columns, int hidden, const float* deltas,
                                                int64_t delta_stride, const float* weight, float* to) {
    constexpr int stride = gates * 32 | 1;
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    Event* list = reinterpret_cast<Event*>(shared_memory()) + warp * list_size;
    float* tile = shared_memory() + static_cast<int>(blockDim.x) / 32 * list_floats;
    const int warps = static_cast<int>(blockDim.x) / 32, chunks = (hidden + 31) / 32;
    const int first_unit = static_cast<int>(blockIdx.x % chunks) * 32, unit = first_unit + lane;
    const int64_t first_row = (static_cast<int64_t>(blockIdx.x) / chunks * warps + warp) * rows_per_warp;
    float acc[rows_per_warp][gates] = {};
    for (int first = 0; first < columns; first += tile_columns) {
        float delta[rows_per_warp][tile_columns / 32];
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
#pragma unroll
            for (int i = 0; i < tile_columns / 32; ++i) {
                const int k = first + 32 * i + lane;
                const bool there = first_row + r < rows && k < columns;
                delta[r][i] = there ? deltas[(first_row + r) * delta_stride + k] : 0.0f;
            }
        }
        __syncthreads();
        load_tile<gates>(weight, first_unit, hidden, first, columns, tile);
        __syncthreads();
#pragma unroll
        for (int r = 0; r < rows_per_warp; ++r) {
#pragma unroll
            for (int i = 0; i < tile_columns / 32; ++i) {
                const uint32_t mask = __ballot_sync(all_lanes, delta[r][i] != 0.0f);
                multiply_deltas<gates>(acc[r], tile + i * 32 * stride + lane, stride, 32, delta[r][i], mask, lane,
                                       list);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < rows_per_warp; ++r) {
        if (first_row + r >= rows || unit >= hidden) continue;
#pragma unroll
        for (int g = 0; g < gates; ++g) to[((first_row + r) * gates + g) * hidden + unit] = acc[r][g];
    }
}

// From Wᵀ S of every step to the gradient of x, in place (T, B, I), and of the initial x̂ (MATH §5): what fired at t
// gets its own product less that of the step at which it fires next; what did not gets none.
__device__ __forceinline__ void pass_inputs_back(const Inputs& job, const float* deltas, int64_t delta_stride,
                                                 const float* grad_x_hat, float* grad_x, float* grad_x_hat0) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const int64_t size = static_cast<int64_t>(job.batch) * job.inputs;
    if (at >= size) return;
    const int64_t sample = at / job.inputs;
    const int length = job.lengths == nullptr ? job.steps : static_cast<int>(job.lengths[sample]);
    float q = grad_x_hat == nullptr ? 0.0f : grad_x_hat[at];
    constexpr int loads = 4;  // in flight
    for (int last = job.steps - 1; last >= 0; last -= loads) {
        float product[loads], delta[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int64_t t = max(0, last - i);
            product[i] = grad_x[t * size + at];
            delta[i] = deltas[(t * job.batch + sample) * delta_stride + at % job.inputs];
        }
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int t = last - i;
            if (t < 0) continue;
            const bool passes = t < length && (job.threshold == 0.0f || delta[i] != 0.0f);
            grad_x[t * size + at] = passes ? product[i] + q : 0.0f;
            if (passes) q = -product[i];
        }
    }
    if (grad_x_hat0 != nullptr) grad_x_hat0[at] = q;
}

}  // namespace deltarnn
