/* Files and text of the debugger's machine, as QEMU and most debug probes offer them (Arm semihosting). */
#include <stdint.h>

int32_t host_open(const char *path);                                /* to read; -1: cannot */
int32_t host_read(int32_t file, void *to, int32_t count);           /* bytes that were read */
void host_write(const char *text);                                  /* to the console */
void host_command_line(char *to, int32_t size);                     /* program and arguments, 0 at the end */
void host_exit(int32_t failed);
