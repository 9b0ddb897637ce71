// The backward pass: exact back-propagation through time over the fired columns (MATH §5). S_t, the sum of the
// pre-activation gradients of all steps from t on, goes to memory, where the weights' gradients are made of it.
#pragma once
#include "team.cuh"

namespace deltarnn {

struct Backward {
    int steps, batch, inputs, hidden;
    float thh;
    bool hard;               // hard activations
    const int64_t* lengths;  // (B,) or null
    const float *h0, *c0;    // (B, H) or null
    const float* weight_hh;  // (G·H, H); transposed, (H, G·H), where it is not in shared memory
    const float *y, *tape;   // as the forward pass left them
    const float* grad_y;     // (T, B, H)
    const float *grad_h, *grad_h_hat, *grad_c, *grad_m, *grad_l1;  // of the final state and Σ|Δh|; each may be null
    float* sums;                                                   // S: (T, B, 4H), in the public order
    float *grad_h0, *grad_h_hat0, *grad_c0, *grad_m0;              // of the initial state; each may be null
    uint32_t* done;  // how many blocks are: 0 at launch, and afterwards; Scope::grid
};

// Where a unit's records of a step are, and where its S goes: its element of a row of the tape and of each array.
template <bool lstm>
struct Steps {
    static constexpr int parts_count = lstm ? 5 : 4;
    const float *tape, *grad_y, *y;
    float* sums;
    int64_t tape_step, step;  // between the steps; a quarter of that of S

    // Of the last step.
    __device__ Steps(const Backward& job, int64_t sample, int column)
        : tape_step(int64_t{job.batch} * ((parts_count + 1) * job.hidden + job.inputs)),
          step(int64_t{job.batch} * job.hidden) {
        const int64_t last = job.steps - 1, at = last * step + sample * job.hidden + column;
        tape = job.tape + last * tape_step + sample * (tape_step / job.batch) + column;
        grad_y = job.grad_y + at;
        y = lstm ? nullptr : job.y + at;
        sums = job.sums + (last * job.batch + sample) * 4 * job.hidden + column;
    }

    __device__ void go_back() {
        tape -= tape_step;
        grad_y -= step;
        if (!lstm) y -= step;
    }

    // Into the cache, some steps before they are loaded: the records of `steps` before.
    __device__ void prefetch_before(int steps, int n) const {
        const float* from = tape - steps * tape_step;
#pragma unroll
        for (int part = 0; part <= parts_count; ++part) prefetch(from + part * n);
        prefetch(grad_y - steps * step);
        if (!lstm) prefetch(y - steps * step);
    }
};

// What a unit needs of one step.
template <bool lstm>
struct Record {
    static constexpr int parts_count = Steps<lstm>::parts_count;
    float parts[parts_count] = {}, delta = 0.0f, h_before = 0.0f, c_before = 0.0f, grad_y = 0.0f;

    __device__ void load(const Backward& job, const Steps<lstm>& from, int t, int64_t sample, int column) {
        const int n = job.hidden;
#pragma unroll
        for (int part = 0; part < parts_count; ++part) parts[part] = from.tape[part * n];
        delta = from.tape[parts_count * n];
        grad_y = *from.grad_y;
        const float* start = lstm ? job.c0 : job.h0;
        float& before = lstm ? c_before : h_before;
        if (t > 0) {
            before = lstm ? from.tape[4 * n - from.tape_step] : from.y[-from.step];
        } else {
            before = start == nullptr ? 0.0f : start[sample * n + column];
        }
    }
};

// The gradients of one unit of one sample: dh, dc; q, of ĥ as later steps see it; S.
template <bool lstm>
struct UnitGradient {
    float dh = 0.0f, dc = 0.0f, q = 0.0f;
    float s[4] = {};

    __device__ void load(const Backward& job, int64_t sample, int column) {
        const int n = job.hidden;
        const int64_t at = sample * n + column;
        if (job.grad_h != nullptr) dh = job.grad_h[at];
        if (lstm && job.grad_c != nullptr) dc = job.grad_c[at];
        if (job.grad_h_hat != nullptr) q = job.grad_h_hat[at];
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            if (job.grad_m != nullptr) s[part] = job.grad_m[sample * 4 * n + part * n + column];
        }
    }

    __device__ void store(const Backward& job, int64_t sample, int column) const {
        const int n = job.hidden;
        const int64_t at = sample * n + column;
        if (job.grad_h0 != nullptr) job.grad_h0[at] = dh;
        if (lstm && job.grad_c0 != nullptr) job.grad_c0[at] = dc;
        if (job.grad_h_hat0 != nullptr) job.grad_h_hat0[at] = q;
        if (job.grad_m0 == nullptr) return;
#pragma unroll
        for (int part = 0; part < 4; ++part) job.grad_m0[sample * 4 * n + part * n + column] = s[part];
    }

