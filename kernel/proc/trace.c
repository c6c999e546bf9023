/*
 * kernel/proc/trace.c: the trace ring's persistent side: a ring of pages in space 0 (abi/trace.h).
 *
 * Promise: a generation holds what happened up to its freeze. One page is filled at a time, so that a snapshot has at
 * most that one more, and the machine record when the next page begins; nothing here asks for a snapshot. Each life
 * begins a page, so no old one is read. Events that come faster than a page for each snapshot wait in the ring in RAM,
 * and are lost, and counted, only when they are more than it holds.
 * Called by: schedule.c, in the pause: it costs no more than one page's events.
 */
#include "lib/lib.h"
#include "proc/internal.h"

static uint64_t kept_count;        /* of trace_count: in a page, or lost */
static uint64_t lost_count;
static uint64_t page_resume_count; /* the life that has begun the page of the machine record */

static uint32_t page_of(uint64_t number) { return RECORD_TRACE_PAGE + (uint32_t)(number % RECORD_TRACE_PAGE_COUNT); }

/* NULL: no memory now. */
static struct trace_page *page_begin(void) {
    uint64_t number = machine_record()->trace_page_number + 1, age_ns = log_now_ns();
    struct trace_page *page = pager_record_begin(page_of(number));
    if (page == NULL)
        return NULL;
    machine_record_write()->trace_page_number = number;
    page->number = number;
    page->resume_count = page_resume_count = proc_resume_count;
    page->base_mono_ns = proc_env.birth_ns();
    page->base_wall_ns = proc_env.wall_ns() - age_ns;
    page->event_count = 0;
    page->lost_count = (uint32_t)lost_count;
    lost_count = 0;
    return page;
}

static struct trace_page *page_to_fill(void) {
    uint32_t page = page_of(machine_record()->trace_page_number);
    if (page_resume_count != proc_resume_count)
        return page_begin();
    const struct trace_page *current = pager_record(page);
    return current->event_count < TRACE_EVENTS_PER_PAGE ? pager_record_write(page) : page_begin();
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

void trace_freezing(void) {
    if (trace_count - kept_count > TRACE_COUNT) {
        lost_count += trace_count - kept_count - TRACE_COUNT;
        kept_count = trace_count - TRACE_COUNT;
    }
    struct trace_page *page = page_to_fill();
    if (page == NULL)
        return;
    while (page->event_count < TRACE_EVENTS_PER_PAGE && kept_count < trace_count) {
        uint64_t from = kept_count % TRACE_COUNT;
        uint64_t count = smaller(TRACE_EVENTS_PER_PAGE - page->event_count,
                                 smaller(trace_count - kept_count, TRACE_COUNT - from));
        memcpy(&page->event[page->event_count], &trace_ring[from], count * sizeof *trace_ring);
        page->event_count += (uint32_t)count;
        kept_count += count;
    }
}
