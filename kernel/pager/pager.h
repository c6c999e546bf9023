/*
 * kernel/pager/pager.h: memory that persists: page-in, dirty tracking, freeze, commit, eviction.
 *
 * Every state that a page of a space may have:
 *
 *   state      in RAM  mapped       list    meaning
 *   absent     no      no           -       the tree has it (or nothing: zeros)
 *   loading    yes     no           -       being fetched and verified (struct pagein)
 *   zero       -       zero frame   -       the tree has nothing: all such pages share one frame, read-only
 *   clean      yes     read-only    clean   same as the tree; may be dropped
 *   dirty      yes     writable     dirty   written in this epoch
 *   frozen     yes     read-only    frozen  written in the epoch that is being committed; not yet durable
 *   taken      yes     read-only    taken   frozen, and the commit has seen it: its block may be on the disk
 *   detached   yes     no           *       frozen or taken, and its space has a newer copy; freed when durable
 *
 * A write takes zero, clean -> dirty (in place, zero by a new frame); frozen -> detached, and a copy is dirty. A freeze
 * takes all dirty -> frozen in O(1): the list is handed over and the epoch raised. Only the end of the commit takes
 * taken -> clean, in O(1) too: until then a flush may fail, and all is written anew. So the epoch in which a page last
 * became dirty says what it is: dirty in this one, clean up to the durable one, else frozen. No freeze starts before
 * the commit before it has ended.
 *
 * Called by: proc, main.c. Context: kernel, interrupts off. Upward calls through struct pager_hooks.
 */
#ifndef PAGER_PAGER_H
#define PAGER_PAGER_H

#include <stddef.h>
#include <stdint.h>

#include "mm/space.h"
#include "store/store.h"

struct pager_hooks {
    void (*freezing)(void);                  /* last chance to put state into records of the epoch that ends */
    void (*durable)(uint64_t generation);    /* a generation is on the disk: release what it holds back */
    void (*wake)(const void *key);           /* whoever got PAGER_WAIT with this key tries again */
    void (*attention)(void);                 /* there is work: call pager_work and pager_deadline_ns soon */
    /* The machine cannot go on; nothing durable is lost. */
    void (*stop)(const char *why, int status) __attribute__((noreturn));
    uint64_t (*now_ns)(void);
    uint64_t (*wall_ns)(void);
};

struct pager_options {
    uint64_t interval_ns; /* between snapshots; 0: only on demand */
    int fill;             /* what nobody touches comes, too: when idle, and in an eighth of a busy machine's time */
    int record;           /* says which pages are asked of the store, in their order */
};

/* After store_open. Reads nothing. */
void pager_init(const struct pager_hooks *hooks, const struct pager_options *options);

enum pager_result { PAGER_DONE = 0, PAGER_WAIT = 1, PAGER_BAD = 2, PAGER_MORE = 3 };

/* Resolves a fault of the current space. PAGER_WAIT: *key is what hooks->wake will name. PAGER_BAD: the program may
 * not do that. */
enum pager_result pager_fault(uint64_t address, uint64_t error_code, const void **key);
/* Makes a range of the current space resident (and dirty, for write), so that the kernel may touch it until it
 * returns to ring 3. */
enum pager_result pager_user_prepare(uint64_t address, size_t size, int write, const void **key);
/* Whole pages become zero, a piece in each call: *done_size says how far it has come (0 at first). PAGER_MORE: call
 * again. */
enum pager_result pager_user_discard(uint64_t address, size_t size, uint64_t *done_size, const void **key);
/* Copies from a prepared range into pages of an exec region, which ring 3 cannot write. */
enum pager_result pager_user_exec_write(uint64_t address, const void *from, size_t size, const void **key);

void pager_switch(struct space *space); /* makes it current: protects it for this epoch, loads CR3 */

/*
 * Pages of space 0. Loaded ones stay. 0: it is here; -E_AGAIN: being read, call again; -E_IO, -E_CORRUPT: no store has
 * it (or a good copy) now, and the next call tries again.
 */
int pager_record_load(uint32_t page);
const void *pager_record(uint32_t page);    /* must be loaded */
void *pager_record_write(uint32_t page);    /* the same, made dirty in this epoch; valid until the next freeze */
/* As write, of a page that will be written anew: what no one has loaded is not read, but zero. NULL: no memory now. */
void *pager_record_begin(uint32_t page);
/* As load, while programs run; -E_AGAIN: *key is what wake will name. */
int pager_record_reach(uint32_t page, const void **key);

/* --- spaces that come and go (space.c) --- */

/* A space with the pages that `from` has in the tree: all of its pages, when nothing in it is dirty. -E_NOMEM;
 * -E_NOSPACE: the near store keeps what is left for those who run; -E_LIMIT: try again after the next durable
 * generation. */
int pager_space_begin(struct space *space, uint64_t id, uint64_t from);
/* A piece of giving back all memory of a space, in RAM and in the tree; its threads are gone. 1: call again; 0: done;
 * -E_LIMIT: try again after the next durable generation. */
int pager_space_end(struct space *space, uint64_t id);

/* Drops clean pages for who may not wait: a commit that has used up its reserve. 1: it is worth trying again. */
int pager_memory_make(void);
/* 1: programs need more pages than there is room for, and take them from each other (all of memory within seconds). To
 * be asked often. */
int pager_memory_is_short(uint64_t now);

void pager_start_over(void);                /* a program first waits for input: says whether its resume list was good */

int pager_describe(char *text, size_t size); /* what is durable, being committed, dirty; for panics, at any time */
uint64_t pager_epoch(void);
uint64_t pager_durable(void);               /* newest durable generation */
void pager_want_commit(void);               /* a snapshot as soon as possible, even of nothing */
/* The generation of this epoch gets a tag. -E_BUSY: it has one, or that of the running commit has: try again after
 * it. */
int pager_tag(const char *name, int automatic);
int pager_work(unsigned budget, int idle);  /* a slice of background work; 1: more to do right now */
uint64_t pager_deadline_ns(void);           /* when pager_work has to be called next; UINT64_MAX: after an event */

struct machine_stats;
void pager_stats(struct machine_stats *stats);

#endif
