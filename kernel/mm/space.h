/*
 * kernel/mm/space.h: the address space of a program: its regions and page tables, and the O(1) write protection of all
 * of it.
 *
 * Promise (x86: the right to write is the AND of all levels): a leaf's write bit counts only while every entry above it
 * has its own. An entry above a leaf has the write bit only if something below it was written in this epoch.
 * space_protect takes the bits of the top level; space_allow_write pushes the protection down along one path before it
 * gives the bit back.
 * Called by: pager, proc. Context: kernel, interrupts off.
 */
#ifndef MM_SPACE_H
#define MM_SPACE_H

#include <stdint.h>

#include "abi/record.h"
#include "lib/list.h"

/* Bits of a leaf entry that the CPU ignores. */
enum { PTE_REGION_WRITE = 1 << 9 }; /* the region lets the program write here */

#define USER_END 0x0000800000000000ull

struct space {
    uint64_t id;
    uint64_t root;  /* physical address of the top table */
    uint64_t epoch; /* the epoch for which the tables are right; an older one: protect before use */
    uint64_t dirty_epoch, dirty_count; /* pages that became dirty in that epoch (pager/throttle.c) */
    uint64_t throttled_epoch;          /* the last one in which its program had to wait */
    uint64_t resident_count; /* pages of its own in RAM */
    uint32_t region_count;
    struct region_record region[REGION_COUNT_MAX];
    /* The leaf table written last: while the path to it may be written, a first write in it needs only the leaf. */
    uint64_t hot_index;      /* address >> 21, or SPACE_HOT_NONE */
    uint64_t *hot_entries;
    uint64_t *hot_writable;
};
#define SPACE_HOT_NONE UINT64_MAX

int space_init(struct space *space, uint64_t id); /* empty; 0 or -E_NOMEM */
const struct region_record *space_region(const struct space *space, uint64_t address); /* or NULL */

/* The leaf entry of an address; tables are made when `make` is set. NULL: no table, or no memory for one. */
uint64_t *space_entry(struct space *space, uint64_t address, int make);

/* Takes the space down by one page table; each present leaf entry in it is given to `drop` first. 1: call again; 0:
 * nothing is left, not even the top table. It must not be loaded. */
int space_take_down(struct space *space, void (*drop)(uint64_t *entry));

void space_protect(struct space *space);                           /* top level only; the caller flushes the TLB */
void space_allow_write(struct space *space, uint64_t address);     /* the leaf is present; invalidates it */

/* The leaf entry where the path above may already be written, else NULL. */
static inline uint64_t *space_hot_entry(const struct space *space, uint64_t address) {
    return address >> 21 == space->hot_index ? &space->hot_entries[address >> 12 & 511] : NULL;
}

#endif
