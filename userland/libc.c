/*
 * userland/libc.c: the few functions of C's library that MicroPython, littlefs and the compiler call.
 *
 * Promise: as the C standard says (tests/host/test_libc.py); memory functions move 16 bytes at a time (x86 does not
 * mind unaligned ones), and what is left over by more moves that overlap. The benchmarks against Linux feel each
 * instruction of the short ones (`revenant bench python`).
 * Called by: everything in this program. Compiled without loop-to-call conversion, else memcpy would call itself.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "py/mphal.h"

#include "syscall.h"

typedef uint32_t __attribute__((may_alias, aligned(1))) half_t;
typedef uint64_t __attribute__((may_alias, aligned(1))) word_t;
typedef long long __attribute__((vector_size(16), may_alias, aligned(1))) vector_t;

/* At most 16 bytes. All is read before anything is written. */
static inline void copy_small(char *t, const char *f, size_t size) {
    if (size >= 8) {
        word_t first = *(const word_t *)f, last = *(const word_t *)(f + size - 8);
        *(word_t *)t = first;
        *(word_t *)(t + size - 8) = last;
    } else if (size >= 4) {
        half_t first = *(const half_t *)f, last = *(const half_t *)(f + size - 4);
        *(half_t *)t = first;
        *(half_t *)(t + size - 4) = last;
    } else if (size > 0) {
        char first = f[0], middle = f[size / 2], last = f[size - 1];
        t[0] = first;
        t[size / 2] = middle;
        t[size - 1] = last;
    }
}

/* 17 to 64 bytes, all read before anything is written: also where both overlap. */
static inline void copy_medium(char *t, const char *f, size_t size) {
    vector_t first = *(const vector_t *)f, last = *(const vector_t *)(f + size - 16);
    if (size > 32) {
        vector_t second = *(const vector_t *)(f + 16), third = *(const vector_t *)(f + size - 32);
        *(vector_t *)(t + 16) = second;
        *(vector_t *)(t + size - 32) = third;
    }
    *(vector_t *)t = first;
    *(vector_t *)(t + size - 16) = last;
}

/* Also where `to` lies before an overlapping `from`: the last bytes are read first, the others before they are
 * passed. */
static void copy_forward(char *t, const char *f, size_t size) {
    const vector_t *f_last = (const vector_t *)(f + size - 64);
    vector_t last[4] = { f_last[0], f_last[1], f_last[2], f_last[3] };
    char *t_last = t + size - 64;
    for (; t < t_last; t += 64, f += 64) {
        vector_t a = ((const vector_t *)f)[0], b = ((const vector_t *)f)[1];
        vector_t c = ((const vector_t *)f)[2], d = ((const vector_t *)f)[3];
        ((vector_t *)t)[0] = a;
        ((vector_t *)t)[1] = b;
        ((vector_t *)t)[2] = c;
        ((vector_t *)t)[3] = d;
    }
    for (unsigned int i = 0; i < 4; i++) {
        ((vector_t *)t_last)[i] = last[i];
    }
}

static void copy_backward(char *to, const char *from, size_t size) {
    vector_t first = *(const vector_t *)from;
    char *t = to + size;
    const char *f = from + size;
    while (t - to > 16) {
        t -= 16;
        f -= 16;
        *(vector_t *)t = *(const vector_t *)f;
    }
    *(vector_t *)to = first;
}

