/*
 * kernel/store/adopt.c: a blank near adopts a far store's root.
 *
 * Promise: only a root that is trusted (trust.c); the header comes last, so that an adoption that is cut short leaves
 * near blank.
 * Called by: open.c, once.
 */
#include "store/internal.h"

enum { PACKED_RUN_COUNT_MAX = 32 }; /* 8 MiB */

static void commit_done(struct store_commit *commit, int status) { *(int *)commit->owner = status; }

/* A root without pages, waited for. */
static int commit_now(void) {
    int result = 1;
    struct store_commit commit = commit_without_pages();
    commit.done = commit_done;
    commit.owner = &result;
    int status = store_commit_start(&commit);
    if (status != 0)
        return status;
    while (result == 1)
        if (!store_work(UINT32_MAX) && result == 1)
            store.env->poll();
    return result;
}

/* Of a near that adopts this root; of its format version, since its tree may name compressed pages. */
static void make_header(const struct root_disk *root) {
    struct header_disk *header = &store.header;
    uint64_t block_count = store.env->disk_sectors[0] / SECTORS_PER_BLOCK;
    memset(header, 0, sizeof *header);
    header->magic = HEADER_MAGIC;
    header->version = root->version;
    header->ring_count = RING_COUNT;
    store.env->random(header->store_id, sizeof header->store_id);
    header->block_count = block_count < UINT32_MAX ? block_count : UINT32_MAX;
    header->ring_first = RING_FIRST_BLOCK;
    header->ring_stride = (header->block_count - RING_FIRST_BLOCK) / RING_COUNT;
    header->created_wall_ns = root->wall_ns;
    header_seal();
}

/* --- the far store --- */

/* The newest root of a far disk that may be adopted; says why there is none. */
static int trusted_root(const struct store_options *options, unsigned disk, struct root_disk *root) {
    int status = view_disk(disk, options);
    if (status == 0 && view.blank)
        status = -E_NOENT;
    if (status == -E_FOREIGN)
        store_notice("far%u: not a Revenant store, or both its headers are damaged", disk);
    else if (view.late)
        store_notice("far%u: does not answer in time", disk);
    else if (status != 0 && status != -E_RANGE)
        store_notice("far%u: no valid root (error %d)", disk, -status);
    if (status != 0)
        return status;
    for (unsigned i = 0; i < view.root_count; i++) {
        if (!trust_has(options, &view.root[i]))
            continue;
        *root = view.root[i];
        return root->record_version <= options->record_version_max ? 0 : -E_VERSION;
    }
    if (options->trust_given || options->key_given)
        store_notice("far%u: %s", disk, trust_reason(options));
    else
        store_notice("near is blank and no trusted root hash was given");
    return -E_FOREIGN;
}

/* One round over the far disks; *late: one of them did not answer in time. */
static unsigned choose_punctual_far(const struct store_options *options, struct root_disk *root, int patient,
                                    int *status, int *late) {
    for (unsigned disk = 1; disk < store.env->disk_count; disk++) {
        if (store.env->disk_sectors[disk] == 0)
            continue;
        view_wait_until(patient ? UINT64_MAX : store.env->now_ns() + FAR_LATE_NS);
        int found = trusted_root(options, disk, root);
        if (found == 0)
            return disk;
        if (view.late || found == -E_IO)
            attach_later(disk, NULL);
        *late |= view.late;
        if (*status == 0)
            *status = found;
    }
    return 0;
}

/*
 * The first far disk, in the order of preference, that has a root to adopt; it stays in view. Late ones are waited for
 * only when no other has it. 0: none, *status says why.
 */
static unsigned choose_far(const struct store_options *options, struct root_disk *root, int *status) {
    int late = 0;
    *status = 0;
    unsigned disk = choose_punctual_far(options, root, store.env->disk_count <= 2, status, &late);
    if (disk == 0 && late) {
        *status = 0;
        disk = choose_punctual_far(options, root, 1, status, &late);
    }
    if (disk == 0 && *status == 0) {
        *status = -E_NOENT;
        store_notice("near is blank and there is no far store");
    }
    return disk;
}

