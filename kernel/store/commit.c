/*
 * kernel/store/commit.c: one generation (or one root without pages) from start to durable: a row of phases.
 *
 * Promise: FORMAT.md's order: data, nodes bottom-up, meta, FLUSH, root record, FLUSH; a phase that must wait is
 * entered again by a later store_work, and never waits for anything but its own reads and writes. Nothing is freed
 * but by retention.
 * Called by: pager (store_commit_start), work.c (commit_step), adopt.c.
 */
#include "store/internal.h"

enum {
    PHASE_DONE = 2,
    RETRY_NS = 1000000000,
    ROOT_SLOT_COUNT = 8, /* tried in turn; the durable root's is not among them */
};

/* A page on its way from the caller to the tree. */
struct pending {
    struct store_commit_page page;
    int is_zero;
    uint64_t block; /* 0: no place yet */
    uint8_t hash[HASH_SIZE];
};

static struct {
    struct store_commit *after; /* it waits for the running one, a root that gives old generations up */
    unsigned phase;
    int status;
    uint64_t retry_ns;
    struct pending group[HASH_GROUP_COUNT]; /* of which group_index are done */
    unsigned group_index, group_count;
    uint64_t page_count;
    int pruned;
    unsigned tries;         /* that failed */
    unsigned root_tries;
    struct root_disk *root; /* a page of its own */
    struct list_node writing;
} commit;

/* --- room: where it lacks, roots that give old generations up come first --- */

static int no_page(struct store_commit *request, struct store_commit_page *page) {
    (void)request;
    (void)page;
    return 0;
}

struct store_commit commit_without_pages(void) {
    const struct root_disk *root = &store.root;
    return (struct store_commit){.generation = root->generation, .wall_ns = root->wall_ns, .mono_ns = root->mono_ns,
                                 .record_version = root->record_version, .next = no_page};
}

static void enter(struct store_commit *request, struct store_commit *after) {
    struct root_disk *root = commit.root;
    memset(&commit, 0, sizeof commit);
    list_init(&commit.writing);
    commit.root = root;
    commit.after = after;
    store.request = request;
    tag_limits_set();
}

/* What the caller asked for; a root that makes room for it is the store's own. */
static struct store_commit *asked(void) { return commit.after != NULL ? commit.after : store.request; }

/* Nothing was changed: the same commit may be started again. */
static int refuse(void) {
    struct store_commit *request = asked();
    store.request = NULL;
    request->done(request, -E_NOSPACE);
    return 1;
}

/* A root without pages frees what an earlier one gave up, or gives up more; then the request at hand is tried again. */
static int relieve(int in_vain) {
    static struct store_commit relief;
    struct retain_survey survey;
    if (commit.after != NULL)
        return refuse();
    relief = commit_without_pages();
    enter(&relief, store.request);
    int status = retain_survey(store.root.generation, &survey);
    check(status == 0); /* the table has just been read */
    int helps = survey.leaving != 0 || (!in_vain && tag_limits_lower(&survey)) || copy_give_up();
    return helps ? 1 : refuse();
}

static int room(void) {
    struct retain_survey survey;
    struct block_ptr_disk shares;
    int status = tree_space_pointer(TREE_MAIN, SPACE_SHARES, &shares);
    if (status == 0)
        status = retain_survey(store.request->generation, &survey);
    if (status != 0)
        return status;
    int has_shares = ptr_present(&shares);
    return bound_fits(&survey, has_shares) ? PHASE_DONE : relieve(bound_in_vain(&survey, has_shares));
}

int store_commit_start(struct store_commit *request) {
    uint64_t generation = store.root.generation;
    if (store.request != NULL)
        return -E_BUSY;
    if (store.broken)
        return -E_IO;
    if (request->tag != NULL && (request->tag[0] == 0 || strlen(request->tag) > TAG_SIZE_MAX))
        return -E_INVAL;
    if (request->generation != generation + 1 && (request->generation != generation || request->page_count != 0))
        return -E_INVAL;
    store.operation++;
    if (request->generation != generation)
        clone_own(request->generation);
    enter(request, NULL);
    return 0;
}

