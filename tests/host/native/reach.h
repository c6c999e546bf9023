/*
 * tests/host/native/reach.h: all that a root of the near disk reaches, by FORMAT.md alone.
 *
 * Promise: reach_collect fails unless what the root reaches is whole and invariant 4 holds: bitmap, counts, dead and
 * held lists, free count. What it returns is what every disk must hold on which that root is the newest.
 * Used by: life.c, crash_states.c, damage.c; independent of the store's code but for its structures and BLAKE2b.
 */
#ifndef REACH_H
#define REACH_H

#include "ram.h"

enum owner { OWNER_NONE, OWNER_TREE, OWNER_META, OWNER_LIST, OWNER_BOOT, OWNER_COPY, OWNER_DEAD };

struct need {
    uint64_t block;
    uint8_t hash[HASH_SIZE];
    enum owner owner;
    int for_pages; /* a page of the newest tree is found through it */
};

struct reach {
    struct need *need;
    unsigned count;
};

/* first: the store's first generation; from it on, the newest retain_count must be there. */
void reach_collect(const struct root_disk *root, uint64_t first, struct reach *reach);
int reach_missing(const struct reach *reach, uint64_t *block); /* 1: the near disk lacks this block's contents */

#endif
