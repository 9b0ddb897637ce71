/* What runs before main on a Cortex-M, and the three functions that a compiler may call without a C library. */
#include <stddef.h>
#include <stdint.h>

extern uint32_t data_start[], data_end[], data_image[], bss_start[], bss_end[], stack_top[];
int main(void);
void reset(void);
void fault(void);
void *memcpy(void *to, const void *from, size_t count);
void *memset(void *to, int value, size_t count);

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))stack_top, reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, fault,
};

void reset(void)
{
    const uint32_t *image = data_image;
    uint32_t *word;
    for (word = data_start; word < data_end; ++word) {
        *word = *image++;
    }
    for (word = bss_start; word < bss_end; ++word) {
        *word = 0;
    }
    main();
    for (;;) {
    }
}

void fault(void)
{
    for (;;) {
    }
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memcpy(void *to, const void *from, size_t count)
{
    char *out = to;
    const char *in = from;
    while (count-- > 0) {
        *out++ = *in++;
    }
    return to;
}

__attribute__((optimize("no-tree-loop-distribute-patterns"))) void *memset(void *to, int value, size_t count)
{
    char *out = to;
    while (count-- > 0) {
        *out++ = (char)value;
    }
    return to;
}
