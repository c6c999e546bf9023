/*
 * kernel/store/open.c: the start: headers and rings of all disks, the newest valid root, or the adoption of a far one.
 *
 * Promise: store_open's, in store.h: nothing is written unless near is ours or, blank, adopts a trusted far root; a
 * header comes last, so an adoption that is cut short leaves near blank.
 * Called by: main.c, once; the only code of this room that waits (env->poll).
 */
#include "store/internal.h"

enum {
    PACKED_RUN_COUNT_MAX = 32, /* 8 MiB */
    SYNC_SPARE_COUNT = 32,     /* for far disks that did not answer */
};
#define PATIENCE_NS 10000000000ull /* for a far disk that no other one can do for */

struct store store;

/* A read or write that is waited for. One that is not waited for any more keeps its page until the device has
 * answered. */
struct sync_io {
    struct store_io io;
    int used, pending, abandoned, status;
};

/* What was found on one disk. */
struct disk_view {
    int blank, foreign;    /* blocks 0, 1, 18 are zero; or hold something else */
    int installed;         /* block 0 holds a boot record */
    int header_copies;     /* bit 0: block 1 is valid, bit 1: block 18 */
    int late;              /* it was not waited for any longer */
    struct header_disk header;
    struct root_disk first_slot; /* of a far disk's ring, as it was read */
    unsigned root_count;
    struct root_disk root[RING_COUNT]; /* valid ones, newest first */
};

static struct disk_view view;
static struct sync_io sync_pool[RING_COUNT + SYNC_SPARE_COUNT];
static uint64_t view_until_ns = UINT64_MAX; /* who looks at a far disk waits no longer */

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

static int sync_wait(struct sync_io *sync) {
    while (sync->pending)
        store.env->poll();
    sync->used = 0;
    return sync->status;
}

static int sync_run(enum store_op op, unsigned disk, uint64_t block, void *page) {
    struct sync_io *sync = sync_start(op, disk, block, page);
    check(sync != NULL);
    return sync_wait(sync);
}

/* A page of the disk in view; NULL: there is no memory for it. */
static struct sync_io *view_start(unsigned disk, uint64_t block) {
    void *page = store.env->page_alloc(0);
    struct sync_io *sync = page != NULL ? sync_start(STORE_READ, disk, block, page) : NULL;
    if (page != NULL && sync == NULL)
        store.env->page_free(page);
    return sync;
}

/* Whether a disk has been silent for too long: one that brings what was asked for before is not. */
static int is_late(unsigned disk) {
    uint64_t now = store.env->now_ns();
    return disk != 0 && now > view_until_ns && now > ahead_answered_ns(disk) + FAR_LATE_NS;
}

/* 0: the page is here. A far disk that another one can do for is not waited for for ever. */
static int view_wait(struct sync_io *sync) {
    while (sync->pending && !is_late(sync->io.disk))
        store.env->poll();
    view.late |= sync->pending;
    return sync->pending ? -E_IO : sync->status;
}

static void view_end(struct sync_io *sync) {
    sync->abandoned = sync->pending;
    if (!sync->pending)
        store.env->page_free(sync->io.page[0]);
    sync->used = sync->pending;
}

/* --- looking at a disk --- */

/* Judges block 0 (index 0), or a copy of the header (1, 2). */
static void view_block(unsigned index, int status, const void *page, int *version) {
    int zero = status == 0 && page_is_zero(page);
    view.blank &= zero;
    if (index == 0)
        view.installed = !zero;
    if (index == 0 || status != 0 || zero)
        return;
    int validity = header_valid(page);
    *version |= validity == -E_VERSION;
    if (validity != 0)
        return;
    if (view.header_copies == 0)
        view.header = *(const struct header_disk *)page;
    view.header_copies |= 1 << (index - 1);
}

/*
 * Blocks 0, 1 and 18, and of a far disk the ring's first slot, together: it may be far indeed. A disk whose boot record
 * cannot be read is not blank.
 */
