/*
 * tests/host/native/reach.c: the walk of reach.h.
 *
 * One walk at a time; a block that was met before is not walked again: it can have one contents only.
 */
#include "reach.h"

enum { BLOCK_COUNT_MAX = 1 << 14 };
typedef void leaf_visit(uint64_t space, uint64_t page, const void *data);

static struct {
    uint64_t block_count;
    const struct root_disk *root;
    struct need need[BLOCK_COUNT_MAX];
    unsigned need_count;
    uint8_t owner[BLOCK_COUNT_MAX];
    uint32_t pointers[BLOCK_COUNT_MAX]; /* of the newest tree, to each block */
    uint32_t shares[BLOCK_COUNT_MAX];
    uint8_t named[BLOCK_COUNT_MAX];     /* by a dead or held list */
    uint64_t bits[BLOCK_COUNT_MAX / 64];
    uint64_t last_generation, first_generation;
    int newest;    /* the newest tree is being walked */
    int in_shares; /* and in it the share counts */
} walk;

static void own(uint64_t block, enum owner owner) {
    if (block >= walk.block_count || block_is_fixed(block))
        fail("block %lu cannot be owned", (unsigned long)block);
    if (walk.owner[block] != OWNER_NONE && walk.owner[block] != owner)
        fail("block %lu belongs to %d and to %d", (unsigned long)block, walk.owner[block], (int)owner);
    walk.owner[block] = (uint8_t)owner;
}

static void need(uint64_t block, const uint8_t *hash, enum owner owner) {
    if (memcmp(sheet_hash(disks[NEAR].now[block]), hash, HASH_SIZE) != 0)
        fail("root %lu: block %lu does not have its hash", (unsigned long)walk.root->sequence, (unsigned long)block);
    struct need *new = &walk.need[walk.need_count++];
    *new = (struct need){.block = block, .owner = owner, .for_pages = walk.newest && !walk.in_shares};
    memcpy(new->hash, hash, HASH_SIZE);
}

/* The contents of a near block that is met for the first time, or NULL. */
static const void *enter(const struct block_ptr_disk *pointer, unsigned level, enum owner owner) {
    if (!ptr_present(pointer) || ptr_store(pointer) != 0)
        return NULL;
    uint64_t block = ptr_block(pointer);
    if (ptr_level(pointer) != level || ptr_length(pointer) != BLOCK_SIZE || ptr_place(pointer) % SECTORS_PER_BLOCK != 0)
        fail("a pointer to block %lu: level %u, %u is due", (unsigned long)block, ptr_level(pointer), level);
    if (ptr_birth(pointer) > walk.root->generation)
        fail("block %lu was born in %lu", (unsigned long)block, (unsigned long)ptr_birth(pointer));
    int known = block < walk.block_count && walk.owner[block] == owner;
    own(block, owner);
    if (walk.newest)
        walk.pointers[block]++;
    if (known)
        return NULL;
    need(block, pointer->hash, owner);
    return disks[NEAR].now[block]->data;
}

static void walk_space(const struct block_ptr_disk *pointer, unsigned level, uint64_t space, uint64_t prefix,
                       enum owner owner, leaf_visit *leaf) {
    const void *data = enter(pointer, level, owner);
    if (data == NULL)
        return;
    if (level == 0) {
        if (leaf != NULL)
            leaf(space, prefix, data);
        return;
    }
    const struct node_disk *node = data;
    for (unsigned slot = 0; slot < NODE_FANOUT; slot++)
        if (ptr_present(&node->child[slot]))
            walk_space(&node->child[slot], level - 1, space, prefix * NODE_FANOUT + slot, owner, leaf);
}

static void walk_directory(const struct block_ptr_disk *pointer, unsigned level, uint64_t prefix, enum owner owner,
                           leaf_visit *leaf) {
    if (level == 0) {
        walk.in_shares = prefix == SPACE_SHARES;
        walk_space(pointer, ptr_level(pointer), prefix, 0, owner, leaf);
        walk.in_shares = 0;
        return;
    }
    const struct node_disk *node = enter(pointer, level, owner);
    for (unsigned slot = 0; node != NULL && slot < NODE_FANOUT; slot++)
        if (ptr_present(&node->child[slot]))
            walk_directory(&node->child[slot], level - 1, prefix * NODE_FANOUT + slot, owner, leaf);
}

static void newest_leaf(uint64_t space, uint64_t page, const void *data) {
    const uint32_t *count = data;
    for (unsigned i = 0; space == SPACE_SHARES && i < COUNTS_PER_PAGE; i++)
        if (count[i] != 0)
            walk.shares[page * COUNTS_PER_PAGE + i] = count[i];
}