/* --- phases: PHASE_DONE, or 0 or 1 to be called again, or a negative error --- */

static int begin(void) {
    if (commit.root == NULL && (commit.root = cache_page_alloc()) == NULL)
        return -E_NOMEM;
    int status = rebuild_step();
    if (status == PHASE_DONE)
        status = room();
    if (status != PHASE_DONE)
        return status;
    status = retain_dead_head();
    if (status != 0)
        return status;
    retain_begin();
    clone_begin();
    boot_commit_begin();
    write_begin(store.request);
    return PHASE_DONE;
}

static int keep(void) {
    int status = tag_keep();
    return status != 0 ? status : PHASE_DONE;
}

static int retain(void) {
    int status = list_flush_full(&list_dead);
    return status != 0 ? status : retain_step();
}

static int let_go(void) {
    int status = tag_let_go();
    return status != 0 ? status : PHASE_DONE;
}

static int spaces(void) {
    int status = list_flush_full(&list_dead);
    return status != 0 ? status : clone_step();
}

/* Takes the next pages from the caller and hashes them together. */
static int gather(void) {
    const void *data[HASH_GROUP_COUNT];
    uint8_t hash[HASH_GROUP_COUNT][HASH_SIZE];
    unsigned data_count = 0, hash_index = 0;
    commit.group_index = commit.group_count = 0;
    while (commit.group_count < HASH_GROUP_COUNT) {
        struct pending *pending = &commit.group[commit.group_count];
        if (!store.request->next(store.request, &pending->page))
            break;
        check(commit.page_count + commit.group_count < store.request->page_count &&
              pending->page.key.space != SPACE_SHARES);
        pending->block = 0;
        pending->is_zero = page_is_zero(pending->page.data);
        if (!pending->is_zero)
            data[data_count++] = pending->page.data;
        commit.group_count++;
    }
    hash_group(hash, data, data_count);
    for (unsigned i = 0; i < commit.group_count; i++)
        if (!commit.group[i].is_zero)
            memcpy(commit.group[i].hash, hash[hash_index++], HASH_SIZE);
    return commit.group_count == 0 ? PHASE_DONE : 0;
}

/* The page at hand: a place, a pointer, in the tree, to the disk. Each part is done once. */
static int commit_page(struct pending *pending) {
    struct store_commit_page *page = &pending->page;
    struct block_ptr_disk pointer = {0};
    if (!pending->is_zero) {
        if (!write_room())
            return -E_AGAIN;
        int status = pending->block == 0 ? alloc_block(&pending->block) : 0;
        if (status != 0)
            return status;
        pointer = pointer_with_hash(pending->block, 0, store.request->generation, pending->hash);
    }
    int status = tree_set(page->key, &pointer);
    if (status != 0)
        return status;
    commit.group_index++;
    commit.page_count++;
    if (pending->is_zero && store.request->written != NULL)
        store.request->written(store.request, page);
    if (!pending->is_zero)
        write_page(pending->block, (void *)(uintptr_t)page->data, WRITE_DATA, page);
    return 0;
}

static int pages(void) {
    int status = list_flush_full(&list_dead);
    if (status != 0)
        return status;
    if (commit.group_index == commit.group_count)
        return gather();
    return commit_page(&commit.group[commit.group_index]);
}

/* No copy may have a block without an entry when the bitmap is written; what was fetched before now comes along. */
static int drain_copies(void) {
    if (!store.draining)
        copy_drain();
    store.draining = 1;
    store.settled = copy_settled();
    return store.settled ? PHASE_DONE : -E_AGAIN;
}

