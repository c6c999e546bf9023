/*
 * kernel/store/retain.c: the table of generations: which are retained, and what is free when one no longer is.
 *
 * Promise: steps 1 and 2 of FORMAT.md, "Commit of generation e": what is freed here was out of reach of the newest
 * durable root already. A damaged list is left alone: its blocks stay taken, nothing else is lost.
 * Called by: commit.c, step by step.
 */
#include "store/internal.h"

enum { HELD_WRITER_COUNT = 4, ENTRIES_PER_STEP = 32, READ_TRY_COUNT = 4 };
enum walk_state { WALK_START, WALK_PICK, WALK_DEAD, WALK_HELD, WALK_FINISH, WALK_WRITERS };

static uint64_t record_count;
static int scanned;
static uint64_t holder[HOLDER_COUNT_MAX]; /* ascending */
static unsigned holder_count;
static struct list_writer held[HELD_WRITER_COUNT];

/* The newest block of a held list, read because it may have room for more. */
static struct {
    struct list_block_disk *page;
    struct store_fetch fetch;
    int reading, loaded, status;
} head;

/* Where the walk is. */
static struct {
    uint64_t index;             /* of the record */
    uint64_t generation;        /* of the record */
    int keep;                   /* it stays */
    struct block_ptr_disk held;
    enum walk_state state;
    struct block_ptr_disk at;   /* the list block that is being read or walked */
    struct list_block_disk *page;
    struct store_fetch fetch;
    int reading, loaded, status;
    unsigned tries;
    uint32_t entry;
} walk;

void retain_forget(void) {
    record_count = 0;
    scanned = 0;
}

int retain_is_reading(void) { return walk.reading || head.reading; }

void retain_undo(void) {
    for (unsigned i = 0; i < HELD_WRITER_COUNT; i++)
        list_drop(&held[i]);
    head.loaded = 0;
    retain_forget();
}

void retain_init(void) {
    memset(&walk, 0, sizeof walk);
    memset(held, 0, sizeof held);
    memset(&head, 0, sizeof head);
    holder_count = 0;
    retain_forget();
}

int retain_record(uint64_t index, int modify, struct generation_disk **record) {
    struct node *page;
    struct node_key key = page_of(TREE_META, META_GENERATIONS, index / RECORDS_PER_TABLE_PAGE);
    int status = modify ? tree_modify(key, &page) : tree_read(key, &page);
    *record = NULL;
    if (status == 0 && page != NULL)
        *record = (struct generation_disk *)(void *)page->page + index % RECORDS_PER_TABLE_PAGE;
    return status;
}

/* Counts the records once after the start. */
static int scan(void) {
    struct generation_disk *record;
    uint64_t index = 0, last = 0;
    for (;; index++) {
        int status = retain_record(index, 0, &record);
        if (status != 0)
            return status;
        if (record == NULL || record->generation == 0)
            break;
        if (record->generation <= last)
            return -E_CORRUPT;
        last = record->generation;
    }
    record_count = index;
    scanned = 1;
    return 0;
}

/* Which generations are kept, once tag_keep has decided. */
static int gather_holders(void) {
    struct generation_disk *record;
    holder_count = 0;
    for (uint64_t index = 0; index < record_count; index++) {
        int status = retain_record(index, 0, &record);
        if (status != 0)
            return status;
        if (record == NULL || !(record->flags & GENERATION_HOLDERS))
            continue;
        if (holder_count == HOLDER_COUNT_MAX)
            return -E_LIMIT;
        holder[holder_count++] = record->generation;
    }
    return 0;
}

/* The newest kept generation in [birth, death), or 0. */
static uint64_t holder_of(uint64_t birth, uint64_t death) {
    for (unsigned i = holder_count; i > 0; i--)
        if (holder[i - 1] < death)
            return holder[i - 1] >= birth ? holder[i - 1] : 0;
    return 0;
}

int retain_find(uint64_t generation, uint64_t *index) {
    struct generation_disk *record;
    for (*index = record_count; *index > 0;) {
        int status = retain_record(--*index, 0, &record);
        if (status != 0)
            return status;
        if (record != NULL && record->generation == generation)
            return 0;
    }
    return -E_NOENT;
}

/* Puts the finished blocks of a held list into its record. */
static int held_finish(struct list_writer *writer) {
    struct generation_disk *record;
    uint64_t index;
    int status = list_place(writer);
    if (status != 0)
        return status;
    status = retain_find(writer->generation, &index);
    if (status == 0)
        status = retain_record(index, 1, &record);
    if (status == 0)
        status = list_finish(writer);
    if (status != 0)
        return status;
    record->held = writer->head;
    record->held_count += writer->count;
    memset(writer, 0, sizeof *writer);
    return 0;
}