static void walk_list(struct block_ptr_disk head, uint64_t count) {
    uint64_t found = 0;
    while (ptr_present(&head)) {
        const struct list_block_disk *list = enter(&head, 0, OWNER_LIST);
        if (list == NULL || list->count > LIST_ENTRY_COUNT_MAX)
            fail("a list meets another or leaves the store");
        for (uint32_t i = 0; i < list->count; i++) {
            uint64_t block = list->entry[i].block;
            if (block >= walk.block_count || block_is_fixed(block) || walk.named[block] || walk.pointers[block] != 0)
                fail("a list names block %lu: alive, fixed or named twice", (unsigned long)block);
            walk.named[block] = 1;
        }
        found += list->count;
        head = list->next;
    }
    if (found != count)
        fail("a list has %lu entries, its record says %lu", (unsigned long)found, (unsigned long)count);
}

static void walk_record(const struct generation_disk *record) {
    uint64_t newest = walk.root->generation, due = record->generation;
    if (due <= walk.last_generation || due > newest)
        fail("the generation table is not in order");
    if (due > walk.first_generation && due + walk.root->retain_count > newest + 1 && due != walk.last_generation + 1)
        fail("generation %lu is not retained", (unsigned long)due - 1);
    walk.last_generation = record->generation;
    if (!(record->flags & GENERATION_DROPPED)) /* else the next commit may take its blocks */
        walk_directory(&record->tree, record->tree_height, 0, OWNER_TREE, NULL);
    walk_list(record->dead, record->dead_count);
    walk_list(record->held, record->held_count);
}

static void meta_leaf(uint64_t space, uint64_t page, const void *data) {
    const uint32_t *copy = data;
    if (space == META_BITMAP)
        memcpy((uint8_t *)walk.bits + page * BLOCK_SIZE, data, sizeof walk.bits < BLOCK_SIZE ? sizeof walk.bits : BLOCK_SIZE);
    const struct generation_disk *record = data;
    for (unsigned i = 0; space == META_GENERATIONS && i < RECORDS_PER_TABLE_PAGE && record[i].generation != 0; i++)
        walk_record(&record[i]);
    for (unsigned i = 0; space > META_PRESENCE && i < COUNTS_PER_PAGE; i++) {
        if (copy[i] == 0)
            continue;
        own(copy[i], OWNER_COPY);
        /* the one far store is store 1 */
        need(copy[i], sheet_hash(disks[FAR].now[page * COUNTS_PER_PAGE + i]), OWNER_COPY);
    }
}

static void check_block(uint64_t block) {
    uint32_t more = walk.pointers[block] > 0 ? walk.pointers[block] - 1 : 0;
    int taken = (int)(walk.bits[block / 64] >> block % 64 & 1);
    if (walk.shares[block] != more)
        fail("block %lu: share count %u, pointers more than one %u", (unsigned long)block, walk.shares[block], more);
    if (walk.owner[block] == OWNER_TREE && walk.pointers[block] == 0 && !walk.named[block])
        fail("block %lu is of an older generation only, and on no list: a leak", (unsigned long)block);
    if (walk.named[block] && walk.owner[block] == OWNER_NONE)
        walk.owner[block] = OWNER_DEAD;
    if (taken != (walk.owner[block] != OWNER_NONE))
        fail("block %lu: bit %d, owner %d", (unsigned long)block, taken, walk.owner[block]);
}

static void check_allocation(void) {
    uint64_t free_count = walk.block_count - FIXED_BLOCK_COUNT;
    for (uint64_t block = 0; block < walk.block_count; block++) {
        check_block(block);
        free_count -= walk.bits[block / 64] >> block % 64 & 1;
    }
    if (walk.root->free_count != free_count)
        fail("the root says %lu free blocks, there are %lu", (unsigned long)walk.root->free_count,
             (unsigned long)free_count);
}

void reach_collect(const struct root_disk *root, uint64_t first, struct reach *reach) {
    memset(&walk, 0, sizeof walk);
    walk.block_count = disks[NEAR].block_count;
    walk.root = root;
    walk.first_generation = first;
    walk.newest = 1;
    walk_directory(&root->tree, root->tree_height, 0, OWNER_TREE, newest_leaf);
    walk.newest = 0;
    walk_directory(&root->meta, root->meta_height, 0, OWNER_META, meta_leaf);
    const struct block_ptr_disk *object[] = {&root->kernel, &root->loader, &root->resume, &root->stores,
                                             &root->stores_copy};
    for (unsigned i = 0; i < 5; i++)
        walk_space(object[i], ptr_level(object[i]), 0, 0, OWNER_BOOT, NULL);
    if (walk.last_generation != 0 && walk.last_generation != root->generation)
        fail("the newest record is %lu, the root's generation %lu", (unsigned long)walk.last_generation,
             (unsigned long)root->generation);
    check_allocation();
    reach->count = walk.need_count;
    reach->need = arena_take(walk.need_count * sizeof *reach->need);
    memcpy(reach->need, walk.need, walk.need_count * sizeof *reach->need);
}

int reach_missing(const struct reach *reach, uint64_t *block) {
    for (unsigned i = 0; i < reach->count; i++) {
        *block = reach->need[i].block;
        if (memcmp(sheet_hash(disks[NEAR].now[*block]), reach->need[i].hash, HASH_SIZE) != 0)
            return 1;
    }
    return 0;
}
