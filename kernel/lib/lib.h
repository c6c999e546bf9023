/*
 * kernel/lib/lib.h: strings, formatting, log, panic. Freestanding; the store uses it on the host, too.
 *
 * memcpy, memmove, memset, memcmp, strlen as C has them (the compiler calls them).
 */
#ifndef LIB_LIB_H
#define LIB_LIB_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/trace.h"

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *text);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);

int page_is_zero(const void *page); /* 4096 bytes, aligned */

/* %s %c %d %u %x %p %% with width, 0, -, l, ll, z, and %.*s; returns the length that it wanted; ends with NUL. */
int format(char *buffer, size_t size, const char *template, ...) __attribute__((format(printf, 3, 4)));
int format_list(char *buffer, size_t size, const char *template, va_list arguments);

enum log_level { LOG_NOTICE = 1, LOG_DEBUG = 2 };
struct log_sink {
    void (*write)(const char *text, size_t length);
    __attribute__((noreturn)) void (*panic)(const char *text); /* panic_write has said the text already */
    void (*panic_write)(const char *text, size_t length);
    int (*describe)(char *text, size_t size); /* what the machine was doing, for panics; its length */
    uint64_t (*now_ns)(void);
};
void log_set_sink(const struct log_sink *sink, enum log_level level);
uint64_t log_now_ns(void); /* since the start; 0 before there is a clock */
void log_write(const char *text, size_t length); /* as notices go, but as it is */
void log_print(enum log_level level, const char *template, ...) __attribute__((format(printf, 2, 3)));
#define notice(...) log_print(LOG_NOTICE, __VA_ARGS__)
#define debug(...) log_print(LOG_DEBUG, __VA_ARGS__)

_Noreturn void panic(const char *template, ...) __attribute__((format(printf, 1, 2)));
/* A broken invariant, in every build. */
#define check(condition) \
    do { \
        if (!(condition)) \
            panic("%s:%d: broken: %s", __FILE__, __LINE__, #condition); \
    } while (0)

/* Fixed ring of the last events, always on: cheap enough for the fault path. abi/trace.h has the words of each kind. */
enum { TRACE_COUNT = 512, TRACE_PRINT_COUNT = 64 };
extern struct trace_event trace_ring[TRACE_COUNT]; /* event i, of those that are left, is at i % TRACE_COUNT */
extern uint64_t trace_count;                       /* of all events since the start */
void trace(enum trace_kind kind, uint32_t small, uint64_t a, uint64_t b);
void trace_text(const char *text); /* a string constant */
void trace_print(void (*write)(const char *text, size_t length), uint64_t count); /* the newest, oldest first */

/* BLAKE2b (RFC 7693), unkeyed; size is 1 to 64 bytes. */
void blake2b(uint8_t *hash, size_t hash_size, const void *data, size_t size);
/* The 16-byte hash of a page; only on a CPU with AVX and BMI2 and with vector registers at hand. */
void blake2b_page(uint8_t *hash, const void *page);
/* The 16-byte hashes of four pages at once; only on a CPU with AVX2 and with vector registers at hand. */
void blake2b_pages(uint8_t *const hash[4], const void *const page[4]);

/* Decompresses one zstd frame: 1 if that gives `size` bytes. Any input is safe; not in two contexts at once. */
int zstd_unpack(void *to, size_t size, const void *from, size_t from_size);

void sha512(uint8_t hash[64], const void *data, size_t size);
enum { ED25519_MESSAGE_SIZE_MAX = 1024 };
/* 1: the message has this signature of the key's holder (RFC 8032). A longer message has none. */
int ed25519_valid(const uint8_t key[32], const uint8_t signature[64], const void *message, size_t size);

#endif
