/*
 * kernel/store/ahead.c: blocks of far stores, read in runs before anyone has asked for each of them.
 *
 * Promise: what lies here is raw: whoever takes a block verifies it by the pointer that led to it. A block is read
 * once: who wants one that is on its way waits for the run. When memory is short the oldest runs go, a run is shortened
 * or not made; nothing depends on it. A disk that answers nothing for FAR_LATE_NS while it has runs is late: where
 * another one serves the store, that one is asked, too, and whoever answers first serves; again and again, as long as
 * it fails and somebody waits. What the late one has stays the device's until it answers.
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
    int hedged;            /* another disk was asked, too */
    int is_paced;          /* nobody asked for it */
    uint64_t touched;      /* bit per page: somebody wanted it */
    uint64_t start_ns, hedged_ns; /* hedged_ns: the last time */
    struct store_io io;    /* its pages; NULL: given away */
    struct list_node link; /* of those that are here, oldest first */
};

static struct run runs[RUN_COUNT];
static struct list_node here;
static unsigned loading_count;
static uint64_t answered_ns[1 + STORE_FAR_COUNT_MAX]; /* by disk: when it last answered */

static void *take_page(struct run *run, unsigned index) {
    void *page = run->io.page[index];
    run->io.page[index] = NULL;
    run->left--;
    return page;
}

static void drop_page(struct run *run, unsigned index) { store.env->page_free(take_page(run, index)); }

static void run_free(struct run *run) {
    for (unsigned i = 0; run->state == RUN_HERE && i < run->count; i++)
        store.facts.far[run->disk].unused += !(run->touched >> i & 1);
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
    loading_count--;
    run->state = RUN_HERE;
    list_append(&here, &run->link);
    answered_ns[run->disk] = store.env->now_ns();
    if (run->is_paced)
        pace_ended(run->disk, run->count, status == 0 ? answered_ns[run->disk] - run->start_ns : 0);
    unsigned home = run->home, disk = run->disk, count = run->count;
    uint64_t first = run->first;
    if (status == 0)
        store.facts.far[disk].fetched += count;
    if (status != 0) {
        run->touched = UINT64_MAX; /* it never came */
        run_free(run);
    }
    fetch_ahead_done(disk, home, first, count, status);
}

/* Reads `count` blocks of store `home` from a disk that serves it: how many, the first ones, are on their way. */
unsigned ahead_start(unsigned disk, unsigned home, uint64_t first, unsigned count, int is_paced) {
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
    run->is_paced = is_paced;
    run->first = first;
    run->start_ns = store.env->now_ns();
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
    loading_count++;
    store.facts.far_requests++;
    store.facts.far_reads += run->count;
    if (is_paced)
        pace_started(disk, run->count);
    return run->count;
}

static int has(const struct run *run, unsigned home, uint64_t block) {
    return run->state != RUN_FREE && run->home == home && block >= run->first && block - run->first < run->count &&
           run->io.page[block - run->first] != NULL;
}

/* The run that has the block, rather one that is here. */
static struct run *find(unsigned home, uint64_t block) {
    struct run *found = NULL;
    for (unsigned i = 0; i < RUN_COUNT; i++)
        if (has(&runs[i], home, block) && (found == NULL || runs[i].state == RUN_HERE))
            found = &runs[i];
    return found;
}

enum ahead_state ahead_find(unsigned home, uint64_t block, const void **page, unsigned *disk) {
    const struct run *run = find(home, block);
    if (run == NULL)
        return AHEAD_NONE;
    *page = run->io.page[block - run->first];
    *disk = run->disk;
    return run->state == RUN_LOADING ? AHEAD_LOADING : AHEAD_HERE;
}

/* Whether any run is on its way. */
int ahead_is_loading(void) { return loading_count > 0; }

/* Somebody wants a block that is here. */
void ahead_touch(unsigned home, uint64_t block) {
    struct run *run = find(home, block);
    run->touched |= (uint64_t)1 << (block - run->first);
}

/* A block that is here becomes the caller's, who frees its page; NULL: it is not. */
void *ahead_take(unsigned home, uint64_t block) {
    struct run *run = find(home, block);
    if (run == NULL || run->state != RUN_HERE)
        return NULL;
    void *page = take_page(run, (unsigned)(block - run->first));
    if (run->left == 0)
        run_free(run);
    return page;
}

/* A block that is here is not needed any more. */
void ahead_drop(unsigned home, uint64_t block) {
    void *page = ahead_take(home, block);
    if (page != NULL)
        store.env->page_free(page);
}

static uint64_t late_ns(const struct run *run) {
    uint64_t since = run->hedged ? run->hedged_ns : run->start_ns;
    return (answered_ns[run->disk] > since ? answered_ns[run->disk] : since) + FAR_LATE_NS;
}

uint64_t ahead_answered_ns(unsigned disk) { return answered_ns[disk]; }

/* Whether a disk that was late has not answered since. */
int ahead_is_stuck(unsigned disk) {
    for (unsigned i = 0; i < RUN_COUNT; i++)
        if (runs[i].state == RUN_LOADING && runs[i].hedged && runs[i].disk == disk &&
            answered_ns[disk] < runs[i].start_ns)
            return 1;
    return 0;
}

/* When the next run will be late; UINT64_MAX: none. */
uint64_t ahead_deadline_ns(void) {
    uint64_t deadline = UINT64_MAX;
    for (unsigned i = 0; i < RUN_COUNT; i++)
        if (runs[i].state == RUN_LOADING && late_ns(&runs[i]) < deadline)
            deadline = late_ns(&runs[i]);
    return deadline;
}

/* Whether what a run that is late should bring is here, or comes from a disk that answers. */
static int is_hedged(const struct run *run) {
    for (unsigned i = 0; run->hedged && i < RUN_COUNT; i++)
        if (has(&runs[i], run->home, run->first) && (runs[i].state == RUN_HERE || !ahead_is_stuck(runs[i].disk)))
            return 1;
    return 0;
}

/*
 * Asks other disks for what is late. `instead` says which: 0: there is none. What was asked for like this before is
 * asked for again only where somebody `waits`.
 */
void ahead_hedge(unsigned (*instead)(unsigned disk, unsigned home),
                 int (*waits)(unsigned home, uint64_t first, unsigned block_count)) {
    uint64_t now = store.env->now_ns();
    for (unsigned i = 0; i < RUN_COUNT; i++) {
        struct run *run = &runs[i];
        if (run->state != RUN_LOADING || late_ns(run) > now)
            continue;
        int is_due = !run->hedged || (waits(run->home, run->first, run->count) && !is_hedged(run));
        unsigned disk = is_due ? instead(run->disk, run->home) : 0;
        run->hedged = 1;
        run->hedged_ns = now;
        if (disk != 0)
            ahead_start(disk, run->home, run->first, run->count, 0);
    }
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
    memset(answered_ns, 0, sizeof answered_ns);
    loading_count = 0;
    list_init(&here);
}
