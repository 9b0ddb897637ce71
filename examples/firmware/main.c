/* Listens to a WAV file of the debugger's machine (16 bits, one channel, at the spotter's rate), named as the program's
 * argument, and prints each detection: milliseconds of the stream, word, score in 1/1000. In a product the samples come
 * from a microphone's DMA buffer, and what is here a print is an action. */
#include LIBRARY_HEADER

#include "semihosting.h"

#define JOINED(a, b) a##_##b
#define JOIN(a, b) JOINED(a, b)
#define CALL(part) JOIN(LIBRARY_NAME, part)
#define CONSTANT(part) JOIN(LIBRARY_MACRO, part)

static const char *const words[] = CONSTANT(WORDS);

static void write_number(uint32_t number)
{
    char text[11];
    int32_t at = 10;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    host_write(text + at);
}

static uint32_t little_endian(const uint8_t *bytes, int32_t count)
{
    return count == 0 ? 0 : bytes[0] | little_endian(bytes + 1, count - 1) << 8;
}

static int32_t fail(const char *why)
{
    host_write(why);
    host_write("\n");
    host_exit(1);
    return 1;
}

/* The WAV file's samples come next: bytes of them, or 0 where it is none that the spotter takes. */
static uint32_t find_samples(int32_t file)
{
    uint8_t head[16];
    if (host_read(file, head, 12) != 12 || head[0] != 'R' || head[8] != 'W') {
        return 0;
    }
    while (host_read(file, head, 8) == 8) {
        uint32_t size = little_endian(head + 4, 4);
        if (head[0] == 'd') {
            return size;
        }
        if (head[0] == 'f') {
            if (size < 16 || host_read(file, head, 16) != 16 || little_endian(head + 2, 2) != 1
                || little_endian(head + 4, 4) != CONSTANT(SAMPLE_RATE) || little_endian(head + 14, 2) != 16) {
                return 0;
            }
            size -= 16;
        }
        for (; size > 0; --size) {
            if (host_read(file, head, 1) != 1) {
                return 0;
            }
        }
    }
    return 0;
}

static void report(CALL(detection) found)
{
    const int32_t positive = found.score < 0 ? -found.score : found.score;
    write_number((uint32_t)(found.time * 1000 / CONSTANT(SAMPLE_RATE)));
    host_write(" ms: ");
    host_write(words[found.word]);
    host_write(found.score < 0 ? " -" : " ");
    write_number((uint32_t)((int64_t)positive * 1000 / CONSTANT(SCORE_UNIT)));
    host_write("\n");
}

int main(void)
{
    static CALL(state) state;
    static int16_t samples[256];
    static char line[256];
    char *path = line;
    int32_t file, count;
    uint32_t bytes;
    host_command_line(line, (int32_t)sizeof line);
    while (*path != 0 && *path != ' ') {
        ++path;
    }
    file = *path == 0 ? -1 : host_open(path + 1);
    if (file < 0) {
        return fail("name a WAV file as the program's argument");
    }
    bytes = find_samples(file);
    if (bytes == 0) {
        return fail("no WAV file of 16 bits and one channel at the spotter's rate");
    }
    CALL(reset)(&state);
    while (bytes > 1) {
        const int16_t *next = samples;
        count = host_read(file, samples, bytes < sizeof samples ? (int32_t)bytes : (int32_t)sizeof samples) / 2;
        if (count <= 0) {
            break;
        }
        bytes -= 2 * (uint32_t)count;
        while (count > 0) {
            const CALL(detection) found = CALL(push)(&state, next, count);
            next += found.taken;
            count -= found.taken;
            if (found.word >= 0) {
                report(found);
            }
        }
    }
    host_write("end\n");
    host_exit(0);
    return 0;
}
