/*
 * kernel/store/rebuild.c: the bitmap made anew where a page of it is damaged, from all that holds blocks.
 *
 * Promise: what a retained generation, the meta tree, a boot object, a copy or a list holds is taken in the new bitmap
 * (FORMAT.md, "Failures"). It is made in the cache, from the durable root, and becomes durable with the commit that
 * follows; until then nothing is freed. Anything else that is damaged on the way ends it, with a word.
 * Called by: commit.c, between the undoing of a commit and its new beginning; nobody else allocates meanwhile.
 */
#include "store/internal.h"

enum { PHASE_DONE = 2 };
enum source { SOURCE_RECORDS, SOURCE_NEWEST, SOURCE_META, SOURCE_BOOT, SOURCE_DEAD, SOURCE_HELD, SOURCE_END };

/* A block on the way down. */
struct place {
    struct block_ptr_disk pointer;
    void *page;
    int is_loaded, is_list;
    unsigned level;   /* as of a node's key */
    unsigned index;   /* of the child that is next */
    uint64_t space;   /* in the directory: the prefix */
};

static struct {
    int is_due;       /* a page of the bitmap did not have its hash */
    int running, begun;
    enum source source;
    uint64_t index;   /* of the record or boot object that is next */
    enum tree_id tree;
    struct place stack[LEVEL_COUNT + 1];
    unsigned depth;
    uint64_t taken_count;
    struct store_fetch fetch; /* of the lowest place */
    int reading, is_read, status;
} rebuild;

void rebuild_wanted(void) { rebuild.is_due = 1; }
int rebuild_is_due(void) { return rebuild.is_due && !rebuild.running; }
int rebuild_is_running(void) { return rebuild.running; }
int rebuild_is_reading(void) { return rebuild.reading; }
void rebuild_init(void) { memset(&rebuild, 0, sizeof rebuild); }

/* Forgets what was walked; what is in the cache goes as all that is dirty does. */
void rebuild_undo(void) {
    for (unsigned i = 0; i < rebuild.depth; i++)
        if (rebuild.stack[i].page != NULL)
            store.env->page_free(rebuild.stack[i].page);
    rebuild_init();
}

/* The state in memory is the durable root's. */
void rebuild_start(void) {
    rebuild_undo();
    rebuild.running = 1;
    store_notice("near: its map of free blocks is damaged: it is made anew from all that is kept");
}

/* The damaged tree leaves the meta tree; its blocks die when the walk meets them. */
static int begin(void) {
    struct block_ptr_disk *slot;
    int status = tree_space_slot(TREE_META, META_BITMAP, &slot);
    if (status != 0)
        return status;
    memset(slot, 0, sizeof *slot);
    cache_forget_space(TREE_META, META_BITMAP);
    rebuild.begun = 1;
    return 1;
}

/* --- down a tree --- */

static int mark(uint64_t block) {
    int status = alloc_mark(block);
    rebuild.taken_count += status == 1;
    return status;
}

static int is_bitmap(unsigned level, uint64_t space) {
    return rebuild.tree == TREE_META && level <= LEVEL_DIRECTORY && space == META_BITMAP;
}

static int is_map_of_copies(unsigned level, uint64_t space) {
    return rebuild.tree == TREE_META && level == 0 && space > META_PRESENCE;
}

static void push(const struct block_ptr_disk *pointer, unsigned level, uint64_t space, int is_list) {
    check(rebuild.depth < sizeof rebuild.stack / sizeof rebuild.stack[0]);
    rebuild.stack[rebuild.depth++] =
        (struct place){.pointer = *pointer, .level = level, .space = space, .is_list = is_list};
}

static int pop(void) {
    store.env->page_free(rebuild.stack[--rebuild.depth].page);
    return 1;
}

/* A pointer of a tree: its block is taken. What leads further, and was not met before, is next. */
static int enter(const struct block_ptr_disk *pointer, unsigned level, uint64_t space) {
    if (!ptr_present(pointer) || ptr_store(pointer) != 0)
        return 1;
    int status = pointer_check(pointer, level <= LEVEL_DIRECTORY ? level : level - LEVEL_DIRECTORY);
    if (status == 0 && is_bitmap(level, space))
        status = life_die(ptr_block(pointer), ptr_birth(pointer));
    if (status == 0)
        status = mark(ptr_block(pointer));
    if (status == 1 && (level > 0 || is_map_of_copies(level, space)))
        push(pointer, level, space, 0);
    return status < 0 ? status : 1;
}

/* The root pointer of a space, or of a boot object: its level is its height. */
static int enter_space(const struct block_ptr_disk *pointer, uint64_t space) {
    return ptr_level(pointer) <= SPACE_HEIGHT_MAX ? enter(pointer, ptr_level(pointer), space) : -E_CORRUPT;
}

static int enter_directory(enum tree_id tree, const struct block_ptr_disk *pointer, unsigned height) {
    rebuild.tree = tree;
    if (height > DIRECTORY_HEIGHT_MAX)
        return -E_CORRUPT;
    return height == 0 ? enter_space(pointer, 0) : enter(pointer, LEVEL_DIRECTORY + height, 0);
}

/* A list's block is its alone. */
static int enter_list(const struct block_ptr_disk *pointer) {
    if (!ptr_present(pointer))
        return 1;
    int status = pointer_is_near(pointer) ? pointer_check(pointer, 0) : -E_CORRUPT;
    if (status == 0)
        status = mark(ptr_block(pointer));
    if (status == 1)
        push(pointer, 0, 0, 1);
    return status == 0 ? -E_CORRUPT : status;
}