static int view_header(unsigned disk) {
    static const uint64_t places[] = {0, HEADER_BLOCK, HEADER_COPY_BLOCK, RING_FIRST_BLOCK};
    unsigned wanted = disk == 0 ? 3 : 4, count = 0;
    struct sync_io *sync[4];
    int failed = 0, version = 0;
    memset(&view, 0, sizeof view);
    view.blank = 1;
    while (count < wanted && (sync[count] = view_start(disk, places[count])) != NULL)
        count++;
    for (unsigned i = 0; i < count; i++) {
        int status = view_wait(sync[i]);
        const void *page = sync[i]->io.page[0];
        if (i < 3)
            view_block(i, status, page, &version);
        else if (status == 0)
            view.first_slot = *(const struct root_disk *)page;
        failed |= i < 3 && status != 0;
        view_end(sync[i]);
    }
    if (count < wanted)
        return -E_NOMEM;
    if (view.header_copies != 0 || view.blank)
        return 0;
    view.foreign = 1;
    return version ? -E_VERSION : failed ? -E_IO : -E_FOREIGN;
}

static const char *disk_name(unsigned disk) {
    static char far_name[] = "far0";
    far_name[3] = (char)('0' + disk);
    return disk == 0 ? "near" : far_name;
}

static void insert_root(const struct root_disk *root) {
    unsigned at = view.root_count++;
    for (; at > 0 && view.root[at - 1].sequence < root->sequence; at--)
        view.root[at] = view.root[at - 1];
    view.root[at] = *root;
}

/* The valid roots of the ring. One of another version that is newer than all of them is the state: older ones are
 * not. */
static int view_ring(unsigned disk) {
    int status = 0, unknown = 0;
    uint64_t unknown_sequence = 0; /* the newest of another version */
    unsigned count = 0, unreadable = 0;
    static struct sync_io *sync[RING_COUNT];
    while (count < RING_COUNT &&
           (sync[count] = view_start(disk, RING_FIRST_BLOCK + count * view.header.ring_stride)) != NULL)
        count++;
    for (unsigned i = 0; i < count; i++) {
        int read = view_wait(sync[i]);
        const struct root_disk *root = sync[i]->io.page[0];
        int validity = read == 0 ? root_valid(root, view.header.store_id) : read;
        unreadable += read != 0;
        if (validity == -E_VERSION && root->sequence >= unknown_sequence) {
            unknown = 1;
            unknown_sequence = root->sequence;
        }
        if (validity == 0 && root->sequence % RING_COUNT == i)
            insert_root(root);
        view_end(sync[i]);
    }
    if (unreadable > 0)
        store_notice("%s: %u root records cannot be read: an older generation may be the newest that is found",
                     disk_name(disk), unreadable);
    if (count < RING_COUNT)
        status = -E_NOMEM;
    else if (unknown && (view.root_count == 0 || unknown_sequence > view.root[0].sequence))
        status = -E_VERSION;
    else if (view.root_count == 0)
        status = -E_CORRUPT;
    return status;
}

/* --- trust --- */

/* Whether the one whose key is trusted has signed a root. */
static int is_signed(const struct store_options *options, const struct root_disk *root) {
    static const uint8_t none[SIGNATURE_SIZE];
    return options->key_given && memcmp(root->signature, none, sizeof none) != 0 &&
           store.env->signature_valid != NULL &&
           store.env->signature_valid(options->key, root->signature, root->hash, ROOT_HASH_SIZE);
}

static int is_trusted(const struct store_options *options, const struct root_disk *root) {
    return (options->trust_given && memcmp(root->hash, options->trust, ROOT_HASH_SIZE) == 0) ||
           is_signed(options, root);
}

static const char *distrust_reason(const struct store_options *options) {
    if (!options->key_given)
        return "its root does not have the trusted hash";
    return options->trust_given ? "its root has neither the trusted hash nor a signature of the trusted key"
                                : "its root is not signed by the trusted key";
}

/* Whether the first slot of the far store's ring has the root with this hash: a published one has it there. */
static int first_slot_is(const uint8_t *hash) {
    return root_valid(&view.first_slot, view.header.store_id) == 0 &&
           memcmp(view.first_slot.hash, hash, ROOT_HASH_SIZE) == 0;
}

