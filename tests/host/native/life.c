/*
 * tests/host/native/life.c: life.h's promises: the workload, its model, and the windows.
 *
 * The seed, modulo their count, chooses the kind of life: profiles, below.
 */
#include "life.h"

#include <stdio.h>
#include <string.h>

enum {
    NEAR_BLOCK_COUNT = 2048,
    FAR_BLOCK_COUNT = 2048,
    FAR_COMMIT_COUNT = 6,
    WARM_UP_COUNT = 20,
    LEAVE_FREE = 100, /* blocks of a full near */
    FILL_COUNT = 100, /* pages of each commit that fills it */
    PAGE_LIMIT_LOW = RING_COUNT + 8, /* the start reads the whole ring */
    PAGE_LIMIT_HIGH = 4096,
};

enum step_kind {
    STEP_WRITE,
    STEP_WRITE_MANY,
    STEP_CLONE,
    STEP_DROP,
    STEP_TAG,
    STEP_UNTAG,
    STEP_RESTART, /* with another retention */
    STEP_ROOT,
    STEP_IDLE,
    STEP_KIND_COUNT,
};

/* How often each step comes; `full` and `far`: how the life begins. */
static const struct profile {
    uint8_t weight[STEP_KIND_COUNT];
    int full, far;
} profiles[] = {
    {{8, 1, 0, 0, 0, 0, 0, 3, 0}, 0, 0}, /* plain */
    {{5, 1, 4, 2, 0, 0, 0, 1, 0}, 0, 0}, /* clones */
    {{6, 1, 1, 1, 4, 3, 4, 2, 0}, 0, 0}, /* tags */
    {{4, 6, 1, 1, 2, 1, 0, 1, 0}, 1, 0}, /* nearly full */
    {{4, 1, 1, 1, 0, 0, 0, 1, 5}, 0, 1}, /* from far */
    {{5, 1, 2, 1, 1, 1, 2, 1, 1}, 0, 0}, /* all */
    {{2, 0, 1, 0, 0, 0, 0, 1, 8}, 0, 1}, /* from far, mostly idle: near comes to start by itself */
};
enum { PROFILE_COUNT = sizeof profiles / sizeof profiles[0] };

struct root_info roots[ROOT_MAX];
unsigned root_count;
struct record *recording;
struct far far;
static struct model model;   /* of the generation that runs, queued clones and drops included */
static struct model durable; /* of the newest durable generation */
static int greedy;         /* what is freed is used again at once */
enum { TAGGED_MAX = 64 };
static struct tagged {
    uint64_t generation;
    unsigned number; /* its tag is "t" and this */
    int automatic;   /* may go by itself */
} tagged[TAGGED_MAX]; /* in the newest durable root */
static unsigned tagged_count, tag_number;
static int committing;
static int living; /* in life_run: a second crash may take tags away again */

/* --- the model --- */

/* A copy's entries may be dropped and replaced; those of a root's model are never changed. */
static struct model model_copy(const struct model *from) {
    struct model copy = {arena_take((from->count + 1) * sizeof *from->entry), from->count};
    memcpy(copy.entry, from->entry, from->count * sizeof *from->entry);
    return copy;
}

static void model_put(struct model *to, const struct change *change) {
    unsigned at = 0;
    while (at < to->count &&
           (to->entry[at].key.space != change->key.space || to->entry[at].key.page != change->key.page))
        at++;
    if (at < to->count && change->value == 0)
        to->entry[at] = to->entry[--to->count];
    else if (at < to->count)
        to->entry[at] = *change;
    else if (change->value != 0)
        to->entry[to->count++] = *change;
}

static void model_change(struct model *to, const struct change *change, unsigned count) {
    struct change *entry = arena_take((to->count + count) * sizeof *entry);
    memcpy(entry, to->entry, to->count * sizeof *entry);
    to->entry = entry;
    for (unsigned i = 0; i < count; i++)
        model_put(to, &change[i]);
}

static void model_drop(struct model *to, uint64_t space) {
    unsigned left = 0;
    for (unsigned i = 0; i < to->count; i++)
        if (to->entry[i].key.space != space)
            to->entry[left++] = to->entry[i];
    to->count = left;
}

static void model_clone(struct model *to, uint64_t from, uint64_t space) {
    struct change *copy = arena_take(to->count * sizeof *copy);
    unsigned count = 0;
    model_drop(to, space);
    for (unsigned i = 0; i < to->count; i++)
        if (to->entry[i].key.space == from)
            copy[count++] = (struct change){{space, to->entry[i].key.page}, to->entry[i].value};
    model_change(to, copy, count);
}

