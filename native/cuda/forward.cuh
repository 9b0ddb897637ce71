// The forward pass: whole sequences, event by event (MATH §1–3).
#pragma once
#include "summary.cuh"
#include "unit.cuh"

namespace deltarnn {

// One warp's share of a sample's inputs (32 of them) for the units of its chunk: encodes a step, and multiplies.
template <bool lstm, bool inputs_resident>
struct InputWarp {
    static constexpr int gates = lstm ? 4 : 3;
    const Forward& job;
    const Place& place;
    const float* weights;  // of this warp's first input, at the lane's unit
    int column, gate;
    Event* list;
    int input, sample, length;
    bool there, writes;
    const float* from;  // x of the step to fetch
    float* tape;        // of the step to compute
    float x_hat = 0.0f, next = 0.0f, l1 = 0.0f;
    int events = 0;

    __device__ InputWarp(const Forward& forward, const Team& team, const Place& place_of, const float* slab, Event* own)
        : job(forward), place(place_of), list(own), input(place_of.part * 32 + place_of.lane),
          sample(place_of.first_sample + place_of.slot) {
        column = inputs_resident ? gates * team.units | 1 : gates * job.hidden;
        gate = inputs_resident ? team.units : job.hidden;
        const int unit = place.mine ? place.unit : 0;  // there is always a first unit
        weights = (inputs_resident ? slab + unit : job.weight_ih + place.first + unit) + place.part * 32 * column;
        const bool valid = sample < job.batch;
        writes = valid && place.chunk == 0 && place.rank == 0;
        there = valid && input < job.inputs;
        length = !valid ? 0 : job.lengths == nullptr ? job.steps : static_cast<int>(job.lengths[sample]);
        if (there && job.x_hat0 != nullptr) x_hat = job.x_hat0[static_cast<int64_t>(sample) * job.inputs + input];
        from = job.x + sample * job.x_sample + input;
        tape = job.tape;
        if (tape != nullptr) tape += (int64_t{sample} + 1) * job.tape_width() - job.inputs + input;
        for (int t = 0; t < min(ahead, length); ++t) {
            if (there) prefetch(from + t * job.x_step);
        }
        fetch(0);
    }

    // A step ahead, and into the cache some more, for the time that memory takes.
    __device__ void fetch(int t) {
        if (there && t + ahead < length) prefetch(from + ahead * job.x_step);
        if (there && t < length) next = *from;
        from += job.x_step;
    }

    // W_ih Δx of step t, this part's, to[g·stride + lane].
    __device__ void step(int t, float* to, int stride) {
        const float value = next;
        fetch(t + 1);
        const float difference = value - x_hat;
        const bool fired = there && t < length && fires(difference, job.thx);
        const float delta = fired ? difference : 0.0f;
        if (fired) x_hat = value;
        const uint32_t mask = __ballot_sync(all_lanes, delta != 0.0f);
        float acc[gates] = {};
        multiply_deltas<gates>(acc, weights, column, gate, delta, mask, place.lane, list);
#pragma unroll
        for (int g = 0; g < gates; ++g) to[g * stride + place.lane] = acc[g];
        if (writes) record(t, mask, delta);
    }

    __device__ void record(int t, uint32_t mask, float delta) {
        if (tape != nullptr) {
            if (there) *tape = delta;
            tape += int64_t{job.batch} * job.tape_width();
        }
        events += __popc(mask);
        l1 += fabsf(delta);
        if (job.fired_x == nullptr) return;
        // The other half of the 64-bit word too, where no warp has it.
        const int64_t row = static_cast<int64_t>(t) * job.batch + sample;
        const int lane = place.lane;
        if (lane < 2 && lane % job.input_parts == 0) job.fired_x[row * 2 + place.part + lane] = lane == 0 ? mask : 0u;
    }