static void head_read(struct store_fetch *fetch, int status) {
    (void)fetch;
    head.status = status;
    head.loaded = 1;
    head.reading = 0;
}

/* Has the block of the pointer in head.page; head.status says whether it is good. */
static int head_load(const struct block_ptr_disk *pointer) {
    if (head.loaded)
        return 0;
    if (head.reading)
        return -E_AGAIN;
    if (head.page == NULL && (head.page = cache_page_alloc()) == NULL)
        return -E_NOMEM;
    if (!pointer_is_near(pointer) || pointer_check(pointer, 0) != 0) {
        head_read(NULL, -E_CORRUPT);
        return 0;
    }
    head.reading = 1;
    head.fetch = (struct store_fetch){.pointer = *pointer, .page = head.page, .done = head_read};
    store_fetch(&head.fetch);
    return -E_AGAIN;
}

/*
 * A writer that goes on with a list. A newest block that is not full is written anew with more entries: else a held
 * generation, from which a little dies in each commit, would take a block of its list for each.
 */
static int held_continue(struct list_writer *writer, uint64_t generation, struct block_ptr_disk newest) {
    int status = ptr_present(&newest) ? head_load(&newest) : 0;
    int is_full = !head.loaded || head.status != 0 || head.page->count >= LIST_ENTRY_COUNT_MAX;
    if (status == 0 && !is_full)
        status = life_die(ptr_block(&newest), ptr_birth(&newest));
    if (status != 0)
        return status;
    *writer = (struct list_writer){.generation = generation, .head = newest};
    if (!is_full) {
        list_resume(writer, head.page);
        head.page = NULL;
    }
    head.loaded = 0;
    return 0;
}

/* The writer for the held list of generation t; another one is finished when all are taken. */
static int held_writer(uint64_t generation, struct list_writer **out) {
    struct generation_disk *record;
    uint64_t index;
    for (unsigned i = 0; i < HELD_WRITER_COUNT; i++) {
        *out = &held[i];
        if (held[i].generation == generation)
            return 0;
    }
    for (unsigned i = 0; i < HELD_WRITER_COUNT; i++) {
        *out = &held[i];
        if (held[i].generation == 0)
            break;
    }
    int status = 0;
    while ((*out)->generation != 0 && status >= 0)
        status = held_finish(*out);
    if (status >= 0)
        status = retain_find(generation, &index);
    if (status == 0)
        status = retain_record(index, 0, &record);
    return status == 0 ? held_continue(*out, generation, record->held) : status;
}

/* One entry of a list whose holders older than `death` are asked. */
static int settle(const struct list_entry_disk *entry, uint64_t death) {
    struct list_writer *writer;
    uint64_t holder = holder_of(entry->birth, death);
    if (holder == 0)
        return alloc_free(entry->block);
    int status = held_writer(holder, &writer);
    return status == 0 ? list_add(writer, entry->block, entry->birth) : status;
}

static void list_read(struct store_fetch *fetch, int status) {
    (void)fetch;
    walk.status = status;
    walk.loaded = 1;
    walk.reading = 0;
}

/* Has the block at walk.at in walk.page. */
static int load_block(void) {
    if (walk.loaded)
        return 0;
    if (walk.reading)
        return -E_AGAIN;
    if (walk.page == NULL && (walk.page = cache_page_alloc()) == NULL)
        return -E_NOMEM;
    if (!pointer_is_near(&walk.at) || pointer_check(&walk.at, 0) != 0) {
        walk.status = -E_CORRUPT;
        walk.loaded = 1;
        return 0;
    }
    walk.reading = 1;
    walk.entry = 0;
    walk.fetch = (struct store_fetch){.pointer = walk.at, .page = walk.page, .done = list_read};
    store_fetch(&walk.fetch);
    return -E_AGAIN;
}

static void walk_to(const struct block_ptr_disk *pointer) {
    walk.at = *pointer;
    walk.loaded = 0;
    walk.tries = 0;
}

/* Works through a part of the block at hand. 2: this list is done. */
static int walk_list(uint64_t death) {
    if (!ptr_present(&walk.at))
        return 2;
    int status = load_block();
    if (status != 0)
        return status;
    if (walk.status == 0 && walk.page->count > LIST_ENTRY_COUNT_MAX)
        walk.status = -E_CORRUPT;
    if (walk.status == -E_IO && ++walk.tries < READ_TRY_COUNT) {
        walk.loaded = 0; /* its disk may answer later */
        return -E_IO;
    }
    if (walk.status != 0) {
        store_notice("a list of dead blocks is damaged: what it names stays taken");
        memset(&walk.at, 0, sizeof walk.at);
        return 1;
    }
    for (unsigned i = 0; i < ENTRIES_PER_STEP && walk.entry < walk.page->count; i++) {
        status = settle(&walk.page->entry[walk.entry], death);
        if (status == -E_INVAL)
            store_notice("a list of dead blocks names a block that is free");
        else if (status != 0)
            return status;
        walk.entry++;
    }
    if (walk.entry < walk.page->count)
        return 1;
    status = life_die(ptr_block(&walk.at), ptr_birth(&walk.at));
    if (status == 0)
        walk_to(&walk.page->next);
    return status == 0 ? 1 : status;
}

