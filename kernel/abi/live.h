/*
 * kernel/abi/live.h: what a reader of the running machine's memory finds there: figures about the present moment.
 *
 * Promise: a note with owner "Revenant" and type LIVE_NOTE_TYPE, among those at physical 1 MiB, where the kernel's
 * image begins, names the one live_record. Nothing here is persistent, and the kernel reads none of it: the reader
 * gives no signal and takes no lock, so what it reads is of about the same moment, not of one. Fields are only ever
 * added.
 * Written by: kernel/proc/live.c. Read by: `revenant run --ui` (tools/revenant/ui/live.py).
 */
#ifndef ABI_LIVE_H
#define ABI_LIVE_H

#include <stddef.h>
#include <stdint.h>

#include "abi/syscall.h"

enum { LIVE_VERSION = 1, LIVE_NOTE_TYPE = 2, LIVE_NOTES_PLACE = 0x100000 };

struct live_note {
    uint32_t version;
    uint32_t zero;
    uint64_t address;      /* of the live_record: in the kernel's image, KERNEL_BASE + physical */
};

struct live_record {
    uint64_t taken_count;  /* how often this was brought up to date, counted at the end; 0: not yet */
    uint64_t frame_array;  /* physical address of the frames' states (struct frame) */
    uint64_t frame_end;    /* frames from here on were never given out */
    uint64_t trace_ring;   /* physical addresses: of the ring of events, and of the number of all events so far */
    uint64_t trace_count;
    uint64_t trace_size;   /* events that the ring holds */
    uint64_t ns_per_cycle; /* of the TSC, times 2 to the 32 */
    struct machine_stats stats; /* the last: it grows at its end */
};

_Static_assert(sizeof(struct live_note) == 16, "live_note");
_Static_assert(offsetof(struct live_record, stats) == 56, "live_record.stats");

#endif