static void block_read(struct store_fetch *fetch, int status) {
    (void)fetch;
    rebuild.status = status;
    rebuild.is_read = 1;
    rebuild.reading = 0;
}

static int load(struct place *place) {
    if (place->is_loaded)
        return 0;
    if (rebuild.reading)
        return -E_AGAIN;
    if (rebuild.is_read) {
        rebuild.is_read = 0;
        place->is_loaded = rebuild.status == 0;
        return rebuild.status;
    }
    if (place->page == NULL && (place->page = cache_page_alloc()) == NULL)
        return -E_NOMEM;
    rebuild.reading = 1;
    rebuild.fetch = (struct store_fetch){.pointer = place->pointer, .page = place->page, .done = block_read};
    store_fetch(&rebuild.fetch);
    return -E_AGAIN;
}

static int visit_copies(const uint32_t *copy) {
    int status = 1;
    for (unsigned i = 0; i < COUNTS_PER_PAGE && status == 1; i++)
        if (copy[i] != 0 && (status = mark(copy[i])) == 0)
            status = -E_CORRUPT; /* it is something else as well */
    return status == 1 ? pop() : status;
}

/* What died is taken until it is freed; a tree that is kept may have it still. */
static int visit_list(const struct list_block_disk *list) {
    int status = list->count <= LIST_ENTRY_COUNT_MAX ? 0 : -E_CORRUPT;
    for (uint32_t i = 0; status >= 0 && i < list->count; i++)
        status = mark(list->entry[i].block);
    if (status < 0)
        return status;
    struct block_ptr_disk next = list->next;
    pop();
    return enter_list(&next);
}

static int visit_node(struct place *place) {
    const struct node_disk *node = place->page;
    if (place->index == NODE_FANOUT)
        return pop();
    unsigned slot = place->index++;
    uint64_t below = place->space * NODE_FANOUT + slot;
    if (place->level <= LEVEL_DIRECTORY)
        return enter(&node->child[slot], place->level - 1, place->space);
    return place->level == LEVEL_DIRECTORY + 1 ? enter_space(&node->child[slot], below)
                                               : enter(&node->child[slot], place->level - 1, below);
}

/* The bitmap's own nodes need not be whole. */
static int descend(struct place *lowest) {
    int status = load(lowest);
    if (status == -E_CORRUPT && !lowest->is_list && is_bitmap(lowest->level, lowest->space))
        return pop();
    if (status != 0)
        return status;
    if (lowest->is_list)
        return visit_list(lowest->page);
    return lowest->level == 0 ? visit_copies(lowest->page) : visit_node(lowest);
}

/* --- all that holds blocks --- */

static int next_source(void) {
    rebuild.source++;
    rebuild.index = 0;
    return 1;
}

/* A dropped record's tree may be overwritten already; its lists are as they were. */
static int next_record(void) {
    struct generation_disk *record;
    uint64_t count;
    int status = retain_scan(&count);
    if (status == 0 && rebuild.index == count)
        return next_source();
    if (status == 0)
        status = retain_record(rebuild.index, 0, &record);
    if (status != 0)
        return status;
    rebuild.index++;
    if (rebuild.source == SOURCE_RECORDS)
        return record->flags & GENERATION_DROPPED ? 1 : enter_directory(TREE_MAIN, &record->tree, record->tree_height);
    return enter_list(rebuild.source == SOURCE_DEAD ? &record->dead : &record->held);
}

static int next_boot_object(void) {
    rebuild.tree = TREE_MAIN;
    if (rebuild.index == BOOT_OBJECT_COUNT)
        return next_source();
    return enter_space(&store.boot[rebuild.index++], 0);
}

/* Trees come before lists: what only a list names leads no further. */
static int next_root(void) {
    const struct root_disk *root = &store.root;
    switch (rebuild.source) {
    case SOURCE_NEWEST:
        next_source();
        return enter_directory(TREE_MAIN, &root->tree, root->tree_height);
    case SOURCE_META:
        next_source();
        return enter_directory(TREE_META, &root->meta, root->meta_height);
    case SOURCE_BOOT:
        return next_boot_object();
    default:
        return next_record();
    }
}

static int end(void) {
    store.free_count = store.header.block_count - FIXED_BLOCK_COUNT - rebuild.taken_count;
    store_notice("near: its map of free blocks is whole again with the next root: %lu of %lu blocks are free",
                 (unsigned long)store.free_count, (unsigned long)store.header.block_count);
    rebuild_init();
    return PHASE_DONE;
}

/* Nothing of it is used. */
static int refuse(int status) {
    store_notice(status == -E_NOMEM ? "near: there is no memory for a new map of free blocks"
                                    : "near: no new map of free blocks can be made: something else is damaged, too");
    rebuild_undo();
    return status == -E_NOMEM ? -E_LIMIT : status;
}

/* One step. PHASE_DONE: the bitmap is whole; 1: go on; negative: not now (-E_AGAIN, -E_IO), or never. */
int rebuild_step(void) {
    int status;
    if (!rebuild.running)
        return PHASE_DONE;
    if (!rebuild.begun)
        status = begin();
    else if (rebuild.depth > 0)
        status = descend(&rebuild.stack[rebuild.depth - 1]);
    else
        status = rebuild.source == SOURCE_END ? end() : next_root();
    return status >= 0 || status == -E_AGAIN || status == -E_IO ? status : refuse(status);
}
