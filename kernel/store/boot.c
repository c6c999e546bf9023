/*
 * kernel/store/boot.c: boot objects: the table of stores, and near's own kernel and loader after an adoption.
 *
 * Promise: a root never names a kernel or loader that is not whole where it says; the loader area and, last of all,
 * block 0 are written only after a durable root names near's own kernel and loader.
 * Called by: commit.c (a phase of each commit), store_work when no commit runs.
 *
 * The pages are localised like any others; a commit then takes their copies out of the presence map and into a tree
 * of near's own, so nothing is ever half owned.
 */
#include "store/internal.h"

enum { PHASE_DONE = 2, RETRY_NS = 1000000000 };

/* CHOOSE and LOCALISE decide; a state with a read or write in its name runs when that is done. */
enum boot_state {
    STATE_CHOOSE,
    STATE_NODE_READ,
    STATE_LOCALISE,
    STATE_CHILD_READ,
    STATE_READY, /* a commit takes the copies over */
    STATE_INSTALL,
    STATE_PAGE_READ,
    STATE_PAGE_WRITTEN,
    STATE_AREA_FLUSHED,
    STATE_RECORD_FLUSHED,
};

static struct {
    enum boot_state state;
    enum boot_object object;
    int installing, installed;
    unsigned child;
    struct node_disk *node;  /* of the object, store numbers ours */
    void *page;
    struct store_fetch fetch;
    struct store_io io;
    int waiting, fetching, status; /* fetching: what it waits for is a fetch */
    uint64_t retry_ns;
    uint64_t node_block;     /* of the node being built by a commit */
    unsigned table_count;    /* tables of stores that the running commit has written, of two */
} boot;

void boot_init(int installed) {
    memset(&boot, 0, sizeof boot);
    boot.installed = installed;
}

void boot_uninstalled(void) { boot.installed = 0; }
uint64_t boot_retry_ns(void) { return boot.retry_ns; }
int boot_ready(void) { return boot.state == STATE_READY; }
unsigned boot_fetch_count(void) { return (unsigned)boot.fetching; }

static int is_far(enum boot_object object) {
    return ptr_present(&store.boot[object]) && ptr_store(&store.boot[object]) != 0;
}

static void fetched(struct store_fetch *fetch, int status) {
    (void)fetch;
    boot.waiting = boot.fetching = 0;
    boot.status = status;
}

static void io_done(struct store_io *io, int status) {
    (void)io;
    boot.waiting = 0;
    boot.status = status;
}

static int start_fetch(const struct block_ptr_disk *pointer, void *page, enum boot_state next) {
    boot.state = next;
    boot.waiting = boot.fetching = 1;
    boot.fetch = (struct store_fetch){.pointer = *pointer, .page = page, .done = fetched};
    check(store_fetch(&boot.fetch) == 0);
    return 0;
}

static int start_io(enum store_op op, uint64_t block, enum boot_state next) {
    boot.state = next;
    boot.waiting = 1;
    boot.io = (struct store_io){.op = op, .sector = block * SECTORS_PER_BLOCK, .page_count = op == STORE_WRITE,
                                .done = io_done};
    boot.io.page[0] = boot.page;
    if (store.env->submit(&boot.io) != 0)
        io_done(&boot.io, -E_IO);
    return 0;
}

static int retry_later(enum boot_state state) {
    boot.state = state;
    boot.retry_ns = store.env->now_ns() + RETRY_NS;
    return 0;
}

static void free_pages(void) {
    if (boot.page != NULL)
        store.env->page_free(boot.page);
    if (boot.node != NULL)
        store.env->page_free(boot.node);
    boot.page = NULL;
    boot.node = NULL;
}

static int have_pages(void) {
    if (boot.page == NULL)
        boot.page = store.env->page_alloc(0);
    if (boot.node == NULL)
        boot.node = store.env->page_alloc(0);
    return boot.page != NULL && boot.node != NULL;
}

