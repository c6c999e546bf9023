/*
 * tests/host/native/damage.c: blocks of every kind, flipped, zeroed and exchanged, on near and far; then opened, read,
 * used.
 *
 *     damage [--seed N] [--lives N] [--verbose]
 *
 * A seeded life (life.c) ends; then, one at a time, each block that its newest root reaches, its headers and its newest
 * root record are damaged, and the store is opened, all pages are read, and a commit is tried. What must happen:
 * a block of the newest tree: what needs it fails with an error, everything else reads exactly; a local copy: all reads
 * exactly, from far; a header: the other copy serves, and it is written again; the newest root record or the top of its
 * tree: the root before it; the table of stores: no root is taken; what only history, lists or allocation need: all
 * reads exactly. Far: an error or the exact page. Fields that a hash does not speak for (sealed again): refused. Never
 * a wrong byte, a panic or a wait for ever.
 *
 * Prints one JSON object; a failure prints SEED:CASE:KIND and the reason; exit status 1.
 */
#include "life.h"
#include "report.h"
#include "seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_COUNT = 14, STALL_S = 60, NEED_COUNT_MAX = 150, COMMIT_COUNT = 6, ROUND_COUNT = 160 };
enum kind { KIND_FLIP, KIND_ZERO, KIND_EXCHANGE, KIND_COUNT };

static uint64_t life_seed;
static const char *place = "life";
static uint64_t place_block;
static enum kind kind;
static struct record record;
static struct sheet **near_now, **near_base, **near_good, **far_good;
static uint64_t ring_stride;
static uint64_t case_count, page_count, refused_count, fallback_count;

void say_where(void) {
    printf("FAILED seed %lu: %s, block %lu, kind %d\n", (unsigned long)life_seed, place, (unsigned long)place_block,
           (int)kind);
}

static uint64_t ring_block(unsigned root) {
    return RING_FIRST_BLOCK + roots[root].disk.sequence % RING_COUNT * ring_stride;
}

static void restore(void) {
    ram_power_off();
    disks[NEAR].now = near_now; /* a blank disk may have been made instead */
    disks[NEAR].base = near_base;
    memcpy(disks[NEAR].now, near_good, disks[NEAR].block_count * sizeof *near_good);
    disks[NEAR].volatile_count = 0;
    if (far.attached)
        memcpy(disks[FAR].now, far_good, disks[FAR].block_count * sizeof *far_good);
}

/* The three kinds of damage; the exchange is with a block that holds something else. */
static void damage(unsigned disk, uint64_t block, uint64_t other) {
    struct sheet **now = disks[disk].now;
    uint8_t page[BLOCK_SIZE];
    memcpy(page, now[block]->data, BLOCK_SIZE);
    if (kind == KIND_FLIP)
        page[chance(SECTOR_SIZE - 64)] ^= (uint8_t)(1 << chance(8)); /* of a record: what its hash covers, or the hash */
    if (kind == KIND_ZERO)
        memset(page, 0, sizeof page);
    struct sheet *damaged = kind == KIND_EXCHANGE ? now[other] : sheet_new(page);
    if (kind == KIND_EXCHANGE)
        now[other] = now[block];
    now[block] = damaged;
}

/* How many pages of the model cannot be read; a wrong byte ends the test. */
static unsigned read_all(const struct model *model) {
    static uint64_t page[BLOCK_SIZE / 8] __attribute__((aligned(BLOCK_SIZE)));
    unsigned failed = 0;
    for (unsigned i = 0; i < model->count; i++) {
        const struct change *entry = &model->entry[i];
        int status = ram_read(entry->key, page);
        if (status == 0 && !page_holds(page, entry->value))
            fail("space %lu page %lu has wrong bytes", (unsigned long)entry->key.space, (unsigned long)entry->key.page);
        if (status != 0 && status != -E_CORRUPT && status != -E_IO)
            fail("space %lu page %lu: error %d", (unsigned long)entry->key.space, (unsigned long)entry->key.page, -status);
        failed += status != 0;
        page_count++;
    }
    return failed;
}

