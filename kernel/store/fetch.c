/*
 * kernel/store/fetch.c: the one way to contents: read a block from wherever it can be had, verify it, say so.
 *
 * Promise: done runs once, never before store_fetch has returned, and with 0 only for verified contents. A near block
 * comes from near; a far one from its local copy, else from the disks that serve its store, healthy ones first; each
 * is tried once.
 * Called by: pager (pages), cache.c (nodes), copy.c, boot.c. Completions run in interrupt context.
 */
#include "store/internal.h"

enum { JOB_COUNT = 64, DISK_RETRY_NS = 1000000000 };

/* A fetch that is being served. */
struct job {
    struct list_node link; /* in idle or ready, or nowhere while its read runs */
    struct store_fetch *fetch;
    struct store_io io;
    unsigned disk;         /* being read */
    uint64_t copy;         /* near block being read for a far one, or 0 */
    unsigned tried;        /* bit per disk */
    int copy_tried, io_failed, corrupt;
    int finished, status;
};

static struct job jobs[JOB_COUNT];
static struct list_node idle, ready;
static struct list_node queue, stalled; /* fetches without a job; stalled: waits for a page of the presence map */
static int pumping;

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

static void disk_failed(unsigned disk, const char *why) {
    if (disk == 0)
        return;
    store.facts.far_failures++;
    if (store.disk_failed_ns[disk] == 0)
        store_notice("far%u: %s", disk, why);
    store.disk_failed_ns[disk] = store.env->now_ns() + 1;
}

static void disk_good(unsigned disk) {
    if (disk != 0 && store.disk_failed_ns[disk] != 0)
        store_notice("far%u: answers again", disk);
    store.disk_failed_ns[disk] = 0;
}

/* The next disk to ask: healthy ones first. 0 when all have been tried, near's own blocks aside. */
static int next_disk(const struct job *job, unsigned *disk) {
    unsigned home = ptr_store(&job->fetch->pointer);
    for (int with_failed = 0; with_failed < 2; with_failed++) {
        for (*disk = 0; *disk < store.env->disk_count; ++*disk)
            if (disk_serves(*disk, home) && !(job->tried >> *disk & 1) &&
                (with_failed || store.disk_failed_ns[*disk] == 0))
                return 1;
    }
    return 0;
}

static void judge(struct job *job, int status) {
    const struct store_fetch *fetch = job->fetch;
    if (status != 0) {
        job->io_failed = 1;
        disk_failed(job->disk, "a read failed");
    } else if (!hash_matches(&fetch->pointer, fetch->page)) {
        job->corrupt = 1;
        store.facts.hash_failures++;
        disk_failed(job->disk, "a block does not have its hash");
        if (job->disk == 0)
            store_notice("near: block %lu does not have its hash",
                         (unsigned long)(job->copy ? job->copy : ptr_block(&fetch->pointer)));
        if (job->copy != 0)
            copy_bad(ptr_store(&fetch->pointer), ptr_block(&fetch->pointer));
    } else {
        disk_good(job->disk);
        if (job->disk != 0)
            copy_offer(&fetch->pointer, fetch->page);
        finish(job, 0);
        return;
    }
    list_append(&ready, &job->link);
}

static void read_done(struct store_io *io, int status) {
    struct job *job = io->owner;
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
        store.facts.far_reads++;
        store.facts.far_requests++;
    }
    if (store.env->submit(&job->io) != 0) {
        job->io_failed = 1;
        disk_failed(disk, "a read was refused");
        list_append(&ready, &job->link);
    }
}

/* Asks the next source. */
static void advance(struct job *job) {
    const struct block_ptr_disk *pointer = &job->fetch->pointer;
    unsigned disk;
    if (ptr_store(pointer) != 0 && !job->copy_tried) {
        int status = copy_find(ptr_store(pointer), ptr_block(pointer), &job->copy);
        if (status == -E_AGAIN || status == -E_NOMEM) {
            /* Gives its place up: the page of the map needs one, too. */
            list_append(&stalled, &job->fetch->link);
            list_append(&idle, &job->link);
            return;
        }
        job->copy_tried = 1;
        if (status == 0 && job->copy != 0) {
            start_read(job, 0, job->copy);
            return;
        }
    }
    job->copy = 0;
    if (next_disk(job, &disk)) {
        job->tried |= 1u << disk;
        start_read(job, disk, ptr_block(pointer));
        return;
    }
    finish(job, job->corrupt && !job->io_failed ? -E_CORRUPT : -E_IO);
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
    list_init(&stalled);
    list_init(&queue);
    pumping = 0;
    for (unsigned i = 0; i < JOB_COUNT; i++) {
        list_init(&jobs[i].link);
        list_append(&idle, &jobs[i].link);
    }
}
