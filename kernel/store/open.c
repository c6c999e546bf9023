/*
 * kernel/store/open.c: the start: the newest valid root of near, and the far stores that it needs; or an adoption.
 *
 * Promise: store_open's, in store.h: nothing is written unless near is ours or, blank, adopts a trusted far root.
 * Called by: main.c, once; store_grow at any time without a commit.
 */
#include "store/internal.h"

/* The root that an entry names, on the far disk in view; NULL: it is not there. */
static const struct root_disk *named_root(unsigned disk, const struct store_entry_disk *entry) {
    if (view_first_slot_is(entry->root_hash))
        return &view.first_slot;
    view_ring(disk); /* whatever else is wrong with it */
    for (unsigned i = 0; i < view.root_count; i++)
        if (memcmp(view.root[i].hash, entry->root_hash, ROOT_HASH_SIZE) == 0)
            return &view.root[i];
    return NULL;
}

/* Reads the identity of a far disk: it serves if near's table knows it and it is to be trusted; mute, it is asked
 * later. */
static void attach_far_disk(const struct store_options *options, unsigned disk) {
    int status = view_header(disk);
    if (status == -E_IO)
        attach_later(disk, view.late ? "does not answer in time" : "cannot be read");
    else if (status != 0 || view.blank)
        store_notice("far%u: no store (error %d)", disk, -status);
    if (status != 0 || view.blank)
        return;
    const struct store_entry_disk *entry = attach_entry(disk, &view.header);
    if (entry == NULL)
        return;
    int is_first = entry == &store.far[0];
    const struct root_disk *named = is_first || options->key_given ? named_root(disk, entry) : NULL;
    if (options->key_given && named == NULL && !trust_may_follow(options, disk, entry, view.root, view.root_count))
        return;
    attach_known(disk, &view.header);
    if (is_first && named != NULL)
        fill_adopt(named);
}

/* All far disks. One that is late is left for later, where there are others; all, where near needs none. */
static void attach_far_disks(const struct store_options *options, int complete) {
    int is_alone = store.env->disk_count <= 2;
    for (unsigned disk = 1; disk < store.env->disk_count; disk++) {
        view_wait_until(store.env->now_ns() + (is_alone ? PATIENCE_NS : FAR_LATE_NS));
        if (store.env->disk_sectors[disk] != 0 && !complete)
            attach_far_disk(options, disk);
        else
            attach_later(disk, NULL);
    }
    if (!complete)
        attach_wait(PATIENCE_NS); /* none but late ones: near may need them to go on */
}

/* Takes the newest root whose top nodes verify. A far store that is silent now is no reason to go back in time. */
static int choose_root(const struct store_options *options) {
    static struct root_disk root[RING_COUNT];
    unsigned count = view.root_count;
    memcpy(root, view.root, sizeof root);
    store.sequence_max = root[0].sequence;
    for (unsigned i = 0; i < count; i++) {
        if (root[i].record_version > options->record_version_max) {
            store_notice("generation %lu has a record layout that this kernel does not know",
                         (unsigned long)root[i].generation);
            return -E_VERSION;
        }
        memset(store.far, 0, sizeof store.far);
        int status = root_read_table(0, &root[i], store.far);
        if (status == 0) {
            attach_far_disks(options, (root[i].flags & ROOT_COMPLETE) != 0);
            root_take(&root[i]);
            status = root_verify_top(TREE_MAIN);
        }
        if (status == -E_IO && ptr_store(&root[i].tree) != 0)
            status = 0;
        if (status == 0)
            status = root_verify_top(TREE_META);
        if (status == 0)
            return 0;
        store_notice("generation %lu (root %lu) does not verify: trying an older one",
                     (unsigned long)root[i].generation, (unsigned long)root[i].sequence);
    }
    return -E_CORRUPT;
}

/*
 * Near is ours: its newest good root. A machine that was killed may have left that root in the disk's cache only: it is
 * made durable before anyone builds on it or shows what it holds.
 */
static int resume(const struct store_options *options) {
    int copies = view.header_copies;
    if (view.header.version > FORMAT_VERSION && view.header.ring_stride == 1) {
        store_notice("near: a compressed far image cannot be written: it can only be a far store");
        return -E_FOREIGN;
    }
    store.header = view.header;
    int status = choose_root(options);
    if (status == 0 && (status = sync_run(STORE_FLUSH, 0, 0, NULL)) != 0)
        store_notice("near: a flush failed: its newest generation may not be durable");
    if (status != 0)
        return status;
    if (!(copies & 1) && header_write(HEADER_BLOCK) == 0)
        store_notice("near: header rewritten from its copy");
    if (!(copies & 2) && header_write(HEADER_COPY_BLOCK) == 0)
        store_notice("near: copy of the header rewritten");
    return 0;
}

/* A header may say more than the root that is not written yet; never less. So the copy that is read first comes
 * last. */
int store_grow(uint64_t block_count) {
    uint64_t before = store.header.block_count;
    if (block_count <= before || block_count > UINT32_MAX)
        return -E_RANGE;
    if (block_count > store.env->disk_sectors[0] / SECTORS_PER_BLOCK)
        return -E_NOSPACE;
    store.header.block_count = block_count;
    header_seal();
    int status = header_write(HEADER_COPY_BLOCK);
    if (status == 0)
        status = header_write(HEADER_BLOCK);
    if (status == 0)
        store.free_count += block_count - before;
    return status;
}

int store_open(const struct store_env *env, const struct store_options *options) {
    memset(&store, 0, sizeof store);
    store.env = env;
    sync_init();
    view_wait_until(UINT64_MAX);
    cache_init();
    fetch_init();
    ahead_init();
    attach_init(options);
    pace_init();
    fill_init(NULL);
    copy_init();
    clone_init();
    commit_init();
    write_init();
    retain_init();
    rebuild_init();
    const struct store_retention *retention = &options->retention;
    if (options->retention_given &&
        (retention->count < RETAIN_COUNT_MIN || retention->count > RETAIN_COUNT_MAX ||
         retention->hourly > RETAIN_HOURLY_MAX || retention->daily > RETAIN_DAILY_MAX))
        return -E_INVAL;
    int status = view_disk(0, NULL);
    int installed = view.installed;
    boot_init(installed);
    replace_init();
    if (status == 0)
        status = view.blank ? store_adopt(options) : resume(options);
    else if (status != -E_RANGE && status != -E_VERSION)
        store_notice("near: %s", view.foreign ? "not a store of ours: left alone" : "no valid root");
    if (status == 0 && options->retention_given)
        store.retention = options->retention;
    return status;
}
