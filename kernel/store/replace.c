/*
 * kernel/store/replace.c: a kernel, loader or resume list given from outside becomes near's own boot object.
 *
 * Promise: part of one commit: the root names the old object or the new one, each whole; the old one dies like
 * everything else, so that the roots before still lead to it.
 * Called by: boot.c, in a commit; store_boot_replace by tools/editor.
 */
#include "store/internal.h"

enum { PHASE_DONE = 2 };

static const struct store_boot_object *asked[BOOT_RESUME + 1]; /* for the next commit, until it is durable */
static const struct store_boot_object *given[BOOT_RESUME + 1]; /* of these: what the running one has still to do */

static struct {
    struct node_disk *old, *own;
    struct store_fetch fetch;
    int reading, loaded;
    unsigned index;
    uint64_t block;
} at;

void store_boot_replace(const struct store_boot_object *kernel, const struct store_boot_object *loader,
                        const struct store_boot_object *resume) {
    asked[BOOT_KERNEL] = given[BOOT_KERNEL] = kernel;
    asked[BOOT_LOADER] = given[BOOT_LOADER] = loader;
    asked[BOOT_RESUME] = given[BOOT_RESUME] = resume;
}

int replace_is_reading(void) { return at.reading; }

void replace_done(void) { memset(asked, 0, sizeof asked); }

void replace_undo(void) {
    if (at.old != NULL)
        store.env->page_free(at.old);
    if (at.own != NULL)
        store.env->page_free(at.own);
    memset(&at, 0, sizeof at);
    memcpy(given, asked, sizeof given);
}

void replace_init(void) {
    memset(&at, 0, sizeof at);
    memset(given, 0, sizeof given);
    replace_done();
}

/* Blocks that a commit needs for it at most. */
uint64_t replace_bound(void) {
    uint64_t count = 0;
    for (unsigned object = 0; object <= BOOT_RESUME; object++)
        count += given[object] != NULL ? NODE_FANOUT + 1 : 0;
    return count;
}

static void old_read(struct store_fetch *fetch, int status) {
    (void)fetch;
    if (status != 0) {
        store_notice("a replaced boot object is damaged: what is below it stays taken");
        memset(at.old, 0, BLOCK_SIZE);
    }
    at.reading = 0;
    at.loaded = 1;
}

/* Has the old object's node in memory, or zeros where it has none, or that is not near's own. */
static int load_old(const struct block_ptr_disk *pointer) {
    if (at.reading)
        return -E_AGAIN;
    if (!pointer_is_near(pointer) || pointer_check(pointer, 1) != 0) {
        memset(at.old, 0, BLOCK_SIZE);
        at.loaded = 1;
        return 1;
    }
    at.reading = 1;
    at.fetch = (struct store_fetch){.pointer = *pointer, .page = at.old, .done = old_read};
    check(store_fetch(&at.fetch) == 0);
    return -E_AGAIN;
}

/* One page of the old object goes, one of the new comes. */
static int replace_page(const void *data) {
    const struct block_ptr_disk *old = &at.old->child[at.index];
    void *copy = NULL;
    int status = 0;
    if (data != NULL && at.block == 0)
        status = alloc_block(&at.block);
    if (status == 0 && data != NULL && (copy = cache_page_alloc()) == NULL)
        status = -E_NOMEM;
    if (status == 0 && pointer_is_near(old))
        status = life_die(ptr_block(old), ptr_birth(old));
    if (status != 0) {
        if (copy != NULL)
            store.env->page_free(copy);
        return status;
    }
    if (data != NULL) {
        memcpy(copy, data, BLOCK_SIZE);
        at.own->child[at.index] = pointer_make(at.block, 0, commit_generation(), copy);
        write_page(at.block, copy, WRITE_FREE, NULL);
        at.block = 0;
    }
    at.index++;
    return 1;
}

static int finish(enum boot_object object) {
    int status = at.block == 0 ? alloc_block(&at.block) : 0;
    if (status == 0)
        status = life_release(&store.boot[object], TREE_META, 0, NULL);
    if (status != 0)
        return status;
    store.boot[object] = pointer_make(at.block, 1, commit_generation(), at.own);
    store.boot_size[object] = given[object]->size;
    write_page(at.block, at.own, WRITE_FREE, NULL);
    store.env->page_free(at.old);
    memset(&at, 0, sizeof at);
    given[object] = NULL;
    if (object == BOOT_LOADER)
        boot_uninstalled();
    return 1;
}

/* One step in a commit. 2: nothing (more) is to be replaced. */
int replace_step(void) {
    enum boot_object object = BOOT_KERNEL;
    while (object <= BOOT_RESUME && given[object] == NULL)
        object++;
    if (object > BOOT_RESUME)
        return PHASE_DONE;
    if (!write_room())
        return -E_AGAIN;
    if (at.own == NULL && (at.own = cache_page_alloc()) != NULL)
        memset(at.own, 0, BLOCK_SIZE);
    if (at.old == NULL)
        at.old = cache_page_alloc();
    if (at.own == NULL || at.old == NULL)
        return -E_NOMEM;
    if (!at.loaded)
        return load_old(&store.boot[object]);
    return at.index < NODE_FANOUT ? replace_page(given[object]->page[at.index]) : finish(object);
}