/* What is to be done: a far kernel, a far loader, or the boot record of a near that has both. */
static int choose(void) {
    boot.installing = 0;
    if (is_far(BOOT_KERNEL)) {
        boot.object = BOOT_KERNEL;
    } else if (is_far(BOOT_LOADER)) {
        boot.object = BOOT_LOADER;
    } else if (!boot.installed && pointer_is_near(&store.root.kernel) && pointer_is_near(&store.root.loader)) {
        boot.object = BOOT_LOADER;
        boot.installing = 1;
    } else {
        free_pages();
        return 0;
    }
    return have_pages() ? start_fetch(&store.boot[boot.object], boot.node, STATE_NODE_READ) : retry_later(STATE_CHOOSE);
}

static int node_read(void) {
    const struct block_ptr_disk *pointer = &store.boot[boot.object];
    if (boot.status != 0 || ptr_level(pointer) != 1)
        return retry_later(STATE_CHOOSE);
    if (pointers_translate(boot.node->child, NODE_FANOUT, ptr_store(pointer)) != 0)
        return retry_later(STATE_CHOOSE);
    boot.child = boot.installing ? 1 : 0;
    boot.state = boot.installing ? STATE_INSTALL : STATE_LOCALISE;
    return 1;
}

/* Fetches the next page that has no copy yet, nor gets one; fetching makes the copy. The commit waits for all. */
static int localise(void) {
    uint64_t near_block;
    while (boot.child < NODE_FANOUT && !ptr_present(&boot.node->child[boot.child]))
        boot.child++;
    if (boot.child == NODE_FANOUT) {
        boot.state = STATE_READY;
        return 0;
    }
    const struct block_ptr_disk *pointer = &boot.node->child[boot.child];
    if (ptr_store(pointer) == 0 || pointer_check(pointer, 0) != 0)
        return retry_later(STATE_CHOOSE);
    int status = copy_find(ptr_store(pointer), copy_key(pointer), &near_block);
    if (status == -E_AGAIN)
        return 0;
    if (status == 0 && (near_block != 0 || copy_page(ptr_store(pointer), copy_key(pointer)) != NULL)) {
        boot.child++;
        return 1;
    }
    return start_fetch(pointer, boot.page, STATE_CHILD_READ);
}

static int child_read(void) {
    uint64_t near_block;
    const struct block_ptr_disk *pointer = &boot.node->child[boot.child];
    int status = copy_find(ptr_store(pointer), copy_key(pointer), &near_block);
    if (status == -E_AGAIN)
        return 0;
    if (status != 0 || (near_block == 0 && copy_page(ptr_store(pointer), copy_key(pointer)) == NULL))
        return retry_later(STATE_LOCALISE);
    boot.state = STATE_LOCALISE;
    return 1;
}

static int ready(void) { return 0; }

/* Pages 1 to 16 of the loader go to their places, then, flushed, page 0 to block 0. */
static int install(void) {
    if (boot.child > LOADER_BLOCK_COUNT)
        return start_io(STORE_FLUSH, 0, STATE_AREA_FLUSHED);
    if (!ptr_present(&boot.node->child[boot.child])) {
        memset(boot.page, 0, BLOCK_SIZE);
        return start_io(STORE_WRITE, LOADER_BLOCK + boot.child - 1, STATE_PAGE_WRITTEN);
    }
    return start_fetch(&boot.node->child[boot.child], boot.page, STATE_PAGE_READ);
}

static int page_read(void) {
    uint64_t block = boot.child == 0 ? 0 : LOADER_BLOCK + boot.child - 1;
    return boot.status == 0 ? start_io(STORE_WRITE, block, STATE_PAGE_WRITTEN) : retry_later(STATE_CHOOSE);
}

static int page_written(void) {
    if (boot.status != 0)
        return retry_later(STATE_CHOOSE);
    if (boot.child == 0)
        return start_io(STORE_FLUSH, 0, STATE_RECORD_FLUSHED);
    boot.child++;
    boot.state = STATE_INSTALL;
    return 1;
}

static int area_flushed(void) {
    boot.child = 0;
    if (boot.status != 0 || !ptr_present(&boot.node->child[0]))
        return retry_later(STATE_CHOOSE);
    return start_fetch(&boot.node->child[0], boot.page, STATE_PAGE_READ);
}

