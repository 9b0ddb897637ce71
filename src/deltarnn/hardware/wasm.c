/* One spotter behind functions of plain numbers: samples are written to a buffer, results are read from addresses. */

static spotter_state state;
static spotter_detection found;
static int16_t samples[SPOTTER_HOP];
static activation held[COLUMNS];
static uint8_t fired[COLUMNS];

/* What the network holds of its inputs and hidden states; NULL of a layer that multiplies every column in every frame. */
static const struct {
    const activation *values;
    int32_t count;
} vectors[] = {VECTORS};

static void keep(void)
{
    activation *to = held;
    uint32_t v;
    int32_t i;
    for (v = 0; v < sizeof vectors / sizeof *vectors; ++v) {
        for (i = 0; i < vectors[v].count; ++i) {
            *to++ = (activation)(vectors[v].values == 0 ? 0 : vectors[v].values[i]);
        }
    }
}

static void compare(void)
{
    const activation *before = held;
    uint8_t *event = fired;
    uint32_t v;
    int32_t i;
    for (v = 0; v < sizeof vectors / sizeof *vectors; ++v) {
        for (i = 0; i < vectors[v].count; ++i) {
            *event++ = vectors[v].values == 0 || vectors[v].values[i] != *before;
            ++before;
        }
    }
}

void reset(void)
{
    spotter_reset(&state);
}

/* `count` samples of the buffer, from sample `from` on; returns how many were taken. */
int32_t push(int32_t from, int32_t count)
{
    const uint64_t before = state.frames;
    keep();
    found = spotter_push(&state, samples + from, count);
    if (state.frames != before) {
        compare();
    }
    return found.taken;
}

int16_t *buffer(void) { return samples; }
uint32_t frames(void) { return (uint32_t)state.frames; }
activation *features(void) { return state.features; }
int32_t *sums(void) { return state.sums; }
uint8_t *events(void) { return fired; }
int32_t word(void) { return found.word; }
int32_t score(void) { return found.score; }
double time(void) { return (double)found.time; }