/* The root that was taken, which must be one that this store once made, byte for byte. */
static int taken_root(void) {
    int root = root_find(store.root.hash);
    if (root == ROOT_BLANK || memcmp(&store.root, &roots[root].disk, sizeof store.root) != 0)
        fail("a root was taken that nobody wrote");
    return root;
}

/* A commit on a damaged store is made or refused; what it made reads back. 0: it was made. */
static int use(void) {
    struct change change[] = {{{16, 2}, 77}, {{0, 3}, 78}, {{200, 9}, 79}};
    const struct model written = {change, 3};
    int status = ram_commit(store.root.generation + 1, change, 3);
    if (status == 0 && read_all(&written) != 0)
        fail("what a commit wrote does not read back");
    if (status != 0 && status != -E_CORRUPT && status != -E_IO && status != -E_NOSPACE)
        fail("a commit ends with error %d", -status);
    return status;
}

static int reopen(void) {
    chance_seed(case_count++);
    ram_synchronous = 1;
    report_alive();
    return life_open();
}

/* --- near --- */

static void check_need(const struct need *need, unsigned newest, int root, unsigned failed) {
    if (need->for_pages && root == (int)newest && failed == 0)
        fail("a damaged block of the newest tree was not missed");
    if (need->block == ptr_block(&roots[newest].disk.meta) && root == (int)newest)
        fail("a root whose meta tree has a bad top was taken");
    if (!need->for_pages && failed != 0)
        fail("%u pages cannot be read, none needs the block (owner %d)", failed, (int)need->owner);
    fallback_count += root != (int)newest;
}

static void check_opened(const struct need *need, unsigned newest) {
    int root = taken_root();
    unsigned failed = read_all(&roots[root].model);
    if (kind != KIND_EXCHANGE) /* which damages two */
        check_need(need, newest, root, failed);
    use();
}

/* All roots share the one table of stores: without it the store does not open. */
static void damage_needs(unsigned newest) {
    const struct reach *reach = &roots[newest].reach;
    place = "near, reached";
    uint64_t table = ptr_block(&roots[newest].disk.stores);
    unsigned stride = reach->count / NEED_COUNT_MAX + 1;
    for (unsigned i = (unsigned)life_seed % stride; i < reach->count; i += stride) {
        size_t mark = arena_mark();
        const struct need *need = &reach->need[i], *other = &reach->need[(i + 1) % reach->count];
        kind = (enum kind)((i + life_seed) % KIND_COUNT);
        place_block = need->block;
        if (kind == KIND_EXCHANGE && memcmp(need->hash, other->hash, HASH_SIZE) == 0)
            kind = KIND_ZERO;
        restore();
        damage(NEAR, need->block, other->block);
        int status = reopen();
        if (status == 0)
            check_opened(need, newest);
        else if (status != -E_CORRUPT || (need->block != table && (kind != KIND_EXCHANGE || other->block != table)))
            fail("store_open: error %d", -status);
        arena_release(mark);
    }
}

static void damage_records(unsigned newest) {
    uint64_t root_block = ring_block(newest), other = ring_block(newest - 1);
    const uint64_t blocks[] = {HEADER_BLOCK, HEADER_COPY_BLOCK, root_block};
    place = "near, header or root";
    for (unsigned i = 0; i < 3 * KIND_COUNT; i++) {
        kind = (enum kind)(i % KIND_COUNT);
        place_block = blocks[i / KIND_COUNT];
        restore();
        if (kind == KIND_EXCHANGE && place_block != root_block) /* with its own copy: no damage */
            continue;
        damage(NEAR, place_block, other);
        int status = reopen();
        int expected = place_block != root_block ? (int)newest : kind == KIND_EXCHANGE ? (int)newest - 2 : (int)newest - 1;
        if (status != 0 || taken_root() != expected || read_all(&roots[expected].model) != 0)
            fail("store_open: %d, root %lu, root %lu is due", -status, (unsigned long)store.root.sequence,
                 (unsigned long)roots[expected].disk.sequence);
        if (memcmp(disks[NEAR].now[HEADER_BLOCK]->data, near_good[HEADER_BLOCK]->data, SECTOR_SIZE) != 0 ||
            memcmp(disks[NEAR].now[HEADER_COPY_BLOCK]->data, near_good[HEADER_BLOCK]->data, SECTOR_SIZE) != 0)
            fail("a header was not written again");
        use();
    }
}

