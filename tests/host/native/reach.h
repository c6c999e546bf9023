/*
 * tests/host/native/reach.h: all that a root of the near disk reaches, by FORMAT.md alone.
 *
 * Promise: reach_collect fails unless what the root reaches is whole and invariant 4 holds: bitmap, counts, dead and held
 * lists, free count. What it returns is what every disk must hold on which that root is the newest.
 * Used by: crash_states.c; independent of the store's code but for its structures and BLAKE2b.
 */
#ifndef REACH_H
#define REACH_H

#include "ram.h"

struct need {
    uint64_t block;
    uint8_t hash[HASH_SIZE];
};

struct reach {
    struct need *need;
    unsigned count;
};

void reach_collect(const struct root_disk *root, struct reach *reach);
int reach_missing(const struct reach *reach, uint64_t *block); /* 1: the near disk lacks this block's contents */

#endif
