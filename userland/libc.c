/*
 * userland/libc.c: the few functions of C's library that MicroPython, littlefs and the compiler call.
 *
 * Promise: as the C standard says; memory functions move 8 bytes at a time (x86 does not mind unaligned ones).
 * Called by: everything in this program. Compiled without loop-to-call conversion, else memcpy would call itself.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "py/mphal.h"

#include "syscall.h"

typedef uint64_t __attribute__((may_alias, aligned(1))) word_t;

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    char *t = to;
    const char *f = from;
    for (; size >= 8; size -= 8, t += 8, f += 8) {
        *(word_t *)t = *(const word_t *)f;
    }
    for (; size > 0; size--) {
        *t++ = *f++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    if ((uintptr_t)to - (uintptr_t)from >= size) {
        return memcpy(to, from, size); /* forward is safe: to is below from or past its end */
    }
    char *t = (char *)to + size;
    const char *f = (const char *)from + size;
    for (; size >= 8; size -= 8) {
        t -= 8;
        f -= 8;
        *(word_t *)t = *(const word_t *)f;
    }
    for (; size > 0; size--) {
        *--t = *--f;
    }
    return to;
}

void *memset(void *to, int value, size_t size) {
    char *t = to;
    uint64_t word = 0x0101010101010101ull * (uint8_t)value;
    for (; size >= 8; size -= 8, t += 8) {
        *(word_t *)t = word;
    }
    for (; size > 0; size--) {
        *t++ = (char)value;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (; size >= 8 && *(const word_t *)x == *(const word_t *)y; size -= 8) {
        x += 8;
        y += 8;
    }
    for (; size > 0; size--, x++, y++) {
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