/* --- fields that are sealed again: what a hash does not speak for --- */

struct field {
    unsigned offset, size;
    uint64_t value;
    int status; /* of store_open; 0: the root before it is taken */
};

static struct sheet *edited(const struct sheet *sheet, const struct field *field, unsigned hash_at) {
    uint8_t page[BLOCK_SIZE];
    memcpy(page, sheet->data, BLOCK_SIZE);
    memcpy(page + field->offset, &field->value, field->size);
    blake2b(page + hash_at, ROOT_HASH_SIZE, page, hash_at);
    return sheet_new(page);
}

static void damage_header_fields(void) {
    static const struct field fields[] = {
        {offsetof(struct header_disk, magic), 8, 1, -E_FOREIGN},
        {offsetof(struct header_disk, version), 4, 3, -E_VERSION},
        {offsetof(struct header_disk, ring_count), 4, 65, -E_FOREIGN},
        {offsetof(struct header_disk, ring_first), 8, 33, -E_FOREIGN},
        {offsetof(struct header_disk, ring_stride), 8, 0, -E_FOREIGN},
        {offsetof(struct header_disk, ring_stride), 8, (uint64_t)1 << 60, -E_FOREIGN},
        {offsetof(struct header_disk, block_count), 8, 100, -E_FOREIGN},
        {offsetof(struct header_disk, block_count), 8, (uint64_t)1 << 40, -E_FOREIGN},
        {offsetof(struct header_disk, block_count), 8, 1 << 20, -E_RANGE},
        {offsetof(struct header_disk, store_id), 8, 99, -E_CORRUPT},
    };
    place = "near, a sealed field of the header";
    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        place_block = i;
        restore();
        for (unsigned copy = HEADER_BLOCK; copy <= HEADER_COPY_BLOCK; copy += HEADER_COPY_BLOCK - HEADER_BLOCK)
            disks[NEAR].now[copy] = edited(near_good[copy], &fields[i], offsetof(struct header_disk, hash));
        uint64_t writes_before = ram_write_count;
        int status = reopen();
        if (status != fields[i].status || ram_write_count != writes_before)
            fail("store_open: %d, %d is due; %lu blocks written", -status, -fields[i].status,
                 (unsigned long)(ram_write_count - writes_before));
        refused_count++;
    }
}

