/*
 * tests/host/native/crash_states.c: every state that a power cut can leave of a store's near disk, recovered and
 * judged.
 *
 *     crash_states [--seed N] [--states N] [--second N] [--window N] [--replay ID] [--verbose]
 *
 * A seeded life is recorded (life.c); between two flushes any write may be lost, kept or torn at a sector. For each
 * window: all subsets when it is small, else all prefixes, each write alone lost and alone kept; each write torn; then
 * subsets and tears by chance, up to --window states. Each state is opened by store_open and must come back as exactly
 * the newest root whose second flush was passed or the one being committed, whichever the state has: same root hash,
 * every block that it reaches (retained generations, lists, copies) in place, pages as the model has them, nothing
 * written. Second crashes: from some states on, the recovery and a commit after it are recorded in turn, and cut again.
 *
 * Prints one JSON object. A failure prints SEED:STEP:WINDOW:SUBSET:TEARS[/KIND:WINDOW:SUBSET:TEARS] (numbers from 0;
 * subset: hex, bit i keeps write i whole; tears: write.sectors in hex; KIND c: power cut, k: the machine was killed and
 * the disk's cache lived on), the reason, and the command that repeats that state alone; exit status 1.
 */
#include "life.h"
#include "report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STEP_COUNT = 16,
    WHOLE = 0xff,       /* all eight sectors of a write */
    READ_COUNT = 3,     /* pages read in each state, besides */
    READ_CHANGED = 3,   /* those that the newest commit wrote */
    READ_ALL_EVERY = 64, /* states in which all pages are read */
    SECOND_WINDOW = 40, /* states of each window of a second crash */
    STALL_S = 120,
};

typedef uint8_t mask_t; /* bit s: sector s of the write is kept */

/* A state: a window and what is kept of each of its writes. */
struct state {
    const struct window *window;
    unsigned index;
    mask_t mask[VOLATILE_MAX];
};

static struct {
    uint64_t seed, states, second;
    unsigned window;
    const char *replay;
} option = {1, 10000, 1000, 256, NULL};

static struct record first_record, second_record;
static struct state first, second;
static char second_kind; /* 0: the first crash is being judged */
static uint64_t life_seed;
static struct {
    uint64_t states, second, windows, second_windows, lives, commits, silent, adopted, pages;
} count;

/* --- saying which state it is --- */

static void print_state(const struct state *state) {
    unsigned n = state->window->count;
    char separator = ':';
    for (unsigned digit = (n + 3) / 4; digit > 0; digit--) {
        unsigned value = 0;
        for (unsigned bit = 0; bit < 4 && (digit - 1) * 4 + bit < n; bit++)
            value |= (unsigned)(state->mask[(digit - 1) * 4 + bit] == WHOLE) << bit;
        printf("%x", value);
    }
    for (unsigned i = 0; i < n; i++) {
        if (state->mask[i] == 0 || state->mask[i] == WHOLE)
            continue;
        printf("%c%u.%02x", separator, i, state->mask[i]);
        separator = ',';
    }
    if (separator == ':')
        printf(":-");
}

static void print_id(void) {
    printf("%lu", (unsigned long)life_seed);
    if (first.window == NULL)
        return;
    printf(":%u:%u:", first.window->step, first.index);
    print_state(&first);
    if (second_kind == 0)
        return;
    printf("/%c", second_kind);
    if (second.window == NULL)
        return;
    printf(":%u:", second.index);
    print_state(&second);
}

void say_where(void) {
    printf("FAILED ");
    print_id();
    printf("\nrepeat: crash_states --verbose --replay ");
    print_id();
    printf("\n");
}

/* --- making a state --- */

static void tear(struct disk *near, const struct write *write, mask_t mask) {
    uint8_t page[BLOCK_SIZE];
    memcpy(page, near->now[write->block]->data, BLOCK_SIZE);
    for (unsigned sector = 0; sector < SECTORS_PER_BLOCK; sector++)
        if (mask >> sector & 1)
            memcpy(page + sector * SECTOR_SIZE, write->sheet->data + sector * SECTOR_SIZE, SECTOR_SIZE);
    near->now[write->block] = sheet_new(page);
}

