/*
 * kernel/pager/throttle.c: programs that make pages dirty faster than near takes them are slowed to its pace, evenly.
 *
 * Promise: an epoch holds about what near wrote in half a second of the commits before (so output waits a second, not
 * for all of memory), and never more dirty pages than DIRTY_SHARE of memory, so the commit always finds frames for its
 * nodes. Each program may make as many pages dirty as any other; one that has had its share waits for the next freeze.
 * Called by: fault.c and dirty.c (first writes), snapshot.c. Context: kernel, interrupts off; the fast path is one
 * compare.
 */
#include "abi/syscall.h"
#include "lib/lib.h"
#include "pager/internal.h"

#define COMMIT_TARGET_NS 500000000ull
#define CALM_NS 10000000000ull /* so long after the last wait, the next one is told again */
enum {
    DIRTY_SHARE_NUMERATOR = 3, /* 3/16 of memory for each of two epochs: the running one and the frozen one */
    DIRTY_SHARE_DENOMINATOR = 16,
    PROGRAM_PAGE_COUNT_MIN = 64,
    FIRST_PAGE_COUNT = 1024,      /* the target while near's pace is not known */
    MEASURED_PAGE_COUNT_MIN = 32, /* a smaller commit says more of flushes than of pages */
};

static const char freeze_key; /* its address: who waits for the next epoch */

static struct {
    uint64_t memory_max;    /* dirty pages, whoever made them */
    uint64_t target;        /* pages that near takes in COMMIT_TARGET_NS */
    uint64_t program_max;   /* dirty pages of one program in one epoch */
    uint64_t program_count; /* that had to wait in this epoch */
    uint64_t wait_start_ns; /* 0: nobody waits */
    uint64_t wait_end_ns;
    uint64_t wait_count, wait_ns;
} state;

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

void throttle_init(void) {
    memset(&state, 0, sizeof state);
    state.memory_max = frame_count_free() * DIRTY_SHARE_NUMERATOR / DIRTY_SHARE_DENOMINATOR;
    state.target = pager.options.interval_ns == 0 ? state.memory_max : smaller(state.memory_max, FIRST_PAGE_COUNT);
    state.program_max = state.target;
}

void throttle_count(struct space *space) {
    if (space->dirty_epoch != pager.epoch)
        space->dirty_count = 0;
    space->dirty_epoch = pager.epoch;
    space->dirty_count++;
}

static int has_had_its_share(const struct space *space) {
    return space->dirty_epoch == pager.epoch && space->dirty_count >= state.program_max;
}

static void wait_begin(struct space *space) {
    uint64_t now = pager.hooks->now_ns();
    if (state.wait_count++ == 0 || now > state.wait_end_ns + CALM_NS)
        notice("programs write more than near takes: they are slowed to its pace");
    if (state.wait_start_ns == 0) {
        state.wait_start_ns = now;
        trace(TRACE_THROTTLE, 0, pager.dirty_count, space->id);
    }
    state.wait_end_ns = now;
    if (space->throttled_epoch != pager.epoch)
        state.program_count++;
    space->throttled_epoch = pager.epoch;
}

int throttle(struct space *space, const void **key) {
    if (pager.dirty_count < state.program_max)
        return 0;
    int is_full = pager.dirty_count >= state.memory_max;
    if (!is_full && !has_had_its_share(space))
        return 0;
    pager_want_commit();
    if (!is_full && !pager_is_committing())
        return 0; /* the freeze comes before the program goes on */
    wait_begin(space);
    *key = &freeze_key;
    return 1;
}

/* As many as had to wait in the epoch that ends share what the next one may hold. */
void throttle_freeze(void) {
    uint64_t share = state.target / (state.program_count > 1 ? state.program_count : 1);
    state.program_max = share > PROGRAM_PAGE_COUNT_MIN ? share : PROGRAM_PAGE_COUNT_MIN;
    state.program_count = 0;
    if (state.wait_start_ns == 0)
        return;
    state.wait_end_ns = pager.hooks->now_ns();
    state.wait_ns += state.wait_end_ns - state.wait_start_ns;
    state.wait_start_ns = 0;
    pager.hooks->wake(&freeze_key);
}

/* Without an interval, snapshots come only when they are asked for, or memory is short: their pace says nothing. */
void throttle_committed(uint64_t page_count, uint64_t duration_ns) {
    if (page_count < MEASURED_PAGE_COUNT_MIN || pager.options.interval_ns == 0)
        return;
    uint64_t pages_taken = page_count * (COMMIT_TARGET_NS / 1000) / (duration_ns / 1000 + 1);
    state.target = smaller((3 * state.target + pages_taken) / 4, state.memory_max);
    if (pages_taken < state.target / 4) /* far off: believe it at once */
        state.target = pages_taken;
}

void throttle_stats(struct machine_stats *stats) {
    stats->throttled_count = state.wait_count;
    stats->throttled_ns = state.wait_ns;
    stats->pages_dirty_max = state.program_max;
}
