/*
 * kernel/pager/evict.c: frames for pages when memory is short: clean pages go (second chance by the accessed bit), then
 * clean nodes of the store; when all is dirty, a snapshot makes it clean and the program waits.
 *
 * Called by: dirty.c, fault.c, record.c; main.c for the store. Context: kernel, interrupts off.
 */
#include "lib/lib.h"
#include "pager/internal.h"

enum { EVICT_BATCH = 32, TURNOVER_S = 8 };
#define WINDOW_NS 1000000000ull
#define SHORT_NS (10 * WINDOW_NS) /* so long after it was last seen, memory counts as short: then it is tried without */

const char pager_memory_key;

static struct {
    uint64_t window_ns, dropped_count; /* of the window that began then */
    uint64_t end_ns;
} shortage;

static void page_drop(struct frame *frame) {
    list_remove(&frame->link);
    uint64_t address = frame->page << FRAME_SHIFT;
    *frame->entry = 0;
    if (pager.current != NULL && pager.current->id == frame->space)
        paging_invalidate(address); /* other spaces lose their translations when they are loaded */
    pager.resident_count--;
    *frame->resident_count -= 1;
    frame_free(frame);
}

static int page_is_prepared(const struct frame *frame) {
    return frame->page >= pager.prepared_start && frame->page < pager.prepared_end && pager.current->id == frame->space;
}

static size_t evict(size_t page_count) {
    size_t dropped = 0;
    for (uint64_t tries = pager.resident_count * 2; tries > 0 && dropped < page_count; tries--) {
        if (list_empty(&pager.clean))
            break;
        struct frame *frame = list_entry(pager.clean.next, struct frame, link);
        if ((*frame->entry & PTE_ACCESSED) || page_is_prepared(frame)) {
            *frame->entry &= ~(uint64_t)PTE_ACCESSED;
            list_remove(&frame->link);
            list_append(&pager.clean, &frame->link);
            continue;
        }
        page_drop(frame);
        dropped++;
    }
    shortage.dropped_count += dropped;
    return dropped;
}

int pager_memory_is_short(uint64_t now) {
    if (now - shortage.window_ns >= WINDOW_NS) {
        if (shortage.dropped_count > pager.resident_count / TURNOVER_S)
            shortage.end_ns = now + SHORT_NS;
        shortage.window_ns = now;
        shortage.dropped_count = 0;
    }
    return now < shortage.end_ns;
}

/* Drops a batch of clean pages and nodes. 1: it is worth trying again. A snapshot is asked for long before all is
 * dirty, or the last clean pages, those that the program runs in, would go for each other for ever. */
int page_memory_make(void) {
    if (pager.dirty_count > pager.resident_count / 2)
        pager_want_commit();
    return evict(EVICT_BATCH) + store_shrink(EVICT_BATCH) > 0;
}

/* No nodes here: the store may be in the middle of its work with them, and drops them by itself. */
int pager_memory_make(void) {
    return evict(EVICT_BATCH) > 0;
}

/* All that is left is dirty or in use: a snapshot makes it clean, and *key is woken as it proceeds and when it ends. */
void page_memory_wait(const void **key) {
    trace(TRACE_ALL_DIRTY, 0, pager.dirty_count, frame_count_free());
    pager_want_commit();
    *key = &pager_memory_key;
}

struct frame *page_frame_alloc(const void **key) {
    struct frame *frame = frame_alloc(FRAME_PAGE, 0);
    if (frame == NULL && page_memory_make())
        frame = frame_alloc(FRAME_PAGE, 0);
    if (frame == NULL)
        page_memory_wait(key);
    return frame;
}