static int record_flushed(void) {
    if (boot.status != 0)
        return retry_later(STATE_CHOOSE);
    boot.installed = 1;
    boot.state = STATE_CHOOSE;
    store_notice("near starts by itself now");
    return 1;
}

/* One step of background work. 1: go on, 0: it waits or there is nothing to do. */
int boot_step_idle(void) {
    static int (*const step[])(void) = {
        choose, node_read, localise, child_read, ready, install, page_read, page_written, area_flushed, record_flushed,
    };
    if (store.broken || boot.waiting || boot.retry_ns > store.env->now_ns())
        return 0;
    store.operation++;
    return step[boot.state]();
}

/* --- in a commit --- */

void boot_commit_begin(void) {
    boot.node_block = 0;
    boot.table_count = 0;
}

static int release_old(enum boot_object object) { return life_release(&store.boot[object], TREE_META, 0, NULL); }

/* Writes the table of stores, or its copy. */
static int write_table(enum boot_object object) {
    uint64_t block;
    if (!write_room())
        return -E_AGAIN;
    void *page = cache_page_alloc();
    if (page == NULL)
        return -E_NOMEM;
    int status = alloc_block(&block);
    if (status == 0)
        status = release_old(object);
    if (status != 0) {
        store.env->page_free(page);
        return status;
    }
    memcpy(page, store.far, BLOCK_SIZE);
    store.boot[object] = pointer_make(block, 0, commit_generation(), page);
    boot.table_count++;
    write_page(block, page, WRITE_FREE, NULL);
    return 1;
}

/* Every copy is in the map and its page of the map is dirty. -E_NOENT: one is not there any more. */
static int prepare_map(void) {
    for (unsigned i = 0; i < NODE_FANOUT; i++) {
        const struct block_ptr_disk *pointer = &boot.node->child[i];
        uint64_t near_block;
        if (!ptr_present(pointer))
            continue;
        int status = copy_find(ptr_store(pointer), copy_key(pointer), &near_block);
        if (status == 0 && near_block == 0)
            status = -E_NOENT;
        if (status == 0)
            status = copy_set(ptr_store(pointer), copy_key(pointer), near_block);
        if (status != 0)
            return status;
    }
    return 0;
}

/* Takes the copies out of the map: they are the pages of near's own object from now on. */
static void take_copies(struct node_disk *own) {
    for (unsigned i = 0; i < NODE_FANOUT; i++) {
        const struct block_ptr_disk *pointer = &boot.node->child[i];
        uint64_t near_block;
        memset(&own->child[i], 0, sizeof own->child[i]);
        if (!ptr_present(pointer))
            continue;
        check(copy_find(ptr_store(pointer), copy_key(pointer), &near_block) == 0);
        check(copy_set(ptr_store(pointer), copy_key(pointer), 0) == 0);
        own->child[i] = *pointer;
        own->child[i].where = near_block * SECTORS_PER_BLOCK | (uint64_t)PTR_PRESENT << 56;
        own->child[i].birth_length = commit_generation() | (uint64_t)BLOCK_SIZE << 48;
    }
}

static int take_over(void) {
    if (!write_room())
        return -E_AGAIN;
    int status = prepare_map();
    if (status == -E_NOENT) {
        boot.state = STATE_CHOOSE;
        return 1;
    }
    if (status == 0 && boot.node_block == 0)
        status = alloc_block(&boot.node_block);
    if (status != 0)
        return status;
    struct node_disk *own = cache_page_alloc();
    if (own == NULL)
        return -E_NOMEM;
    take_copies(own);
    store.boot[boot.object] = pointer_make(boot.node_block, 1, commit_generation(), own);
    write_page(boot.node_block, own, WRITE_FREE, NULL);
    boot.node_block = 0;
    boot.state = STATE_CHOOSE;
    return 1;
}

/* 2: no boot object has to be written (any more). One that replaces those that are taken over comes after them. */
int boot_step_commit(void) {
    if (store.far_changed && boot.table_count < 2)
        return write_table(boot.table_count == 0 ? BOOT_STORES : BOOT_STORES_COPY);
    if (boot.state == STATE_READY && !boot.waiting)
        return take_over();
    return replace_step();
}