static void damage_root_fields(unsigned newest) {
    static const struct field fields[] = {
        {offsetof(struct root_disk, magic), 8, 1, 0},
        {offsetof(struct root_disk, version), 4, 3, -E_VERSION}, /* the older roots, which it could read, are no way out */
        {offsetof(struct root_disk, record_version), 4, 2, -E_VERSION},
        {offsetof(struct root_disk, sequence), 8, 5 + ((uint64_t)1 << 40), 0},
        {offsetof(struct root_disk, generation), 8, (uint64_t)1 << 50, 0},
        {offsetof(struct root_disk, store_id), 8, 99, 0},
        {offsetof(struct root_disk, tree) + 7, 1, 0x89, 0}, /* compressed, of height 1, or 2 */
        {offsetof(struct root_disk, tree) + 7, 1, 0x8a, 0},
        {offsetof(struct root_disk, tree) + 7, 1, 0x87, 0},
        {offsetof(struct root_disk, tree), 4, 1 << 30, 0},
        {offsetof(struct root_disk, tree), 4, 4, 0},
        {offsetof(struct root_disk, tree), 4, HEADER_BLOCK * SECTORS_PER_BLOCK, 0},
        {offsetof(struct root_disk, tree) + 14, 2, 100, 0},
        {offsetof(struct root_disk, tree) + 16, 8, 1, 0},
        {offsetof(struct root_disk, stores) + 6, 2, 0x8001, 0},
        {offsetof(struct root_disk, tree_height), 4, 4, 0},
        {offsetof(struct root_disk, meta_height), 4, 4, 0},
        {offsetof(struct root_disk, free_count), 8, (uint64_t)1 << 40, 0},
        {offsetof(struct root_disk, retain_count), 4, 0, 0},
    };
    place = "near, a sealed field of the root";
    for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        place_block = i;
        restore();
        disks[NEAR].now[ring_block(newest)] = edited(near_good[ring_block(newest)], &fields[i], offsetof(struct root_disk, hash));
        uint64_t writes_before = ram_write_count;
        int status = reopen();
        if (status != fields[i].status || (status != 0 && ram_write_count != writes_before))
            fail("store_open: %d, %d is due", -status, -fields[i].status);
        if (status == 0 && (taken_root() != (int)newest - 1 || read_all(&roots[newest - 1].model) != 0))
            fail("root %lu was taken", (unsigned long)store.root.sequence);
        refused_count++;
    }
}

static void refuse_tree(unsigned newest, uint64_t block, unsigned height) {
    struct root_disk root = roots[newest].disk;
    uint8_t page[BLOCK_SIZE] = {0};
    restore();
    root.tree = pointer_make(block, height, root.generation, near_good[block]->data);
    root.tree_height = height;
    blake2b(root.hash, ROOT_HASH_SIZE, &root, offsetof(struct root_disk, hash));
    memcpy(page, &root, sizeof root);
    disks[NEAR].now[ring_block(newest)] = sheet_new(page);
    if (reopen() != 0 || taken_root() != (int)newest - 1)
        fail("root %lu was taken", (unsigned long)store.root.sequence);
}

/* A root whose tree is a block that the disk has for something else, or too high; every hash is right. */
static void damage_root_tree(unsigned newest) {
    place = "near, a tree in a fixed place";
    refuse_tree(newest, HEADER_BLOCK, roots[newest].disk.tree_height);
    place = "near, a tree that is too high";
    refuse_tree(newest, roots[newest].reach.need[0].block, DIRECTORY_HEIGHT_MAX + 1);
}

/* One of the two tables of stores is damaged: the newest root is good all the same. */
static void damage_tables(unsigned newest) {
    const struct root_disk *root = &roots[newest].disk;
    const struct block_ptr_disk *const tables[] = {&root->stores, &root->stores_copy};
    place = "near, a table of stores";
    kind = KIND_FLIP;
    for (unsigned i = 0; i < 2; i++) {
        place_block = ptr_block(tables[i]);
        restore();
        damage(NEAR, place_block, 0);
        if (reopen() != 0 || taken_root() != (int)newest || read_all(&roots[newest].model) != 0)
            fail("root %lu was taken", (unsigned long)store.root.sequence);
    }
}

/* --- the bitmap, which is made anew --- */

static uint64_t bitmap_block(unsigned newest) {
    const struct node_disk *top = (const void *)near_good[ptr_block(&roots[newest].disk.meta)]->data;
    return ptr_block(&top->child[META_BITMAP]);
}

/* What the root before reaches is where it was, `other` aside. Where near is full, a root between gave some of it
 * up. */
static void check_untouched(unsigned newest, uint64_t other) {
    const struct reach *reach = &roots[newest].reach;
    if (store.root.sequence > roots[newest].disk.sequence + 1)
        return;
    for (unsigned i = 0; i < reach->count; i++) {
        uint64_t block = reach->need[i].block;
        if (block != place_block && block != other &&
            memcmp(sheet_hash(disks[NEAR].now[block]), reach->need[i].hash, HASH_SIZE) != 0)
            fail("block %lu was overwritten", (unsigned long)block);
    }
}