    __device__ void finish() {
        if (!writes) return;
        if (there && job.x_hat != nullptr) job.x_hat[static_cast<int64_t>(sample) * job.inputs + input] = x_hat;
        l1 = sum_over_warp(l1);
        if (place.lane == 0 && job.sums_x != nullptr)
            write_sum(job.sums_x, sample, job.input_parts, place.part, l1, events);
    }
};

// Whole sequences of the samples of one team.
template <bool lstm, Scope scope, bool resident, bool inputs_resident, bool spread>
struct ForwardRun {
    static constexpr int gates = lstm ? 4 : 3;
    static constexpr int loads = 8;  // of a team's deltas in flight
    const Forward& job;
    const Team& team;
    Place& place;
    // Shared memory.
    float *slab, *slab_ih;
    Event* lists;          // events of h: (2, N, ⌈H/32⌉) lists, Scope::grid: one of each warp
    int* counts;           // (2, N, ⌈H/32⌉)
    Event* input_lists;    // one of each warp of the inputs
    float* partial;        // (P, N, G, 32·chunks), if spread
    float* from_inputs;    // (2, input parts, N, G, 32·chunks)
    const float* weights;  // of column 0, at the lane's unit
    int column, gate;      // between columns and gates of the weights
    int width;             // 32·chunks
    int segments;          // ⌈H/32⌉

    __device__ ForwardRun(const Forward& forward, const Team& team_of, Place& place_of)
        : job(forward), team(team_of), place(place_of), width(place_of.chunks * 32), segments((job.hidden + 31) / 32) {
        const int odd = gates * team.units | 1, warps = place.chunks * team.samples;
        slab = shared_memory();
        slab_ih = slab + (resident ? aligned(job.hidden * odd) : 0);
        float* next = slab_ih + (inputs_resident ? aligned(job.inputs * odd) : 0);
        lists = reinterpret_cast<Event*>(next);
        next += list_floats * (scope == Scope::grid ? warps : 2 * team.samples * segments);
        input_lists = reinterpret_cast<Event*>(next);
        next += list_floats * job.input_parts * warps;
        counts = reinterpret_cast<int*>(next);
        partial = next + (scope == Scope::grid ? 0 : 2 * team.samples * segments);
        from_inputs = partial + (spread ? team.parts * team.samples * gates * width : 0);
        if constexpr (resident) load_own_rows<gates>(job.weight_hh, job.hidden, job.hidden, team, place, slab);
        if constexpr (inputs_resident)
            load_own_rows<gates>(job.weight_ih, job.inputs, job.hidden, team, place, slab_ih);
        const int unit = place.mine ? place.unit : 0;
        weights = resident ? slab + unit : job.weight_hh + place.first + unit;
        column = resident ? odd : gates * job.hidden;
        gate = resident ? team.units : job.hidden;
        if constexpr (scope == Scope::block) {
            __syncthreads();
        } else {
            team_barrier<scope>(team, place);
        }
    }

    __device__ float* exchange_of(int t, int64_t sample) const {
        return job.exchange + (t % 2 * static_cast<int64_t>(job.batch) + sample) * job.hidden;
    }

    // Which list of step t is that of 32 columns of this warp's sample.
    __device__ int list_of(int t, int segment) const {
        return (t % 2 * team.samples + place.slot) * segments + segment;
    }

    // The events of 32 units, to every block of the team.
    __device__ void publish(int t, int64_t sample, float delta, uint32_t mask, bool owner) const {
        if constexpr (scope == Scope::grid) {
            if (owner) store_for_team(exchange_of(t, sample) + place.column, delta);
        } else {
            const int segment = place.first / 32 + place.chunk;  // the last block's last chunks may be beyond the layer
            if (segment >= segments) return;
            const int at = list_of(t, segment);
            Event* list = lists + at * list_size;
            const int offset = place.column * column;
            if constexpr (scope == Scope::block) {
                const int count = list_events(place.lane, offset, delta, mask, [&](int k, Event e) { list[k] = e; });
                if (place.lane == 0) counts[at] = count;
            } else {
                for (int rank = 0; rank < team.blocks; ++rank) {
                    const auto store = [&](int k, Event e) { store_to_block(list + k, rank, e); };
                    const int count = list_events(place.lane, offset, delta, mask, store);
                    if (place.lane == 0) store_to_block(counts + at, rank, count);
                }
            }
        }
    }

