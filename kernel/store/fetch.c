/*
 * kernel/store/fetch.c: the one way to contents: read a block from wherever it can be had, verify it, say so.
 *
 * Promise: done runs once, never before store_fetch has returned, and with 0 only for verified contents. A near block
 * comes from near; a far one from its local copy, else from the disks that serve its store, healthy ones first; each
 * is tried once. A far block is read with its neighbours that are not here (ahead.c): a round trip costs more than they
 * do; nodes, which lie side by side in a published store, are read on behind one that was missing.
 * Called by: pager (pages), cache.c (nodes), copy.c, boot.c. Completions run in interrupt context.
 */
#include "store/internal.h"

enum {
    JOB_COUNT = 64,
    RUN_BLOCK_COUNT = 16,     /* aligned; what is read with a far block */
    BUSY_RUN_BLOCK_COUNT = 4, /* the same while the link is busy with what comes anyway */
    NODES_AHEAD_COUNT = 16, NODES_RUN_COUNT = 8,
};
#define DEMOTED_NS 10000000000ull /* the first time; then twice as long, and so on */
enum { DEMOTED_DOUBLINGS_MAX = 5 };

/* A fetch that is being served. */
struct job {
    struct list_node link; /* in idle, ready or waiting, or nowhere while its read runs */
    struct store_fetch *fetch;
    struct store_io io;
    unsigned disk;         /* being read */
    uint64_t copy;         /* near block being read for a far one, or 0 */
    unsigned tried;        /* bit per disk */
    int is_ahead;          /* what it has is the block that lies ahead */
    int copy_tried, io_failed, corrupt;
    int finished, status;
};

static struct job jobs[JOB_COUNT];
static struct list_node idle, ready, waiting; /* waiting: for a run of ahead.c */
static struct list_node queue, stalled; /* fetches without a job; stalled: waits for a page of the presence map */
static unsigned count; /* fetches that are not done */
static struct {
    unsigned home;
    uint64_t first, end; /* blocks: from one that was missing to what has been asked for */
} nodes_ahead;
static int pumping;
static struct {
    uint64_t failed_ns; /* 0: it is healthy */
    unsigned strikes;   /* failures since it was healthy, but for those that came together */
    int is_unasked;     /* since it failed: what it was asked for before, and still gives, proves nothing */
} health[1 + STORE_FAR_COUNT_MAX];

int disk_serves(unsigned disk, unsigned home) {
    if (home == 0)
        return disk == 0;
    return disk > 0 && disk < store.env->disk_count && store.env->disk_sectors[disk] != 0 &&
           memcmp(store.disk_id[disk], store.far[home - 1].store_id, STORE_ID_SIZE) == 0;
}

static void finish(struct job *job, int status) {
    job->finished = 1;
    job->status = status;
    list_append(&ready, &job->link);
}

/* One that has failed is asked last, for a while; one that owes an answer, until it has given it. */
static int is_healthy(unsigned disk) {
    uint64_t demoted_ns = DEMOTED_NS << (health[disk].strikes > 0 ? health[disk].strikes - 1 : 0);
    return (health[disk].failed_ns == 0 || store.env->now_ns() - health[disk].failed_ns > demoted_ns) &&
           !ahead_is_stuck(disk);
}

/* Whether a healthy disk serves the store. */
int fetch_can_ask(unsigned home) {
    for (unsigned disk = 1; disk < store.env->disk_count; disk++)
        if (disk_serves(disk, home) && is_healthy(disk))
            return 1;
    return 0;
}

static void disk_failed(unsigned disk, const char *why) {
    if (disk == 0)
        return;
    store.facts.far_failures++;
    if (health[disk].failed_ns == 0)
        store_notice("far%u: %s", disk, why);
    if (is_healthy(disk) && health[disk].strikes <= DEMOTED_DOUBLINGS_MAX)
        health[disk].strikes++;
    health[disk].failed_ns = store.env->now_ns();
    health[disk].is_unasked = 1;
}

static void disk_good(unsigned disk) {
    if (disk == 0 || health[disk].is_unasked)
        return;
    if (health[disk].failed_ns != 0)
        store_notice("far%u: answers again", disk);
    health[disk].failed_ns = health[disk].strikes = 0;
}

/* The next disk to ask: healthy ones first. 0 when all have been tried, near's own blocks aside. */
static int next_disk(const struct job *job, unsigned *disk) {
    unsigned home = ptr_store(&job->fetch->pointer);
    for (int with_failed = 0; with_failed < 2; with_failed++) {
        for (*disk = 0; *disk < store.env->disk_count; ++*disk)
            if (disk_serves(*disk, home) && !(job->tried >> *disk & 1) &&
                (with_failed || is_healthy(*disk)))
                return 1;
    }
    return 0;
}