/* Gives one dirty node its place. */
static int place_one(enum tree_id tree) {
    for (unsigned level = 0; level < LEVEL_COUNT; level++) {
        struct list_node *list = cache_dirty(tree, level);
        if (list_empty(list))
            continue;
        struct node *node = list_entry(list->next, struct node, link);
        int status = alloc_block(&node->block);
        if (status == 0)
            cache_set_state(node, NODE_DIRTY, cache_placed(tree, level));
        return status;
    }
    return PHASE_DONE;
}

/* Seals the placed nodes of one level, a group at a time, and sends them. */
static int write_level(struct list_node *list, unsigned pointer_level) {
    struct node *group[HASH_GROUP_COUNT];
    const void *page[HASH_GROUP_COUNT];
    uint8_t hash[HASH_GROUP_COUNT][HASH_SIZE];
    unsigned count = 0;
    for (struct list_node *link = list->next; link != list && count < HASH_GROUP_COUNT; link = link->next, count++) {
        group[count] = list_entry(link, struct node, link);
        page[count] = group[count]->page;
    }
    hash_group(hash, page, count);
    for (unsigned i = 0; i < count; i++) {
        struct node *node = group[i];
        if (!write_room())
            return -E_AGAIN;
        node->pointer = pointer_with_hash(node->block, pointer_level, store.request->generation, hash[i]);
        *tree_node_slot(node) = node->pointer;
        cache_set_state(node, NODE_WRITING, &commit.writing);
        write_page(node->block, node->page, WRITE_NODE, NULL);
    }
    return 0;
}

/* Children before parents: a level is begun when the one below has none left. */
static int write_nodes(enum tree_id tree) {
    for (unsigned level = 0; level < LEVEL_COUNT; level++) {
        struct list_node *list = cache_placed(tree, level);
        if (list_empty(list))
            continue;
        if (!write_room())
            return -E_AGAIN;
        return write_level(list, level <= LEVEL_DIRECTORY ? level : level - LEVEL_DIRECTORY);
    }
    return PHASE_DONE;
}

static void prune_once(enum tree_id tree) {
    if (!commit.pruned)
        tree_prune(tree);
    commit.pruned = 1;
}

static int place_main(void) {
    prune_once(TREE_MAIN);
    int status = list_flush_full(&list_dead);
    return status != 0 ? status : place_one(TREE_MAIN);
}

static int write_main(void) { return write_nodes(TREE_MAIN); }

static int record(void) {
    const struct store_commit *request = store.request;
    struct generation_disk record = {.generation = request->generation, .wall_ns = request->wall_ns,
                                     .mono_ns = request->mono_ns, .tree = store.tree[TREE_MAIN].root,
                                     .tree_height = store.tree[TREE_MAIN].height, .dirty_pages = commit.page_count,
                                     .flags = request->flags, .origin = request->origin};
    if (request->tag != NULL && request->tag_generation == 0)
        tag_set(&record, request->tag);
    int status = retain_append(&record);
    commit.pruned = 0;
    return status != 0 ? status : PHASE_DONE;
}

/* Settling a place changes the bitmap, which needs a place, ...: ends, as each page of the bitmap gets one once. */
static int place_meta(void) {
    prune_once(TREE_META);
    int status = place_one(TREE_META);
    return status == PHASE_DONE ? (status = list_place(&list_dead)) != 0 ? status : PHASE_DONE : status;
}

static int write_lists(void) {
    int status = list_finish(&list_dead);
    if (status == 0)
        status = retain_finish(&list_dead);
    return status != 0 ? status : PHASE_DONE;
}

static int write_meta(void) {
    store.frozen = 1;
    check(!cache_has_dirty(TREE_META));
    return write_nodes(TREE_META);
}

static int wait_writes(void) {
    write_push();
    return write_in_flight() == 0 ? PHASE_DONE : -E_AGAIN;
}

static int flush(void) {
    write_barrier(STORE_FLUSH, 0, NULL);
    return PHASE_DONE;
}

