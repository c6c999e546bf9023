/*
 * kernel/store/attach.c: which store a far disk is that the start did not wait for: asked each second.
 *
 * Promise: a far disk that does not answer holds nobody up who can do without it, and is of use once it answers. What
 * it says is a name only (and, where a key is trusted, a signed root): every block that comes from it is verified.
 * Called by: open.c (the start), store_work. Completions run in interrupt context.
 */
#include "store/internal.h"

enum attach_state { ATTACH_SETTLED, ATTACH_UNKNOWN, ATTACH_READING };
enum { PART_COUNT = 3 };
#define RETRY_NS 1000000000ull

static const uint64_t places[PART_COUNT] = {HEADER_BLOCK, HEADER_COPY_BLOCK, RING_FIRST_BLOCK};

static struct attach {
    enum attach_state state;
    unsigned pending_count, failed_count; /* of the parts */
    int is_store, told;
    uint64_t retry_ns;
    struct store_io io[PART_COUNT];
    struct header_disk header;
    struct root_disk first_slot; /* of its ring, unverified */
} attach[1 + STORE_FAR_COUNT_MAX];
static struct store_options trust;

/* Near's entry for a far store; NULL, and it is said: near does not know it. */
const struct store_entry_disk *attach_entry(unsigned disk, const struct header_disk *header) {
    for (unsigned i = 0; i < STORE_ENTRY_COUNT_MAX; i++)
        if (memcmp(store.far[i].store_id, header->store_id, STORE_ID_SIZE) == 0)
            return &store.far[i];
    store_notice("far%u: not a store that near has adopted: ignored", disk);
    return NULL;
}

/*
 * The store has said who it is: it serves, if near knows it and it is to be trusted. Only the first slot of its ring is
 * looked at, where a published store has its root.
 */
static void accept(unsigned disk) {
    struct attach *own = &attach[disk];
    const struct store_entry_disk *entry = attach_entry(disk, &own->header);
    if (entry == NULL)
        return;
    int is_root = root_valid(&own->first_slot, own->header.store_id) == 0;
    int is_named = is_root && memcmp(own->first_slot.hash, entry->root_hash, ROOT_HASH_SIZE) == 0;
    if (trust.key_given && !is_named && !trust_may_follow(&trust, disk, entry, &own->first_slot, (unsigned)is_root))
        return;
    memcpy(store.disk_id[disk], own->header.store_id, STORE_ID_SIZE);
    if (own->told)
        store_notice("far%u: answers now", disk);
    if (is_named && entry == &store.far[0] && !fill_is_known())
        fill_adopt(&own->first_slot);
}

static void retry_later(struct attach *own) {
    own->state = ATTACH_UNKNOWN;
    own->retry_ns = store.env->now_ns() + RETRY_NS;
}

/* All parts have come. */
static void settle(unsigned disk) {
    struct attach *own = &attach[disk];
    own->state = ATTACH_SETTLED;
    if (own->is_store) {
        accept(disk);
    } else if (own->failed_count == 0) {
        store_notice("far%u: not a Revenant store, or both its headers are damaged", disk);
    } else {
        if (!own->told)
            store_notice("far%u: cannot be read: it is asked again each second", disk);
        own->told = 1;
        retry_later(own);
    }
}

static void part_done(struct store_io *io, int status) {
    unsigned disk = io->disk;
    struct attach *own = &attach[disk];
    const void *page = io->page[0];
    if (status != 0)
        own->failed_count++;
    else if (io->sector == RING_FIRST_BLOCK * SECTORS_PER_BLOCK)
        own->first_slot = *(const struct root_disk *)page;
    else if (header_valid(page) == 0 && !own->is_store) {
        own->is_store = 1;
        own->header = *(const struct header_disk *)page;
    }
    store.env->page_free(io->page[0]);
    if (--own->pending_count == 0)
        settle(disk);
}

