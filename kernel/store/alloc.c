/*
 * kernel/store/alloc.c: free blocks: the bitmap pages of the meta tree, searched from where the last search ended.
 *
 * Promise: a block is given out only when its bit was clear and its place is not a fixed one; bits change in dirty
 * pages only, so a root that never becomes durable frees and takes nothing. Bitmap pages are read when they are
 * needed.
 * Called by: the commit, localising, and retention (which frees).
 */
#include "store/internal.h"

static uint64_t page_of_block(uint64_t block) { return block / BITS_PER_PAGE; }

/* The page of the bitmap with the block's bit. One that is damaged can be made anew (rebuild.c). */
static int bitmap_page(uint64_t block, int modify, struct node **page) {
    struct node_key key = page_of(TREE_META, META_BITMAP, page_of_block(block));
    int status = modify ? tree_modify(key, page) : tree_read(key, page);
    if (status == -E_CORRUPT)
        rebuild_wanted();
    return status;
}

static uint64_t *word_of(struct node *page, uint64_t block) {
    return (uint64_t *)(void *)page->page + block % BITS_PER_PAGE / 64;
}

static uint64_t bit_of(uint64_t block) { return (uint64_t)1 << block % 64; }

/* The last blocks whose writing failed: passed over as long as there are others. Of this run of the machine. */
enum { AVOIDED_COUNT = 16 };
static struct {
    uint64_t start, end;
} avoided[AVOIDED_COUNT];
static unsigned avoided_count; /* all that were, modulo the ring */

void alloc_avoid(uint64_t block, uint64_t count) {
    avoided[avoided_count % AVOIDED_COUNT].start = block;
    avoided[avoided_count++ % AVOIDED_COUNT].end = block + count;
}

void alloc_avoid_none(void) {
    memset(avoided, 0, sizeof avoided);
    avoided_count = 0;
}

static int is_avoided(uint64_t block) {
    for (unsigned i = 0; i < AVOIDED_COUNT && avoided_count != 0; i++)
        if (block >= avoided[i].start && block < avoided[i].end)
            return 1;
    return 0;
}

/*
 * Blocks whose copies were dropped: free in the root that is being built, but the durable one still names them. They
 * rest until it is durable.
 */
static uint32_t resting[REST_COUNT_MAX];
static unsigned resting_count;

unsigned alloc_resting(void) { return resting_count; }
void alloc_rested(void) { resting_count = 0; }

static int is_resting(uint64_t block) {
    for (unsigned i = 0; i < resting_count; i++)
        if (resting[i] == block)
            return 1;
    return 0;
}

/* The first clear bit in [from, end) of a bitmap page (NULL: all clear), or end. */
static uint64_t find_clear(const uint64_t *words, uint64_t from, uint64_t end) {
    for (uint64_t block = from; block < end;) {
        uint64_t bit = block % BITS_PER_PAGE;
        if (words != NULL && bit % 64 == 0 && words[bit / 64] == UINT64_MAX) {
            block += 64;
            continue;
        }
        if ((words == NULL || !(words[bit / 64] >> bit % 64 & 1)) && !block_is_fixed(block) && !is_avoided(block) &&
            !is_resting(block))
            return block;
        block++;
    }
    return end;
}

static uint64_t page_end(uint64_t block) {
    uint64_t end = (page_of_block(block) + 1) * BITS_PER_PAGE;
    return end < store.header.block_count ? end : store.header.block_count;
}

static int find_free(uint64_t *block) {
    uint64_t page_count = page_of_block(store.header.block_count - 1) + 1;
    uint64_t from = store.alloc_next;
    for (uint64_t i = 0; i <= page_count; i++) {
        struct node *page;
        if (from < RING_FIRST_BLOCK || from >= store.header.block_count)
            from = RING_FIRST_BLOCK;
        int status = bitmap_page(from, 0, &page);
        if (status != 0)
            return status;
        *block = find_clear(page != NULL ? (const uint64_t *)(void *)page->page : NULL, from, page_end(from));
        if (*block < page_end(from))
            return 0;
        from = page_end(from);
    }
    return -E_NOSPACE;
}

/* Takes a free block. */
int alloc_block(uint64_t *block) {
    struct node *page;
    uint64_t found = 0;
    int status = find_free(&found);
    if (status == 0)
        status = bitmap_page(found, 1, &page);
    if (status != 0)
        return status;
    *word_of(page, found) |= bit_of(found);
    store.alloc_next = found + 1;
    store.free_count--;
    *block = found;
    return 0;
}

/* Gives a block back: it may be taken at once. -E_INVAL: it is free already, who names it is damaged. */
int alloc_free(uint64_t block) {
    struct node *page;
    if (block >= store.header.block_count || block_is_fixed(block))
        return -E_INVAL;
    int status = bitmap_page(block, 1, &page);
    if (status != 0)
        return status;
    uint64_t *word = word_of(page, block);
    if (!(*word & bit_of(block)))
        return -E_INVAL;
    *word &= ~bit_of(block);
    store.free_count++;
    return 0;
}

/* alloc_free of this block will not wait. */
int alloc_prepare(uint64_t block) {
    struct node *page;
    return bitmap_page(block, 1, &page);
}

/* Frees a block that the durable root names, for the time when it does so no longer. */
int alloc_rest(uint64_t block) {
    check(resting_count < REST_COUNT_MAX);
    int status = alloc_free(block);
    if (status == 0)
        resting[resting_count++] = (uint32_t)block;
    return status;
}

/* In a bitmap that is made anew: somebody holds the block. 1: nobody else did before. */
int alloc_mark(uint64_t block) {
    struct node *page;
    if (block >= store.header.block_count || block_is_fixed(block))
        return -E_CORRUPT;
    int status = bitmap_page(block, 1, &page);
    if (status != 0)
        return status;
    uint64_t *word = word_of(page, block);
    int is_new = !(*word & bit_of(block));
    *word |= bit_of(block);
    return is_new;
}