/* Removes a record: the table is dense. */
static int remove_record(uint64_t index) {
    struct generation_disk *record, *next;
    for (uint64_t i = index; i < record_count; i += RECORDS_PER_TABLE_PAGE - i % RECORDS_PER_TABLE_PAGE) {
        int status = retain_record(i, 1, &record);
        if (status != 0)
            return status;
    }
    for (uint64_t i = index; i < record_count; i++) {
        check(retain_record(i, 1, &record) == 0);
        if (i + 1 < record_count) {
            check(retain_record(i + 1, 1, &next) == 0);
            *record = *next;
        } else {
            memset(record, 0, sizeof *record);
        }
    }
    record_count--;
    return 0;
}

void retain_begin(void) {
    struct list_block_disk *page = walk.page;
    memset(&walk, 0, sizeof walk);
    walk.page = page;
    memset(held, 0, sizeof held);
    head.loaded = 0;
}

static int start(void) {
    int status = gather_holders();
    if (status == 0)
        walk.state = WALK_PICK;
    return status;
}

/*
 * A kept record stays. So does, until it is flagged dropped, one with a held list that is kept no longer: it was among
 * the newest again (there are more of them than there were), so the durable root retains it.
 */
static int stays(const struct generation_disk *record) {
    if (record->flags & GENERATION_HOLDERS)
        return 1;
    return ptr_present(&record->held) && !(record->flags & GENERATION_DROPPED);
}

/* Retained neither by the durable root nor, among the newest, by the next one. */
static int is_past(const struct generation_disk *record, uint64_t generation) {
    uint64_t durable = store.root.retain_count, next = store.limit.newest;
    return record->generation + (durable > next ? durable : next) <= generation;
}

/* It has left the newest ones and still has something to give back. */
static int is_leaving(const struct generation_disk *record, uint64_t generation) {
    return is_past(record, generation) && !(stays(record) && !ptr_present(&record->dead));
}

/* Finds the next record whose lists are worked off. */
static int pick(void) {
    struct generation_disk *record;
    for (; walk.index < record_count; walk.index++) {
        int status = retain_record(walk.index, 0, &record);
        if (status != 0)
            return status;
        if (!is_leaving(record, commit_generation()))
            continue;
        walk.generation = record->generation;
        walk.keep = stays(record);
        walk.held = record->held;
        walk_to(&record->dead);
        walk.state = WALK_DEAD;
        return 0;
    }
    walk.state = WALK_WRITERS;
    return 0;
}

/* A record whose lists are done stays if it is kept, else goes. */
static int finish_record(void) {
    struct generation_disk *record;
    int status = walk.keep ? retain_record(walk.index, 1, &record) : remove_record(walk.index);
    if (status != 0)
        return status;
    if (walk.keep) {
        memset(&record->dead, 0, sizeof record->dead);
        record->dead_count = 0;
        walk.index++;
    }
    walk.state = WALK_PICK;
    return 0;
}

static int finish_writers(void) {
    for (unsigned i = 0; i < HELD_WRITER_COUNT; i++)
        if (held[i].generation != 0)
            return held_finish(&held[i]);
    return 2;
}

static int walk_dead(void) {
    int status = walk_list(walk.generation);
    if (status == 2) {
        walk.state = walk.keep ? WALK_FINISH : WALK_HELD;
        walk_to(&walk.held);
    }
    return status;
}

static int walk_held(void) {
    int status = walk_list(walk.generation);
    if (status == 2)
        walk.state = WALK_FINISH;
    return status;
}

/* One step of the walk. 2: all done; 0 or 1: go on; negative: not now, or never. */
int retain_step(void) {
    static int (*const step[])(void) = {start, pick, walk_dead, walk_held, finish_record, finish_writers};
    int last = walk.state == WALK_WRITERS;
    int status = step[walk.state]();
    return status < 0 || (last && status == 2) ? status : 1;
}

/* A list that the durable generation has already is continued by a root without pages. */
int retain_dead_head(void) {
    struct generation_disk *record;
    uint64_t index;
    memset(&list_dead.head, 0, sizeof list_dead.head);
    if (commit_generation() != store.root.generation)
        return 0;
    int status = retain_scan(&index);
    if (status == 0)
        status = retain_find(store.root.generation, &index);
    if (status == 0)
        status = retain_record(index, 0, &record);
    if (status == 0)
        list_dead.head = record->dead;
    return status == -E_NOENT ? 0 : status;
}

