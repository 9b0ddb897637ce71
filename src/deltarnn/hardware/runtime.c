/* Integer delta network: what every exported model shares. Its sizes, formats, tables and weights stand above as macros
 * and constant arrays. Rounding and its order are those of docs/fixed_point.md; no allocation, no floating point. */

#if (-1 >> 1) != -1
#error "this code needs a compiler whose >> keeps the sign"
#endif

#define POW2(bits) ((int32_t)1 << (bits))

/* value / 2^bits, rounded to ACT's rule; value + 2^bits does not overflow (the exporter has proved it). */
static int32_t round_shift(int32_t value, int bits)
{
#if ROUND_NEAREST
    if (bits > 0) {
        return (value + (POW2(bits - 1) - 1) + ((value >> bits) & 1)) >> bits;
    }
#endif
    return value >> bits;
}

static int32_t saturate(int32_t value)
{
#ifdef SATURATING
    return (int32_t)__builtin_arm_ssat(value, ACT_BITS); /* gcc warns inside its __ssat */
#else
    return value < ACT_MIN ? ACT_MIN : value > ACT_MAX ? ACT_MAX : value;
#endif
}

/* A(value): from `fraction` fraction bits to the format of activations. */
static int32_t to_act(int32_t value, int fraction)
{
    if (fraction < ACT_FRACTION) {
        return saturate(value * POW2(ACT_FRACTION - fraction));
    }
    return saturate(round_shift(value, fraction - ACT_FRACTION));
}

/* A value of P, as the tables take it: they end within P, so that its saturation is theirs. */
static int32_t to_address(int32_t value, int fraction)
{
    return round_shift(value, fraction - ACT_FRACTION);
}

static int32_t look_up(const gate_t *table, int32_t first, int32_t last, int32_t q)
{
#ifdef SATURATING
    int32_t index = (int32_t)__builtin_arm_usat(q - first, 31);
#else
    int32_t index = q < first ? 0 : q - first;
#endif
    return table[index > last - first ? last - first : index];
}

static int32_t sigmoid(int32_t q)
{
    return look_up(sigmoid_table, SIGMOID_FIRST, SIGMOID_LAST, q);
}

static int32_t tanh_(int32_t q)
{
    return look_up(tanh_table, TANH_FIRST, TANH_LAST, q);
}

#if DUAL
/* Four weights or activations of 8 bits, or two of 16. */
typedef uint32_t __attribute__((may_alias)) word_t;

/* Bytes 0 and 2 as two halfwords with their signs; bytes 1 and 3. */
static int32_t even(uint32_t word)
{
    return __sxtb16((int32_t)word);
}

static int32_t odd(uint32_t word)
{
    return __sxtb16((int32_t)(word >> 8 | word << 24));
}
#endif

#if EVENTS
/* A matrix column by column: `size` weights a column, a multiple of four. With `places`, a pruned one: `size` pairs a
 * column of weight and, two a byte, place; the weight of element p at place i belongs to row i * ELEMENTS + p. */
struct matrix {
    const weight_t *weights;
    const uint8_t *places;
    int size;
};

/* Columns that fired and wait for their pass over the memories, as products of `delta` and `column`. */
struct pass {
    const weight_t *column[4];
    int32_t delta[4];
    int count;
};

#if DUAL
struct loose_word {
    uint32_t word;
} __attribute__((packed, may_alias));

/* A word at an address of any alignment. */
static uint32_t load(const act_t *address)
{
    return ((const struct loose_word *)(const void *)address)->word;
}

#endif

#if PLAIN
#if DUAL
static int32_t pair(uint32_t low, uint32_t high)
{
    return (int32_t)((low & 0xffffu) | high << 16);
}