const struct model *model_of(int root) { return root == ROOT_BLANK ? &far.model : &roots[root].model; }

/* --- roots and windows --- */

int root_find(const uint8_t *hash) {
    for (unsigned i = root_count; i > 0; i--)
        if (memcmp(roots[i - 1].disk.hash, hash, ROOT_HASH_SIZE) == 0)
            return (int)i - 1;
    return ROOT_BLANK;
}

/* Writes down what may be forgotten now. */
static void take_window(void) {
    struct disk *near = &disks[NEAR];
    if (recording == NULL || near->volatile_count == 0)
        return;
    if (recording->count == WINDOW_MAX)
        fail("more than %d windows", WINDOW_MAX);
    struct write *write = arena_take(near->volatile_count * sizeof *write);
    memcpy(write, near->volatile_write, near->volatile_count * sizeof *write);
    recording->window[recording->count++] =
        (struct window){disk_copy(near->base, near->block_count), write, near->volatile_count, recording->promised,
                        recording->step};
}

uint64_t life_first_generation(void) { return far.attached ? far.root.generation : 1; }

static unsigned history(struct generation_disk *record, unsigned count) {
    unsigned rounds = 0;
    const void *key;
    int found;
    while ((found = store_history(0, record, count, &key)) == -E_AGAIN && ram_wait_step(&rounds))
        continue;
    if (found < 0)
        fail("the table of generations cannot be read: error %d", -found);
    return (unsigned)found;
}

static int has_tag(const struct generation_disk *record, const struct tagged *tag) {
    char text[TAG_SIZE_MAX + 1];
    snprintf(text, sizeof text, "t%u", tag->number);
    return record->generation == tag->generation && record->flags & GENERATION_TAGGED && strcmp(record->tag, text) == 0;
}

/* What was tagged by name is still in the table, and no other; reach_collect has walked what is in it. */
static void check_tags(void) {
    static struct generation_disk record[HOLDER_COUNT_MAX];
    unsigned count = living && !committing ? history(record, HOLDER_COUNT_MAX) : 0, found = 0, due = 0, hourly = 0, daily = 0;
    for (unsigned i = 0; i < count; i++) {
        found += (record[i].flags & (GENERATION_TAGGED | GENERATION_AUTOMATIC)) == GENERATION_TAGGED;
        hourly += (record[i].flags & GENERATION_HOURLY) != 0;
        daily += (record[i].flags & GENERATION_DAILY) != 0;
    }
    for (unsigned t = 0; t < tagged_count && count != 0; t++) {
        unsigned at = 0;
        while (at < count && !has_tag(&record[at], &tagged[t]))
            at++;
        if (at == count && !tagged[t].automatic)
            fail("tagged generation %lu is gone", (unsigned long)tagged[t].generation);
        due += !tagged[t].automatic;
    }
    if (count != 0 && (found != due || hourly > store.root.retain_hourly || daily > store.root.retain_daily))
        fail("%u generations are tagged by name, %u are due; %u are hourly, %u daily", found, due, hourly, daily);
}

/* The store says that its newest root is durable. */
static void note_root(const struct change *change, unsigned count) {
    int known = root_find(store.root.hash);
    if (known == ROOT_BLANK) {
        if (root_count == ROOT_MAX)
            fail("more than %d roots", ROOT_MAX);
        struct root_info *info = &roots[root_count];
        *info = (struct root_info){.disk = store.root, .model = durable, .change = change,
                                   .change_count = count};
        reach_collect(&store.root, life_first_generation(), &info->reach);
        check_tags();
        known = (int)root_count++;
    }
    if (recording == NULL)
        return;
    recording->promised = known;
    take_window();
}

void life_opened(void) {
    int known = root_find(store.root.hash);
    durable = *model_of(known);
    model = model_copy(&durable);
    note_root(NULL, 0);
}

/* --- steps --- */

static uint64_t some_space(void) {
    static const uint64_t spaces[] = {16, 17, 18, 200};
    return spaces[chance(4)];
}

static struct change some_change(void) {
    static const uint64_t pages[] = {0, 1, 2, 3, 4, 5, 127, 128, 129, 300, 16384, 20000};
    struct change change = {{chance(5) == 0 ? 0 : some_space(), pages[chance(chance(2) ? 6 : 12)]}, 0};
    if (chance(8) != 0)
        change.value = 1 + chance((uint64_t)1 << 40);
    return change;
}

