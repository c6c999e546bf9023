/*
 * kernel/store/life.c: share counts inside a generation, and deaths (FORMAT.md, "The life of a block").
 *
 * Promise: a pointer that leaves the live tree takes one count from its near block, or ends its life; all that may
 * wait comes before anything changes, so a call that said -E_AGAIN can be made again.
 * Called by: tree.c (changes), space.c (clones and drops), commit.c (boot objects).
 */
#include "store/internal.h"

static struct node_key share_key(uint64_t block) { return page_of(TREE_MAIN, SPACE_SHARES, block / COUNTS_PER_PAGE); }

static uint32_t *share_entry(struct node *page, uint64_t block) {
    return (uint32_t *)(void *)page->page + block % COUNTS_PER_PAGE;
}

/* How many pointers more than one reach the near block. */
int life_share_read(uint64_t block, uint32_t *count) {
    struct node *page;
    int status = tree_read(share_key(block), &page);
    *count = status == 0 && page != NULL ? *share_entry(page, block) : 0;
    return status;
}

int life_share_add(uint64_t block, int change) {
    struct node *page;
    int status = tree_modify(share_key(block), &page);
    if (status != 0)
        return status;
    uint32_t *entry = share_entry(page, block);
    if (change < 0 && *entry == 0)
        return -E_CORRUPT;
    *entry += (uint32_t)change;
    return 0;
}

int life_die(uint64_t block, uint64_t birth) { return list_add(&list_dead, block, birth); }

/* A shared node is replaced by a changed copy: its children get one pointer more each, it gets one less. */
static int unshare(uint64_t block, const struct node_disk *node) {
    struct node *page;
    int status = 0;
    for (unsigned i = 0; status == 0 && node != NULL && i < NODE_FANOUT; i++)
        if (pointer_is_near(&node->child[i]))
            status = tree_modify(share_key(ptr_block(&node->child[i])), &page);
    if (status == 0)
        status = tree_modify(share_key(block), &page);
    if (status != 0)
        return status;
    for (unsigned i = 0; node != NULL && i < NODE_FANOUT; i++)
        if (pointer_is_near(&node->child[i]))
            check(life_share_add(ptr_block(&node->child[i]), 1) == 0);
    return life_share_add(block, -1);
}

/*
 * One pointer leaves the live tree. `node`: the contents, if it is a node whose changed copy takes its children; for
 * a node that goes with its whole subtree the caller releases the children.
 */
int life_release(const struct block_ptr_disk *pointer, enum tree_id tree, uint64_t space,
                 const struct node_disk *node) {
    uint32_t count = 0;
    int status = 0;
    if (!pointer_is_near(pointer))
        return 0;
    if (tree == TREE_MAIN && space >= SPACE_FIRST_USER)
        status = life_share_read(ptr_block(pointer), &count);
    if (status == 0 && count > 0)
        return unshare(ptr_block(pointer), node);
    return status == 0 ? life_die(ptr_block(pointer), ptr_birth(pointer)) : status;
}