    // W_hh Δh of a part of the columns.
    __device__ void multiply(int t, int64_t sample, int part, float (&acc)[gates]) const {
        if constexpr (scope == Scope::grid) {
            Event* list = lists + (place.slot * place.chunks + place.chunk) * list_size;
            const float* from = exchange_of(t, sample);
            for (int first = 0; first < job.hidden; first += 32 * loads) {
                float delta[loads];
#pragma unroll
                for (int i = 0; i < loads; ++i) {
                    const int k = first + 32 * i + place.lane;
                    delta[i] = k < job.hidden ? load_from_team(from + k) : 0.0f;
                }
#pragma unroll
                for (int i = 0; i < loads; ++i) {
                    const uint32_t mask = __ballot_sync(all_lanes, delta[i] != 0.0f);
                    const float* of = weights + static_cast<int64_t>(first + 32 * i) * column;
                    multiply_deltas<gates>(acc, of, column, gate, delta[i], mask, place.lane, list);
                }
            }
        } else {  // fewer lists than parts: parts share a list
            const int shares = max(1, team.parts / segments);
            if (part >= segments * shares && segments < team.parts) return;
            for (int segment = part % segments; segment < segments; segment += team.parts) {
                const int at = list_of(t, segment);
                add_events<gates>(acc, weights, gate, lists + at * list_size, counts[at], part / segments, shares);
            }
        }
    }

    // What the warps of the parts do at once, where there are such: the same sums.
    __device__ void multiply_in_turn(int t, int64_t sample, float (&from_h)[gates]) const {
#pragma unroll
        for (int part = 0; part < team.parts; ++part) {
            float acc[gates] = {};
            multiply(t, sample, part, acc);
#pragma unroll
            for (int g = 0; g < gates; ++g) from_h[g] += acc[g];
        }
    }

    __device__ void samples() {
        if (place.leads) {
            lead();
        } else if (place.multiplies) {
            run_part();
        } else {
            run_inputs();
        }
    }

    __device__ int length_of(int64_t sample) const {
        if (sample >= job.batch) return 0;
        return job.lengths == nullptr ? job.steps : static_cast<int>(job.lengths[sample]);
    }

    __device__ void lead() const {
        const int64_t sample = place.first_sample + place.slot;
        const bool valid = sample < job.batch, owner = valid && place.mine;
        const int length = length_of(sample);
        Unit<lstm> unit;
        if (owner) unit.load(job, sample, place.column);
        Rows rows(job, sample, place.column);
        float l1 = 0.0f;
        int events = 0;
        for (int t = 0; t < job.steps; ++t) {
            const bool running = owner && t < length;
            const float delta = unit.encode(running, job.thh);
            const uint32_t mask = __ballot_sync(all_lanes, delta != 0.0f);
            publish(t, sample, delta, mask, owner);
            team_barrier<scope>(team, place);
            // What nobody waits for, while other warps multiply.
            float from_x[gates] = {}, from_h[gates] = {};
            if (running && job.input_parts == 0) fetch_products(t, sample, from_x);
            if (t > 0) {
                if (owner) unit.record(rows, job.hidden, t - 1 < length);
                rows.advance();
            }
            if (owner && rows.taped) rows.tape[job.tape_parts * job.hidden] = delta;
            if (valid && job.fired_h != nullptr && place.lane == 0) record(t, sample, mask);
            l1 += fabsf(delta);
            events += __popc(mask);
            if (!spread && t < length) multiply_in_turn(t, sample, from_h);
            if (spread) crew_barrier(place);
            if (running) {
                gather(t, from_x, from_h);
                unit.advance(from_x, from_h, job.hard);
            }
        }
        if (owner) {
            unit.record(rows, job.hidden, job.steps - 1 < length);
            unit.store(job, sample, place.column);
        }
        l1 = sum_over_warp(l1);
        const int warps = team.blocks * place.chunks, warp = place.rank * place.chunks + place.chunk;
        if (valid && place.lane == 0 && job.sums_h != nullptr) write_sum(job.sums_h, sample, warps, warp, l1, events);
    }