static void apply(const struct state *state) {
    struct disk *near = &disks[NEAR];
    memcpy(near->now, state->window->base, near->block_count * sizeof *near->now);
    near->volatile_count = 0;
    for (unsigned i = 0; i < state->window->count; i++) {
        const struct write *write = &state->window->write[i];
        if (state->mask[i] == WHOLE)
            near->now[write->block] = write->sheet;
        else if (state->mask[i] != 0)
            tear(near, write, state->mask[i]);
    }
}

static int near_is_blank(void) {
    return page_is_zero(disks[NEAR].now[HEADER_BLOCK]->data) && page_is_zero(disks[NEAR].now[HEADER_COPY_BLOCK]->data);
}

/* The newest of what was promised and of what the disk has got. A root in the ring that nobody knows may not be
 * taken. */
static int expected_root(const struct state *state) {
    uint64_t stride = (disks[NEAR].block_count - RING_FIRST_BLOCK) / RING_COUNT;
    int expected = state->window->promised;
    if (expected == ROOT_BLANK && near_is_blank())
        return ROOT_BLANK;
    for (unsigned slot = 0; slot < RING_COUNT; slot++) {
        const struct root_disk *root = (const void *)disks[NEAR].now[RING_FIRST_BLOCK + slot * stride]->data;
        int known = root->magic == ROOT_MAGIC ? root_find(root->hash) : ROOT_BLANK;
        if (known != ROOT_BLANK && (expected == ROOT_BLANK || root->sequence > roots[expected].disk.sequence))
            expected = known;
    }
    return expected;
}

/* --- judging --- */

static void read_one(struct page_key key, uint64_t value) {
    static uint64_t page[BLOCK_SIZE / 8] __attribute__((aligned(BLOCK_SIZE)));
    int status = ram_read(key, page);
    count.pages++;
    if (status != 0 || !page_holds(page, value))
        fail("space %lu page %lu: status %d, first word %lx, value %lx is due", (unsigned long)key.space,
             (unsigned long)key.page, -status, (unsigned long)page[0], (unsigned long)value);
}

static void read_pages(int root, int all) {
    const struct model *model = model_of(root);
    for (unsigned i = 0; all && i < model->count; i++)
        read_one(model->entry[i].key, model->entry[i].value);
    for (unsigned i = 0; !all && model->count > 0 && i < READ_COUNT; i++) {
        const struct change *entry = &model->entry[chance(model->count)];
        read_one(entry->key, entry->value);
    }
    if (root == ROOT_BLANK)
        return;
    for (unsigned i = 0; i < roots[root].change_count && i < READ_CHANGED; i++)
        read_one(roots[root].change[i].key, roots[root].change[i].value);
}

/* Block 0 says that near starts by itself: then the loader is whole. */
static void check_installed(void) {
    for (unsigned i = 1; far.attached && disks[NEAR].now[0]->data[0] != 0 && i <= LOADER_BLOCK_COUNT; i++)
        if (far.loader[i] != NULL &&
            memcmp(disks[NEAR].now[LOADER_BLOCK + i - 1]->data, far.loader[i]->data, BLOCK_SIZE) != 0)
            fail("block 0 is installed, block %u of the loader is not", LOADER_BLOCK + i - 1);
}

static void check_adopted(void) {
    struct reach reach;
    if (store.root.generation != far.root.generation || store.root.tree_height != far.root.tree_height ||
        memcmp(store.root.tree.hash, far.root.tree.hash, HASH_SIZE) != 0)
        fail("adopted generation %lu, or its tree is another", (unsigned long)store.root.generation);
    reach_collect(&store.root, life_first_generation(), &reach);
    count.adopted++;
}

static void check_resumed(int expected, uint64_t writes_before) {
    uint64_t block;
    if (memcmp(store.root.hash, roots[expected].disk.hash, ROOT_HASH_SIZE) != 0)
        fail("recovered generation %lu (root %lu); generation %lu (root %lu) is due",
             (unsigned long)store.root.generation, (unsigned long)store.root.sequence,
             (unsigned long)roots[expected].disk.generation, (unsigned long)roots[expected].disk.sequence);
    if (reach_missing(&roots[expected].reach, &block))
        fail("generation %lu: block %lu was overwritten or never came", (unsigned long)store.root.generation,
             (unsigned long)block);
    count.silent += ram_write_count == writes_before;
}

