/*
 * kernel/store/work.c: what the store does between completions, and when it wants to be called again.
 *
 * Promise: store_work's, in store.h: bounded steps, none of which waits; whatever waits for an answer, or for a time,
 * is named in store_wait_ns.
 * Called by: pager, and whoever waits at the start.
 */
#include "store/internal.h"

enum { TIMER_SLACK_NS = 1000000 };

int store_work(unsigned budget) {
    attach_step();
    fetch_hedge();
    fetch_node_loaded();
    fetch_pump();
    for (; budget > 0; budget--) {
        int more = commit_step();
        more |= copy_step();
        if (!more && store.request == NULL && fetch_count() == 0)
            more = boot_step_idle();
        if (!more)
            return fetch_is_ready();
    }
    return 1;
}

/*
 * When it has something to do although nothing completes: a store that did not answer is asked again. A little later
 * than that, since a timer may be early, and what was not due then would not be looked at again.
 */
uint64_t store_wait_ns(void) {
    uint64_t now = store.env->now_ns(), deadline = fetch_deadline_ns();
    int is_running = store_commit_running();
    const uint64_t due_ns[] = {is_running ? commit_retry_ns() : boot_retry_ns(), is_running ? 0 : fill_retry_ns(),
                               attach_deadline_ns()};
    for (unsigned i = 0; i < sizeof due_ns / sizeof due_ns[0]; i++)
        if (due_ns[i] < UINT64_MAX - TIMER_SLACK_NS && due_ns[i] + TIMER_SLACK_NS > now &&
            due_ns[i] + TIMER_SLACK_NS < deadline)
            deadline = due_ns[i] + TIMER_SLACK_NS;
    return deadline == UINT64_MAX ? UINT64_MAX : deadline > now ? deadline - now : 0;
}

int store_has_unsaved_copies(void) { return store.unsaved || store.far_changed || boot_ready(); }
int store_waits_for_root(void) { return store_has_unsaved_copies() && fill_waits_for_root(); }
