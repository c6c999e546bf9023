/*
 * kernel/lib/trace.c: the ring of the last events, always on.
 *
 * Promise: an event costs a clock reading and a few stores; nothing allocates or fails. Panics and stopped programs
 * print the newest ones; proc/trace.c puts them into persistent pages.
 * Called by: everybody, interrupts off.
 */
#include "lib/lib.h"

_Static_assert((TRACE_COUNT & (TRACE_COUNT - 1)) == 0, "trace index is masked");

struct trace_event trace_ring[TRACE_COUNT]; /* global so that a debugger finds them */
uint64_t trace_count;

static const char *const names[TRACE_KIND_COUNT] = {
    [TRACE_NONE] = "nothing",
    [TRACE_NOTICE] = "said",
    [TRACE_RESUME] = "resume",
    [TRACE_FREEZE] = "freeze",
    [TRACE_COMMIT] = "commit",
    [TRACE_DURABLE] = "durable",
    [TRACE_COMMIT_AGAIN] = "commit again",
    [TRACE_NEAR_FULL] = "near full",
    [TRACE_PAGE_IN] = "page in",
    [TRACE_PAGE_ABSENT] = "page absent",
    [TRACE_IO_ERROR] = "io error",
    [TRACE_SPAWN] = "spawn",
    [TRACE_EXIT] = "exit",
    [TRACE_FAULT] = "fault",
    [TRACE_THROTTLE] = "throttle",
    [TRACE_ALL_DIRTY] = "all dirty",
    [TRACE_INTERRUPT] = "interrupt",
    [TRACE_INPUT_LOST] = "input lost",
};

void trace(enum trace_kind kind, uint32_t small, uint64_t a, uint64_t b) {
    trace_ring[trace_count++ % TRACE_COUNT] = (struct trace_event){log_now_ns(), kind, small, a, b};
}

static uint32_t text_hash(const char *text) {
    uint32_t hash = 2166136261u; /* FNV-1a, 32 bits */
    for (; *text != 0; text++)
        hash = (hash ^ (uint8_t)*text) * 16777619u;
    return hash;
}

void trace_text(const char *text) { trace(TRACE_NOTICE, text_hash(text), (uintptr_t)text, 0); }

static int event_format(char *line, size_t size, const struct trace_event *event) {
    unsigned long us = event->time_ns / 1000;
    if (event->kind == TRACE_NOTICE)
        return format(line, size, "  [%4lu.%06lu] said: %.80s\n", us / 1000000, us % 1000000, (const char *)event->a);
    return format(line, size, "  [%4lu.%06lu] %s %u %lx %lx\n", us / 1000000, us % 1000000, names[event->kind],
                  event->small, event->a, event->b);
}

void trace_print(void (*write)(const char *text, size_t length), uint64_t count) {
    char line[160];
    count = trace_count < count ? trace_count : count;
    write(line, (size_t)format(line, sizeof line, "last %lu events (seconds since the start, what, words):\n", count));
    for (uint64_t i = trace_count - count, end = trace_count; i < end; i++)
        write(line, (size_t)event_format(line, sizeof line, &trace_ring[i % TRACE_COUNT]));
}
