#include <stdio.h>

static uint32_t hashed(uint32_t hash, uint32_t value)
{
    return (hash ^ value) * HASH_PRIME;
}

int main(void)
{
    static STATE state;
    static int16_t samples[HOP];
    uint32_t scores = HASH_START, detections = HASH_START, seed = 1;
    uint64_t frames = 0;
    int32_t made = 0, found = 0;
    RESET(&state);
    while (made < SAMPLES) {
        const int16_t *next = samples;
        int32_t piece = 1 + made * 7 % HOP, n;
        piece = piece < SAMPLES - made ? piece : SAMPLES - made;
        for (n = 0; n < piece; ++n) {
            seed = seed * 1664525u + 1013904223u;
            samples[n] = (int16_t)(((int32_t)(seed >> 16) - 32768) / (1 << ((made >> 11) % 16)));
            ++made;
        }
        while (piece > 0) {
            const DETECTION heard = PUSH(&state, next, piece);
            next += heard.taken;
            piece -= heard.taken;
            if (state.frames != frames) {
                frames = state.frames;
                for (n = 0; n < KEYWORDS; ++n) {
                    scores = hashed(scores, (uint32_t)state.sums[n]);
                }
            }
            if (heard.word >= 0) {
                found += 1;
                detections = hashed(hashed(detections, (uint32_t)heard.word), (uint32_t)heard.score);
                detections = hashed(detections, (uint32_t)heard.time);
            }
        }
    }
    if (frames != FRAMES || found != DETECTIONS || scores != SCORES_HASH || detections != DETECTIONS_HASH) {
        printf("%ld frames, %ld detections: not those of the twin\n", (long)frames, (long)found);
        return 1;
    }
    printf("%ld frames, %ld detections equal; state %lu bytes\n", (long)frames, (long)found,
           (unsigned long)sizeof state);
    return 0;
}