/* m[row] += column . delta, four rows a turn: each dual multiply-accumulate takes one row of two columns. */
static void add_two(memory_t *m, int rows, const struct pass *pass)
{
    const word_t *a = (const word_t *)(const void *)pass->column[0];
    const word_t *b = (const word_t *)(const void *)pass->column[1];
    const word_t *end = a + rows / 4;
    int32_t d = pair((uint32_t)pass->delta[0], (uint32_t)pass->delta[1]);
    for (; a != end; m += 4) {
        uint32_t wa = *a++, wb = *b++;
        uint32_t low = (uint32_t)pair(wa, wb), high = (wb & 0xffff0000u) | wa >> 16;
        m[0] = (memory_t)__smlad(even(low), d, m[0]);
        m[1] = (memory_t)__smlad(odd(low), d, m[1]);
        m[2] = (memory_t)__smlad(even(high), d, m[2]);
        m[3] = (memory_t)__smlad(odd(high), d, m[3]);
    }
}

static void add_four(memory_t *m, int rows, const struct pass *pass)
{
    const word_t *a = (const word_t *)(const void *)pass->column[0];
    const word_t *b = (const word_t *)(const void *)pass->column[1];
    const word_t *c = (const word_t *)(const void *)pass->column[2];
    const word_t *d = (const word_t *)(const void *)pass->column[3];
    const word_t *end = a + rows / 4;
    int32_t ab = pair((uint32_t)pass->delta[0], (uint32_t)pass->delta[1]);
    int32_t cd = pair((uint32_t)pass->delta[2], (uint32_t)pass->delta[3]);
    for (; a != end; m += 4) {
        uint32_t wa = *a++, wb = *b++, wc = *c++, wd = *d++;
        uint32_t low = (uint32_t)pair(wa, wb), high = (wb & 0xffff0000u) | wa >> 16;
        uint32_t low_2 = (uint32_t)pair(wc, wd), high_2 = (wd & 0xffff0000u) | wc >> 16;
        m[0] = (memory_t)__smlad(even(low_2), cd, __smlad(even(low), ab, m[0]));
        m[1] = (memory_t)__smlad(odd(low_2), cd, __smlad(odd(low), ab, m[1]));
        m[2] = (memory_t)__smlad(even(high_2), cd, __smlad(even(high), ab, m[2]));
        m[3] = (memory_t)__smlad(odd(high_2), cd, __smlad(odd(high), ab, m[3]));
    }
}
#else
static void add_one(memory_t *m, int rows, const weight_t *a, int32_t delta)
{
    int row;
    for (row = 0; row < rows; ++row) {
        m[row] = (memory_t)(m[row] + a[row] * delta);
    }
}

static void add_two(memory_t *m, int rows, const weight_t *a, int32_t delta_a, const weight_t *b, int32_t delta_b)
{
    int row;
    for (row = 0; row < rows; ++row) {
        m[row] = (memory_t)(m[row] + a[row] * delta_a + b[row] * delta_b);
    }
}
#endif

static void add_pass(memory_t *m, int rows, struct pass *pass)
{
#if DUAL
    int i;
    if (pass->count == 0) {
        return;
    }
    for (i = pass->count; i < 4; ++i) {
        pass->column[i] = pass->column[0];
        pass->delta[i] = 0;
    }
    if (pass->count > 2) {
        add_four(m, rows, pass);
    } else {
        add_two(m, rows, pass);
    }
#else
    if (pass->count > 1) {
        add_two(m, rows, pass->column[0], pass->delta[0], pass->column[1], pass->delta[1]);
    } else if (pass->count > 0) {
        add_one(m, rows, pass->column[0], pass->delta[0]);
    }
#endif
    pass->count = 0;
}

static void add_column(memory_t *m, int rows, struct pass *pass, const weight_t *column, int32_t delta)
{
    pass->column[pass->count] = column;
    pass->delta[pass->count] = delta;
    if (++pass->count == (DUAL ? 4 : 2)) {
        add_pass(m, rows, pass);
    }
}
#endif

#if ELEMENTS
/* m += column . delta, of a pruned column's pairs alone. */
static void add_pairs(memory_t *m, const weight_t *weight, const uint8_t *place, int size, int32_t delta)
{
    const weight_t *end = weight + size;
    while (weight != end) {
        int p;
        for (p = 0; p < ELEMENTS; p += 2) {
            int both = *place++, first = p + (both & 15) * ELEMENTS, second = p + 1 + (both >> 4) * ELEMENTS;
            m[first] = (memory_t)(m[first] + *weight++ * delta);
            m[second] = (memory_t)(m[second] + *weight++ * delta);
        }
    }
}
#endif