/* Whether the copy that was read has been dropped meanwhile: its block may be another's. */
static int is_gone(const struct job *job) {
    const struct block_ptr_disk *pointer = &job->fetch->pointer;
    uint64_t copy;
    return job->copy != 0 && (copy_find(ptr_store(pointer), copy_key(pointer), &copy) != 0 || copy != job->copy);
}

static void verified(unsigned disk) {
    disk_good(disk);
    store.facts.far_used += disk != 0;
    store.facts.far[disk].verified++;
}

static void judge(struct job *job, int status) {
    const struct store_fetch *fetch = job->fetch;
    if (status != 0) {
        job->io_failed = 1;
        disk_failed(job->disk, "a read failed");
    } else if (is_gone(job)) {
        /* nobody's fault */
    } else if (!hash_matches(&fetch->pointer, fetch->page)) {
        job->corrupt = 1;
        store.facts.hash_failures++;
        disk_failed(job->disk, "a block does not have its hash");
        if (job->disk == 0)
            store_notice("near: block %lu does not have its hash",
                         (unsigned long)(job->copy ? job->copy : ptr_block(&fetch->pointer)));
        if (job->copy != 0)
            copy_bad(ptr_store(&fetch->pointer), copy_key(&fetch->pointer));
        else
            ahead_drop(ptr_store(&fetch->pointer), ptr_block(&fetch->pointer));
    } else {
        verified(job->disk);
        if (job->disk != 0 && copy_offer(&fetch->pointer, fetch->page, job->is_ahead) &&
            !ptr_compressed(&fetch->pointer))
            ahead_drop(ptr_store(&fetch->pointer), ptr_block(&fetch->pointer));
        finish(job, 0);
        return;
    }
    list_append(&ready, &job->link);
}

/* A block of its own that came to where its page belongs. */
static void unpack_in_place(const struct store_fetch *fetch) {
    static uint8_t block[BLOCK_SIZE];
    memcpy(block, fetch->page, BLOCK_SIZE);
    pointer_unpack(&fetch->pointer, fetch->page, block);
}

static void read_done(struct store_io *io, int status) {
    struct job *job = io->owner;
    store.facts.far[job->disk].fetched += status == 0;
    if (status == 0 && job->disk != 0 && ptr_compressed(&job->fetch->pointer))
        unpack_in_place(job->fetch);
    judge(job, status);
    fetch_pump();
}

static void start_read(struct job *job, unsigned disk, uint64_t block) {
    job->disk = disk;
    job->fetch->attempt++;
    job->io = (struct store_io){.op = STORE_READ, .disk = disk, .sector = block * SECTORS_PER_BLOCK, .page_count = 1,
                                .done = read_done, .owner = job};
    job->io.page[0] = job->fetch->page;
    if (disk == 0) {
        store.facts.near_reads++;
    } else {
        health[disk].is_unasked = 0;
        store.facts.far_reads++;
        store.facts.far_requests++;
    }
    if (store.env->submit(&job->io) != 0) {
        job->io_failed = 1;
        disk_failed(disk, "a read was refused");
        list_append(&ready, &job->link);
    }
}

/* 1: the block is in memory, or on its way there: judged, or waiting for it. */
static int take_from_memory(struct job *job) {
    const struct block_ptr_disk *pointer = &job->fetch->pointer;
    unsigned home = ptr_store(pointer);
    const void *page = copy_page(home, copy_key(pointer));
    if (page != NULL && hash_matches(pointer, page)) {
        memcpy(job->fetch->page, page, BLOCK_SIZE);
        finish(job, 0);
        return 1;
    }
    enum ahead_state state = ahead_find(home, ptr_block(pointer), &page, &job->disk);
    if (state == AHEAD_LOADING)
        list_append(&waiting, &job->link);
    if (state != AHEAD_HERE)
        return state == AHEAD_LOADING;
    job->tried |= 1u << job->disk;
    ahead_touch(home, ptr_block(pointer));
    pointer_unpack(pointer, job->fetch->page, page);
    job->is_ahead = !ptr_compressed(pointer);
    judge(job, 0);
    job->is_ahead = 0;
    return 1;
}

/*
 * A page that lies ahead becomes a copy, if one is cheap now; nobody looks at its contents. 0: it is not here so, or
 * does not have its hash: who fetches it gets another one.
 */
int fetch_keep(const struct block_ptr_disk *pointer) {
    unsigned home = ptr_store(pointer), disk;
    const void *page;
    if (ptr_compressed(pointer) || ahead_find(home, ptr_block(pointer), &page, &disk) != AHEAD_HERE ||
        !hash_matches(pointer, page))
        return 0;
    ahead_touch(home, ptr_block(pointer));
    verified(disk);
    if (copy_offer(pointer, page, 1))
        ahead_drop(home, ptr_block(pointer));
    return 1;
}