    // From dh (and dc) to the gates, which are added to S; dh becomes that of h_{t−1} but for its deltas.
    __device__ void gates(const Record<lstm>& of, bool hard) {
        dh += of.grad_y;
        if constexpr (lstm) {
            const float i = of.parts[0], f = of.parts[1], g = of.parts[2], o = of.parts[3];
            const float squashed = hyperbolic_tangent(of.parts[4], hard);
            dc = fmaf(dh * o, tanh_slope(squashed, hard), dc);
            s[0] += dc * g * sigmoid_slope(i, hard);
            s[1] += dc * of.c_before * sigmoid_slope(f, hard);
            s[2] += dc * i * tanh_slope(g, hard);
            s[3] += dh * squashed * sigmoid_slope(o, hard);
            dc *= f;
            dh = 0.0f;
        } else {
            const float r = of.parts[0], z = of.parts[1], n = of.parts[2], m_nh = of.parts[3];
            const float of_n = dh * (1.0f - z) * tanh_slope(n, hard);
            s[0] += of_n * m_nh * sigmoid_slope(r, hard);
            s[1] += dh * (of.h_before - n) * sigmoid_slope(z, hard);
            s[2] += of_n;
            s[3] += of_n * r;
            dh *= z;
        }
    }
};

template <bool lstm, Scope scope, bool resident, bool spread>
struct BackwardRun {
    static constexpr int gates = lstm ? 4 : 3;
    static constexpr int together = scope == Scope::grid ? 8 : spread ? 2 : 4;  // columns that share one reading of S
    static constexpr int loads = scope == Scope::grid && resident ? 16 : 8;     // of S in flight
    static constexpr bool early = scope != Scope::grid;  // whether records are loaded two steps ahead, not one
    const Backward& job;
    const Team& team;
    Place& place;
    // Shared memory.
    float* slab;      // (U, G·H | 1): the block's own columns
    float* rows;      // (2, N, G·H): S of the step, its hidden side; not Scope::grid
    float* products;  // (N, 32·chunks): W[:, j]·S of the columns that fired
    int* fired;       // (N, chunks, 33): where those columns begin in the weights, and how many they are
    const float* columns;
    int stride, count;  // G·H

    __device__ BackwardRun(const Backward& backward, const Team& team_of, Place& place_of)
        : job(backward), team(team_of), place(place_of), count(gates * backward.hidden) {
        const int odd = count | 1;
        slab = shared_memory();
        rows = slab + (resident ? team.units * odd : 0);
        products = rows + (scope == Scope::grid ? 0 : 2 * team.samples * count);
        fired = reinterpret_cast<int*>(products + team.samples * place.chunks * 32);
        columns = resident ? slab : job.weight_hh + static_cast<int64_t>(place.first) * count;
        stride = resident ? odd : count;
        if constexpr (resident) load_own_columns<gates>(job.weight_hh, job.hidden, team, place, slab);
        if constexpr (scope == Scope::block) {
            __syncthreads();
        } else {
            team_barrier<scope>(team, place);
        }
    }

    __device__ int chunk_of_block() const { return place.slot * place.chunks + place.chunk; }

    // Which units of a chunk fired.
    __device__ void list(bool passes) const {
        const uint32_t mask = __ballot_sync(all_lanes, passes);
        int* to = fired + chunk_of_block() * 33;
        if (passes) to[__popc(mask & ((1u << place.lane) - 1u))] = place.lane;
        if (place.lane == 0) to[32] = __popc(mask);
    }

    // W[:, j]·S for this warp's share of the columns of its chunk that fired.
    __device__ void multiply(int t, int64_t sample) const {
        const int* list = fired + chunk_of_block() * 33;
        const int columns_fired = list[32], parts = spread ? team.parts : 1;
        for (int begin = spread ? place.part : 0; begin < columns_fired; begin += parts * together) {
            float acc[together] = {};
            const float* of[together];
#pragma unroll
            for (int e = 0; e < together; ++e) {
                const int at = begin + e * parts;
                of[e] = columns + (at < columns_fired ? (place.chunk * 32 + list[at]) * stride : 0) + place.lane;
            }
            for (int first = 0; first < count; first += 32 * loads) {
                float s[loads];
#pragma unroll
                for (int i = 0; i < loads; ++i) s[i] = sum_of_row(t, sample, first + 32 * i + place.lane);
#pragma unroll
                for (int e = 0; e < together; ++e) {
                    if (together > 4 && begin + e * parts >= columns_fired) continue;
#pragma unroll
                    for (int i = 0; i < loads; ++i) {
                        if (first + 32 * i + place.lane < count) acc[e] = fmaf(of[e][first + 32 * i], s[i], acc[e]);
                    }
                }
            }
            const float sum = sums_over_warp(acc, place.lane);
            const int at = begin + place.lane / (32 / together) * parts;
            if (place.lane % (32 / together) == 0 && at < columns_fired) {
                products[chunk_of_block() * 32 + list[at]] = sum;
            }
        }
    }

