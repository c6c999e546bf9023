/*
 * tests/host/native/seal.h: changes blocks of a store so that every hash above them is right again, up to the root
 * record.
 *
 * Promise: after seal_set, whoever follows the pointers that led to the block before finds it with its hash; so what
 * the hashes do not speak for is reached. seal_learn finds the pointers, once, in a good store.
 * Used by: fuzz_store.c.
 */
#ifndef SEAL_H
#define SEAL_H

#include "ram.h"

enum seal_class {
    CLASS_HEADER,
    CLASS_ROOT,
    CLASS_NODE,        /* of the main tree, retained ones included */
    CLASS_PAGE,
    CLASS_META_NODE,
    CLASS_META_PAGE,   /* bitmap, generations, presence */
    CLASS_LIST,
    CLASS_BOOT,
    CLASS_COUNT,
};

/* A place that holds a pointer to a block. */
struct seal_edge {
    uint32_t parent, offset;
    uint32_t next; /* edge to the same block, from 1; 0: none */
};

enum { SEAL_BLOCK_MAX = 1 << 13 };

struct sealed {
    unsigned disk;
    uint64_t root_block;
    struct seal_edge *edge;
    uint32_t edge_count;
    uint32_t first_edge[SEAL_BLOCK_MAX]; /* by block, from 1 */
    uint32_t *member[CLASS_COUNT]; /* blocks of each class */
    unsigned member_count[CLASS_COUNT];
};

void seal_learn(struct sealed *sealed, unsigned disk, uint64_t root_block);
void seal_set(const struct sealed *sealed, uint64_t block, const void *data);

#endif
