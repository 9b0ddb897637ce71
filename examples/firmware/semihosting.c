#include "semihosting.h"

enum { OPEN = 0x01, WRITE0 = 0x04, READ = 0x06, GET_CMDLINE = 0x15, EXIT = 0x18 };

static int32_t call(int32_t operation, const void *arguments)
{
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

int32_t host_open(const char *path)
{
    int32_t length = 0;
    while (path[length] != 0) {
        ++length;
    }
    const uint32_t arguments[] = {(uint32_t)path, 1 /* "rb" */, (uint32_t)length};
    return call(OPEN, arguments);
}

int32_t host_read(int32_t file, void *to, int32_t count)
{
    const uint32_t arguments[] = {(uint32_t)file, (uint32_t)to, (uint32_t)count};
    return count - call(READ, arguments);
}

void host_write(const char *text)
{
    call(WRITE0, text);
}

void host_command_line(char *to, int32_t size)
{
    const uint32_t arguments[] = {(uint32_t)to, (uint32_t)size};
    if (call(GET_CMDLINE, arguments) != 0) {
        to[0] = 0;
    }
}

void host_exit(int32_t failed)
{
    call(EXIT, (const void *)(uintptr_t)(failed ? 0x20023 : 0x20026));
}
