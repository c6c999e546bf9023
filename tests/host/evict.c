/*
 * tests/host/evict.c: which clean pages go when memory is short.
 *
 * Reads "CURRENT START END": the space that runs, and the pages of it that a system call is using; then lines
 * "space page state" of pages, least recently loaded first: 0 clean, 1 clean and accessed, 2 dirty. Drops two batches;
 * prints each page that goes.
 * Built and called by: test_evict.py. kernel/pager/evict.c is included, with what it calls in place of the kernel's.
 */
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86_64/arch.h"
#define paging_invalidate(address) ((void)(address))
#include "pager/evict.c"

enum { FRAME_COUNT_MAX = 256 };

struct pager_state pager;
static struct frame frames[FRAME_COUNT_MAX];
static uint64_t entries[FRAME_COUNT_MAX], resident_count;

void panic(const char *template, ...) {
    fprintf(stderr, "panic: %s\n", template);
    exit(1);
}

void frame_free(struct frame *frame) {
    check(*frame->entry == 0 && !list_linked(&frame->link));
    printf("%llu %llu\n", (unsigned long long)frame->space, (unsigned long long)frame->page);
}

struct frame *frame_alloc(enum frame_kind kind, int urgent) {
    (void)kind;
    (void)urgent;
    return NULL;
}

uint64_t frame_count_free(void) { return 0; }
void pager_want_commit(void) {}
size_t store_shrink(size_t page_count) { return page_count * 0; }

void trace(enum trace_kind kind, uint32_t small, uint64_t a, uint64_t b) {
    (void)kind;
    (void)small;
    (void)a;
    (void)b;
}

int main(void) {
    static struct space current;
    unsigned long long id, start, end, state, space, page;
    list_init(&pager.clean);
    list_init(&pager.dirty);
    if (scanf("%llu %llu %llu", &id, &start, &end) != 3)
        return 1;
    current.id = id;
    pager.current = &current;
    pager.prepared_start = start;
    pager.prepared_end = end;
    for (unsigned i = 0; i < FRAME_COUNT_MAX && scanf("%llu %llu %llu", &space, &page, &state) == 3; i++) {
        entries[i] = PTE_PRESENT | (state == 1 ? PTE_ACCESSED : 0);
        frames[i] = (struct frame){.kind = FRAME_PAGE, .space = space, .page = page, .entry = &entries[i],
                                   .resident_count = &resident_count};
        list_init(&frames[i].link);
        list_append(state == 2 ? &pager.dirty : &pager.clean, &frames[i].link);
        pager.resident_count++;
        resident_count++;
    }
    for (unsigned batch = 0; batch < 2; batch++)
        page_memory_make();
    check(pager.resident_count == resident_count);
    return 0;
}
