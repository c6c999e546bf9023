/*
 * kernel/pager/dirty.c: what happens at the first write to a page in an epoch. States: pager.h.
 *
 * Promise: when page_own or page_make_writable says PAGER_DONE, the page is on the dirty list of this epoch, and the
 * frozen version, if it is not durable yet, is untouched.
 * Called by: fault.c, record.c. Context: kernel, interrupts off; the fast path of every program.
 */
#include "lib/lib.h"
#include "pager/internal.h"

void page_mark_dirty(struct frame *frame) {
    list_remove(&frame->link);
    list_append(&pager.dirty, &frame->link);
    frame->epoch = pager.epoch;
    frame->taken = 0;
    if (pager.dirty_count++ == 0)
        pager.hooks->attention();
}

void page_detach(struct frame *frame) {
    frame->entry = NULL;
    if (!frame->taken) /* else the commit sorts it when it takes it */
        return;
    list_remove(&frame->link);
    list_append(&pager.taken_detached, &frame->link);
    pager.taken_detached_count++;
}

/* Gives the page a new frame with the contents of the old one (or zeros); the old one, if it was the page's own,
 * stays frozen. */
static struct frame *page_copy(struct space *space, uint64_t address, uint64_t *entry, struct frame *old,
                               const void **key) {
    struct frame *copy = page_frame_alloc(key);
    if (copy == NULL)
        return NULL;
    copy->space = space->id;
    copy->page = address >> FRAME_SHIFT;
    copy->entry = entry;
    copy->resident_count = &space->resident_count;
    if (old == pager.zero_frame) {
        memset(frame_data(copy), 0, FRAME_SIZE);
        pager.resident_count++;
        *copy->resident_count += 1;
    } else {
        memcpy(frame_data(copy), frame_data(old), FRAME_SIZE);
        page_detach(old);
        pager.copied_count++;
    }
    *entry = (*entry & ~PTE_ADDRESS) | frame_physical(copy);
    return copy;
}

enum pager_result page_own(struct space *space, uint64_t address, uint64_t *entry, const void **key) {
    struct frame *frame = frame_of(*entry & PTE_ADDRESS);
    if (frame == pager.zero_frame || page_is_frozen(frame)) {
        frame = page_copy(space, address, entry, frame, key);
        if (frame == NULL)
            return PAGER_WAIT;
        paging_invalidate(address);
    }
    if (!page_is_dirty(frame)) {
        page_mark_dirty(frame);
        throttle_count(space);
    }
    return PAGER_DONE;
}

enum pager_result page_make_writable(struct space *space, uint64_t address, uint64_t *entry, const void **key) {
    enum pager_result result = page_own(space, address, entry, key);
    if (result == PAGER_DONE)
        space_allow_write(space, address);
    return result;
}
