/*
 * kernel/proc/live.c: keeps the live_record (abi/live.h) up to date for whoever looks into the machine's memory.
 *
 * Promise: it is of the moment before the CPU idles, or no older than LIVE_INTERVAL_NS and an interrupt; bounded work,
 * the same whether anybody looks.
 * Called by: schedule.c. Context: kernel, interrupts off.
 */
#include "abi/live.h"

#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

#define LIVE_INTERVAL_NS 100000000ull

static struct live_record live;
static uint64_t taken_ns;

static const struct {
    uint32_t name_size, value_size, type;
    char name[12];
    struct live_note value;
} live_note __attribute__((section(".note.revenant"), aligned(4), used)) = {
    sizeof "Revenant", sizeof(struct live_note), LIVE_NOTE_TYPE, "Revenant", {LIVE_VERSION, 0, (uintptr_t)&live},
};

void live_update(uint64_t now_ns, int idle) {
    if (!idle && now_ns - taken_ns < LIVE_INTERVAL_NS)
        return;
    taken_ns = now_ns;
    live.frame_array = virt_to_phys(frame_array);
    live.frame_end = frame_end_used();
    live.trace_ring = virt_to_phys(trace_ring);
    live.trace_count = virt_to_phys(&trace_count);
    live.trace_size = TRACE_COUNT;
    live.ns_per_cycle = proc_env.ns_per_cycle();
    stats_take(&live.stats);
    arch_barrier_compiler(); /* whoever sees the count sees what it counts: the CPU keeps stores in order */
    live.taken_count++;
}