/* Whether it has the newest root, and that is a trusted one: nothing else of the ring need be read. */
static int first_slot_is_enough(const struct store_options *options) {
    return view.header.ring_stride == 1 && root_valid(&view.first_slot, view.header.store_id) == 0 &&
           is_trusted(options, &view.first_slot);
}

/* The roots of a store that is whole; of a far one (`options` given), a published root that is trusted is enough. */
static int view_sized_ring(unsigned disk, const struct store_options *options) {
    if (view.header.block_count > store.env->disk_sectors[disk] / SECTORS_PER_BLOCK) {
        store_notice("%s: truncated: the store has %lu blocks, the disk only %lu", disk_name(disk),
                     (unsigned long)view.header.block_count,
                     (unsigned long)(store.env->disk_sectors[disk] / SECTORS_PER_BLOCK));
        return -E_RANGE;
    }
    if (options == NULL || !first_slot_is_enough(options))
        return view_ring(disk);
    insert_root(&view.first_slot);
    return 0;
}

/* Near, or (`options` given) a far store to adopt. */
static int view_disk(unsigned disk, const struct store_options *options) {
    int status = view_header(disk);
    if (status == 0 && !view.blank)
        status = view_sized_ring(disk, options);
    if (status == -E_VERSION)
        store_notice("%s: it has another format version than 1 to %u, which this kernel knows", disk_name(disk),
                     FORMAT_VERSION_MAX);
    return status;
}

/* --- a root becomes the state in memory --- */

/* What a commit changes in memory, as the root says it. */
void store_take_root(const struct root_disk *root) {
    store.tree[TREE_MAIN] = (struct tree){root->tree, root->tree_height};
    store.tree[TREE_META] = (struct tree){root->meta, root->meta_height};
    store.boot[BOOT_KERNEL] = root->kernel;
    store.boot[BOOT_LOADER] = root->loader;
    store.boot[BOOT_RESUME] = root->resume;
    store.boot_size[BOOT_KERNEL] = root->kernel_size;
    store.boot_size[BOOT_LOADER] = root->loader_size;
    store.boot_size[BOOT_RESUME] = root->resume_list_size;
    store.boot[BOOT_STORES] = root->stores;
    store.boot[BOOT_STORES_COPY] = root->stores_copy;
    store.free_count = root->free_count;
    if (store.header.block_count > root->block_count) /* it has been grown */
        store.free_count += store.header.block_count - root->block_count;
}

static void take_root(const struct root_disk *root) {
    cache_init();
    retain_forget();
    store.root = *root;
    store_take_root(root);
    store.alloc_next = root->alloc_next;
    store.complete = (root->flags & ROOT_COMPLETE) != 0;
    store.retention = (struct store_retention){root->retain_wanted != 0 ? root->retain_wanted : root->retain_count,
                                               root->retain_hourly, root->retain_daily};
}

/* Reads the top node of a tree, so that a root is known to lead somewhere. */
static int verify_top(enum tree_id tree) {
    struct node *node;
    struct node_key key = {tree, LEVEL_DIRECTORY + store.tree[tree].height, 0, 0};
    if (store.tree[tree].height == 0 || !ptr_present(&store.tree[tree].root))
        return 0;
    for (;;) {
        store.operation++;
        int status = tree_read(key, &node);
        if (status != -E_AGAIN)
            return status;
        store.env->poll();
        fetch_hedge();
        fetch_pump();
    }
}

static int read_table_at(unsigned disk, const struct block_ptr_disk *pointer, struct store_entry_disk *table) {
    if (!ptr_present(pointer))
        return 0;
    struct store_entry_disk *page = store.env->page_alloc(0);
    if (page == NULL)
        return -E_NOMEM;
    int status = ptr_store(pointer) == 0 ? sync_run(STORE_READ, disk, ptr_block(pointer), page) : -E_CORRUPT;
    if (status == 0 && !hash_matches(pointer, page))
        status = -E_CORRUPT;
    if (status == 0)
        memcpy(table, page, BLOCK_SIZE);
    store.env->page_free(page);
    return status;
}

