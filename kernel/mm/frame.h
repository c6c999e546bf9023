/*
 * kernel/mm/frame.h: physical frames of 4096 bytes: who has each, and the free ones.
 *
 * Promise: allocation is O(1); nothing is initialised before its first use, so a start does not grow with memory. The
 * last frames (the reserve) go only to urgent callers: the commit path, which must never wait for memory, and records.
 * Called by: mm, pager, main.c. Context: kernel, interrupts off.
 */
#ifndef MM_FRAME_H
#define MM_FRAME_H

#include <stdint.h>

#include "arch/x86_64/arch.h"
#include "lib/list.h"

enum { FRAME_SIZE = 4096, FRAME_SHIFT = 12 };

enum frame_kind {
    FRAME_FREE,
    FRAME_KERNEL, /* the kernel's own, never given back */
    FRAME_TABLE,  /* a page table of a program */
    FRAME_STORE,  /* a node or buffer of the store */
    FRAME_PAGE,   /* a page of a space, mapped by a program */
    FRAME_RECORD, /* a page of space 0, reached through the direct map */
};

struct frame {
    /* FREE: free list. PAGE: dirty, frozen, taken, detached or clean list. RECORD: the same, or alone when clean */
    struct list_node link;
    uint64_t space, page;  /* PAGE, RECORD: which page this is */
    uint64_t epoch;        /* PAGE, RECORD: the epoch in which it last became dirty; 0: never */
    union {
        uint64_t *entry;    /* PAGE: the page-table entry that maps it; NULL: detached, only a commit needs it */
        uint64_t *writable; /* TABLE: bitmap of 512 entries whose write bit is set */
    };
    uint8_t kind;
    uint8_t taken; /* PAGE, RECORD: frozen, and the commit has seen it */
    uint8_t zero[6];
    uint64_t *resident_count; /* PAGE: of its space; set while mapped */
};
_Static_assert(sizeof(struct frame) == 64, "frame array index is a shift");

/* Sorts out the firmware's memory map; early pages can be had from then on. Returns the end of RAM. */
uint64_t frame_early_init(const struct boot_info *info, uint64_t kernel_end);
uint64_t frame_early_alloc(void);     /* a zeroed physical page below 4 GiB, before frame_init; panics without memory */
void frame_init(void);                /* after paging_init: the frame array */

struct frame *frame_alloc(enum frame_kind kind, int urgent); /* contents undefined; NULL: none */
void frame_free(struct frame *frame);
void frame_free_all(struct list_node *list, uint64_t count); /* O(1), whatever the count */
void *frame_alloc_contiguous(unsigned page_count);           /* zeroed, for DMA queues, never freed; NULL: none */
extern struct frame *frame_array;     /* by page frame number */
static inline struct frame *frame_of(uint64_t physical) { return &frame_array[physical >> FRAME_SHIFT]; }
static inline uint64_t frame_physical(const struct frame *frame) {
    return (uint64_t)(frame - frame_array) << FRAME_SHIFT;
}
static inline void *frame_data(const struct frame *frame) { return phys_to_virt(frame_physical(frame)); }

uint64_t frame_count_total(void);
uint64_t frame_count_free(void);
uint64_t frame_end_used(void);        /* frames from this number on were never given out: their states mean nothing */

#endif
