/*
 * kernel/store/pace.c: how much of what nobody waits for may be on its way from a far disk.
 *
 * Promise: who fills near keeps a link busy but its queue short, so that somebody who waits for a block finds little
 * before him: a disk's window grows while answers come about as soon as its quickest one did, and shrinks while they
 * take a third longer (as TCP Vegas and LEDBAT do). Most of a window's answers must be late for that: a queue makes
 * them all so, but for those after a pause; a host that is busy only some. Requests are as large as comes within a few
 * milliseconds: each costs the host more than the copying of its blocks.
 * Called by: ahead.c (what was asked for, what has come), fetch.c (how much may be).
 */
#include "store/internal.h"

enum {
    RUN_MIN = 4,      /* blocks of a request: what somebody has to wait for at the least */
    RUN_QUICK_MAX = 32, RUNS_MIN = 3, /* of a link that is so quick, and how many of them are on their way */
    WINDOW_MIN = 16, WINDOW_FIRST = 32,
    RUNS_PER_WINDOW = 8, /* QEMU has 16 requests on their way over an NBD connection: the others are for who waits */
    LATE_COUNT_MIN = 6, /* of as many */
    STEP = 8,
};
#define SLACK_MIN_NS 1000000ull
#define RUN_NS 10000000ull

static struct {
    unsigned window, in_flight; /* blocks */
    uint64_t quickest_ns;       /* 0: not known */
    unsigned answer_count, quick_count, late_count; /* since the window was judged */
} pace[1 + STORE_FAR_COUNT_MAX];

unsigned pace_in_flight(unsigned disk) { return pace[disk].in_flight; }
void pace_started(unsigned disk, unsigned block_count) { pace[disk].in_flight += block_count; }

/* The quickest answer brought RUN_MIN blocks at least: so many as certainly come within RUN_NS. */
static unsigned quick_run(unsigned disk) {
    uint64_t quickest = pace[disk].quickest_ns;
    if (quickest == 0 || quickest > RUN_NS)
        return RUN_MIN;
    return quickest * RUN_QUICK_MAX > RUN_MIN * RUN_NS ? (unsigned)(RUN_MIN * RUN_NS / quickest) : RUN_QUICK_MAX;
}

static unsigned window(unsigned disk) {
    unsigned least = RUNS_MIN * quick_run(disk);
    return pace[disk].window > least ? pace[disk].window : least;
}

/* How many blocks the next request may have that begins so many blocks ahead of what is being taken; 0: none now. */
unsigned pace_room(unsigned disk, uint64_t distance) {
    unsigned run = window(disk) / RUNS_PER_WINDOW, least = quick_run(disk);
    if (run < least)
        run = least;
    return pace[disk].in_flight + run <= window(disk) && distance < window(disk) ? run : 0;
}

/* After a window's answers. A link that has become slower is believed when no queue of ours can be the reason. */
static void adjust(unsigned disk, uint64_t response_ns) {
    int is_quick = pace[disk].quick_count >= RUNS_PER_WINDOW / 2, is_late = pace[disk].late_count >= LATE_COUNT_MIN;
    pace[disk].answer_count = pace[disk].quick_count = pace[disk].late_count = 0;
    if (is_quick && pace[disk].window < PACE_WINDOW_MAX)
        pace[disk].window += STEP;
    else if (is_late && pace[disk].window > WINDOW_MIN)
        pace[disk].window -= STEP;
    else if (is_late && response_ns > pace[disk].quickest_ns)
        pace[disk].quickest_ns += (response_ns - pace[disk].quickest_ns) / 2;
}

/* response_ns 0: it failed. */
void pace_ended(unsigned disk, unsigned block_count, uint64_t response_ns) {
    pace[disk].in_flight -= block_count;
    if (response_ns == 0)
        return;
    if (pace[disk].quickest_ns == 0 || response_ns < pace[disk].quickest_ns)
        pace[disk].quickest_ns = response_ns;
    uint64_t quickest = pace[disk].quickest_ns, slack = quickest / 6 > SLACK_MIN_NS ? quickest / 6 : SLACK_MIN_NS;
    pace[disk].quick_count += response_ns < quickest + slack;
    pace[disk].late_count += response_ns > quickest + 2 * slack;
    if (++pace[disk].answer_count == RUNS_PER_WINDOW)
        adjust(disk, response_ns);
}

void pace_init(void) {
    memset(pace, 0, sizeof pace);
    for (unsigned disk = 0; disk <= STORE_FAR_COUNT_MAX; disk++)
        pace[disk].window = WINDOW_FIRST;
}