/* A root that gives old generations up comes before the one that is asked for: with the pages that were durable
 * before. */
static void note_relief(void) {
    if (committing && root_find(store.root.hash) == ROOT_BLANK)
        note_root(NULL, 0);
}

/* -E_NOSPACE changes no page; whatever else fails is a failure of the test. */
static int commit(uint64_t generation, const struct change *change, unsigned count) {
    if (greedy && chance(3) != 0)
        store.alloc_next = RING_FIRST_BLOCK;
    else if (chance(4) == 0) /* and the end of the disk comes often */
        store.alloc_next = store.header.block_count - 1 - chance(20);
    committing = 1;
    int status = ram_commit(generation, change, count);
    if (status == -E_NOSPACE)
        note_relief();
    committing = 0;
    if (status != 0 && status != -E_NOSPACE)
        fail("a commit ends with error %d", -status);
    return status;
}

static int commit_changes(const struct change *change, unsigned count) {
    int status = commit(store.root.generation + 1, change, count);
    if (status == 0) {
        model_change(&model, change, count);
        durable = model_copy(&model);
        note_root(change, count);
    }
    return status;
}

static int has_change(const struct change *change, unsigned count, struct page_key key) {
    for (unsigned i = 0; i < count; i++)
        if (change[i].key.space == key.space && change[i].key.page == key.page)
            return 1;
    return 0;
}

int life_commit(unsigned count) {
    struct change *change = arena_take(count * sizeof *change);
    unsigned made = 0;
    for (unsigned i = 0; i < count; i++) {
        struct change new = some_change();
        if (!has_change(change, made, new.key))
            change[made++] = new;
    }
    return commit_changes(change, made);
}

static void clone_or_drop(int drop) {
    uint64_t from = some_space(), to = some_space();
    const void *key;
    if (drop) {
        if (store_space_drop(to) != 0)
            fail("a drop was refused");
        model_drop(&model, to);
    } else if (from != to) {
        if (store_space_clone(from, to, &key) != 0)
            fail("a clone was refused");
        model_clone(&model, from, to);
    }
    life_commit((unsigned)chance(3)); /* when near is full, it stays queued for a later one */
}

static void forget_tag(uint64_t generation) {
    for (unsigned i = 0; i < tagged_count; i++)
        if (tagged[i].generation == generation)
            tagged[i--] = tagged[--tagged_count];
}

static int root_without_pages(void) {
    int status = commit(store.root.generation, NULL, 0);
    if (status == 0)
        note_root(NULL, 0);
    return status;
}

/* A program reads while a commit runs; what it finds may be of the commit already. */
static struct glance {
    struct store_fetch fetch;
    int busy;
    uint64_t page[BLOCK_SIZE / 8] __attribute__((aligned(BLOCK_SIZE)));
} glance;

static void glanced(struct store_fetch *fetch, int status) {
    (void)fetch;
    (void)status;
    glance.busy = 0;
}

static void read_meanwhile(void) {
    struct block_ptr_disk pointer;
    const void *key;
    if (!far.attached || glance.busy || durable.count == 0 || chance(3) != 0)
        return;
    if (store_lookup(durable.entry[chance(durable.count)].key, &pointer, &key) != 0 || !ptr_present(&pointer))
        return;
    glance.busy = 1;
    glance.fetch = (struct store_fetch){.pointer = pointer, .page = glance.page, .done = glanced};
    store_fetch(&glance.fetch);
}

static void meanwhile(void) {
    note_relief();
    read_meanwhile();
}

int life_open(void) {
    glance.busy = 0;
    ram_meanwhile = meanwhile;
    return ram_open(far.attached ? far.trust : NULL);
}

/* Says `words` with the next root, a new generation or not. */
static int commit_words(struct commit_words words, int with_pages) {
    words.wall_ns = ram_words.wall_ns;
    ram_words = words;
    int status = with_pages ? life_commit(1 + (unsigned)chance(3)) : root_without_pages();
    ram_words = (struct commit_words){.wall_ns = words.wall_ns};
    return status == 0;
}

