// How a layer lies on the GPU, and what its kernels share.
//
// Shapes below: T steps, B samples, I inputs, H hidden units, G gates (GRU 3, LSTM 4). A team of C blocks computes N
// samples at a time; each block owns U of the units and holds their weights, in shared memory where they fit. A block's
// warps are N·⌈U/32⌉ for each of its roles: the first leads, that is, has the state of sample `slot` and the units
// 32·chunk + lane; if the work is spread, the next P multiply a part of the columns each, for the same units; the rest
// are for the inputs. If it is not, the leading warps multiply, the parts in turn: the sums are the same. A sample's
// warps in a block, its crew, go at their own pace.
#pragma once
#include "device.cuh"

// Sizes that a kernel is compiled for; 0: given at launch.
#ifndef DELTARNN_INPUTS
#define DELTARNN_INPUTS 0
#define DELTARNN_HIDDEN 0
#define DELTARNN_UNITS 0
#define DELTARNN_PARTS 0
#define DELTARNN_SAMPLES 0
#define DELTARNN_HARD -1
#define DELTARNN_INPUT_PARTS -1
#endif

namespace deltarnn {

constexpr int constant_inputs = DELTARNN_INPUTS, constant_hidden = DELTARNN_HIDDEN, constant_units = DELTARNN_UNITS,
              constant_parts = DELTARNN_PARTS, constant_samples = DELTARNN_SAMPLES;

__device__ __forceinline__ int constant_or(int constant, int given) { return constant > 0 ? constant : given; }

#ifndef DELTARNN_AHEAD
#define DELTARNN_AHEAD 4
#endif
constexpr int ahead = DELTARNN_AHEAD;  // steps by which memory is asked for

__device__ __forceinline__ int input_parts_or(int given) {
    return DELTARNN_INPUT_PARTS < 0 ? given : DELTARNN_INPUT_PARTS;
}

// Whether the activation functions are hard.
__device__ __forceinline__ bool hard_or(bool given) { return DELTARNN_HARD < 0 ? given : DELTARNN_HARD != 0; }

constexpr uint32_t all_lanes = 0xffffffffu;

// What waits for whom: one block, the blocks of a cluster (compute capability 9.0), or blocks that a cooperative launch
// has running at the same time.
enum class Scope { block, cluster, grid };

struct Team {
    int blocks, units, samples, parts;  // C, U, N, P
    int count;                          // how many teams
    uint32_t* counters;                 // (count,), 0 at launch and afterwards; Scope::grid alone

    __device__ Team(int blocks_of, int units_of, int samples_of, int parts_of, int teams, uint32_t* zeros)
        : blocks(blocks_of), units(constant_or(constant_units, units_of)),
          samples(constant_or(constant_samples, samples_of)), parts(constant_or(constant_parts, parts_of)),
          count(teams), counters(zeros) {}
};

// Where a thread stands in its team.
struct Place {
    int lane, chunk, slot;
    int crew;        // threads of the sample in the block
    int role, part;  // of those that multiply: which part; of those for the inputs: which 32 of them
    bool leads, multiplies;
    int chunks;        // ⌈U/32⌉
    int first, own;    // the block's units
    int unit, column;  // the thread's: in the block, in the layer
    bool mine;         // whether there is such a unit
    int team, rank;    // and the block's in it
    int first_sample;
    uint32_t arrivals;  // of the team's barrier so far