    // S of the hidden side (the GRU's is r, z, nh).
    __device__ float sum_of_row(int t, int64_t sample, int row) const {
        if (row >= count) return 0.0f;
        if constexpr (scope != Scope::grid) return rows[(t % 2 * team.samples + place.slot) * count + row];
        const int at = !lstm && row >= 2 * job.hidden ? row + job.hidden : row;
        return load_from_team(job.sums + (static_cast<int64_t>(t) * job.batch + sample) * 4 * job.hidden + at);
    }

    // S of a unit, for the team.
    __device__ void publish(const UnitGradient<lstm>& unit, int t) const {
        if constexpr (scope != Scope::grid) {
            float* row = rows + (t % 2 * team.samples + place.slot) * count + place.column;
#pragma unroll
            for (int part = 0; part < 4; ++part) {
                if (!lstm && part == 2) continue;
                float* to = row + (lstm ? part : min(part, 2)) * job.hidden;
                if constexpr (scope == Scope::block) *to = unit.s[part];
                if constexpr (scope == Scope::cluster) {
                    for (int rank = 0; rank < team.blocks; ++rank) store_to_block(to, rank, unit.s[part]);
                }
            }
        }
    }

    // S of a unit, for the weights' gradients; Scope::grid: for the team too.
    __device__ void record(const UnitGradient<lstm>& unit, Steps<lstm>& of) const {
#pragma unroll
        for (int part = 0; part < 4; ++part) store_for_team(of.sums + part * job.hidden, unit.s[part]);
        of.sums -= 4 * of.step;
    }

    __device__ void samples() {
        if (place.leads) {
            lead();
            return;
        }
        for (int t = job.steps - 1; t >= 0; --t) {
            team_barrier<scope>(team, place);
            multiply(t, place.first_sample + place.slot);
            crew_barrier(place);
        }
    }

    __device__ void lead() const {
        const int64_t sample = place.first_sample + place.slot;
        const bool valid = sample < job.batch, owner = valid && place.mine;
        int length = 0;
        if (valid) length = job.lengths == nullptr ? job.steps : static_cast<int>(job.lengths[sample]);
        const float grad_l1 = job.grad_l1 == nullptr ? 0.0f : *job.grad_l1;
        UnitGradient<lstm> unit;
        Record<lstm> now, next;
        Steps<lstm> at(job, sample, place.column);
        if (owner) {
            unit.load(job, sample, place.column);
            now.load(job, at, job.steps - 1, sample, place.column);
            if (early && job.steps > 1) {
                at.go_back();
                next.load(job, at, job.steps - 2, sample, place.column);
            }
            for (int steps = 1; steps <= min(ahead, job.steps - 2); ++steps) at.prefetch_before(steps, job.hidden);
        }
        for (int t = job.steps - 1; t >= 0; --t) {
            const bool running = owner && t < length;
            const float delta = now.delta;
            if (running) unit.gates(now, job.hard);
            if (owner) publish(unit, t);
            if (scope == Scope::grid && owner) record(unit, at);
            const bool passes = running && (job.thh == 0.0f || delta != 0.0f);
            list(passes);
            team_barrier<scope>(team, place);
            // What nobody waits for, while other warps multiply.
            if constexpr (early) now = next;
            const int soon = t - (early ? 2 : 1);
            if (owner && soon >= 0) {
                at.go_back();
                (early ? next : now).load(job, at, soon, sample, place.column);
                if (early && soon >= ahead) at.prefetch_before(ahead, job.hidden);
            }
            if (scope != Scope::grid && owner) record(unit, at);
            if constexpr (spread) {
                crew_barrier(place);
            } else {
                multiply(t, sample);
                __syncwarp();
            }
            if (passes) {
                const float sign = delta > 0.0f ? grad_l1 : delta < 0.0f ? -grad_l1 : 0.0f;
                const float of_delta = products[chunk_of_block() * 32 + place.lane] + sign;
                unit.dh += of_delta + unit.q;
                unit.q = -of_delta;
            }
            __syncwarp();
        }
        if (owner) unit.store(job, sample, place.column);
    }
};

template <bool lstm, Scope scope, bool resident, bool spread>
__device__ __forceinline__ void backward(const Backward& job, const Team& team) {
    Place place(team, job.hidden, spread);
    BackwardRun<lstm, scope, resident, spread> run(job, team, place);
    const int stride = team.count * team.samples;
    for (place.first_sample = place.team * team.samples; place.first_sample < job.batch; place.first_sample += stride) {
        run.samples();
    }
    if constexpr (scope == Scope::grid) {  // the counters are left as they were found
        if (last_block(job.done, team) && threadIdx.x == 0) clear_counters<scope>(job.done, team);
    }
}

}  // namespace deltarnn