static void fill_root(struct root_disk *root) {
    const struct store_commit *request = store.request;
    *root = store.root;
    root->magic = ROOT_MAGIC;
    root->version = store.header.version;
    root->record_version = request->record_version;
    root->sequence = store.sequence_max + 1 + commit.root_tries % ROOT_SLOT_COUNT;
    root->generation = request->generation;
    root->wall_ns = request->wall_ns;
    root->mono_ns = request->mono_ns;
    memcpy(root->store_id, store.header.store_id, STORE_ID_SIZE);
    memcpy(root->previous_hash, store.root.hash, ROOT_HASH_SIZE);
    root->tree = store.tree[TREE_MAIN].root;
    root->tree_height = store.tree[TREE_MAIN].height;
    root->meta = store.tree[TREE_META].root;
    root->meta_height = store.tree[TREE_META].height;
    root->kernel = store.boot[BOOT_KERNEL];
    root->loader = store.boot[BOOT_LOADER];
    root->resume = store.boot[BOOT_RESUME];
    root->kernel_size = (uint32_t)store.boot_size[BOOT_KERNEL];
    root->loader_size = (uint32_t)store.boot_size[BOOT_LOADER];
    root->resume_list_size = store.boot_size[BOOT_RESUME];
    root->stores = store.boot[BOOT_STORES];
    root->stores_copy = store.boot[BOOT_STORES_COPY];
    root->block_count = store.header.block_count;
    root->free_count = store.free_count;
    root->alloc_next = store.alloc_next;
    root->retain_count = (uint32_t)store.limit.newest;
    root->retain_wanted = store.retention.count;
    root->retain_hourly = store.retention.hourly;
    root->retain_daily = store.retention.daily;
    if (request->failures != NULL)
        root->failures = *request->failures;
    root->packed_count = 0; /* it may be a published store that is used as near */
    root->flags = (root->flags & ~(uint32_t)ROOT_COMPLETE) | (store.complete ? ROOT_COMPLETE : 0);
    root_seal(root);
}

static int write_root(void) {
    memset(commit.root, 0, BLOCK_SIZE);
    fill_root(commit.root);
    uint64_t slot = commit.root->sequence % RING_COUNT;
    write_barrier(STORE_WRITE, RING_FIRST_BLOCK + slot * store.header.ring_stride, commit.root);
    return PHASE_DONE;
}

static int finish(void) {
    struct store_commit *request = store.request, *after = commit.after;
    struct list_node *link;
    if (commit.root->flags & ROOT_COMPLETE & ~store.root.flags)
        store_notice("near is complete: no far store is needed any more");
    store.root = *commit.root;
    store.sequence_max += commit.root_tries < ROOT_SLOT_COUNT ? commit.root_tries + 1 : ROOT_SLOT_COUNT;
    clone_done();
    replace_done();
    unsigned tries = commit.tries;
    while ((link = list_pop(&commit.writing)) != NULL)
        cache_clean(list_entry(link, struct node, link));
    check(list_dead.first == NULL);
    list_dead.count = 0;
    store.frozen = store.settled = store.draining = store.unsaved = store.far_changed = 0;
    alloc_rested();
    store.request = NULL;
    if (after != NULL) {
        enter(after, NULL);
        commit.tries = tries;
        return 1;
    }
    if (tries > 0)
        store_notice("near: generation %lu is durable now", (unsigned long)store.root.generation);
    request->done(request, 0);
    return 1;
}

static int (*const phase[])(void) = {
    begin,      keep,       retain, let_go,     spaces,      pages,      drain_copies, boot_step_commit,
    place_main, write_main, record, place_meta, write_lists, write_meta, wait_writes,  flush,
    wait_writes, write_root, wait_writes, flush, wait_writes, finish,
};

/* --- failures --- */

/* Nothing of this commit is on its way any more. */
static int is_quiet(void) {
    write_push();
    return write_in_flight() == 0 && !retain_is_reading() && !clone_is_reading() && !replace_is_reading() &&
           !rebuild_is_reading() && !copy_is_writing();
}

