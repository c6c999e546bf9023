/*
 * kernel/store/write.c: the commit's writes: contiguous blocks go in one request, many requests are in flight.
 *
 * Promise: a write that fails is made again a few times, then its blocks are avoided; a flush is not (after a failed
 * flush the device may have forgotten what it had taken); the commit learns of both through write_status.
 * Called by: commit.c, list.c, boot.c. Completions run in interrupt context.
 */
#include "store/internal.h"

enum { BATCH_COUNT = 16, WRITE_TRY_COUNT = 4 };

struct batch {
    struct list_node link; /* in idle */
    struct store_io io;
    enum write_kind kind;
    unsigned tries;
    uint64_t block;
    struct store_commit_page page[STORE_IO_PAGES_MAX];
};

static struct batch batches[BATCH_COUNT];
static struct list_node idle;
static struct batch *open;
static unsigned in_flight;
static int first_error;
static struct store_commit *commit;
static struct store_io barrier;
static unsigned barrier_tries;

int write_status(void) { return first_error; }
unsigned write_in_flight(void) { return in_flight; }

/* True when write_page may be called once. */
int write_room(void) { return !list_empty(&idle); }

void write_init(void) {
    open = NULL;
    in_flight = 0;
    first_error = 0;
}

void write_begin(struct store_commit *new_commit) {
    list_init(&idle);
    for (unsigned i = 0; i < BATCH_COUNT; i++) {
        list_init(&batches[i].link);
        list_append(&idle, &batches[i].link);
    }
    check(in_flight == 0);
    open = NULL;
    first_error = 0;
    commit = new_commit;
}

/* Pages that are nobody else's go; data and nodes stay with their owners until the commit is durable. */
static void give_back(struct batch *batch) {
    for (unsigned i = 0; i < batch->io.page_count && batch->kind == WRITE_FREE; i++)
        store.env->page_free(batch->io.page[i]);
    list_append(&idle, &batch->link);
    in_flight--;
}

static void complete(struct batch *batch) {
    for (unsigned i = 0; i < batch->io.page_count && batch->kind == WRITE_DATA && commit->written != NULL; i++)
        commit->written(commit, &batch->page[i]);
    give_back(batch);
}

static void batch_done(struct store_io *io, int status) {
    struct batch *batch = io->owner;
    while (status != 0 && ++batch->tries < WRITE_TRY_COUNT) {
        status = store.env->submit(io);
        if (status == 0)
            return;
    }
    if (status == 0) {
        complete(batch);
        return;
    }
    if (first_error == 0)
        first_error = -E_IO;
    alloc_avoid(batch->block, batch->io.page_count);
    give_back(batch);
}

/* Sends what has gathered. */
void write_push(void) {
    struct batch *batch = open;
    if (batch == NULL)
        return;
    open = NULL;
    in_flight++;
    store.facts.near_writes += batch->io.page_count;
    int status = store.env->submit(&batch->io);
    if (status != 0)
        batch_done(&batch->io, status);
}

static void start_batch(uint64_t block, enum write_kind kind) {
    struct batch *batch = list_entry(list_pop(&idle), struct batch, link);
    batch->kind = kind;
    batch->tries = 0;
    batch->block = block;
    batch->io = (struct store_io){.op = STORE_WRITE, .disk = 0, .sector = block * SECTORS_PER_BLOCK, .done = batch_done,
                                  .owner = batch};
    open = batch;
}

/* Queues one block; the data stay as they are until the kind's end: written(), page_free, or for nodes the commit's. */
void write_page(uint64_t block, void *data, enum write_kind kind, const struct store_commit_page *page) {
    check(!block_is_fixed(block) && block < store.header.block_count);
    if (open != NULL && (open->kind != kind || block != open->block + open->io.page_count ||
                         open->io.page_count == STORE_IO_PAGES_MAX))
        write_push();
    if (open == NULL)
        start_batch(block, kind);
    if (page != NULL)
        open->page[open->io.page_count] = *page;
    open->io.page[open->io.page_count++] = data;
}

static void barrier_done(struct store_io *io, int status) {
    while (status != 0 && io->op == STORE_WRITE && ++barrier_tries < WRITE_TRY_COUNT) {
        status = store.env->submit(io);
        if (status == 0)
            return;
    }
    if (status != 0 && first_error == 0)
        first_error = -E_IO;
    in_flight--;
}

/* Starts one flush, or one write of a fixed block. */
int write_barrier(enum store_op op, uint64_t block, void *page) {
    check(open == NULL && in_flight == 0);
    barrier = (struct store_io){.op = op, .disk = 0, .sector = block * SECTORS_PER_BLOCK, .page_count = page != NULL,
                                .done = barrier_done};
    barrier.page[0] = page;
    barrier_tries = 0;
    in_flight++;
    store.facts.near_writes += page != NULL;
    int status = store.env->submit(&barrier);
    if (status != 0)
        barrier_done(&barrier, status);
    return 0;
}