    __device__ Place(const Team& team_of, int hidden, bool spread) {
        const int warp = static_cast<int>(threadIdx.x) / 32;
        lane = static_cast<int>(threadIdx.x) % 32;
        chunks = (team_of.units + 31) / 32;
        chunk = warp % chunks;
        slot = warp / chunks % team_of.samples;
        role = warp / (chunks * team_of.samples);
        crew = static_cast<int>(blockDim.x) / team_of.samples;
        const int multiplying = spread ? team_of.parts : 0;
        leads = role == 0;
        multiplies = role > 0 && role <= multiplying;
        part = role - 1 - (multiplies ? 0 : multiplying);
        rank = static_cast<int>(blockIdx.x) % team_of.blocks;
        first = rank * team_of.units;
        own = min(team_of.units, hidden - first);
        unit = chunk * 32 + lane;
        column = first + unit;
        mine = unit < own;
        team = static_cast<int>(blockIdx.x) / team_of.blocks;
        first_sample = 0;
        arrivals = 0;
    }
};

// A sample's warps in this block wait for each other.
__device__ __forceinline__ void crew_barrier(const Place& place) {
    if constexpr (constant_samples == 1) {
        __syncthreads();
    } else {
        barrier_of_some(1 + place.slot, place.crew);
    }
}

// All threads of the team that a sample has wait for each other, and see what each wrote.
template <Scope scope>
__device__ __forceinline__ void team_barrier(const Team& team, Place& place) {
    if constexpr (scope == Scope::block) {
        crew_barrier(place);
    } else if constexpr (scope == Scope::cluster) {
        cluster_barrier();
    } else {
        place.arrivals += team.blocks;
        __syncthreads();
        if (threadIdx.x == 0) arrive_and_wait(team.counters + place.team, place.arrivals);
        __syncthreads();
    }
}

// Columns of weights (rows, H) that are a block's own, into shared memory: row r of unit u at u·odd + r.
template <int gates>
__device__ void load_own_columns(const float* weight, int hidden, const Team& team, const Place& place, float* slab) {
    constexpr int loads = 8;
    const int count = gates * hidden, odd = count | 1, size = count * team.units,
              threads = static_cast<int>(blockDim.x);
    for (int begin = static_cast<int>(threadIdx.x); begin < size; begin += loads * threads) {
        float value[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads, row = at / team.units, unit = at % team.units;
            const int64_t from = static_cast<int64_t>(row) * hidden + place.first + unit;
            value[i] = at < size && unit < place.own ? weight[from] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads;
            if (at < size) slab[at % team.units * odd + at / team.units] = value[i];
        }
    }
}

// Whether this is the last of all blocks to come here; it then sees what the others wrote.
__device__ __forceinline__ bool last_block(uint32_t* done, const Team& team) {
    __syncthreads();
    uint32_t* flag = reinterpret_cast<uint32_t*>(shared_memory());
    if (threadIdx.x == 0) *flag = arrive(done) + 1 == static_cast<uint32_t>(team.blocks * team.count);
    __syncthreads();
    const bool last = *flag != 0;
    __syncthreads();
    return last;
}

// For the next launch, by one thread.
template <Scope scope>
__device__ __forceinline__ void clear_counters(uint32_t* done, const Team& team) {
    *done = 0;
    for (int counter = 0; scope == Scope::grid && counter < team.count; ++counter) team.counters[counter] = 0;
}

// An event as its products need it: where its column of weights begins, and Δ.
struct Event {
    int offset;
    float value;
};

constexpr int group = 4;  // events whose weights are loaded together
constexpr int list_size = 32 + group;

struct alignas(16) Group {
    Event events[group];
};

// Floats of a list, and the way from a number of floats to the next address of a group.
constexpr int list_floats = 2 * list_size;
__device__ __forceinline__ int aligned(int floats) { return (floats + 3) / 4 * 4; }

// Appends the deltas of a warp that are not 0 to an empty list, in the order of the lanes, and fills up the last group.
// store(to, event) writes. Returns how many they are.
template <class Store>
__device__ __forceinline__ int list_events(int lane, int offset, float delta, uint32_t mask, Store store) {
    const int count = __popc(mask);
    if (delta != 0.0f) store(__popc(mask & ((1u << lane) - 1u)), Event{offset, delta});
    if (lane < group) store(count + lane, Event{0, 0.0f});
    return count;
}

// acc[g] += Σ W[g, k]·Δ[k] over every stride-th group of a list; W[g, k] of the lane's unit is at
// weights[offset + g·gate]. In the order of the list, whatever the rest of the batch is.
template <int gates>
__device__ __forceinline__ void add_events(float (&acc)[gates], const float* weights, int gate, const Event* list,
                                           int count, int first_group, int stride) {
    for (int begin = first_group * group; begin < count; begin += stride * group) {
        const Group of = *reinterpret_cast<const Group*>(list + begin);
        float weight[group][gates];
#pragma unroll
        for (int e = 0; e < group; ++e) {
#pragma unroll
            for (int g = 0; g < gates; ++g) weight[e][g] = weights[of.events[e].offset + g * gate];
        }
#pragma unroll
        for (int e = 0; e < group; ++e) {
#pragma unroll
            for (int g = 0; g < gates; ++g) acc[g] = fmaf(weight[e][g], of.events[e].value, acc[g]);
        }
    }
}

// The same for the deltas of one warp, by way of a list of its own. column: between the columns of the weights.
template <int gates>
__device__ __forceinline__ void multiply_deltas(float (&acc)[gates], const float* weights, int column, int gate,
                                                float delta, uint32_t mask, int lane, Event* list) {
    if (mask == 0) return;
    __syncwarp();  // the last one's list is read
    const int count = list_events(lane, lane * column, delta, mask, [&](int at, Event event) { list[at] = event; });
    __syncwarp();
    add_events<gates>(acc, weights, gate, list, count, 0, 1);
}

// Sums over the warp of N values at once: lane gets that of value lane / (32 / N), whose terms are added in the same
// order as those of each other value.
template <int count>
__device__ __forceinline__ float sums_over_warp(float (&values)[count], int lane) {
    int distance = 16;
#pragma unroll
    for (int kept = count / 2; kept > 0; kept /= 2) {
        const bool upper = (lane & distance) != 0;
#pragma unroll
        for (int i = 0; i < count / 2; ++i) {
            if (i >= kept) continue;
            const float other = __shfl_xor_sync(all_lanes, upper ? values[i] : values[i + kept], distance);
            values[i] = (upper ? values[i + kept] : values[i]) + other;
        }
        distance /= 2;
    }
#pragma unroll
    for (int rest = 16 / count; rest > 0; rest /= 2) values[0] += __shfl_xor_sync(all_lanes, values[0], rest);
    return values[0];
}

__device__ __forceinline__ float sum_over_warp(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
    return value;
}

// |v − v̂| < θ fires nothing; a NaN is never quiet, so that it shows in the result.
__device__ __forceinline__ bool fires(float difference, float threshold) { return !(fabsf(difference) < threshold); }

// A NaN stays one.
__device__ __forceinline__ float clipped(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

constexpr float log2e = 1.44269504f;

__device__ __forceinline__ float sigmoid(float x, bool hard) {
    // Where the fast exponential and division are off most, their effect on the sum below 1 is below 1e-7.
    return hard ? clipped(fmaf(x, 0.25f, 0.5f), 0.0f, 1.0f) : __fdividef(1.0f, 1.0f + power_of_two(-log2e * x));
}

__device__ __forceinline__ float hyperbolic_tangent(float x, bool hard) {
    // Off by less than 2e-7.
    return hard ? clipped(x, -1.0f, 1.0f) : 1.0f - __fdividef(2.0f, 1.0f + power_of_two(2.0f * log2e * x));
}

// Derivatives, by the function's value.
__device__ __forceinline__ float sigmoid_slope(float y, bool hard) {
    return hard ? (y > 0.0f && y < 1.0f ? 0.25f : 0.0f) : y * (1.0f - y);
}

__device__ __forceinline__ float tanh_slope(float y, bool hard) {
    return hard ? (fabsf(y) < 1.0f ? 1.0f : 0.0f) : 1.0f - y * y;
}

// Rows of weights that are a block's own, transposed into shared memory: column k, gate g, unit u at k·odd + g·U + u.
// Several loads in flight; an odd stride, so that the columns of a row go to different banks.
template <int gates>
__device__ void load_own_rows(const float* weight, int columns, int hidden, const Team& team, const Place& place,
                              float* slab) {
    constexpr int loads = 8;
    const int odd = gates * team.units | 1, size = gates * team.units * columns, threads = static_cast<int>(blockDim.x);
    for (int begin = static_cast<int>(threadIdx.x); begin < size; begin += loads * threads) {
        float value[loads];
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads, row = at / columns, gate = row / team.units, unit = row % team.units;
            const int64_t from = static_cast<int64_t>(gate * hidden + place.first + unit) * columns + at % columns;
            value[i] = at < size && unit < place.own ? weight[from] : 0.0f;
        }
#pragma unroll
        for (int i = 0; i < loads; ++i) {
            const int at = begin + i * threads;
            if (at < size) slab[at % columns * odd + at / columns] = value[i];
        }
    }
}

}  // namespace deltarnn