/* A header that is missing is written again; nothing else ever is. */
static void check_opened(int status, int expected, int whole_headers, uint64_t writes_before) {
    if (status != 0)
        fail("store_open: error %d", -status);
    if (expected == ROOT_BLANK)
        check_adopted();
    else
        check_resumed(expected, writes_before);
    if (whole_headers && ram_write_count != writes_before)
        fail("the recovery wrote %lu blocks", (unsigned long)(ram_write_count - writes_before));
    check_installed();
}

static int headers_whole(void) {
    return header_valid((const void *)disks[NEAR].now[HEADER_BLOCK]->data) == 0 &&
           header_valid((const void *)disks[NEAR].now[HEADER_COPY_BLOCK]->data) == 0;
}

static void judge(const struct state *state, int all_pages) {
    size_t mark = arena_mark();
    ram_power_off();
    apply(state);
    chance_seed(1);
    ram_synchronous = 1;
    int expected = expected_root(state), whole = headers_whole();
    uint64_t writes_before = ram_write_count;
    int status = life_open();
    check_opened(status, expected, whole, writes_before);
    read_pages(expected, all_pages);
    if (option.replay != NULL)
        printf("expected and recovered: generation %lu, root %lu\n", (unsigned long)store.root.generation,
               (unsigned long)store.root.sequence);
    ram_power_off();
    arena_release(mark);
}

/* --- all states of a window --- */

typedef void visit_t(void);

struct course {
    struct state *state;
    visit_t *visit;
    unsigned left;
    uint64_t chance;
};

static uint64_t course_chance(struct course *course) { /* splitmix64: judging has its own */
    uint64_t z = course->chance += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static void visit(struct course *course) {
    if (course->left == 0)
        return;
    course->left--;
    course->visit();
}

static void keep_all(struct state *state, unsigned from, unsigned to, mask_t mask) {
    memset(state->mask + from, mask, to - from);
}

static void visit_subsets(struct course *course, unsigned n) {
    for (uint32_t subset = 0; subset >> n == 0; subset++) {
        for (unsigned i = 0; i < n; i++)
            course->state->mask[i] = subset >> i & 1 ? WHOLE : 0;
        visit(course);
    }
}

static void visit_prefixes(struct course *course, unsigned n) {
    for (unsigned length = 0; length <= n; length++) {
        keep_all(course->state, 0, length, WHOLE);
        keep_all(course->state, length, n, 0);
        visit(course);
    }
    for (unsigned i = 0; i < n; i++) {
        keep_all(course->state, 0, n, WHOLE);
        course->state->mask[i] = 0;
        visit(course);
        keep_all(course->state, 0, n, 0);
        course->state->mask[i] = WHOLE;
        visit(course);
    }
}

/* Each write torn after its first, its last or some sectors, with all before it, or all others, or none. */
static void visit_tears(struct course *course, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        mask_t torn[3] = {(mask_t)(WHOLE >> (1 + course_chance(course) % 7)),
                          (mask_t)(WHOLE << (1 + course_chance(course) % 7)), (mask_t)(1 + course_chance(course) % 254)};
        for (unsigned t = 0; t < 3; t++) {
            keep_all(course->state, 0, n, t == 1 ? WHOLE : 0);
            keep_all(course->state, 0, i, t == 2 ? 0 : WHOLE);
            course->state->mask[i] = torn[t];
            visit(course);
        }
    }
}

static void visit_chances(struct course *course, unsigned n) {
    while (course->left > 0) {
        unsigned density = 1 + course_chance(course) % 7, torn = course_chance(course) % 4;
        for (unsigned i = 0; i < n; i++) {
            uint64_t word = course_chance(course);
            course->state->mask[i] = word % 8 < density ? WHOLE : 0;
            if ((word >> 8) % 8 < torn)
                course->state->mask[i] = (mask_t)(word >> 16);
        }
        visit(course);
    }
}