/* Reads a table of stores from a disk, or its copy. One that lacks its copy, or is damaged, is written anew. */
static int read_table(unsigned disk, const struct root_disk *root, struct store_entry_disk *table) {
    int status = read_table_at(disk, &root->stores, table);
    int has_copy = ptr_present(&root->stores_copy);
    store.far_changed = ptr_present(&root->stores) && (status != 0 || !has_copy);
    if (status == 0 || ptr_store(&root->stores) != 0 || !has_copy)
        return status;
    if (read_table_at(disk, &root->stores_copy, table) != 0)
        return status;
    store_notice("%s: its table of stores is damaged: the copy is taken", disk_name(disk));
    return 0;
}

/* --- far disks --- */

/* Near's entry for a far store; NULL, and it is said: near does not know it. */
const struct store_entry_disk *store_entry_of(unsigned disk, const struct header_disk *header) {
    for (unsigned i = 0; i < STORE_ENTRY_COUNT_MAX; i++)
        if (memcmp(store.far[i].store_id, header->store_id, STORE_ID_SIZE) == 0)
            return &store.far[i];
    store_notice("far%u: not a store that near has adopted: ignored", disk);
    return NULL;
}

/* The root that an entry names, on the far disk in view; NULL: it is not there. */
static const struct root_disk *named_root(unsigned disk, const struct store_entry_disk *entry) {
    if (first_slot_is(entry->root_hash))
        return &view.first_slot;
    view_ring(disk); /* whatever else is wrong with it */
    for (unsigned i = 0; i < view.root_count; i++)
        if (memcmp(view.root[i].hash, entry->root_hash, ROOT_HASH_SIZE) == 0)
            return &view.root[i];
    return NULL;
}

/* Whether a far store that has other roots than near knows is asked, where the key is what is trusted; says why not. */
int root_may_follow(const struct store_options *options, unsigned disk, const struct store_entry_disk *entry,
                    const struct root_disk *root, unsigned count) {
    const char *reason = distrust_reason(options);
    for (unsigned i = 0; i < count; i++) {
        if (!is_trusted(options, &root[i]))
            continue;
        if (root[i].generation >= entry->generation)
            return 1;
        reason = "its signed root is older than the one that was adopted";
        break;
    }
    store_notice("far%u: %s: refused", disk, reason);
    return 0;
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
    const struct store_entry_disk *entry = store_entry_of(disk, &view.header);
    if (entry == NULL)
        return;
    int is_first = entry == &store.far[0];
    const struct root_disk *named = is_first || options->key_given ? named_root(disk, entry) : NULL;
    if (options->key_given && named == NULL && !root_may_follow(options, disk, entry, view.root, view.root_count))
        return;
    attach_known(disk, &view.header);
    if (is_first && named != NULL)
        fill_adopt(named);
}

/* All far disks. One that is late is left for later, where there are others; all, where near needs none. */
static void attach_far_disks(const struct store_options *options, int complete) {
    int is_alone = store.env->disk_count <= 2;
    for (unsigned disk = 1; disk < store.env->disk_count; disk++) {
        view_until_ns = store.env->now_ns() + (is_alone ? PATIENCE_NS : FAR_LATE_NS);
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
        int status = read_table(0, &root[i], store.far);
        if (status == 0) {
            attach_far_disks(options, (root[i].flags & ROOT_COMPLETE) != 0);
            take_root(&root[i]);
            status = verify_top(TREE_MAIN);
        }
        if (status == -E_IO && ptr_store(&root[i].tree) != 0)
            status = 0;
        if (status == 0)
            status = verify_top(TREE_META);
        if (status == 0)
            return 0;
        store_notice("generation %lu (root %lu) does not verify: trying an older one",
                     (unsigned long)root[i].generation, (unsigned long)root[i].sequence);
    }
    return -E_CORRUPT;
}

/* --- writing at the start --- */

