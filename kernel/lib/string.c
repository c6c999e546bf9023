/*
 * kernel/lib/string.c: the memory and string functions that the compiler calls.
 *
 * Promise: as C has them. Copies and fills are whole words by `rep movsq` and `rep stosq`: the fast path of a real
 * CPU, and one counted instruction for eight bytes under TCG.
 * Called by: everything, in any context. A host build leaves this file out and links its own C library.
 */
#include "lib/lib.h"

void *memcpy(void *restrict to, const void *restrict from, size_t size) {
    void *at = to;
    size_t count = size / 8;
    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(count)::"memory");
    count = size % 8;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(count)::"memory");
    return to;
}

void *memmove(void *to, const void *from, size_t size) {
    if ((uintptr_t)to - (uintptr_t)from >= size)
        return memcpy(to, from, size); /* forwards is right unless `to` starts inside `from` */
    char *last_to = (char *)to + size - 1;
    const char *last_from = (const char *)from + size - 1;
    __asm__ volatile("std; rep movsb; cld" : "+D"(last_to), "+S"(last_from), "+c"(size)::"memory", "cc");
    return to;
}

void *memset(void *to, int byte, size_t size) {
    void *at = to;
    size_t count = size / 8;
    uint64_t pattern = (uint8_t)byte * 0x0101010101010101ull;
    __asm__ volatile("rep stosq" : "+D"(at), "+c"(count) : "a"(pattern) : "memory");
    count = size % 8;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(count) : "a"(pattern) : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *left = a, *right = b;
    for (size_t i = 0; i < size; i++)
        if (left[i] != right[i])
            return left[i] - right[i];
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) {
        length++;
        __asm__ volatile(""); /* or the compiler makes a call of strlen out of this loop */
    }
    return length;
}

int strncmp(const char *a, const char *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        uint8_t left = (uint8_t)a[i], right = (uint8_t)b[i];
        if (left != right)
            return left - right;
        if (!left)
            return 0;
    }
    return 0;
}

int strcmp(const char *a, const char *b) {
    return strncmp(a, b, SIZE_MAX);
}
