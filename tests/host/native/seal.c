/*
 * tests/host/native/seal.c: seal.h's promises.
 *
 * The edges are those of the newest root when the store was good; a block that several lead to has several.
 */
#include "seal.h"

enum { EDGE_MAX = 1 << 17, MEMBER_MAX = 1 << 13 };

static struct sealed *learning;
static uint8_t seen[SEAL_BLOCK_MAX];

static void add_member(enum seal_class class, uint64_t block) {
    if (learning->member_count[class] == MEMBER_MAX)
        fail("too many blocks of class %d", (int)class);
    learning->member[class][learning->member_count[class]++] = (uint32_t)block;
}

/* The contents of a block that was not met before, and the edge to it. */
static const void *follow(const struct block_ptr_disk *pointer, uint64_t parent, size_t offset, enum seal_class class) {
    if (!ptr_present(pointer) || ptr_store(pointer) != 0)
        return NULL;
    uint64_t block = ptr_block(pointer);
    if (learning->edge_count + 1 == EDGE_MAX || block >= SEAL_BLOCK_MAX)
        fail("too many pointers to learn");
    learning->edge[++learning->edge_count] =
        (struct seal_edge){(uint32_t)parent, (uint32_t)offset, learning->first_edge[block]};
    learning->first_edge[block] = learning->edge_count;
    if (seen[block])
        return NULL;
    seen[block] = 1;
    add_member(class, block);
    return disks[learning->disk].now[block]->data;
}

static void learn_tree(const struct block_ptr_disk *pointer, uint64_t parent, size_t offset, unsigned level,
                       unsigned directory, uint64_t key, int meta);

static void learn_list(const struct block_ptr_disk *head, uint64_t parent, size_t offset) {
    const struct list_block_disk *list = follow(head, parent, offset, CLASS_LIST);
    if (list != NULL)
        learn_list(&list->next, ptr_block(head), 0);
}

static void learn_generations(const struct generation_disk *record, uint64_t block) {
    for (unsigned i = 0; i < RECORDS_PER_TABLE_PAGE && record[i].generation != 0; i++) {
        size_t at = i * sizeof *record;
        learn_tree(&record[i].tree, block, at + offsetof(struct generation_disk, tree), 0, record[i].tree_height, 0, 0);
        learn_list(&record[i].dead, block, at + offsetof(struct generation_disk, dead));
        learn_list(&record[i].held, block, at + offsetof(struct generation_disk, held));
    }
}

/* A pointer of `directory` levels of directory, or with none left of `level` levels inside space `key`. */
static void learn_tree(const struct block_ptr_disk *pointer, uint64_t parent, size_t offset, unsigned level,
                       unsigned directory, uint64_t key, int meta) {
    unsigned node_level = directory > 0 ? directory : level;
    const void *data = follow(pointer, parent, offset, meta ? node_level > 0 ? CLASS_META_NODE : CLASS_META_PAGE
                                                            : node_level > 0 ? CLASS_NODE : CLASS_PAGE);
    if (data == NULL)
        return;
    if (node_level == 0 && meta && key == META_GENERATIONS)
        learn_generations(data, ptr_block(pointer));
    const struct node_disk *node = data;
    for (unsigned slot = 0; node_level > 0 && slot < NODE_FANOUT; slot++) {
        const struct block_ptr_disk *child = &node->child[slot];
        size_t at = slot * sizeof *child;
        if (!ptr_present(child))
            continue;
        if (directory > 0)
            learn_tree(child, ptr_block(pointer), at, directory == 1 ? ptr_level(child) : 0, directory - 1,
                       key * NODE_FANOUT + slot, meta);
        else
            learn_tree(child, ptr_block(pointer), at, level - 1, 0, key, meta);
    }
}

static void learn_boot(const struct block_ptr_disk *pointer, uint64_t parent, size_t offset) {
    const struct node_disk *node = follow(pointer, parent, offset, CLASS_BOOT);
    for (unsigned slot = 0; node != NULL && ptr_level(pointer) > 0 && slot < NODE_FANOUT; slot++)
        learn_boot(&node->child[slot], ptr_block(pointer), slot * sizeof node->child[0]);
}

void seal_learn(struct sealed *sealed, unsigned disk, uint64_t root_block) {
    const struct root_disk *root = (const void *)disks[disk].now[root_block]->data;
    *sealed = (struct sealed){.disk = disk, .root_block = root_block};
    learning = sealed;
    memset(seen, 0, sizeof seen);
    sealed->edge = arena_take(EDGE_MAX * sizeof *sealed->edge);
    for (unsigned class = 0; class < CLASS_COUNT; class++)
        sealed->member[class] = arena_take(MEMBER_MAX * sizeof **sealed->member);
    add_member(CLASS_HEADER, HEADER_BLOCK);
    add_member(CLASS_HEADER, HEADER_COPY_BLOCK);
    add_member(CLASS_ROOT, root_block);
    learn_tree(&root->tree, root_block, offsetof(struct root_disk, tree), 0, root->tree_height, 0, 0);
    learn_tree(&root->meta, root_block, offsetof(struct root_disk, meta), 0, root->meta_height, 0, 1);
    learn_boot(&root->kernel, root_block, offsetof(struct root_disk, kernel));
    learn_boot(&root->loader, root_block, offsetof(struct root_disk, loader));
    learn_boot(&root->resume, root_block, offsetof(struct root_disk, resume));
    learn_boot(&root->stores, root_block, offsetof(struct root_disk, stores));
}

/* A record's own hash. */
static void seal_record(uint8_t *page, size_t hash_at) { blake2b(page + hash_at, ROOT_HASH_SIZE, page, hash_at); }

void seal_set(const struct sealed *sealed, uint64_t block, const void *data) {
    struct sheet *sheet = sheet_new(data);
    disks[sealed->disk].now[block] = sheet;
    if (block == sealed->root_block)
        seal_record(sheet->data, offsetof(struct root_disk, hash));
    else if (block == HEADER_BLOCK || block == HEADER_COPY_BLOCK)
        seal_record(sheet->data, offsetof(struct header_disk, hash));
    for (uint32_t i = sealed->first_edge[block]; i != 0; i = sealed->edge[i].next) {
        const struct seal_edge *edge = &sealed->edge[i];
        uint8_t parent[BLOCK_SIZE];
        memcpy(parent, disks[sealed->disk].now[edge->parent]->data, BLOCK_SIZE);
        memcpy(parent + edge->offset + offsetof(struct block_ptr_disk, hash), sheet_hash(sheet), HASH_SIZE);
        seal_set(sealed, edge->parent, parent);
    }
}
