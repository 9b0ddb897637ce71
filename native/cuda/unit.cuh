// The forward pass's job, and the state of one hidden unit of one sample.
#pragma once
#include "team.cuh"

namespace deltarnn {

struct Forward {
    int steps, batch, inputs, hidden;
    int tape_parts;  // gates on the tape
    float thx, thh;
    bool hard;               // hard activations
    const int64_t* lengths;  // (B,) or null: all T
    // Inputs: read by the kernel itself (I ≤ 64), or their products W_ih Δx of every step, (T, B, G·H).
    const float* x;  // (T, B, I) with strides x_step, x_sample, 1
    int64_t x_step, x_sample;
    const float* products;
    int input_parts;  // ⌈I/32⌉: warps for the inputs, per sample and chunk of units; 0 with products
    const float *x_hat0, *h0, *h_hat0, *c0, *m0;  // each may be null: 0; M the biases
    const float *weight_ih, *weight_hh;           // (G·H, ·); transposed, (·, G·H), where they are not in shared memory
    const float *bias_ih, *bias_hh;               // (G·H,) or null
    float* y;                                     // (T, B, H)
    float *x_hat, *h, *h_hat, *c, *m;             // the final state; x̂, ĥ and M null where not wanted
    // Of events, all null where not wanted.
    uint32_t *fired_x, *fired_h;  // (T, B, ·): rows of whole 64-bit words, bit j: delta j is not 0
    double *sums_x, *sums_h;      // (B, sums_of_x, 2), (B, ·, 2): Σ|Δ| and how many Δ are not 0, of a sample's warps
    int sums_of_x;
    float* l1;                 // Σ|Δh|
    int64_t *counts, *events;  // see summarise
    float* tape;               // (T, B, tape_width) or null
    float* exchange;           // (2, B, H): Δh within the team, of this step and the next; Scope::grid
    uint32_t* done;            // how many blocks are: 0 at launch, and afterwards

    // Floats of one row (t, b) of the tape: gates (GRU r, z, n, M_nh; LSTM i, f, g, o, c), Δh, Δx.
    __device__ int tape_width() const { return (tape_parts + 1) * hidden + inputs; }
};

// Where a unit's results of a step go: its element of a row of y and of the tape.
struct Rows {
    float *y, *tape;
    int64_t y_step, tape_step;  // between the steps
    bool taped;

    __device__ Rows(const Forward& job, int64_t sample, int column)
        : y(job.y + sample * job.hidden + column), tape(job.tape), y_step(int64_t{job.batch} * job.hidden),
          tape_step(int64_t{job.batch} * job.tape_width()), taped(tape != nullptr) {
        if (taped) tape += sample * job.tape_width() + column;
    }

    __device__ void advance() {
        y += y_step;
        if (taped) tape += tape_step;
    }
};

template <bool lstm>
struct Unit {
    static constexpr int gates = lstm ? 4 : 3;
    float h = 0.0f, h_hat = 0.0f, c = 0.0f;
    float m[4] = {};      // in the public order: GRU r, z, nx, nh; LSTM i, f, g, o
    float parts[4] = {};  // of the last step: GRU r, z, n, M_nh; LSTM i, f, g, o

    __device__ void load(const Forward& job, int64_t sample, int column) {
        const int n = job.hidden;
        const int64_t at = sample * n + column;
        h = job.h0 == nullptr ? 0.0f : job.h0[at];
        h_hat = job.h_hat0 == nullptr ? 0.0f : job.h_hat0[at];
        if (lstm) c = job.c0 == nullptr ? 0.0f : job.c0[at];
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            if (job.m0 != nullptr) {
                m[part] = job.m0[sample * 4 * n + part * n + column];
                continue;
            }
            const bool of_input = lstm || part < 3, of_hidden = lstm || part != 2;
            const int hidden_gate = lstm ? part : min(part, 2);
            m[part] = (of_input && job.bias_ih != nullptr ? job.bias_ih[part * n + column] : 0.0f) +
                      (of_hidden && job.bias_hh != nullptr ? job.bias_hh[hidden_gate * n + column] : 0.0f);
        }
    }

    __device__ void store(const Forward& job, int64_t sample, int column) const {
        const int n = job.hidden;
        const int64_t at = sample * n + column;
        job.h[at] = h;
        if (lstm) job.c[at] = c;
        if (job.m == nullptr) return;
        job.h_hat[at] = h_hat;
#pragma unroll
        for (int part = 0; part < 4; ++part) job.m[sample * 4 * n + part * n + column] = m[part];
    }

    // The delta encoder (MATH §1): Δh.
    __device__ float encode(bool running, float threshold) {
        const float difference = h - h_hat;
        const bool fired = running && fires(difference, threshold);
        if (fired) h_hat = h;
        return fired ? difference : 0.0f;
    }

    // M += what the step's events brought, then the gates.
    __device__ void advance(const float (&from_x)[gates], const float (&from_h)[gates], bool hard) {
#pragma unroll
        for (int g = 0; g < gates; ++g) {
            m[!lstm && g == 2 ? 3 : g] += from_h[g];
            m[g] += from_x[g];
        }
        parts[0] = sigmoid(m[0], hard);
        parts[1] = sigmoid(m[1], hard);
        if constexpr (lstm) {
            parts[2] = hyperbolic_tangent(m[2], hard);
            parts[3] = sigmoid(m[3], hard);
            c = fmaf(parts[1], c, parts[0] * parts[2]);
            h = parts[3] * hyperbolic_tangent(c, hard);
        } else {
            parts[2] = hyperbolic_tangent(fmaf(parts[0], m[3], m[2]), hard);
            parts[3] = m[3];
            h = fmaf(parts[1], h - parts[2], parts[2]);
        }
    }

    // The output of the step that was last, and its gates on the tape.
    __device__ void record(const Rows& to, int n, bool ran) const {
        *to.y = ran ? h : 0.0f;
        if (!to.taped) return;
#pragma unroll
        for (int part = 0; part < 4; ++part) to.tape[part * n] = ran ? parts[part] : 0.0f;
        if constexpr (lstm) to.tape[4 * n] = ran ? c : 0.0f;
    }
};

}  // namespace deltarnn
