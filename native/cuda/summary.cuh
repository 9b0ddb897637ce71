// What a forward pass counts: by every warp, and by the block that is done last, summed in a fixed order.
#pragma once
#include "unit.cuh"

namespace deltarnn {

__device__ __forceinline__ void write_sum(double* sums, int64_t sample, int warps, int warp, float l1, int events) {
    sums[(sample * warps + warp) * 2] = l1;
    sums[(sample * warps + warp) * 2 + 1] = events;
}

// The block's sum of `value`, in every thread. scratch: one per warp.
__device__ __forceinline__ double sum_over_block(double value, double* scratch) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
    __syncthreads();
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    double sum = 0.0;
    for (int warp = 0; warp < static_cast<int>(blockDim.x) / 32; ++warp) sum += scratch[warp];
    return sum;
}

// Σ|Δh|; counts: how many deltas of x and h are 0, and how many there are; events (2, B): how many of each sample are
// not.
__device__ __forceinline__ void summarise(const Forward& job, const Team& team, const Place& place) {
    const int of_h = team.blocks * place.chunks;
    double l1 = 0.0, fired_x = 0.0, fired_h = 0.0, running = 0.0;
    for (int64_t sample = threadIdx.x; sample < job.batch; sample += blockDim.x) {
        double of_sample_x = 0.0, of_sample_h = 0.0;
        for (int k = 0; k < job.sums_of_x; ++k) of_sample_x += job.sums_x[(sample * job.sums_of_x + k) * 2 + 1];
        for (int k = 0; k < of_h; ++k) {
            l1 += job.sums_h[(sample * of_h + k) * 2];
            of_sample_h += job.sums_h[(sample * of_h + k) * 2 + 1];
        }
        if (job.events != nullptr) {
            job.events[sample] = static_cast<int64_t>(of_sample_x);
            job.events[job.batch + sample] = static_cast<int64_t>(of_sample_h);
        }
        fired_x += of_sample_x;
        fired_h += of_sample_h;
        running += job.lengths == nullptr ? job.steps : static_cast<double>(job.lengths[sample]);
    }
    double* scratch = reinterpret_cast<double*>(shared_memory());
    l1 = sum_over_block(l1, scratch);
    fired_x = sum_over_block(fired_x, scratch);
    fired_h = sum_over_block(fired_h, scratch);
    running = sum_over_block(running, scratch);
    if (threadIdx.x == 0) {
        *job.l1 = static_cast<float>(l1);
        job.counts[0] = static_cast<int64_t>(running * job.inputs - fired_x);
        job.counts[1] = static_cast<int64_t>(running * job.hidden - fired_h);
        job.counts[2] = static_cast<int64_t>(running * job.inputs);
        job.counts[3] = static_cast<int64_t>(running * job.hidden);
    }
}

}  // namespace deltarnn