/* All that the commit has changed in memory is as the durable root says it; the allocator goes on where it was. */
static void undo(void) {
    cache_undo();
    rebuild_undo();
    clone_undo();
    retain_undo();
    replace_undo();
    copy_undo();
    fill_doubt(); /* what it has come by may be gone, */
    if (!(store.root.flags & ROOT_COMPLETE))
        store.complete = 0; /* also where it has just ended */
    list_drop(&list_dead);
    root_restore(&store.root);
    store.frozen = store.settled = store.draining = store.unsaved = 0;
}

static unsigned phase_of(int (*function)(void)) {
    unsigned index = 0;
    while (phase[index] != function)
        index++;
    return index;
}

/*
 * A write or a flush failed, or no block was left. After a failed flush nothing says which of the writes before it are
 * on the disk, and a second flush that succeeds proves nothing: all is written anew, to other blocks. Where the flush
 * before the root was passed, that is the root alone; it may be on the disk already, and what it names has to stay.
 */
static void begin_anew(int status) {
    struct store_commit *request = asked();
    unsigned tries = commit.tries;
    if (tries == 0)
        store_notice("near: generation %lu cannot be written (%s): nothing is lost, it is written anew until it can",
                     (unsigned long)request->generation,
                     status == -E_NOSPACE ? "no free block" : "its disk fails, or is full");
    if (status == -E_NOSPACE)
        alloc_avoid_none();
    if (commit.phase > phase_of(write_root)) {
        commit.phase = phase_of(write_root);
        commit.root_tries++;
        commit.status = 0;
        write_begin(store.request);
    } else {
        undo();
        enter(request, NULL);
        request->again(request);
    }
    commit.retry_ns = store.env->now_ns() + (tries < 10 ? RETRY_NS >> (10 - tries) : RETRY_NS);
    commit.tries = tries + 1;
}

static int give_up(int status) {
    store_notice("near: a snapshot cannot be written (error %d): no more will be made", -status);
    struct store_commit *request = asked();
    store.broken = 1;
    store.request = NULL;
    request->done(request, status);
    return 0;
}

/* A page of the bitmap is damaged: the commit is undone, and begun anew with another bitmap. */
static void rebuild_and_begin_anew(void) {
    struct store_commit *request = asked();
    unsigned tries = commit.tries;
    undo();
    enter(request, NULL);
    commit.tries = tries;
    request->again(request);
    rebuild_start();
}

static int fail(int status) {
    if (!is_quiet())
        return 0;
    if (status == -E_CORRUPT && rebuild_is_due() && asked()->again != NULL) {
        rebuild_and_begin_anew();
        return 1;
    }
    if (asked()->again == NULL || (status != -E_IO && status != -E_NOSPACE))
        return give_up(status);
    begin_anew(status);
    return 0;
}

/* A node that the commit has to change cannot be read now: its store may come back. */
static int retry_later(void) {
    if (commit.retry_ns == 0)
        store_notice("a snapshot waits for a store to answer");
    commit.retry_ns = store.env->now_ns() + RETRY_NS;
    write_push();
    return 0;
}

/* One step. 1: go on, 0: it waits. */
int commit_step(void) {
    if (store.request == NULL)
        return 0;
    if (commit.phase > 0 && commit.status == 0)
        commit.status = write_status();
    if (commit.status != 0)
        return fail(commit.status);
    if (commit.retry_ns > store.env->now_ns())
        return 0;
    store.operation++;
    store.urgent = 1;
    int status = phase[commit.phase]();
    store.urgent = 0;
    if (status == PHASE_DONE)
        commit.phase++;
    if (status >= 0)
        return 1;
    if (status == -E_IO)
        return retry_later();
    if (status != -E_AGAIN && status != -E_NOMEM)
        return fail(commit.status = status);
    write_push();
    return 0;
}

uint64_t commit_retry_ns(void) { return commit.retry_ns; }

void commit_init(void) {
    memset(&commit, 0, sizeof commit);
    memset(&list_dead, 0, sizeof list_dead);
}
