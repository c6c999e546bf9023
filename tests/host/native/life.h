/*
 * tests/host/native/life.h: a store lives through a seeded workload while all is written down that a power cut could
 * leave.
 *
 * Promise: the seed alone decides the run; a window is what the disk may forget just before a flush takes effect (or
 * when a commit says that it is durable), with the root that is promised by then; every durable root is in the table
 * with its pages, its reach verified when it was made.
 * Used by: crash_states.c.
 */
#ifndef LIFE_H
#define LIFE_H

#include "reach.h"

/* The pages of a generation that are not zero. */
struct model {
    struct change *entry;
    unsigned count;
};

struct root_info {
    struct root_disk disk;
    struct model model;
    struct reach reach;
    const struct change *change; /* what its commit wrote: read back first */
    unsigned change_count;
};

enum { ROOT_MAX = 512, WINDOW_MAX = 1024, ROOT_BLANK = -1 };
extern struct root_info roots[ROOT_MAX];
extern unsigned root_count;
int root_find(const uint8_t *hash); /* ROOT_BLANK: none has it */
const struct model *model_of(int root); /* of ROOT_BLANK: what an adoption gives */

struct window {
    struct sheet **base;
    const struct write *write;
    unsigned count;
    int promised; /* the root that has to survive, or ROOT_BLANK while near is */
    unsigned step;
};

struct record {
    struct window window[WINDOW_MAX];
    unsigned count;
    int promised;
    unsigned step;
};
extern struct record *recording; /* NULL: nothing is written down */

struct far {
    int attached;
    uint8_t trust[ROOT_HASH_SIZE];
    struct root_disk root;
    struct model model;
    struct sheet *loader[1 + LOADER_BLOCK_COUNT]; /* page 0 is the boot record */
};
extern struct far far;

uint64_t life_first_generation(void);
void life_run(uint64_t seed, unsigned step_count);    /* records; the last state stays on the disks */
int life_open(void);                                  /* trusts the far root if there is one */
void life_opened(void);                               /* after an open while recording: the root that it promised */
int life_commit(unsigned change_count);               /* some pages; 0: durable */

#endif
