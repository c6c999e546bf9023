/*
 * kernel/pager/record.c: the pages of space 0, which the kernel reads and writes through the direct map.
 *
 * Promise: a page that was loaded stays in RAM; pager_record_write marks before it gives the address, since no page
 * fault guards the direct map. Called by: proc. Context: kernel, interrupts off.
 */
#include "abi/record.h"
#include "lib/error.h"
#include "lib/lib.h"
#include "pager/internal.h"

enum { RECORD_PAGE_COUNT = RECORD_INBOX_PAGE + RECORD_INBOX_PAGE_COUNT };

static struct frame *record_frame[RECORD_PAGE_COUNT];

struct record_load {
    struct store_fetch fetch;
    struct frame *frame;
    int status; /* -E_AGAIN: being read; an error: not told yet */
};
static struct record_load load; /* one at a time: each is read once, most of them at the start */

static void record_loaded(struct store_fetch *fetch, int status) {
    if (status == 0)
        record_frame[load.frame->page] = load.frame;
    else
        frame_free(load.frame);
    load.status = status;
    pager.hooks->wake(&load);
    (void)fetch;
}

static struct frame *record_frame_new(uint32_t page) {
    struct frame *frame = frame_alloc(FRAME_RECORD, 1);
    if (frame == NULL && pager_memory_make())
        frame = frame_alloc(FRAME_RECORD, 1);
    if (frame == NULL)
        panic("no memory for record page %u", page);
    frame->page = page;
    return frame;
}

static int record_load(uint32_t page, const void **key) {
    check(page < RECORD_PAGE_COUNT);
    if (record_frame[page] != NULL)
        return 0;
    int status = load.status;
    *key = &load;
    if (status != -E_AGAIN)
        load.status = 0;
    if (status != 0)
        return status;
    struct block_ptr_disk pointer;
    status = store_lookup((struct page_key){SPACE_RECORDS, page}, &pointer, key);
    if (status != 0)
        return status;
    pager_note_touch(SPACE_RECORDS, page);
    struct frame *frame = record_frame_new(page);
    if (!ptr_present(&pointer)) {
        memset(frame_data(frame), 0, FRAME_SIZE);
        record_frame[page] = frame;
        return 0;
    }
    load = (struct record_load){.fetch = {.pointer = pointer, .page = frame_data(frame), .done = record_loaded},
                                .frame = frame, .status = -E_AGAIN};
    if (store_fetch(&load.fetch) != 0)
        panic("record page %u: the pointer makes no sense", page);
    return -E_AGAIN;
}

int pager_record_load(uint32_t page) {
    const void *key;
    int status = record_load(page, &key);
    return status == -E_NOMEM ? -E_AGAIN : status;
}

/* Records of a running machine's programs are not urgent: they wait for memory as pages do. */
int pager_record_reach(uint32_t page, const void **key) {
    if (record_frame[page] != NULL)
        return 0;
    struct frame *frame = page_frame_alloc(key);
    if (frame == NULL)
        return -E_AGAIN;
    frame_free(frame);
    int status = record_load(page, key);
    if (status != -E_NOMEM)
        return status;
    page_memory_wait(key);
    return -E_AGAIN;
}

void *pager_record_begin(uint32_t page) {
    check(page < RECORD_PAGE_COUNT);
    if (record_frame[page] != NULL)
        return pager_record_write(page);
    struct frame *frame = frame_alloc(FRAME_RECORD, 0);
    if (frame == NULL)
        return NULL;
    frame->page = page;
    memset(frame_data(frame), 0, FRAME_SIZE);
    record_frame[page] = frame;
    page_mark_dirty(frame);
    return frame_data(frame);
}

const void *pager_record(uint32_t page) {
    check(page < RECORD_PAGE_COUNT && record_frame[page] != NULL);
    return frame_data(record_frame[page]);
}

void *pager_record_write(uint32_t page) {
    check(page < RECORD_PAGE_COUNT && record_frame[page] != NULL);
    struct frame *frame = record_frame[page];
    if (page_is_frozen(frame)) {
        struct frame *copy = record_frame_new(page);
        memcpy(frame_data(copy), frame_data(frame), FRAME_SIZE);
        frame->kind = FRAME_PAGE; /* the commit frees it */
        page_detach(frame);
        record_frame[page] = frame = copy;
        pager.copied_count++;
    }
    if (!page_is_dirty(frame))
        page_mark_dirty(frame);
    return frame_data(frame);
}