    __device__ void fetch_products(int t, int64_t sample, float (&from_x)[gates]) const {
        const int64_t row = static_cast<int64_t>(t) * job.batch + sample;
#pragma unroll
        for (int g = 0; g < gates; ++g) from_x[g] = job.products[(row * gates + g) * job.hidden + place.column];
    }

    // Which deltas of h fired at a step, by one lane.
    __device__ void record(int t, int64_t sample, uint32_t mask) const {
        const int64_t row = static_cast<int64_t>(t) * job.batch + sample;
        uint32_t* words = job.fired_h + row * ((job.hidden + 63) / 64 * 2);
        if constexpr (scope == Scope::block) {
            words[place.chunk] = mask;
            const bool beyond = place.chunk + 1 == place.chunks && place.chunks % 2 == 1;  // the last word's other half
            if (beyond) words[place.chunk + 1] = 0u;
        } else if (mask != 0) {  // zeros at launch; a block's units begin anywhere in a word
            const int at = place.first + place.chunk * 32, shift = at % 32;
            atomicOr(words + at / 32, mask << shift);
            if (shift != 0 && mask >> (32 - shift) != 0) atomicOr(words + at / 32 + 1, mask >> (32 - shift));
        }
    }

    // What the other warps of a unit have found, in their order.
    __device__ void gather(int t, float (&from_x)[gates], float (&from_h)[gates]) const {
        const float* of = partial + place.slot * gates * width + place.unit;
#pragma unroll 8
        for (int part = 0; part < (spread ? team.parts : 0); ++part) {
#pragma unroll
            for (int g = 0; g < gates; ++g) from_h[g] += of[(part * team.samples * gates + g) * width];
        }
#pragma unroll
        for (int part = 0; part < job.input_parts; ++part) {
            const int row = (t % 2 * job.input_parts + part) * team.samples + place.slot;
            const float* from = from_inputs + row * gates * width + place.unit;
#pragma unroll
            for (int g = 0; g < gates; ++g) from_x[g] += from[g * width];
        }
    }

    __device__ void run_part() const {
        const int64_t sample = place.first_sample + place.slot;
        const int length = length_of(sample);
        float* to = partial + (place.part * team.samples + place.slot) * gates * width + place.unit;
        for (int t = 0; t < job.steps; ++t) {
            team_barrier<scope>(team, place);
            float acc[gates] = {};
            if (t < length) multiply(t, sample, place.part, acc);
#pragma unroll
            for (int g = 0; g < gates; ++g) to[g * width] = acc[g];
            crew_barrier(place);
        }
    }

    // A step ahead, in the same rhythm of barriers.
    __device__ void run_inputs() const {
        const int warp = (place.part * team.samples + place.slot) * place.chunks + place.chunk;
        InputWarp<lstm, inputs_resident> inputs(job, team, place, slab_ih, input_lists + warp * list_size);
        const auto to = [&](int t) {
            const int row = (t % 2 * job.input_parts + place.part) * team.samples + place.slot;
            return from_inputs + row * gates * width + place.chunk * 32;
        };
        inputs.step(0, to(0), width);
        for (int t = 0; t < job.steps; ++t) {
            team_barrier<scope>(team, place);
            if (t + 1 < job.steps) inputs.step(t + 1, to(t + 1), width);
            if (spread) crew_barrier(place);
        }
        inputs.finish();
    }
};

template <bool lstm, Scope scope, bool resident, bool inputs_resident, bool spread>
__device__ __forceinline__ void forward(const Forward& job, const Team& team) {
    Place place(team, job.hidden, spread);
    ForwardRun<lstm, scope, resident, inputs_resident, spread> run(job, team, place);
    const int stride = team.count * team.samples;
    for (place.first_sample = place.team * team.samples; place.first_sample < job.batch; place.first_sample += stride) {
        run.samples();
    }
    if (scope != Scope::grid && job.l1 == nullptr) return;
    if (!last_block(job.done, team)) return;
    if (job.l1 != nullptr) summarise(job, team, place);
    if (threadIdx.x == 0) clear_counters<scope>(job.done, team);
}

}  // namespace deltarnn
