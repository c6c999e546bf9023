/*
 * tests/host/libc.c: the memory and string functions of userland/libc.c against slow and plain ones.
 *
 * Every size, offset and overlap up to some hundred bytes; what lies around the target must stay. Exits with 1 and says
 * which call was wrong. Linked by test_libc.py with the object file that the port is made of, its names prefixed
 * `port_`.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE_MAX_TRIED = 300, MARGIN = 96, AREA_SIZE = SIZE_MAX_TRIED + 4 * MARGIN };

void *port_memcpy(void *to, const void *from, size_t size);
void *port_memmove(void *to, const void *from, size_t size);
void *port_memset(void *to, int value, size_t size);
int port_memcmp(const void *a, const void *b, size_t size);
int port_strncmp(const char *a, const char *b, size_t size);
size_t port_strlen(const char *s);

static uint8_t area[AREA_SIZE], expected[AREA_SIZE];

static void fill(void) {
    static uint32_t seed = 1;
    for (size_t i = 0; i < AREA_SIZE; i++) {
        seed = seed * 1664525 + 1013904223;
        area[i] = expected[i] = seed >> 24;
    }
}

static void require(int is_right, const char *call, size_t size, long offset) {
    if (!is_right) {
        printf("%s: size %zu, offset %ld\n", call, size, offset);
        exit(1);
    }
}

static void try_copy(void *(*copy)(void *, const void *, size_t), const char *name, size_t size, size_t to, size_t from) {
    uint8_t moved[SIZE_MAX_TRIED];
    fill();
    for (size_t i = 0; i < size; i++)
        moved[i] = area[from + i];
    for (size_t i = 0; i < size; i++)
        expected[to + i] = moved[i];
    void *result = copy(area + to, area + from, size);
    require(result == area + to && memcmp(area, expected, AREA_SIZE) == 0, name, size, (long)to - (long)from);
}

static void try_copies(size_t size) {
    static const size_t distances[] = {0, 1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, MARGIN};
    for (size_t i = 0; i < sizeof distances / sizeof distances[0]; i++) {
        try_copy(port_memmove, "memmove", size, MARGIN, MARGIN + distances[i]);
        try_copy(port_memmove, "memmove", size, MARGIN + distances[i], MARGIN);
    }
    uint8_t from[SIZE_MAX_TRIED];
    fill();
    memcpy(from, area, size);
    memcpy(expected + MARGIN, from, size);
    port_memcpy(area + MARGIN, from, size);
    require(memcmp(area, expected, AREA_SIZE) == 0, "memcpy", size, 0);
}

static void try_set(size_t size, size_t offset, int value) {
    fill();
    for (size_t i = 0; i < size; i++)
        expected[MARGIN + offset + i] = (uint8_t)value;
    void *result = port_memset(area + MARGIN + offset, value, size);
    require(result == area + MARGIN + offset && memcmp(area, expected, AREA_SIZE) == 0, "memset", size, (long)offset);
}

static int sign(int value) {
    return (value > 0) - (value < 0);
}

/* Two equal texts, then different at one place. */
static void try_compare(size_t size, size_t at) {
    uint8_t a[SIZE_MAX_TRIED + 1], b[SIZE_MAX_TRIED + 1];
    memset(a, 'x', size);
    memset(b, 'x', size);
    a[size] = b[size] = 0;
    require(port_memcmp(a, b, size) == 0 && port_strncmp((char *)a, (char *)b, size + 1) == 0, "equal", size, 0);
    require(port_strlen((char *)a) == size, "strlen", size, 0);
    for (int other = 'w'; at < size && other <= 0xf0; other += 'y' - 'w') {
        b[at] = (uint8_t)other;
        int order = 'x' < other ? -1 : 'x' > other;
        require(sign(port_memcmp(a, b, size)) == order, "memcmp", size, (long)at);
        require(sign(port_strncmp((char *)a, (char *)b, size)) == order, "strncmp", size, (long)at);
        require(port_strncmp((char *)a, (char *)b, at) == 0, "strncmp, bounded", size, (long)at);
    }
}

int main(void) {
    for (size_t size = 0; size <= SIZE_MAX_TRIED; size++) {
        try_copies(size);
        for (size_t offset = 0; offset < 17; offset++) {
            try_set(size, offset, 0);
            try_set(size, offset, 0x1a5);
        }
        for (size_t at = 0; at <= size; at += size < 40 ? 1 : 7)
            try_compare(size, at);
    }
    return 0;
}
