/* Band-passes in integers: docs/embedded.md. Their sizes and coefficients stand above. */

static int32_t fe_converted(int16_t sample)
{
#if FE_MICROPHONE
    int32_t x = sample * 256 - FE_MEAN;
    x = x < -FE_FULL_SCALE ? -FE_FULL_SCALE : x > FE_FULL_SCALE ? FE_FULL_SCALE : x;
    return (int32_t)((x * FE_GAIN) >> 31);
#else
    return sample * ((int32_t)1 << FE_FRACTION);
#endif
}

/* Samples through all filters; `open`: into a frame. */
static void fe_filter(STATE *state, const int16_t *samples, int32_t count, int32_t open)
{
    int32_t n, filter, section;
    for (n = 0; n < count; ++n) {
        const int32_t input = fe_converted(samples[n]);
        const int32_t *c = fe_coefficients;
        int32_t *y = state->outputs;
        for (filter = 0; filter < FE_FILTERS; ++filter) {
            int32_t x = input, x_1 = state->inputs[0], x_2 = state->inputs[1];
            for (section = 0; section < FE_SECTIONS; ++section) {
                const int32_t y_1 = y[0], y_2 = y[1];
                const int64_t sum = (int64_t)c[0] * x + (int64_t)c[1] * x_1 + (int64_t)c[2] * x_2
                                    - (int64_t)c[3] * y_1 - (int64_t)c[4] * y_2;
                x = (int32_t)((sum + ((int64_t)1 << 28)) >> 29);
                x_1 = y_1;
                x_2 = y_2;
                y[0] = x;
                y[1] = y_1;
                c += 5;
                y += 2;
            }
            if (open) {
                state->levels[filter] += (uint32_t)(x < 0 ? -x : x) >> FE_LEVEL_SHIFT;
            }
        }
        state->inputs[1] = state->inputs[0];
        state->inputs[0] = input;
    }
}

/* The network's input of the frame that is complete. */
static void fe_features(STATE *state)
{
    int32_t i;
    for (i = 0; i < FE_FILTERS; ++i) {
        state->features[i] = fe_feature(state->levels[i]);
        state->levels[i] = 0;
    }
}

static void fe_take(STATE *state, const int16_t *samples, int32_t count)
{
    fe_filter(state, samples, count, 1);
}

/* Samples between two frames. */
static void fe_pass(STATE *state, const int16_t *samples, int32_t count)
{
    fe_filter(state, samples, count, 0);
}
