/*
 * kernel/store/sync.c: reads and writes that are waited for, and near's header by them.
 *
 * Promise: a page that is not waited for any more stays the device's until it has answered.
 * Called by: view.c, root.c, adopt.c, open.c: what runs at the start, and store_grow.
 */
#include "store/internal.h"

enum { SYNC_SPARE_COUNT = 32 }; /* for far disks that did not answer */

static struct sync_io sync_pool[RING_COUNT + SYNC_SPARE_COUNT];

static void sync_done(struct store_io *io, int status) {
    struct sync_io *sync = io->owner;
    sync->status = status;
    sync->pending = 0;
    if (sync->abandoned) {
        store.env->page_free(io->page[0]);
        sync->used = sync->abandoned = 0;
    }
}

static struct sync_io *sync_start(enum store_op op, unsigned disk, uint64_t block, void *page) {
    struct sync_io *sync = sync_pool;
    while (sync->used)
        if (++sync == sync_pool + sizeof sync_pool / sizeof sync_pool[0])
            return NULL;
    sync->io = (struct store_io){.op = op, .disk = disk, .sector = block * SECTORS_PER_BLOCK,
                                 .page_count = page != NULL, .done = sync_done, .owner = sync};
    sync->io.page[0] = page;
    sync->used = sync->pending = 1;
    int status = store.env->submit(&sync->io);
    if (status != 0) {
        sync->pending = 0;
        sync->status = status;
    }
    return sync;
}

int sync_wait(struct sync_io *sync) {
    while (sync->pending)
        store.env->poll();
    sync->used = 0;
    return sync->status;
}

int sync_run(enum store_op op, unsigned disk, uint64_t block, void *page) {
    struct sync_io *sync = sync_start(op, disk, block, page);
    check(sync != NULL);
    return sync_wait(sync);
}

/* A block being read to a page of its own; NULL: there is no memory for it. */
struct sync_io *sync_read(unsigned disk, uint64_t block) {
    void *page = store.env->page_alloc(0);
    struct sync_io *sync = page != NULL ? sync_start(STORE_READ, disk, block, page) : NULL;
    if (page != NULL && sync == NULL)
        store.env->page_free(page);
    return sync;
}

/* The page is not wanted any more. */
void sync_end(struct sync_io *sync) {
    sync->abandoned = sync->pending;
    if (!sync->pending)
        store.env->page_free(sync->io.page[0]);
    sync->used = sync->pending;
}

/* Writes near's header to one of its two places, durably. */
int header_write(uint64_t block) {
    struct header_disk *page = store.env->page_alloc(0);
    if (page == NULL)
        return -E_NOMEM;
    memset(page, 0, BLOCK_SIZE);
    *page = store.header;
    int status = sync_run(STORE_WRITE, 0, block, page);
    if (status == 0)
        status = sync_run(STORE_FLUSH, 0, 0, NULL);
    store.env->page_free(page);
    return status;
}

void header_seal(void) {
    blake2b(store.header.hash, sizeof store.header.hash, &store.header, offsetof(struct header_disk, hash));
}

void sync_init(void) { memset(sync_pool, 0, sizeof sync_pool); }