/* A block that would be worth reading with its neighbour. */
static int is_absent(unsigned home, uint64_t block) {
    unsigned disk;
    const void *page;
    return ahead_find(home, block, &page, &disk) == AHEAD_NONE && copy_page(home, block) == NULL &&
           !copy_has_part(home, block);
}

int store_must_ask(const struct block_ptr_disk *pointer) {
    return ptr_present(pointer) && ptr_store(pointer) != 0 && is_absent(ptr_store(pointer), ptr_block(pointer));
}

/* Reads a far block and those around it. 1: a run is on its way. */
static int start_run(const struct job *job, unsigned disk) {
    unsigned home = ptr_store(&job->fetch->pointer);
    uint64_t aligned = pace_in_flight(disk) == 0 ? RUN_BLOCK_COUNT : BUSY_RUN_BLOCK_COUNT;
    uint64_t block = ptr_block(&job->fetch->pointer), low = block & ~(aligned - 1);
    uint64_t high = low + aligned, first = block, end = block + 1;
    if (high > store.far[home - 1].block_count)
        high = store.far[home - 1].block_count;
    while (first > low && is_absent(home, first - 1))
        first--;
    while (end < high && is_absent(home, end))
        end++;
    health[disk].is_unasked = 0;
    return ahead_start(disk, home, first, (unsigned)(end - first), 0) != 0;
}

/*
 * Reads on, `distance` blocks behind one that is being taken, from the first disk that has them: at most `room` blocks,
 * or, 0, as far as its pace allows: what nobody waits for. How many blocks need not be looked at any more; 0: none can
 * be had so; -E_AGAIN: enough is on its way.
 */
int fetch_unasked(unsigned home, uint64_t from, uint64_t distance, unsigned room) {
    uint64_t block = from + distance, block_count = store.far[home - 1].block_count;
    unsigned disk = 0, absent = 0;
    while (disk < store.env->disk_count && (!disk_serves(disk, home) || !is_healthy(disk)))
        disk++;
    if (disk == store.env->disk_count || block >= block_count)
        return 0;
    if (!is_absent(home, block))
        return 1;
    if (room == 0)
        room = pace_room(disk, distance);
    if (room == 0)
        return -E_AGAIN;
    while (absent < room && block + absent < block_count && is_absent(home, block + absent))
        absent++;
    health[disk].is_unasked = 0;
    return (int)ahead_start(disk, home, block, absent, 1);
}

/*
 * A node of a tree is being fetched. Behind a far one that was missing, and those that came so and are taken now, it is
 * read on: who walks about in a tree waits for pages only.
 */
void fetch_nodes_ahead(const struct block_ptr_disk *pointer, int is_missing) {
    unsigned home = ptr_store(pointer);
    uint64_t block = ptr_block(pointer);
    if (is_missing) {
        nodes_ahead.home = home;
        nodes_ahead.first = block;
        nodes_ahead.end = block + 1;
    }
    if (home != nodes_ahead.home || block < nodes_ahead.first || block >= nodes_ahead.end)
        return;
    int step = 1;
    while (step > 0 && nodes_ahead.end - block <= NODES_AHEAD_COUNT - NODES_RUN_COUNT) {
        step = fetch_unasked(home, block, nodes_ahead.end - block, NODES_RUN_COUNT);
        nodes_ahead.end += step > 0 ? (unsigned)step : 0;
    }
}

/* Another disk with the same store: a healthy one, else one that failed at least at once; 0: there is none. */
static unsigned instead_of(unsigned late, unsigned home) {
    unsigned failed = 0;
    for (unsigned disk = 1; disk < store.env->disk_count; disk++) {
        if (disk == late || !disk_serves(disk, home) || ahead_is_stuck(disk))
            continue;
        if (is_healthy(disk)) {
            disk_failed(late, "does not answer in time"); /* it is asked last from now on */
            return disk;
        }
        failed = disk;
    }
    return failed;
}

/* Whether somebody waits for some of these blocks. */
static int is_waited_for(unsigned home, uint64_t first, unsigned block_count) {
    list_for_each(link, &waiting) {
        const struct block_ptr_disk *pointer = &list_entry(link, struct job, link)->fetch->pointer;
        if (ptr_store(pointer) == home && ptr_block(pointer) - first < block_count)
            return 1;
    }
    return 0;
}

/* Who waits for a disk that does not answer gets its blocks from another one. */
void fetch_hedge(void) {
    if (fetch_deadline_ns() != UINT64_MAX)
        ahead_hedge(instead_of, is_waited_for);
}

