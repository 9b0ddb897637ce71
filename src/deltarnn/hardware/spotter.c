/* Samples to detections: the front end's frames through the network, then the decision rule in integers. */

/* Margins of the class scores into the ring; the keyword with the largest sum of them. Margins and sums lie RULE_BOUND
 * and RULE_SMOOTHING times it higher than they are, so that a state of zeros is a stream that begins. */
static int32_t rule_best(STATE *state)
{
    const int32_t *const scores = state->scores;
    margin_t *const ring = state->margins + state->oldest * RULE_KEYWORDS;
    int32_t first = scores[0] > scores[1] ? scores[0] : scores[1];
    int32_t second = scores[0] > scores[1] ? scores[1] : scores[0];
    int32_t i, best = 0;
    for (i = 2; i < RULE_CLASSES; ++i) {
        if (scores[i] > first) {
            second = first;
            first = scores[i];
        } else if (scores[i] > second) {
            second = scores[i];
        }
    }
    for (i = 0; i < RULE_KEYWORDS; ++i) {
        const int32_t score = scores[i + RULE_OTHERS];
        const int64_t lead = ((int64_t)score - (score == first ? second : first)) * RULE_UNIT;
        int64_t margin = lead >> RULE_FRACTION; /* to the nearest, halves to even */
        const int64_t twice = (lead - margin * ((int64_t)1 << RULE_FRACTION)) * 2;
        margin += twice > (int64_t)1 << RULE_FRACTION || (twice == (int64_t)1 << RULE_FRACTION && (margin & 1) != 0);
        margin = margin < -RULE_BOUND ? -RULE_BOUND : margin > RULE_BOUND ? RULE_BOUND : margin;
        state->sums[i] += (int32_t)margin + RULE_BOUND - (int32_t)ring[i];
        ring[i] = (margin_t)((int32_t)margin + RULE_BOUND);
        if (state->sums[i] > state->sums[best]) {
            best = i;
        }
    }
    state->oldest = state->oldest + 1 == RULE_SMOOTHING ? 0 : state->oldest + 1;
    return best;
}

/* One frame through network and rule: whether a detection is decided. A candidate is kept as its sum plus 1, 0 for none;
 * so is the frame before. */
static int32_t rule_decide(STATE *state, DETECTION *found)
{
    int32_t best, sum, rises;
    STEP(state, state->features, state->scores);
    best = rule_best(state);
    sum = state->sums[best];
    rises = sum + 1 > state->before;
    state->before = sum + 1;
    ++state->frames;
    if (state->quiet > 0) {
        --state->quiet;
    }
    if (sum > RULE_THRESHOLD && rises && state->quiet == 0 && sum + 1 > state->candidate) {
        if (state->candidate == 0) {
            state->open = 0;
        }
        state->candidate = sum + 1;
        state->word = best;
        state->age = 0;
    }
    if (state->candidate == 0) {
        return 0;
    }
    if (state->age < RULE_HOLD && state->open < RULE_REFRACTORY) {
        ++state->age;
        ++state->open;
        return 0;
    }
    found->word = state->word + RULE_OTHERS;
    found->score = state->candidate - 1 - RULE_BOUND * RULE_SMOOTHING;
    found->time = (state->frames - 1 - (uint64_t)state->age) * FE_HOP + FE_LENGTH;
    state->candidate = 0;
    state->quiet = RULE_REFRACTORY - state->age;
    return 1;
}

static int32_t smaller_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* A frame is complete one sample after its own last, as in training, where a clip's last frame is one that goes on. */
DETECTION PUSH(STATE *state, const int16_t *samples, int32_t count)
{
    DETECTION found = {-1, 0, 0, 0};
    count = count < 0 ? 0 : count;
    if (state == 0 || samples == 0) {
        found.taken = count;
        return found;
    }
    while (found.taken < count) {
        int32_t piece = count - found.taken;
        if (state->skip > 0) {
            piece = smaller_of(piece, state->skip);
            fe_pass(state, samples + found.taken, piece);
            state->skip -= piece;
            found.taken += piece;
        } else if (state->filled < FE_LENGTH) {
            piece = smaller_of(piece, FE_LENGTH - state->filled);
            fe_take(state, samples + found.taken, piece);
            state->filled += piece;
            found.taken += piece;
        } else {
            fe_features(state);
            state->filled = FE_LENGTH > FE_HOP ? FE_LENGTH - FE_HOP : 0;
            state->skip = FE_HOP > FE_LENGTH ? FE_HOP - FE_LENGTH : 0;
            if (rule_decide(state, &found)) {
                return found;
            }
        }
    }
    return found;
}