/* The next commit finds it, and makes a whole one; the commits after it free and take as ever. */
static void damage_bitmap(unsigned newest) {
    struct reach reach;
    place = "near, the bitmap";
    place_block = bitmap_block(newest);
    for (unsigned i = 0; i < KIND_COUNT - 1; i++) {
        size_t mark = arena_mark();
        kind = (enum kind)i;
        restore();
        damage(NEAR, place_block, 0);
        if (reopen() != 0 || taken_root() != (int)newest)
            fail("store_open fails");
        ram_synchronous = (int)chance(2);
        for (unsigned n = 0; n < COMMIT_COUNT; n++) {
            int status = use();
            if (status != 0 && status != -E_NOSPACE)
                fail("commit %u is refused", n);
            if (n == 0)
                check_untouched(newest, 0);
            reach_collect(&store.root, life_first_generation(), &reach);
        }
        arena_release(mark);
    }
}

/* With something else that holds blocks: nothing that was kept is lost, whether a commit is made or refused. */
static void damage_bitmap_and_more(unsigned newest) {
    const struct reach *reach = &roots[newest].reach;
    unsigned stride = reach->count / (NEED_COUNT_MAX / 4) + 1;
    place = "near, the bitmap and more";
    place_block = bitmap_block(newest);
    kind = KIND_FLIP;
    for (unsigned i = (unsigned)life_seed % stride; i < reach->count; i += stride) {
        size_t mark = arena_mark();
        uint64_t other = reach->need[i].block;
        restore();
        damage(NEAR, place_block, 0);
        if (other != place_block)
            damage(NEAR, other, 0);
        if (reopen() == 0 && taken_root() == (int)newest) {
            refused_count += use() != 0;
            check_untouched(newest, other);
        }
        arena_release(mark);
    }
}

/* --- far --- */

static void damage_far(void) {
    place = "far";
    for (uint64_t block = 0; far.attached && block < disks[FAR].block_count; block++) {
        if (far_good[block] == &zero_sheet)
            continue;
        size_t mark = arena_mark();
        kind = (enum kind)(block % 2);
        place_block = block;
        restore();
        damage(FAR, block, 0);
        if (reopen() != 0)
            fail("near does not open for the sake of a far block");
        read_all(&roots[taken_root()].model);
        restore();
        disk_make(NEAR, disks[NEAR].block_count);
        damage(FAR, block, 0);
        if (reopen() == 0)
            read_all(&far.model);
        arena_release(mark);
    }
}

/* A far store with another root than the trusted one is not adopted, and nothing is written. */
static void distrust(void) {
    uint8_t other[ROOT_HASH_SIZE];
    if (!far.attached)
        return;
    place = "far, not trusted";
    memcpy(other, far.trust, sizeof other);
    other[31] ^= 1;
    for (unsigned i = 0; i < 2; i++) {
        restore();
        disk_make(NEAR, disks[NEAR].block_count);
        uint64_t writes_before = ram_write_count;
        int status = ram_open(i == 0 ? other : NULL);
        if (status != -E_FOREIGN || ram_write_count != writes_before)
            fail("store_open: %d", -status);
    }
}

static uint64_t free_after_commit(void) {
    if (reopen() != 0)
        fail("store_open fails");
    chance_seed(1);
    use();
    return store.free_count;
}

/* A list of dead blocks, rightly hashed, names a block that is free: it is not freed again. */
static void damage_lists(unsigned newest) {
    static struct sealed sealed;
    size_t mark = arena_mark();
    struct list_block_disk list;
    place = "near, a list that names a free block";
    restore();
    uint64_t good = free_after_commit(), unused = disks[NEAR].block_count - 1;
    restore();
    while (block_is_fixed(unused) || disks[NEAR].now[unused] != &zero_sheet)
        unused--;
    seal_learn(&sealed, NEAR, ring_block(newest));
    for (unsigned i = 0; i < sealed.member_count[CLASS_LIST]; i++) {
        uint64_t block = sealed.member[CLASS_LIST][i];
        memcpy(&list, disks[NEAR].now[block]->data, sizeof list);
        list.entry[0].block = unused;
        seal_set(&sealed, block, &list);
    }
    uint64_t damaged = free_after_commit();
    if (sealed.member_count[CLASS_LIST] >= RETAIN_COUNT_DEFAULT && damaged >= good)
        fail("%lu blocks are free, %lu when the list is good", (unsigned long)damaged, (unsigned long)good);
    arena_release(mark);
}

