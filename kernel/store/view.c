/*
 * kernel/store/view.c: what one disk holds, as it is found at the start: its header, and the valid roots of its ring.
 *
 * Promise: nothing is written; what is here is checked by its hashes, but of a far disk not yet to be trusted. A far
 * disk that has long been silent is given up, and said to be late.
 * Called by: open.c, adopt.c, one disk at a time.
 */
#include "store/internal.h"

struct disk_view view;
static uint64_t until_ns; /* a far disk is not waited for any longer */

void view_wait_until(uint64_t ns) { until_ns = ns; }

/* Whether a disk has been silent for too long: one that brings what was asked for before is not. */
static int is_late(unsigned disk) {
    uint64_t now = store.env->now_ns();
    return disk != 0 && now > until_ns && now > ahead_answered_ns(disk) + FAR_LATE_NS;
}

/* 0: the page is here. A far disk that another one can do for is not waited for for ever. */
static int view_wait(struct sync_io *sync) {
    while (sync->pending && !is_late(sync->io.disk))
        store.env->poll();
    view.late |= sync->pending;
    return sync->pending ? -E_IO : sync->status;
}

/* --- the header --- */

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
int view_header(unsigned disk) {
    static const uint64_t places[] = {0, HEADER_BLOCK, HEADER_COPY_BLOCK, RING_FIRST_BLOCK};
    unsigned wanted = disk == 0 ? 3 : 4, count = 0;
    struct sync_io *sync[4];
    int failed = 0, version = 0;
    memset(&view, 0, sizeof view);
    view.blank = 1;
    while (count < wanted && (sync[count] = sync_read(disk, places[count])) != NULL)
        count++;
    for (unsigned i = 0; i < count; i++) {
        int status = view_wait(sync[i]);
        const void *page = sync[i]->io.page[0];
        if (i < 3)
            view_block(i, status, page, &version);
        else if (status == 0)
            view.first_slot = *(const struct root_disk *)page;
        failed |= i < 3 && status != 0;
        sync_end(sync[i]);
    }
    if (count < wanted)
        return -E_NOMEM;
    if (view.header_copies != 0 || view.blank)
        return 0;
    view.foreign = 1;
    return version ? -E_VERSION : failed ? -E_IO : -E_FOREIGN;
}

/* --- the ring --- */

const char *view_disk_name(unsigned disk) {
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
int view_ring(unsigned disk) {
    int status = 0, unknown = 0;
    uint64_t unknown_sequence = 0; /* the newest of another version */
    unsigned count = 0, unreadable = 0;
    static struct sync_io *sync[RING_COUNT];
    while (count < RING_COUNT &&
           (sync[count] = sync_read(disk, RING_FIRST_BLOCK + count * view.header.ring_stride)) != NULL)
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
        sync_end(sync[i]);
    }
    if (unreadable > 0)
        store_notice("%s: %u root records cannot be read: an older generation may be the newest that is found",
                     view_disk_name(disk), unreadable);
    if (count < RING_COUNT)
        status = -E_NOMEM;
    else if (unknown && (view.root_count == 0 || unknown_sequence > view.root[0].sequence))
        status = -E_VERSION;
    else if (view.root_count == 0)
        status = -E_CORRUPT;
    return status;
}

/* Whether the first slot of the far store's ring has the root with this hash: a published one has it there. */
int view_first_slot_is(const uint8_t *hash) {
    return root_valid(&view.first_slot, view.header.store_id) == 0 &&
           memcmp(view.first_slot.hash, hash, ROOT_HASH_SIZE) == 0;
}

/* Whether it has the newest root, and that is a trusted one: nothing else of the ring need be read. */
static int first_slot_is_enough(const struct store_options *options) {
    return view.header.ring_stride == 1 && root_valid(&view.first_slot, view.header.store_id) == 0 &&
           trust_has(options, &view.first_slot);
}

/* The roots of a store that is whole; of a far one (`options` given), a published root that is trusted is enough. */
static int view_sized_ring(unsigned disk, const struct store_options *options) {
    if (view.header.block_count > store.env->disk_sectors[disk] / SECTORS_PER_BLOCK) {
        store_notice("%s: truncated: the store has %lu blocks, the disk only %lu", view_disk_name(disk),
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
int view_disk(unsigned disk, const struct store_options *options) {
    int status = view_header(disk);
    if (status == 0 && !view.blank)
        status = view_sized_ring(disk, options);
    if (status == -E_VERSION)
        store_notice("%s: it has another format version than 1 to %u, which this kernel knows", view_disk_name(disk),
                     FORMAT_VERSION_MAX);
    return status;
}
