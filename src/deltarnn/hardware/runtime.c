/* Integer delta network: what every exported model shares. Its sizes, formats, tables and weights stand above as macros
 * and constant arrays. Rounding and its order are those of docs/fixed_point.md; no allocation, no floating point. */

#define POW2(bits) ((int32_t)1 << (bits))

/* value / 2^bits, rounded down. C leaves >> of a negative number to the compiler; ~ makes it non-negative. */
static int32_t floor_shift(int32_t value, int bits)
{
    return value >= 0 ? value >> bits : ~(~value >> bits);
}

static int32_t round_shift(int32_t value, int bits)
{
    int32_t quotient = floor_shift(value, bits);
#if ROUND_NEAREST
    if (bits > 0) {
        int32_t remainder = value - quotient * POW2(bits);
        int32_t half = POW2(bits - 1);
        if (remainder > half || (remainder == half && (quotient % 2) != 0)) {
            quotient += 1;
        }
    }
#endif
    return quotient;
}

static int32_t saturate(int32_t value)
{
    return value < ACT_MIN ? ACT_MIN : value > ACT_MAX ? ACT_MAX : value;
}

/* A(value): from `fraction` fraction bits to the format of activations. */
static int32_t to_act(int32_t value, int fraction)
{
    if (fraction < ACT_FRACTION) {
        return saturate(value * POW2(ACT_FRACTION - fraction));
    }
    return saturate(round_shift(value, fraction - ACT_FRACTION));
}

static int32_t look_up(const gate_t *table, int32_t first, int32_t last, int32_t q)
{
    return table[(q < first ? first : q > last ? last : q) - first];
}

static int32_t sigmoid(int32_t q)
{
    return look_up(sigmoid_table, SIGMOID_FIRST, SIGMOID_LAST, q);
}

static int32_t tanh_(int32_t q)
{
    return look_up(tanh_table, TANH_FIRST, TANH_LAST, q);
}

/* Delta encoder and products of one signal: m += weight[:, j] * delta_j where |delta_j| reaches the threshold.
 * Rows `split` and up of a column go to m[row + shift]: the two halves of a GRU's candidate are kept apart. */
static void add_changes(const act_t *value, act_t *held, int size, int32_t threshold, const weight_t *columns,
                        int rows, int split, int shift, int32_t *m)
{
    int j, row;
    for (j = 0; j < size; ++j) {
        int32_t delta = (int32_t)value[j] - held[j];
        if (delta != 0 && (delta >= threshold || -delta >= threshold)) {
            const weight_t *column = columns + (size_t)j * (size_t)rows;
            held[j] = value[j];
            for (row = 0; row < split; ++row) {
                m[row] += column[row] * delta;
            }
            for (row = split; row < rows; ++row) {
                m[row + shift] += column[row] * delta;
            }
        }
    }
}

#if CELL_GRU
/* h = A(A((1 - z) n) + A(z h)), n = N(tanh(A(M_nx + r A(M_nh)))). */
static void update(const int32_t *m, int hidden, act_t *h)
{
    int j;
    for (j = 0; j < hidden; ++j) {
        int32_t r = sigmoid(to_act(m[j], MEMORY_FRACTION));
        int32_t z = sigmoid(to_act(m[hidden + j], MEMORY_FRACTION));
        int32_t from_h = r * to_act(m[3 * hidden + j], MEMORY_FRACTION);
        int32_t sum = m[2 * hidden + j] * POW2(SUM_FRACTION - MEMORY_FRACTION)
                      + from_h * POW2(SUM_FRACTION - ACT_FRACTION - GATE_FRACTION);
        int32_t n = tanh_(to_act(sum, SUM_FRACTION));
        int32_t fresh = to_act((POW2(GATE_FRACTION) - z) * n, 2 * GATE_FRACTION);
        int32_t kept = to_act(z * h[j], GATE_FRACTION + ACT_FRACTION);
        h[j] = (act_t)saturate(fresh + kept);
    }
}
#else
/* c = A(f c + i g), h = A(o N(tanh(c))). */
static void update(const int32_t *m, int hidden, act_t *h, act_t *c)
{
    int j;
    for (j = 0; j < hidden; ++j) {
        int32_t i = sigmoid(to_act(m[j], MEMORY_FRACTION));
        int32_t f = sigmoid(to_act(m[hidden + j], MEMORY_FRACTION));
        int32_t g = tanh_(to_act(m[2 * hidden + j], MEMORY_FRACTION));
        int32_t o = sigmoid(to_act(m[3 * hidden + j], MEMORY_FRACTION));
        int32_t kept = f * c[j] * POW2(SUM_FRACTION - ACT_FRACTION - GATE_FRACTION);
        int32_t fresh = i * g * POW2(SUM_FRACTION - 2 * GATE_FRACTION);
        c[j] = (act_t)to_act(kept + fresh, SUM_FRACTION);
        h[j] = (act_t)to_act(o * tanh_(c[j]), 2 * GATE_FRACTION);
    }
}
#endif

#if HEAD_LAYERS
/* acc = weight a + bias, weight (outputs, inputs) row by row. */
static int32_t dense(const weight_t *weight, int32_t bias, const act_t *a, int inputs)
{
    int j;
    for (j = 0; j < inputs; ++j) {
        bias += weight[j] * a[j];
    }
    return bias;
}
#endif