/* The product of column j and delta: now, or in a pass. */
static void add_product(memory_t *m, struct pass *pass, const struct matrix *matrix, int j, int32_t delta)
{
    const weight_t *column = matrix->weights + j * matrix->size;
#if ELEMENTS
    if (matrix->places) {
        add_pairs(m, column, matrix->places + j * (matrix->size / 2), matrix->size, delta);
        return;
    }
#endif
#if PLAIN
#if DUAL && ACT_BITS > 8
    while (delta != (int16_t)delta) { /* more than a halfword holds: in parts; 65535 takes three */
        const int32_t part = delta < 0 ? INT16_MIN : INT16_MAX;
        add_column(m, matrix->size, pass, column, part);
        delta -= part;
    }
#endif
    add_column(m, matrix->size, pass, column, delta);
#else
    (void)pass;
#endif
}

/* Delta encoder and products of one signal: m += weight[:, j] * delta_j where |delta_j| reaches the threshold (>= 1). */
static void add_changes(const act_t *value, act_t *held, int size, int32_t threshold, const struct matrix *matrix,
                        memory_t *m)
{
    struct pass pass;
    int j = 0;
    pass.count = 0;
    while (j < size) {
        int end = j + 1;
#if DUAL
        const uint32_t one = ACT_BITS > 8 ? 0x00010001u : 0x01010101u;
        const uint32_t reach = one * (uint32_t)(threshold - 1);
        if (j + LANES <= size) {
            /* A whole word of them stood still where no lane of delta + threshold - 1 exceeds 2 (threshold - 1). */
#if ACT_BITS > 8
            uint32_t delta = (uint32_t)__qsub16((int32_t)load(value + j), (int32_t)load(held + j));
            if (__uqsub16(__uadd16(delta, reach), 2 * reach) == 0) {
#else
            uint32_t delta = (uint32_t)__qsub8((int32_t)load(value + j), (int32_t)load(held + j));
            if (__uqsub8(__uadd8(delta, reach), 2 * reach) == 0) {
#endif
                j += LANES;
                continue;
            }
            end = j + LANES;
        }
#endif
        for (; j < end; ++j) {
            int32_t delta = (int32_t)value[j] - held[j];
            if (delta >= threshold || -delta >= threshold) {
                held[j] = value[j];
                add_product(m, &pass, matrix, j, delta);
            }
        }
    }
#if PLAIN
    add_pass(m, matrix->size, &pass);
#endif
}
#endif

#if DENSE_LAYERS || HEAD_LAYERS
/* sum + four weights . four activations. Weights of 8 bits lie in the order 0 2 1 3 where activations have 16: there
 * the dual products find them. */
static int32_t add_products(const weight_t *weight, const act_t *a, int32_t sum)
{
#if DUAL
    uint32_t w = *(const word_t *)(const void *)weight;
    const word_t *word = (const word_t *)(const void *)a; /* aligned: of the state, or of a layer of the head */
#if ACT_BITS > 8
    sum = __smlad(even(w), (int32_t)word[0], sum);
    return __smlad(odd(w), (int32_t)word[1], sum);
#else
    sum = __smlad(even(w), even(word[0]), sum);
    return __smlad(odd(w), odd(word[0]), sum);
#endif
#elif SWAPPED
    return sum + weight[0] * a[0] + weight[2] * a[1] + weight[1] * a[2] + weight[3] * a[3];
#else
    return sum + weight[0] * a[0] + weight[1] * a[1] + weight[2] * a[2] + weight[3] * a[3];
#endif
}
#endif

#if DENSE_LAYERS
/* sum[g] += row g of a unit . a. Four weights of a row stand beside four of the next; inputs are a multiple of four. */
static const weight_t *add_rows(const weight_t *weight, const act_t *a, int inputs, int32_t *sum)
{
    const act_t *end = a + inputs;
    int32_t s0 = sum[0], s1 = sum[1], s2 = sum[2];
#if !CELL_GRU
    int32_t s3 = sum[3];
#endif
    for (; a != end; a += 4) {
        s0 = add_products(weight, a, s0);
        s1 = add_products(weight + 4, a, s1);
        s2 = add_products(weight + 8, a, s2);
        weight += 12;
#if !CELL_GRU
        s3 = add_products(weight, a, s3);
        weight += 4;
#endif
    }
    sum[0] = s0;
    sum[1] = s1;
    sum[2] = s2;
#if !CELL_GRU
    sum[3] = s3;
#endif
    return weight;
}

/* What the memories of a layer with thresholds 0 telescope to, without events: the products of one signal, a multiple of
 * four values, added to those of the gates from m on. Weights lie unit after unit. */
static void multiply(const act_t *a, int inputs, const weight_t *weight, int hidden, memory_t *m)
{
    int j, g;
    for (j = 0; j < hidden; ++j) {
        int32_t sum[GATES];
        for (g = 0; g < GATES; ++g) {
            sum[g] = m[g * hidden + j];
        }
        weight = add_rows(weight, a, inputs, sum);
        for (g = 0; g < GATES; ++g) {
            m[g * hidden + j] = (memory_t)sum[g];
        }
    }
}
#endif

#if CELL_GRU
/* h = A(A((1 - z) n) + A(z h)), n = N(tanh(A(M_nx + r A(M_nh)))). m holds M_nx, M_r, M_z, M_nh: so the rows of an input's
 * column, and those of a unit's, stand together. */
static void update(const memory_t *m, int hidden, act_t *h)
{
    int j;
    for (j = 0; j < hidden; ++j) {
        int32_t r = sigmoid(to_address(m[hidden + j], MEMORY_FRACTION));
        int32_t z = sigmoid(to_address(m[2 * hidden + j], MEMORY_FRACTION));
        int32_t from_h = r * to_act(m[3 * hidden + j], MEMORY_FRACTION);
        int32_t sum = m[j] * POW2(SUM_FRACTION - MEMORY_FRACTION)
                      + from_h * POW2(SUM_FRACTION - ACT_FRACTION - GATE_FRACTION);
        int32_t n = tanh_(to_address(sum, SUM_FRACTION));
        int32_t fresh = to_act((POW2(GATE_FRACTION) - z) * n, 2 * GATE_FRACTION);
        int32_t kept = round_shift(z * h[j], GATE_FRACTION); /* 0 <= z <= 1: it cannot saturate */
        h[j] = (act_t)saturate(fresh + kept);
    }
}
#else
/* c = A(f c + i g), h = A(o N(tanh(c))). */
static void update(const memory_t *m, int hidden, act_t *h, act_t *c)
{
    int j;
    for (j = 0; j < hidden; ++j) {
        int32_t i = sigmoid(to_address(m[j], MEMORY_FRACTION));
        int32_t f = sigmoid(to_address(m[hidden + j], MEMORY_FRACTION));
        int32_t g = tanh_(to_address(m[2 * hidden + j], MEMORY_FRACTION));
        int32_t o = sigmoid(to_address(m[3 * hidden + j], MEMORY_FRACTION));
        int32_t kept = f * c[j] * POW2(SUM_FRACTION - ACT_FRACTION - GATE_FRACTION);
        int32_t fresh = i * g * POW2(SUM_FRACTION - 2 * GATE_FRACTION);
        c[j] = (act_t)to_act(kept + fresh, SUM_FRACTION);
        h[j] = (act_t)to_act(o * tanh_(c[j]), 2 * GATE_FRACTION);
    }
}
#endif

#if HEAD_LAYERS
/* acc = weight a + bias of one output; inputs are a multiple of four. */
static int32_t dense(const weight_t *weight, int32_t bias, const act_t *a, int inputs)
{
    const act_t *end = a + inputs;
    for (; a != end; a += 4, weight += 4) {
        bias = add_products(weight, a, bias);
    }
    return bias;
}
#endif