static void begin(unsigned disk) {
    struct attach *own = &attach[disk];
    void *page[PART_COUNT];
    unsigned count = 0;
    while (count < PART_COUNT && (page[count] = store.env->page_alloc(0)) != NULL)
        count++;
    if (count < PART_COUNT) {
        while (count > 0)
            store.env->page_free(page[--count]);
        retry_later(own);
        return;
    }
    own->state = ATTACH_READING;
    own->pending_count = PART_COUNT;
    own->failed_count = own->is_store = 0;
    for (unsigned i = 0; i < PART_COUNT; i++) {
        own->io[i] = (struct store_io){.op = STORE_READ, .disk = disk, .sector = places[i] * SECTORS_PER_BLOCK,
                                       .page_count = 1, .done = part_done};
        own->io[i].page[0] = page[i];
        if (store.env->submit(&own->io[i]) != 0)
            part_done(&own->io[i], -E_IO);
    }
}

/* Asks those who have not said who they are; a near that is complete has no need to. */
void attach_step(void) {
    for (unsigned disk = 1; !store.complete && disk < store.env->disk_count; disk++)
        if (attach[disk].state == ATTACH_UNKNOWN && attach[disk].retry_ns <= store.env->now_ns())
            begin(disk);
}

/* When one is to be asked again; UINT64_MAX: none. */
uint64_t attach_deadline_ns(void) {
    uint64_t deadline = UINT64_MAX;
    for (unsigned disk = 1; !store.complete && disk < store.env->disk_count; disk++)
        if (attach[disk].state == ATTACH_UNKNOWN && attach[disk].retry_ns < deadline)
            deadline = attach[disk].retry_ns;
    return deadline;
}

static int is_served(unsigned home) {
    for (unsigned disk = 1; disk < store.env->disk_count; disk++)
        if (disk_serves(disk, home))
            return 1;
    return 0;
}

static int is_reading(void) {
    for (unsigned disk = 1; disk < store.env->disk_count; disk++)
        if (attach[disk].state == ATTACH_READING)
            return 1;
    return 0;
}

/* The first store of the table that no attached disk serves; 0: there is none. */
static unsigned first_absent(void) {
    for (unsigned home = 1; home <= STORE_ENTRY_COUNT_MAX; home++)
        if (store.far[home - 1].block_count != 0 && !is_served(home))
            return home;
    return 0;
}

/* At the start: until those that are being asked have answered; for a moment only where others serve all. */
void attach_wait(uint64_t limit_ns) {
    uint64_t start = store.env->now_ns();
    attach_step();
    while (is_reading() && store.env->now_ns() - start < (first_absent() == 0 ? FAR_LATE_NS : limit_ns))
        store.env->poll();
}

/* The same for a near that has just adopted: who starts the machine should know at once if a store is not there. */
void attach_all(uint64_t limit_ns) {
    attach_wait(limit_ns);
    unsigned home = first_absent();
    if (home == 0)
        return;
    const struct store_entry_disk *entry = &store.far[home - 1];
    uint64_t id; /* as people see it: the first eight of its bytes */
    memcpy(&id, entry->store_id, sizeof id);
    store_notice("far store %016lx... of generation %lu is needed, too, and is not attached",
                 (unsigned long)__builtin_bswap64(id), (unsigned long)entry->generation);
}

/* The start could not find out who this one is, or need not: it is asked. */
void attach_later(unsigned disk, const char *why) {
    if (why != NULL)
        store_notice("far%u: %s: it is asked again each second", disk, why);
    attach[disk].told = why != NULL;
    if (store.env->disk_sectors[disk] != 0 && attach[disk].state == ATTACH_SETTLED)
        attach[disk].state = ATTACH_UNKNOWN;
}

/* The start knows already who this one is. */
void attach_known(unsigned disk, const struct header_disk *header) {
    attach[disk].state = ATTACH_SETTLED;
    memcpy(store.disk_id[disk], header->store_id, STORE_ID_SIZE);
}

void attach_init(const struct store_options *options) {
    memset(attach, 0, sizeof attach);
    trust = *options;
}