/* How many records there are. */
int retain_scan(uint64_t *count) {
    int status = scanned ? 0 : scan();
    *count = record_count;
    return status;
}

static int append(const struct generation_disk *record) {
    struct generation_disk *place;
    int status = retain_record(record_count, 1, &place);
    if (status != 0)
        return status;
    *place = *record;
    record_count++;
    return 0;
}

/*
 * Adds the record of the generation being built, and of the durable one if it came without (adoption). The page of
 * the former is dirty then, so that naming the dead list in it later frees no block.
 */
int retain_append(const struct generation_disk *record) {
    struct generation_disk durable = {.generation = store.root.generation, .wall_ns = store.root.wall_ns,
                                      .mono_ns = store.root.mono_ns, .tree = store.root.tree,
                                      .tree_height = store.root.tree_height};
    struct generation_disk *place;
    uint64_t index;
    int status = retain_find(durable.generation, &index);
    if (ptr_store(&durable.tree) != 0)
        durable.flags = GENERATION_ADOPTED;
    if (status == -E_NOENT)
        status = append(&durable);
    if (status == 0 && record->generation != durable.generation) {
        status = retain_find(record->generation, &index);
        if (status == -E_NOENT)
            status = append(record);
    }
    if (status == 0)
        status = retain_find(record->generation, &index);
    return status == 0 ? retain_record(index, 1, &place) : status;
}

/* The dead list is complete: names it in the record of the generation being built. */
int retain_finish(const struct list_writer *dead) {
    struct generation_disk *record;
    uint64_t index;
    int status = retain_find(commit_generation(), &index);
    if (status == 0)
        status = retain_record(index, 1, &record);
    if (status != 0)
        return status;
    record->dead = dead->head;
    record->dead_count += dead->count;
    return 0;
}

static int is_retained(const struct generation_disk *record) {
    return record->generation + store.root.retain_count > store.root.generation || record->flags & GENERATION_HOLDERS;
}

/* The first record of a generation beyond `after`: they ascend. */
static int find_after(uint64_t after, uint64_t *index) {
    struct generation_disk *record;
    uint64_t end = record_count;
    for (*index = 0; *index < end;) {
        uint64_t middle = *index + (end - *index) / 2;
        int status = retain_record(middle, 0, &record);
        if (status != 0)
            return status;
        if (record->generation > after)
            end = middle;
        else
            *index = middle + 1;
    }
    return 0;
}

int store_history(uint64_t after, struct generation_disk *out, unsigned count, const void **key_out) {
    struct generation_disk *record;
    uint64_t index = 0, table_count;
    unsigned found = 0;
    store.operation++;
    int status = retain_scan(&table_count);
    if (status == 0)
        status = find_after(after, &index);
    for (; status == 0 && index < table_count && found < count; index++) {
        status = retain_record(index, 0, &record);
        if (status == 0 && record->generation <= store.root.generation && is_retained(record))
            out[found++] = *record;
    }
    if (status == -E_AGAIN)
        *key_out = store.wait_key;
    return status == 0 ? (int)found : status;
}

/* What its lists name at most that roots without pages could free. Blocks of the lists themselves only die then. */
static uint64_t winnable(const struct generation_disk *record, uint64_t generation) {
    int is_named = (record->flags & (GENERATION_TAGGED | GENERATION_AUTOMATIC)) == GENERATION_TAGGED;
    if (record->generation + RETAIN_COUNT_MIN > generation)
        return 0;
    return record->dead_count + (is_named ? 0 : record->held_count);
}

/* Looks at the whole table, as it is before the commit. */
int retain_survey(uint64_t generation, struct retain_survey *survey) {
    struct generation_disk *record;
    int is_held = 0; /* something may be kept that is older than the record at hand */
    memset(survey, 0, sizeof *survey);
    int status = retain_scan(&survey->record_count);
    for (uint64_t i = 0; status == 0 && i < survey->record_count; i++) {
        status = retain_record(i, 0, &record);
        if (status != 0)
            break;
        survey->newest += record->generation + store.root.retain_count > store.root.generation;
        survey->hourly += (record->flags & GENERATION_HOURLY) != 0;
        survey->daily += (record->flags & GENERATION_DAILY) != 0;
        survey->automatic += (record->flags & GENERATION_AUTOMATIC) != 0;
        survey->winnable += winnable(record, generation);
        if (is_leaving(record, generation)) {
            uint64_t entry_count = record->dead_count + (stays(record) ? 0 : record->held_count);
            survey->leaving++;
            survey->entry_count += entry_count;
            survey->freeable += is_held ? 0 : entry_count;
        }
        is_held |= stays(record) || store.retention.hourly != 0 || store.retention.daily != 0;
    }
    return status;
}