/* All copies are bad, and programs find out while commits run. */
static void damage_copies(unsigned newest) {
    static struct change change[] = {{{16, 2}, 77}, {{0, 3}, 78}};
    static const struct model written = {change, 2};
    const struct reach *reach = &roots[newest].reach;
    place = "near, all copies";
    kind = KIND_FLIP;
    for (unsigned round = 0; round < ROUND_COUNT; round++) {
        size_t mark = arena_mark();
        restore();
        for (unsigned i = 0; i < reach->count; i++)
            if (reach->need[i].owner == OWNER_COPY)
                damage(NEAR, reach->need[i].block, 0);
        if (reopen() != 0)
            fail("store_open fails");
        ram_synchronous = 0;
        for (unsigned i = 0; i < COMMIT_COUNT; i++)
            if (ram_commit(store.root.generation + 1, change, 2) != 0)
                fail("a commit fails");
        if (read_all(&written) != 0)
            fail("what the commits wrote does not read back");
        arena_release(mark);
    }
}

/* Generations go up by one; a root without a new generation has no pages. */
static void misuse(void) {
    struct change change = {{16, 2}, 77};
    place = "a commit of a wrong generation";
    restore();
    if (reopen() != 0)
        fail("store_open fails");
    uint64_t generation = store.root.generation;
    if (ram_commit(generation + 2, &change, 1) != -E_INVAL || ram_commit(generation - 1, &change, 1) != -E_INVAL ||
        ram_commit(generation, &change, 1) != -E_INVAL || store.root.generation != generation)
        fail("it was taken");
}

static void live_and_damage(uint64_t seed) {
    size_t mark = arena_mark();
    life_seed = seed;
    place = "life";
    recording = &record;
    life_run(seed, STEP_COUNT);
    near_now = disks[NEAR].now;
    near_base = disks[NEAR].base;
    near_good = disk_copy(disks[NEAR].now, disks[NEAR].block_count);
    far_good = far.attached ? disk_copy(disks[FAR].now, disks[FAR].block_count) : NULL;
    unsigned newest = root_count - 1;
    ring_stride = store.header.ring_stride;
    damage_needs(newest);
    damage_records(newest);
    damage_header_fields();
    damage_root_fields(newest);
    damage_root_tree(newest);
    damage_far();
    damage_bitmap(newest);
    damage_bitmap_and_more(newest);
    if (disks[NEAR].now[disks[NEAR].block_count - 1] == &zero_sheet) /* there is room */
        damage_lists(newest);
    if (far.attached)
        damage_copies(newest);
    if (far.attached)
        damage_tables(newest);
    distrust();
    misuse();
    arena_release(mark);
}

int main(int argc, char **argv) {
    uint64_t seed = 1, lives = 6;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0)
            ram_verbose = 1;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--lives") == 0 && i + 1 < argc)
            lives = strtoull(argv[++i], NULL, 0);
        else {
            fprintf(stderr, "damage: unknown option %s; the head of damage.c lists them\n", argv[i]);
            return 2;
        }
    }
    report_stalls(STALL_S);
    for (uint64_t i = 0; i < lives; i++)
        live_and_damage(seed + i);
    printf("{\"cases\": %lu, \"pages_read\": %lu, \"refused\": %lu, \"older_roots\": %lu, \"lives\": %lu, \"failures\": 0}\n",
           (unsigned long)case_count, (unsigned long)page_count, (unsigned long)refused_count,
           (unsigned long)fallback_count, (unsigned long)lives);
    return 0;
}