uint64_t fetch_deadline_ns(void) {
    return store.env->disk_count > 2 ? ahead_deadline_ns() : UINT64_MAX;
}

/* A run has ended; one that failed says so to those who wait for it. */
void fetch_ahead_done(unsigned disk, unsigned home, uint64_t first, unsigned block_count, int status) {
    if (status != 0)
        disk_failed(disk, "a read failed");
    struct list_node ended;
    list_take(&ended, &waiting);
    for (struct list_node *link; (link = list_pop(&ended)) != NULL;) {
        struct job *job = list_entry(link, struct job, link);
        const struct block_ptr_disk *pointer = &job->fetch->pointer;
        if (status != 0 && ptr_store(pointer) == home && ptr_block(pointer) - first < block_count) {
            job->tried |= 1u << disk;
            job->io_failed = 1;
        }
        list_append(&ready, link);
    }
    fetch_pump();
}

/* Asks the next source. */
static void advance(struct job *job) {
    const struct block_ptr_disk *pointer = &job->fetch->pointer;
    unsigned disk;
    if (ptr_store(pointer) != 0 && !job->copy_tried) {
        int status = copy_find(ptr_store(pointer), copy_key(pointer), &job->copy);
        if (status == -E_AGAIN || status == -E_NOMEM) {
            /* Gives its place up: the page of the map needs one, too. */
            list_append(&stalled, &job->fetch->link);
            list_append(&idle, &job->link);
            return;
        }
        job->copy_tried = 1;
        if (status == 0 && job->copy != 0) {
            copy_used(ptr_store(pointer), copy_key(pointer));
            start_read(job, 0, job->copy);
            return;
        }
    }
    job->copy = 0;
    if (ptr_store(pointer) != 0 && take_from_memory(job))
        return;
    if (!next_disk(job, &disk)) {
        finish(job, job->corrupt && !job->io_failed ? -E_CORRUPT : -E_IO);
        return;
    }
    job->tried |= 1u << disk;
    if (disk == 0 || !start_run(job, disk) || !take_from_memory(job))
        start_read(job, disk, ptr_block(pointer));
}

static int take_job(void) {
    if (list_empty(&queue) || list_empty(&idle))
        return 0;
    struct job *job = list_entry(list_pop(&idle), struct job, link);
    struct store_fetch *fetch = list_entry(list_pop(&queue), struct store_fetch, link);
    memset(job, 0, sizeof *job);
    list_init(&job->link);
    job->fetch = fetch;
    list_append(&ready, &job->link);
    return 1;
}

static void run(struct job *job) {
    if (!job->finished) {
        advance(job);
        return;
    }
    struct store_fetch *fetch = job->fetch;
    int status = job->status;
    list_append(&idle, &job->link);
    count--;
    fetch->done(fetch, status);
}

/* Serves what is ready. Entered once at a time: what completes meanwhile only joins the list. */
void fetch_pump(void) {
    if (pumping)
        return;
    pumping = 1;
    for (;;) {
        while (take_job())
            continue;
        struct list_node *link = list_pop(&ready);
        if (link == NULL)
            break;
        run(list_entry(link, struct job, link));
    }
    pumping = 0;
}

int fetch_is_ready(void) { return !list_empty(&ready); }
unsigned fetch_count(void) { return count; }

/* A page of the presence map may have come (or failed, or memory): whoever waits looks again. */
void fetch_node_loaded(void) {
    struct list_node *link;
    while ((link = list_pop(&stalled)) != NULL)
        list_append(&queue, link);
}

/* Asks the first source of all that is ready; none of the done functions runs. */
static void start_ready(void) {
    struct list_node started;
    list_take(&started, &ready);
    for (struct list_node *link; (link = list_pop(&started)) != NULL;) {
        struct job *job = list_entry(link, struct job, link);
        if (job->finished)
            list_append(&ready, link);
        else
            advance(job);
    }
}

int store_fetch(struct store_fetch *fetch) {
    fetch->attempt = 0;
    list_init(&fetch->link);
    list_append(&queue, &fetch->link);
    count++;
    if (pumping)
        return 0;
    pumping = 1;
    while (take_job())
        continue;
    start_ready();
    pumping = 0;
    return 0;
}

void fetch_init(void) {
    list_init(&idle);
    list_init(&ready);
    list_init(&waiting);
    list_init(&stalled);
    list_init(&queue);
    count = 0;
    pumping = 0;
    memset(health, 0, sizeof health);
    memset(&nodes_ahead, 0, sizeof nodes_ahead);
    for (unsigned i = 0; i < JOB_COUNT; i++) {
        list_init(&jobs[i].link);
        list_append(&idle, &jobs[i].link);
    }
}
