/*
 * kernel/pager/space.c: spaces that come and go while the machine runs: clones, and the end of a space.
 *
 * Promise: a clone costs one operation of the store, whatever the space holds; what a space had in RAM is given back a
 * page table at a time, and what it has in the tree in the commit of the epoch in which the last piece was done. Pages
 * that are being committed stay until they are written.
 * Called by: proc. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "pager/internal.h"

enum { FREE_PART = 4 }; /* a fourth of the near store is kept for the programs that there are */

static int near_has_room(void) {
    struct store_facts facts;
    store_facts(&facts);
    return !snapshot_waits_for_room() && facts.near_blocks_free >= facts.near_blocks_total / FREE_PART;
}

int pager_space_begin(struct space *space, uint64_t id, uint64_t from) {
    const void *key;
    if (!near_has_room())
        return -E_NOSPACE;
    if (space_init(space, id) != 0 && (!page_memory_make() || space_init(space, id) != 0))
        return -E_NOMEM;
    space->epoch = pager.epoch;
    int status = store_space_clone(from, id, &key);
    if (status == 0)
        return 0;
    while (space_take_down(space, NULL))
        ;
    return status;
}

/* A frozen page stays for the commit that writes it; all others are nobody's. */
static void page_give_back(uint64_t *entry) {
    struct frame *frame = frame_of(*entry & PTE_ADDRESS);
    *entry = 0;
    if (frame == pager.zero_frame)
        return;
    pager.resident_count--;
    if (page_is_frozen(frame)) {
        page_detach(frame);
        return;
    }
    if (page_is_dirty(frame))
        pager.dirty_count--;
    list_remove(&frame->link);
    frame_free(frame);
}

int pager_space_end(struct space *space, uint64_t id) {
    if (space->root != 0) {
        if (pager.current == space) {
            pager.current = NULL;
            pager.prepared_start = pager.prepared_end = 0;
            paging_load(paging_kernel_root());
        }
        pagein_forget_space(space);
        if (space_take_down(space, page_give_back))
            return 1;
        pager.hooks->wake(&pager_memory_key);
    }
    return snapshot_waits_for_room() ? -E_LIMIT : store_space_drop(id);
}
