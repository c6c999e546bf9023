/*
 * kernel/abi/trace.h: events of the trace ring, in RAM (lib/trace.c) and in the pages of space 0 that keep them
 * (proc/trace.c).
 *
 * Promise: fixed sizes; kinds are only ever added. A page is one stretch of one life: its events are in order and none
 * between them is missing, but those that `lost_count` says were lost before its first.
 * Read by: `revenant trace` and `revenant report` (tools/revenant/trace.py says each kind's words in full).
 */
#ifndef ABI_TRACE_H
#define ABI_TRACE_H

#include <stddef.h>
#include <stdint.h>

enum trace_kind {          /* small; a; b */
    TRACE_NONE = 0,
    TRACE_NOTICE = 1,      /* FNV-1a of the text; its address in the kernel: a log line's template; - */
    TRACE_RESUME = 2,      /* enum resume_reason; generation; resume_count */
    TRACE_FREEZE = 3,      /* -; generation that this makes; pages dirty */
    TRACE_COMMIT = 4,      /* cycles of the pause; generation; pages: the commit begins */
    TRACE_DURABLE = 5,     /* microseconds since the freeze; generation; pages */
    TRACE_COMMIT_AGAIN = 6, /* -; generation; -: it could not be finished and is written anew */
    TRACE_NEAR_FULL = 7,   /* -; generation; - */
    TRACE_PAGE_IN = 8,     /* store number; address; space */
    TRACE_PAGE_ABSENT = 9, /* error; address; space: no store gives it */
    TRACE_IO_ERROR = 10,   /* disk: 0 near, n far n; sector; enum store_op */
    TRACE_SPAWN = 11,      /* id; parent's id; - */
    TRACE_EXIT = 12,       /* id; status; - */
    TRACE_FAULT = 13,      /* vector; instruction; address */
    TRACE_THROTTLE = 14,   /* -; pages dirty; space: it waits for near */
    TRACE_ALL_DIRTY = 15,  /* -; pages dirty; frames free */
    TRACE_INTERRUPT = 16,  /* vector; -; -: spurious, or without a handler */
    TRACE_INPUT_LOST = 17, /* -; bytes; room */
    TRACE_KIND_COUNT = 18,
};

struct trace_event {
    uint64_t time_ns; /* since this life's start */
    uint32_t kind;
    uint32_t small;
    uint64_t a, b;
};

enum { TRACE_EVENTS_PER_PAGE = 126 };

struct trace_page {
    uint64_t number;        /* counts the machine's pages from 1 on; 0: nothing here yet */
    uint64_t resume_count;  /* the life that these events are of */
    int64_t base_mono_ns;   /* machine time when that life's clock was 0: it stood still until programs went on */
    uint64_t base_wall_ns;
    uint32_t event_count;   /* what lies behind is of an older page */
    uint32_t lost_count;    /* events that came too fast, before the first here */
    uint8_t zero[24];
    struct trace_event event[TRACE_EVENTS_PER_PAGE];
};

_Static_assert(sizeof(struct trace_event) == 32, "trace_event");
_Static_assert(sizeof(struct trace_page) == 4096, "trace_page");
_Static_assert(offsetof(struct trace_page, event) == 64, "trace_page.event");

#endif