static int write_header(uint64_t block) {
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

static int no_page(struct store_commit *commit, struct store_commit_page *page) {
    (void)commit;
    (void)page;
    return 0;
}

static void commit_done(struct store_commit *commit, int status) { *(int *)commit->owner = status; }

/* A root without pages, waited for. */
static int commit_now(void) {
    int result = 1;
    struct store_commit commit = {.generation = store.root.generation, .wall_ns = store.root.wall_ns,
                                  .mono_ns = store.root.mono_ns, .record_version = store.root.record_version,
                                  .next = no_page, .done = commit_done, .owner = &result};
    int status = store_commit_start(&commit);
    if (status != 0)
        return status;
    while (result == 1)
        if (!store_work(UINT32_MAX) && result == 1)
            store.env->poll();
    return result;
}

static void seal_header(void) {
    blake2b(store.header.hash, sizeof store.header.hash, &store.header, offsetof(struct header_disk, hash));
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
    seal_header();
}

/* --- adoption --- */

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
        if (!is_trusted(options, &view.root[i]))
            continue;
        *root = view.root[i];
        return root->record_version <= options->record_version_max ? 0 : -E_VERSION;
    }
    if (options->trust_given || options->key_given)
        store_notice("far%u: %s", disk, distrust_reason(options));
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
        view_until_ns = patient ? UINT64_MAX : store.env->now_ns() + FAR_LATE_NS;
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
    int status = read_table(disk, far_root, table);
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

static int adopt(const struct store_options *options) {
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
    struct block_ptr_disk *pointers[] = {&root.tree, &root.kernel, &root.loader, &root.resume};
    for (unsigned i = 0; status == 0 && i < 4; i++)
        status = pointers_translate(pointers[i], 1, 1);
    memset(&root.meta, 0, sizeof root.meta);
    memset(&root.stores, 0, sizeof root.stores);
    memset(&root.failures, 0, sizeof root.failures);
    memset(&root.stores_copy, 0, sizeof root.stores_copy);
    memset(root.hash, 0, sizeof root.hash);
    root.meta_height = 0;
    root.sequence = 0;
    root.block_count = store.header.block_count;
    root.free_count = store.header.block_count - FIXED_BLOCK_COUNT;
    root.alloc_next = RING_FIRST_BLOCK;
    root.retain_count = RETAIN_COUNT_DEFAULT;
    root.retain_hourly = RETAIN_HOURLY_DEFAULT;
    root.retain_daily = RETAIN_DAILY_DEFAULT;
    root.retain_wanted = 0;
    root.flags = 0;
    attach_known(disk, &view.header);
    for (unsigned other = disk + 1; other < store.env->disk_count; other++)
        attach_later(other, NULL); /* those before it were refused, or will be asked again */
    attach_step();
    fill_init(&root); /* its store numbers are ours */
    if (disk != 1 || ptr_block(&root.tree) != options->packed[0])
        read_packed(disk, ptr_block(&root.tree), root.packed_count);
    store.facts.packed_count = root.packed_count;
    root.packed_count = 0;
    take_root(&root);
    attach_all(PATIENCE_NS); /* while the packed blocks come: it may be another one that has them unharmed */
    if (status == 0)
        status = verify_top(TREE_MAIN);
    if (status == 0)
        status = commit_now();
    if (status == 0)
        status = write_header(HEADER_COPY_BLOCK);
    return status == 0 ? write_header(HEADER_BLOCK) : status;
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
    if (!(copies & 1) && write_header(HEADER_BLOCK) == 0)
        store_notice("near: header rewritten from its copy");
    if (!(copies & 2) && write_header(HEADER_COPY_BLOCK) == 0)
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
    seal_header();
    int status = write_header(HEADER_COPY_BLOCK);
    if (status == 0)
        status = write_header(HEADER_BLOCK);
    if (status == 0)
        store.free_count += block_count - before;
    return status;
}

int store_open(const struct store_env *env, const struct store_options *options) {
    memset(&store, 0, sizeof store);
    store.env = env;
    memset(sync_pool, 0, sizeof sync_pool);
    view_until_ns = UINT64_MAX;
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
        status = view.blank ? adopt(options) : resume(options);
    else if (status != -E_RANGE && status != -E_VERSION)
        store_notice("near: %s", view.foreign ? "not a store of ours: left alone" : "no valid root");
    if (status == 0 && options->retention_given)
        store.retention = options->retention;
    return status;
}