static void visit_window(struct state *state, const struct record *record, unsigned index, unsigned limit,
                         visit_t *visit_one) {
    unsigned n = record->window[index].count;
    struct course course = {state, visit_one, limit, life_seed << 20 ^ index};
    state->window = &record->window[index];
    state->index = index;
    if (n == 1) { /* all there are */
        for (unsigned mask = 0; mask <= WHOLE; mask++) {
            state->mask[0] = (mask_t)mask;
            visit(&course);
        }
        return;
    }
    if (n < 20 && 1u << n <= limit / 2)
        visit_subsets(&course, n);
    else
        visit_prefixes(&course, n);
    visit_tears(&course, n);
    visit_chances(&course, n);
}

/* --- second crashes --- */

static void judge_second(void) {
    count.second++;
    judge(&second, count.second % READ_ALL_EVERY == 0);
}

/* The machine was killed, but not its disk: the cache still has what it had taken, whole, and may yet forget it. */
static void revive(void) {
    static struct state revived;
    struct disk *near = &disks[NEAR];
    unsigned kept = 0;
    revived.window = first.window;
    for (unsigned i = 0; i < first.window->count; i++)
        revived.mask[i] = first.mask[i] != 0 ? WHOLE : 0;
    apply(&revived);
    for (unsigned i = 0; i < first.window->count; i++) {
        if (revived.mask[i] == 0)
            continue;
        near->volatile_write[kept] = first.window->write[i];
        near->volatile_write[kept++].running = NULL;
    }
    near->volatile_count = kept;
    memcpy(near->base, first.window->base, near->block_count * sizeof *near->base);
}

/* Recovers from the first crash, commits, and writes both down. */
static void record_second(char kind) {
    struct disk *near = &disks[NEAR];
    if (kind == 'k') {
        revive();
    } else {
        apply(&first);
        memcpy(near->base, near->now, near->block_count * sizeof *near->base);
    }
    chance_seed(life_seed);
    ram_synchronous = 0;
    recording = &second_record;
    second_record.count = second_record.step = 0;
    second_record.promised = kind == 'k' ? first.window->promised : expected_root(&first);
    if (life_open() != 0)
        fail("the recovery fails");
    life_opened();
    life_commit(1 + (unsigned)chance(5));
    life_commit(1 + (unsigned)chance(3));
    recording = NULL;
    ram_power_off();
}

static void crash_again(char kind, void (*then)(void)) {
    size_t mark = arena_mark();
    unsigned roots_before = root_count;
    second_kind = kind;
    second.window = NULL;
    ram_power_off();
    record_second(kind);
    then();
    second_kind = 0;
    root_count = roots_before;
    ram_power_off();
    arena_release(mark);
}

static void visit_second_windows(void) {
    for (unsigned i = 0; i < second_record.count && count.second < option.second; i++) {
        count.second_windows++;
        visit_window(&second, &second_record, i, SECOND_WINDOW, judge_second);
    }
}

/* --- the run --- */

static void judge_first(void) {
    static double owed; /* second crashes, so that they keep up with the first */
    count.states++;
    judge(&first, count.states % READ_ALL_EVERY == 0);
    owed = (double)option.second * (double)count.states / (double)option.states - (double)count.second;
    if (owed >= 4 * SECOND_WINDOW || (owed > 0 && count.states == option.states))
        crash_again(count.states % 3 == 0 ? 'k' : 'c', visit_second_windows);
}

static void live_and_crash(uint64_t seed) {
    size_t mark = arena_mark();
    life_seed = seed;
    first.window = NULL;
    recording = &first_record;
    life_run(seed, STEP_COUNT);
    count.lives++;
    count.commits += root_count;
    for (unsigned i = 0; i < first_record.count && count.states < option.states; i++) {
        uint64_t left = option.states - count.states;
        report_alive();
        count.windows++;
        visit_window(&first, &first_record, i, left < option.window ? (unsigned)left : option.window, judge_first);
    }
    arena_release(mark);
}

/* --- one state again --- */

