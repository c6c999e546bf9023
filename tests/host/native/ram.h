/*
 * tests/host/native/ram.h: the store's surroundings on the host, for native programs: memory, chance, copy-on-write
 * disks.
 *
 * Promise: the same seed gives the same run; a disk is an array of immutable blocks, so any state of it is taken,
 * changed and put back by copying pointers; a page that is used after its end is found by AddressSanitizer.
 * Used by: crash_states.c and fuzz_store.c beside it; nothing of it is in the kernel.
 */
#ifndef RAM_H
#define RAM_H

#include "store/internal.h" /* the judge looks at the root that was taken, and at the tree's pointers */

enum { DISK_COUNT = 2, NEAR = 0, FAR = 1 };

/* --- memory that is given back in the order of a stack --- */
void *arena_take(size_t size); /* zeroed */
size_t arena_mark(void);
void arena_release(size_t mark);

/* --- chance --- */
void chance_seed(uint64_t seed);
uint64_t chance(uint64_t bound); /* below bound */

/* --- blocks --- */
struct sheet {
    uint8_t data[BLOCK_SIZE];
    uint8_t hash[HASH_SIZE];
    int hashed;
};
struct sheet *sheet_new(const void *data);
const uint8_t *sheet_hash(struct sheet *sheet);
extern struct sheet zero_sheet;

/* A write that the disk may still forget. */
struct write {
    uint64_t block;
    struct sheet *sheet;
    const struct store_io *running; /* NULL: completed */
    uint64_t completed_at;
};

enum { VOLATILE_MAX = 8192 };
struct disk {
    uint64_t block_count;
    struct sheet **now;  /* what a read gives */
    struct sheet **base; /* what a power cut leaves for certain */
    struct write volatile_write[VOLATILE_MAX];
    unsigned volatile_count;
};
extern struct disk disks[DISK_COUNT];
void disk_make(unsigned disk, uint64_t block_count); /* all zeros */
void disk_format(unsigned disk);                     /* an empty store of generation 1 */
struct sheet **disk_copy(struct sheet *const *blocks, uint64_t block_count);

/* --- running the store --- */
extern struct store_env ram_env;
extern int ram_synchronous;   /* requests complete at once; else by chance, in any order */
extern int ram_verbose;
extern unsigned ram_page_limit; /* pages that the store may have, the commit's reserve aside */
extern uint64_t ram_write_count, ram_flush_count;
extern void (*ram_before_flush)(void); /* just before what a near flush covers becomes durable */
extern void (*ram_meanwhile)(void);     /* between two slices of a commit */
void ram_power_off(void);     /* the store and its memory are gone; the disks stay */
int ram_complete_one(void);   /* 0: nothing was pending */
int ram_open(const uint8_t *trust); /* NULL: none is trusted */
int ram_wait_step(unsigned *rounds); /* 0: it waits for nothing */
int ram_read(struct page_key key, void *page);

/* --- pages that tell themselves apart --- */
void page_fill(void *page, uint64_t value); /* 0: zeros */
int page_holds(const void *page, uint64_t value);

/* --- commits --- */
struct change {
    struct page_key key;
    uint64_t value;
};
/* What the next commit says besides its pages, and with which retention the store is opened (count 0: as the root
 * says). */
struct commit_words {
    const char *tag;
    uint64_t tag_generation, untag_generation, wall_ns; /* wall_ns 0: from the generation */
    uint32_t flags;
};
extern struct commit_words ram_words;
extern struct store_retention ram_retention;
/* -E_AGAIN: it waits, and nothing that it could wait for is left. */
int ram_commit(uint64_t generation, const struct change *change, unsigned count);

/* Supplied by the program: says what was being tried, and ends it. */
_Noreturn void fail(const char *template, ...) __attribute__((format(printf, 1, 2)));

#endif