/* Tags the next generation, or one that is retained. */
static void tag(void) {
    static struct generation_disk record[HOLDER_COUNT_MAX];
    static char text[TAG_SIZE_MAX + 1];
    unsigned count = history(record, HOLDER_COUNT_MAX);
    struct tagged new = {.number = tag_number++, .automatic = chance(3) == 0};
    if (tagged_count == TAGGED_MAX)
        return;
    snprintf(text, sizeof text, "t%u", new.number);
    struct commit_words words = {.tag = text, .flags = new.automatic ? GENERATION_AUTOMATIC : 0};
    new.generation = store.root.generation + 1;
    int old = chance(2) != 0 && count != 0 && !new.automatic;
    if (old)
        new.generation = words.tag_generation = record[chance(count)].generation;
    struct tagged known[TAGGED_MAX];
    unsigned known_count = tagged_count;
    memcpy(known, tagged, sizeof known);
    forget_tag(new.generation);
    tagged[tagged_count++] = new;
    if (!commit_words(words, !old || chance(3) == 0)) {
        memcpy(tagged, known, sizeof known);
        tagged_count = known_count;
    }
}

static void untag(void) {
    if (tagged_count == 0)
        return;
    struct tagged gone = tagged[chance(tagged_count)];
    forget_tag(gone.generation);
    if (!commit_words((struct commit_words){.untag_generation = gone.generation}, chance(2) != 0))
        tagged[tagged_count++] = gone;
}

/* The machine is killed when all is written, and starts with another retention. */
static void restart(void) {
    static const uint32_t counts[] = {2, 3, 8, 16};
    while (ram_complete_one())
        continue;
    ram_power_off();
    ram_retention = (struct store_retention){counts[chance(4)], (uint32_t)chance(4), (uint32_t)chance(3)};
    if (life_open() != 0)
        fail("a restart fails");
    ram_retention.count = 0;
    life_opened();
}

/* Fetches some pages, lets the background work run, and makes a root of what it did. */
static void idle(void) {
    static uint64_t page[BLOCK_SIZE / 8] __attribute__((aligned(BLOCK_SIZE)));
    unsigned rounds = 0;
    for (unsigned i = (unsigned)chance(4); i > 0 && model.count > 0; i--) {
        const struct change *entry = &model.entry[chance(model.count)];
        if (ram_read(entry->key, page) != 0 || !page_holds(page, entry->value))
            fail("space %lu page %lu does not read back", (unsigned long)entry->key.space,
                 (unsigned long)entry->key.page);
    }
    for (unsigned i = 0; i < 60; i++)
        ram_wait_step(&rounds);
    if (store_has_unsaved_copies())
        root_without_pages();
}

static void run_step(const struct profile *profile) {
    static const uint64_t ticks_ns[] = {0, 600000000000ull, 3600000000000ull, 40000000000000ull};
    unsigned sum = 0, kind = 0;
    ram_words.wall_ns += ticks_ns[chance(4)];
    for (unsigned i = 0; i < STEP_KIND_COUNT; i++)
        sum += profile->weight[i];
    for (unsigned at = (unsigned)chance(sum); at >= profile->weight[kind]; kind++)
        at -= profile->weight[kind];
    switch ((enum step_kind)kind) {
    case STEP_TAG:
        tag();
        break;
    case STEP_UNTAG:
        untag();
        break;
    case STEP_RESTART:
        restart();
        break;
    case STEP_WRITE:
        life_commit(1 + (unsigned)chance(4));
        break;
    case STEP_WRITE_MANY:
        life_commit(10 + (unsigned)chance(30));
        break;
    case STEP_CLONE:
    case STEP_DROP:
        clone_or_drop(kind == STEP_DROP);
        break;
    case STEP_ROOT:
        root_without_pages();
        break;
    default:
        idle();
    }
}

/* --- beginnings --- */

static struct sheet *boot_page(uint64_t value) {
    uint64_t page[BLOCK_SIZE / 8];
    page_fill(page, value);
    return sheet_new(page);
}

/* A block that nothing was ever written to. */
static uint64_t free_place(uint64_t below) {
    while (block_is_fixed(--below) || disks[FAR].now[below] != &zero_sheet)
        continue;
    return below;
}

/* An object of `count` pages at the end of the far disk. */
static struct block_ptr_disk boot_object(struct sheet *const *page, unsigned count, uint64_t *place) {
    struct node_disk node = {0};
    for (unsigned i = 0; i <= count; i++) {
        *place = free_place(*place);
        disks[FAR].now[*place] = i < count ? page[i] : sheet_new(&node);
        if (i < count)
            node.child[i] = pointer_make(*place, 0, store.root.generation, page[i]->data);
    }
    return pointer_make(*place, 1, store.root.generation, &node);
}

