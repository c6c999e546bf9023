/*
 * kernel/store/ahead.c: blocks of far stores, read in runs before anyone has asked for each of them.
 *
 * Promise: what lies here is raw: whoever takes a block verifies it by the pointer that led to it. A block is read once:
 * who wants one that is on its way waits for the run. When memory is short the oldest runs go, a run is shortened or
 * not made; nothing depends on it.
 * Called by: fetch.c (misses), open.c (what a start touches), fill.c. Completions run in interrupt context.
 */
#include "store/internal.h"

enum { RUN_COUNT = 64 };
enum run_state { RUN_FREE, RUN_LOADING, RUN_HERE };

struct run {
    enum run_state state;
    unsigned home, disk;
    uint64_t first;        /* block in its store */
    unsigned count, left;  /* pages in all, not yet given away */
    struct store_io io;    /* its pages; NULL: given away */
    struct list_node link; /* of those that are here, oldest first */
};

static struct run runs[RUN_COUNT];
static struct list_node here;

static void drop_page(struct run *run, unsigned index) {
    store.env->page_free(run->io.page[index]);
    run->io.page[index] = NULL;
    run->left--;
}

static void run_free(struct run *run) {
    for (unsigned i = 0; i < run->count; i++)
        if (run->io.page[i] != NULL)
            drop_page(run, i);
    list_remove(&run->link);
    run->state = RUN_FREE;
}

static struct run *run_new(void) {
    for (unsigned i = 0; i < RUN_COUNT; i++)
        if (runs[i].state == RUN_FREE)
            return &runs[i];
    if (list_empty(&here))
        return NULL;
    struct run *oldest = list_entry(here.next, struct run, link);
    run_free(oldest);
    return oldest;
}

static void read_done(struct store_io *io, int status) {
    struct run *run = io->owner;
    run->state = RUN_HERE;
    list_append(&here, &run->link);
    unsigned home = run->home, disk = run->disk, count = run->count;
    uint64_t first = run->first;
    if (status != 0)
        run_free(run);
    fetch_ahead_done(disk, home, first, count, status);
}

/* Reads `count` blocks of store `home` from a disk that serves it. 1: all or the first of them are on their way. */
int ahead_start(unsigned disk, unsigned home, uint64_t first, unsigned count) {
    struct run *run = run_new();
    if (run == NULL)
        return 0;
    memset(run, 0, sizeof *run);
    list_init(&run->link);
    while (run->count < count && (run->io.page[run->count] = store.env->page_alloc(0)) != NULL)
        run->count++;
    run->left = run->count;
    run->home = home;
    run->disk = disk;
    run->first = first;
    run->io.op = STORE_READ;
    run->io.disk = disk;
    run->io.sector = first * SECTORS_PER_BLOCK;
    run->io.page_count = run->count;
    run->io.done = read_done;
    run->io.owner = run;
    run->state = RUN_LOADING;
    if (run->count == 0 || store.env->submit(&run->io) != 0) {
        run_free(run);
        return 0;
    }
    store.facts.far_requests++;
    store.facts.far_reads += run->count;
    return 1;
}

static struct run *find(unsigned home, uint64_t block) {
    for (unsigned i = 0; i < RUN_COUNT; i++) {
        struct run *run = &runs[i];
        if (run->state != RUN_FREE && run->home == home && block >= run->first && block - run->first < run->count &&
            run->io.page[block - run->first] != NULL)
            return run;
    }
    return NULL;
}

enum ahead_state ahead_find(unsigned home, uint64_t block, const void **page, unsigned *disk) {
    const struct run *run = find(home, block);
    if (run == NULL)
        return AHEAD_NONE;
    *page = run->io.page[block - run->first];
    *disk = run->disk;
    return run->state == RUN_LOADING ? AHEAD_LOADING : AHEAD_HERE;
}

/* A block that is here is not needed any more. */
void ahead_drop(unsigned home, uint64_t block) {
    struct run *run = find(home, block);
    if (run == NULL || run->state != RUN_HERE)
        return;
    drop_page(run, (unsigned)(block - run->first));
    if (run->left == 0)
        run_free(run);
}

/* Gives pages back, the oldest runs first: how many. */
size_t ahead_shrink(size_t page_count) {
    size_t freed = 0;
    while (freed < page_count && !list_empty(&here)) {
        struct run *oldest = list_entry(here.next, struct run, link);
        freed += oldest->left;
        run_free(oldest);
    }
    return freed;
}

void ahead_init(void) {
    memset(runs, 0, sizeof runs);
    list_init(&here);
}
