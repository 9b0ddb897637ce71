/* From levels to the network's input. Its constants stand above; >> of a negative number must round down. */
typedef char fe_shifts_round_down[(-1 >> 1) == -1 ? 1 : -1];

#if FE_LOGARITHMIC
/* log2(level), 15 fraction bits; level > 0. */
static int32_t fe_log2(uint32_t level)
{
    int32_t exponent, index, rest;
#if defined(__ARM_FEATURE_CLZ)
    const int32_t zeros = __builtin_clz(level);
    level <<= zeros;
    exponent = 31 - zeros;
#else
    for (exponent = 31; level < 0x80000000u; --exponent) {
        level <<= 1;
    }
#endif
    index = (int32_t)(level >> 26) & 31;
    rest = (int32_t)(level >> 10) & 0xffff;
    return exponent * 32768 + fe_logarithms[index]
           + (((fe_logarithms[index + 1] - fe_logarithms[index]) * rest) >> 16);
}
#endif

#if FE_POWERS
typedef uint64_t level_t;
#else
typedef uint32_t level_t;
#endif

static act_t fe_feature(level_t level)
{
    int64_t value;
#if FE_LOGARITHMIC
    level += FE_ADDED;
    if (level == 0) {
        return FE_LOW;
    }
#if FE_POWERS
    value = 0;
    while (level >> 32 != 0) { /* bits that 32 do not hold */
        level >>= 1;
        value += 32768;
    }
    value = ((value + fe_log2((uint32_t)level)) * FE_SLOPE + FE_START) >> FE_SCALE_SHIFT;
#else
    value = ((int64_t)fe_log2(level) * FE_SLOPE + FE_START) >> FE_SCALE_SHIFT;
#endif
#else
    value = ((int64_t)level * FE_SLOPE + FE_START) >> FE_SCALE_SHIFT;
#endif
    return (act_t)(value < FE_LOW ? FE_LOW : value > FE_HIGH ? FE_HIGH : value);
}