static void seal_far(void) {
    uint64_t place = FAR_BLOCK_COUNT;
    struct sheet *kernel[3];
    struct root_disk *root = &far.root;
    uint8_t page[BLOCK_SIZE] = {0xeb, 0xfe};
    *root = store.root;
    page[510] = 0x55;
    page[511] = 0xaa;
    far.loader[0] = sheet_new(page);
    for (unsigned i = 0; i < 3; i++) {
        far.loader[1 + i] = boot_page(7000 + i);
        kernel[i] = boot_page(8000 + i);
    }
    root->kernel = boot_object(kernel, 3, &place);
    root->loader = boot_object(far.loader, 4, &place);
    root->kernel_size = root->loader_size = 3 * BLOCK_SIZE;
    root_seal(root);
    memcpy(page, root, sizeof *root);
    memset(page + sizeof *root, 0, BLOCK_SIZE - sizeof *root);
    disks[FAR].now[RING_FIRST_BLOCK + root->sequence % RING_COUNT * store.header.ring_stride] = sheet_new(page);
    memcpy(far.trust, root->hash, ROOT_HASH_SIZE);
}

/* Lives a little on the near disk, which becomes the far one. */
static void make_far(void) {
    disk_make(NEAR, FAR_BLOCK_COUNT);
    disk_format(NEAR);
    if (life_open() != 0)
        fail("the far store does not open");
    for (unsigned i = 0; i < FAR_COMMIT_COUNT; i++)
        life_commit(12);
    far.model = model_copy(&model);
    disks[FAR] = disks[NEAR];
    seal_far();
    far.attached = 1;
    root_count = 0;
    ram_power_off();
    disk_make(NEAR, NEAR_BLOCK_COUNT);
}

/* Leaves room for a few commits, which then live on what retention gives back. */
static void fill_near(void) {
    struct change change[FILL_COUNT];
    for (uint64_t page = 0; store.free_count > LEAVE_FREE + FILL_COUNT; page += FILL_COUNT) {
        for (unsigned i = 0; i < FILL_COUNT; i++)
            change[i] = (struct change){{20, page + i}, (uint64_t)1 << 50 | (page + i)};
        struct change *kept = arena_take(sizeof change);
        memcpy(kept, change, sizeof change);
        if (commit_changes(kept, FILL_COUNT) != 0)
            return;
    }
}

static void begin(const struct profile *profile) {
    memset(&far, 0, sizeof far);
    model = durable = far.model = (struct model){arena_take(sizeof *model.entry), 0};
    root_count = tagged_count = tag_number = 0;
    ram_words = (struct commit_words){.wall_ns = 1000 * 3600000000000ull};
    ram_retention = (struct store_retention){0};
    disks[FAR].block_count = 0;
    if (profile->far)
        make_far();
    else
        disk_make(NEAR, NEAR_BLOCK_COUNT);
    if (!profile->far)
        disk_format(NEAR);
}

/* Before the recording, so that retention has something to do from the first step on. */
static void warm_up(const struct profile *profile) {
    if (life_open() != 0)
        fail("the first open fails");
    life_opened();
    for (unsigned i = 0; i < WARM_UP_COUNT; i++)
        run_step(profile);
    if (profile->full)
        fill_near();
}

void life_run(uint64_t seed, unsigned step_count) {
    const struct profile *profile = &profiles[seed % PROFILE_COUNT];
    struct record *to = recording;
    ram_power_off();
    chance_seed(seed);
    ram_synchronous = 0;
    ram_before_flush = take_window;
    recording = NULL;
    living = 1;
    greedy = (int)chance(2) || profile->full;
    ram_page_limit = chance(2) ? PAGE_LIMIT_LOW : PAGE_LIMIT_HIGH;
    begin(profile);
    if (!profile->far)
        warm_up(profile);
    recording = to;
    to->count = 0;
    to->promised = profile->far ? ROOT_BLANK : (int)root_count - 1;
    for (to->step = 0; to->step < step_count; to->step++) {
        if (to->step == 0 && profile->far) {
            if (life_open() != 0)
                fail("near cannot adopt");
            life_opened();
        } else {
            run_step(profile);
        }
    }
    recording = NULL;
    living = 0;
    ram_power_off();
}