static unsigned hex_digit(char c) {
    return c >= 'a' ? (unsigned)(c - 'a') + 10 : (unsigned)(c - '0');
}

/* Reads SUBSET:TEARS; what follows it. */
static const char *parse_masks(struct state *state, const char *text) {
    unsigned digits = (unsigned)strcspn(text, ":"), n = state->window->count;
    for (unsigned i = 0; i < n; i++) {
        unsigned digit = i / 4 < digits ? hex_digit(text[digits - 1 - i / 4]) : 0;
        state->mask[i] = digit >> i % 4 & 1 ? WHOLE : 0;
    }
    text += digits;
    while (*text == ':' || *text == ',') {
        unsigned at, mask;
        int length = 0;
        if (sscanf(text + 1, "%u.%2x%n", &at, &mask, &length) == 2 && at < n)
            state->mask[at] = (mask_t)mask;
        text += 1 + (length > 0 ? length : 1);
    }
    return text;
}

static const char *second_text;

static void replay_second(void) {
    if (sscanf(second_text, "%*c:%u:", &second.index) != 1 || second.index >= second_record.count) {
        fprintf(stderr, "crash_states: the id names no second window; %u were recorded\n", second_record.count);
        exit(2);
    }
    second.window = &second_record.window[second.index];
    parse_masks(&second, strchr(strchr(second_text, ':') + 1, ':') + 1);
    judge(&second, 1);
}

static void replay(const char *id) {
    unsigned step, length = 0;
    unsigned long seed;
    int parts = sscanf(id, "%lu:%u:%u:%n", &seed, &step, &first.index, (int *)&length);
    if (parts < 1) {
        fprintf(stderr, "crash_states: not an id: %s\n", id);
        exit(2);
    }
    life_seed = seed;
    recording = &first_record;
    life_run(seed, STEP_COUNT);
    if (parts < 3)
        return;
    if (first.index >= first_record.count) {
        fprintf(stderr, "crash_states: the id names window %u of %u\n", first.index, first_record.count);
        exit(2);
    }
    first.window = &first_record.window[first.index];
    second_text = parse_masks(&first, id + length);
    judge(&first, 1);
    if (*second_text == '/') {
        second_text++;
        crash_again(*second_text, replay_second);
    }
}

/* --- options --- */

static void parse_options(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--verbose") == 0) {
            ram_verbose = 1;
            continue;
        }
        if (value != NULL && strcmp(name, "--seed") == 0)
            option.seed = strtoull(value, NULL, 0);
        else if (value != NULL && strcmp(name, "--states") == 0)
            option.states = strtoull(value, NULL, 0);
        else if (value != NULL && strcmp(name, "--second") == 0)
            option.second = strtoull(value, NULL, 0);
        else if (value != NULL && strcmp(name, "--window") == 0)
            option.window = (unsigned)strtoul(value, NULL, 0);
        else if (value != NULL && strcmp(name, "--replay") == 0)
            option.replay = value;
        else {
            fprintf(stderr, "crash_states: unknown option %s; the head of crash_states.c lists them\n", name);
            exit(2);
        }
        i++;
    }
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    report_stalls(STALL_S);
    if (option.replay != NULL) {
        replay(option.replay);
        printf("good\n");
        return 0;
    }
    uint64_t seed = option.seed;
    while (count.states < option.states)
        live_and_crash(seed++);
    printf("{\"states\": %lu, \"second_crashes\": %lu, \"windows\": %lu, \"second_windows\": %lu, \"lives\": %lu, "
           "\"roots\": %lu, \"recoveries_without_a_write\": %lu, \"adoptions\": %lu, \"pages_read\": %lu, "
           "\"first_seed\": %lu, \"last_seed\": %lu, \"failures\": 0}\n",
           (unsigned long)count.states, (unsigned long)count.second, (unsigned long)count.windows,
           (unsigned long)count.second_windows, (unsigned long)count.lives, (unsigned long)count.commits,
           (unsigned long)count.silent, (unsigned long)count.adopted, (unsigned long)count.pages,
           (unsigned long)option.seed, (unsigned long)(seed - 1));
    return 0;
}