void *memmove(void *to, const void *from, size_t size) {
    if (size <= 16) {
        copy_small(to, from, size);
    } else if (size <= 64) {
        copy_medium(to, from, size);
    } else if ((uintptr_t)to - (uintptr_t)from >= size) {
        copy_forward(to, from, size);
    } else {
        copy_backward(to, from, size);
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t size) __attribute__((alias("memmove")));

static inline void set_small(char *t, uint64_t word, size_t size) {
    if (size >= 8) {
        *(word_t *)t = word;
        *(word_t *)(t + size - 8) = word;
    } else if (size >= 4) {
        *(half_t *)t = (half_t)word;
        *(half_t *)(t + size - 4) = (half_t)word;
    } else if (size > 0) {
        t[0] = t[size / 2] = t[size - 1] = (char)word;
    }
}

/* More than 16 bytes. */
static inline void set_vectors(char *t, vector_t vector, size_t size) {
    char *end = t + size;
    if (size <= 32) {
        *(vector_t *)t = *(vector_t *)(end - 16) = vector;
        return;
    }
    if (size > 64) {
        for (char *t_last = end - 64; t < t_last; t += 64) {
            ((vector_t *)t)[0] = ((vector_t *)t)[1] = ((vector_t *)t)[2] = ((vector_t *)t)[3] = vector;
        }
        t = end - 64;
    }
    ((vector_t *)t)[0] = ((vector_t *)t)[1] = ((vector_t *)end)[-2] = ((vector_t *)end)[-1] = vector;
}

/* For the collector's allocator, which clears all that it gives. */
static inline void clear(char *t, size_t size) {
    if (size > 16) {
        set_vectors(t, (vector_t){ 0, 0 }, size);
    } else {
        set_small(t, 0, size);
    }
}

void *memset(void *to, int value, size_t size) {
    uint64_t word = 0x0101010101010101ull * (uint8_t)value;
    if (value == 0) {
        clear(to, size);
    } else if (size > 16) {
        set_vectors(to, (vector_t){ (long long)word, (long long)word }, size);
    } else {
        set_small(to, word, size);
    }
    return to;
}

/* Of two different words of memory: which comes first there. */
static int word_order(uint64_t a, uint64_t b) {
    return __builtin_bswap64(a) < __builtin_bswap64(b) ? -1 : 1;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    if (size == 0 || *x != *y) { /* most that differ do so here */
        return size == 0 ? 0 : *x - *y;
    }
    if (size >= 8) {
        const uint8_t *x_last = x + size - 8, *y_last = y + size - 8;
        for (; x < x_last; x += 8, y += 8) {
            if (*(const word_t *)x != *(const word_t *)y) {
                return word_order(*(const word_t *)x, *(const word_t *)y);
            }
        }
        word_t u = *(const word_t *)x_last, v = *(const word_t *)y_last;
        return u == v ? 0 : word_order(u, v);
    }
    for (x++, y++, size--; size > 0; size--, x++, y++) {
        if (*x != *y) {
            return *x - *y;
        }
    }
    return 0;
}

void *memchr(const void *from, int value, size_t size) {
    for (const uint8_t *f = from; size > 0; size--, f++) {
        if (*f == (uint8_t)value) {
            return (void *)f;
        }
    }
    return NULL;
}

size_t strlen(const char *s) {
    size_t size = 0;
    while (s[size] != '\0') {
        size++;
    }
    return size;
}

int strncmp(const char *a, const char *b, size_t size) {
    for (; size > 0; size--, a++, b++) {
        if (*a != *b || *a == '\0') {
            return (uint8_t)*a - (uint8_t)*b;
        }
    }
    return 0;
}

int strcmp(const char *a, const char *b) {
    return strncmp(a, b, SIZE_MAX);
}

char *strcpy(char *to, const char *from) {
    memcpy(to, from, strlen(from) + 1);
    return to;
}

char *strcat(char *to, const char *from) {
    strcpy(to + strlen(to), from);
    return to;
}

char *strchr(const char *s, int c) {
    for (; *s != (char)c; s++) {
        if (*s == '\0') {
            return NULL;
        }
    }
    return (char *)s;
}

char *strstr(const char *s, const char *part) {
    size_t size = strlen(part);
    for (; strncmp(s, part, size) != 0; s++) {
        if (*s == '\0') {
            return NULL;
        }
    }
    return (char *)s;
}

/* Length of the start of s that is made of characters in (or, inverted, not in) set. */
static size_t span(const char *s, const char *set, int inside) {
    size_t size = 0;
    while (s[size] != '\0' && (strchr(set, s[size]) != NULL) == inside) {
        size++;
    }
    return size;
}

size_t strspn(const char *s, const char *set) {
    return span(s, set, 1);
}

size_t strcspn(const char *s, const char *set) {
    return span(s, set, 0);
}

double fabs(double x) {
    return __builtin_fabs(x);
}

double sqrt(double x) {
    __asm__ ("sqrtsd %0, %0" : "+x" (x));
    return x;
}

double copysign(double x, double sign) {
    return __builtin_copysign(x, sign);
}

double nan(const char *tag) {
    (void)tag;
    return __builtin_nan("");
}

/* Ends the process: only a bug comes here. */
void abort(void) {
    port_console_flush();
    for (;;) {
        sys_exit(1, NULL, 0);
    }
}
