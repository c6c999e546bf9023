/*
 * kernel/store/bound.c: how many blocks the running commit writes at most, and whether there are so many.
 *
 * Promise: a commit that is begun because it fits never ends for want of a block: all bounds are from above.
 * Called by: commit.c, before it changes anything.
 */
#include "store/internal.h"

/* Nodes that change at most when `pages` of the first `bound` + 1 pages of so many spaces of this height do. */
static uint64_t nodes_bound(uint64_t pages, uint64_t space_count, uint64_t bound, unsigned height) {
    uint64_t sum = 0;
    while (height < SPACE_HEIGHT_MAX && bound >> (NODE_FANOUT_BITS * height) != 0)
        height++;
    for (unsigned level = 1; level <= height; level++) {
        uint64_t exist = space_count * ((bound >> (NODE_FANOUT_BITS * level)) + 1);
        sum += pages < exist ? pages : exist;
    }
    for (unsigned level = 1; level <= DIRECTORY_HEIGHT_MAX; level++)
        sum += (space_count >> (NODE_FANOUT_BITS * level)) + 2;
    return sum;
}

static uint64_t meta_dirty_count(void) {
    uint64_t count = 0;
    for (unsigned level = 0; level < LEVEL_COUNT; level++)
        list_for_each(link, cache_dirty(TREE_META, level))
            count++;
    return count;
}

static int makes_generation(void) { return store.request->generation != store.root.generation; }

static uint64_t worst_case_main(int has_shares) {
    uint64_t pages = store.request->page_count, share_pages = store.header.block_count / COUNTS_PER_PAGE + 1;
    uint64_t sum = pages + nodes_bound(pages, store.space_bound + 1, store.page_bound, store.height_bound);
    if (clone_pending() || has_shares)
        sum += share_pages + nodes_bound(share_pages, 1, share_pages, 0);
    return sum;
}

static uint64_t worst_case(const struct retain_survey *survey, int has_shares, uint64_t free_count) {
    uint64_t bitmap = store.header.block_count / BITS_PER_PAGE + 1;
    uint64_t table = survey->record_count / RECORDS_PER_TABLE_PAGE + 2;
    uint64_t sum = makes_generation() ? worst_case_main(has_shares) : 0;
    sum += bitmap + nodes_bound(bitmap, 1, bitmap, 0) + table + table / NODE_FANOUT + 1 + meta_dirty_count();
    sum += survey->leaving + survey->entry_count / LIST_ENTRY_COUNT_MAX; /* held lists */
    uint64_t clone_deaths = clone_pending() ? store.header.block_count - free_count : 0;
    uint64_t entry_count = sum + list_dead.count + clone_deaths;
    return sum + entry_count / LIST_ENTRY_COUNT_MAX + 1 + BOOT_OBJECT_COUNT + replace_bound();
}

/* Left free by a commit with pages, so that some roots that give generations up can follow. */
static uint64_t spare_count(void) {
    return makes_generation() ? SPARE_BLOCK_COUNT + 4 * (store.header.block_count / BITS_PER_PAGE) : 0;
}

int bound_fits(const struct retain_survey *survey, int has_shares) {
    return worst_case(survey, has_shares, store.free_count) + spare_count() <=
           store.free_count - alloc_resting() + survey->freeable;
}

/* Whether the commit would not find room either if all generations were given up that may be: then none is. */
int bound_in_vain(const struct retain_survey *survey, int has_shares) {
    static const struct retain_survey none;
    uint64_t free_count = store.free_count + survey->winnable;
    return worst_case(&none, has_shares, free_count) + spare_count() > free_count;
}