/* The table: the far store, then its own. */
static int adopt_table(unsigned disk, const struct root_disk *far_root) {
    struct store_entry_disk *own = &store.far[0];
    static struct store_entry_disk table[STORE_ENTRY_COUNT_MAX];
    memset(table, 0, sizeof table);
    int status = root_read_table(disk, far_root, table);
    if (status != 0)
        return status;
    memset(store.far, 0, sizeof store.far);
    memcpy(&store.far[1], table, sizeof table - sizeof table[0]);
    memcpy(own->store_id, far_root->store_id, STORE_ID_SIZE);
    memcpy(own->root_hash, far_root->hash, ROOT_HASH_SIZE);
    own->generation = far_root->generation;
    own->block_count = view.header.block_count;
    store.far_changed = 1;
    return 0;
}

/* --- adoption --- */

/* The blocks that a start touches are on their way before anyone asks for them. */
static void read_packed(unsigned disk, uint64_t at, uint64_t count) {
    uint64_t end = at + count, block_count = store.env->disk_sectors[disk] / SECTORS_PER_BLOCK;
    if (count > block_count || at > block_count - count)
        return;
    for (unsigned run = 0; at < end && run < PACKED_RUN_COUNT_MAX; at += STORE_IO_PAGES_MAX, run++) {
        uint64_t left = end - at;
        ahead_start(disk, 1, at, left < STORE_IO_PAGES_MAX ? (unsigned)left : STORE_IO_PAGES_MAX, 0);
    }
}

/* What the far store's root says, as the first root of near says it. */
static int own_root(struct root_disk *root) {
    int status = 0;
    struct block_ptr_disk *pointers[] = {&root->tree, &root->kernel, &root->loader, &root->resume};
    for (unsigned i = 0; status == 0 && i < 4; i++)
        status = pointers_translate(pointers[i], 1, 1);
    memset(&root->meta, 0, sizeof root->meta);
    memset(&root->stores, 0, sizeof root->stores);
    memset(&root->failures, 0, sizeof root->failures);
    memset(&root->stores_copy, 0, sizeof root->stores_copy);
    memset(root->hash, 0, sizeof root->hash);
    root->meta_height = 0;
    root->sequence = 0;
    root->block_count = store.header.block_count;
    root->free_count = store.header.block_count - FIXED_BLOCK_COUNT;
    root->alloc_next = RING_FIRST_BLOCK;
    root->retain_count = RETAIN_COUNT_DEFAULT;
    root->retain_hourly = RETAIN_HOURLY_DEFAULT;
    root->retain_daily = RETAIN_DAILY_DEFAULT;
    root->retain_wanted = 0;
    root->flags = 0;
    return status;
}

int store_adopt(const struct store_options *options) {
    struct root_disk root;
    if (store.env->disk_sectors[0] / SECTORS_PER_BLOCK < STORE_BLOCK_COUNT_MIN) {
        store_notice("near is too small for a store: %d blocks are the least", STORE_BLOCK_COUNT_MIN);
        return -E_RANGE;
    }
    read_packed(1, options->packed[0], options->packed[1]);
    int status;
    unsigned disk = choose_far(options, &root, &status);
    if (disk == 0)
        return status;
    status = adopt_table(disk, &root);
    if (status != 0)
        return status;
    make_header(&root);
    status = own_root(&root);
    if (status != 0)
        return status;
    attach_known(disk, &view.header);
    for (unsigned other = disk + 1; other < store.env->disk_count; other++)
        attach_later(other, NULL); /* those before it were refused, or will be asked again */
    attach_step();
    fill_init(&root); /* its store numbers are ours */
    if (disk != 1 || ptr_block(&root.tree) != options->packed[0])
        read_packed(disk, ptr_block(&root.tree), root.packed_count);
    store.facts.packed_count = root.packed_count;
    root.packed_count = 0;
    root_take(&root);
    attach_all(PATIENCE_NS); /* while the packed blocks come: it may be another one that has them unharmed */
    status = root_verify_top(TREE_MAIN);
    if (status == 0)
        status = commit_now();
    if (status == 0)
        status = header_write(HEADER_COPY_BLOCK);
    return status == 0 ? header_write(HEADER_BLOCK) : status;
}
