/*
 * kernel/store/copy.c: localising: what was fetched from a far store is written to near and entered in the presence
 * map.
 *
 * Promise: a copy is named only after its write has completed, in meta pages that become durable with the next root;
 * what has come before a commit's last page was written becomes durable with that commit. When memory or space is
 * short, or all slots are taken, a copy is simply not made. A near that cannot hold all of them is a cache: copies that
 * were not used go for those that somebody asks for, or for a commit that finds no other room.
 * Called by: fetch.c (offers, finds), store_work (steps), commit.c (waits until none is half done).
 */
#include "store/internal.h"

enum {
    COPY_COUNT = 256,     /* what far can bring while a commit holds the meta tree */
    KEY_LIST_COUNT = 64,
    WRITE_COUNT = 16,     /* copies written by one request: most of what one costs is the request */
    RESERVE_SHARE = 16,   /* of near stays free, also when all copies on their way have a block: roots need some */
    USED_COUNT = 1 << 17, /* marks of use: one a block of the first 512 MiB of a far store, shared beyond */
};
enum copy_state { COPY_NONE, COPY_QUEUED, COPY_WRITING, COPY_WRITTEN, COPY_FAILED, COPY_BAD };

struct copy {
    struct list_node link;  /* in idle, or in busy, in the order in which they began */
    struct list_node alike; /* of its key, in by_key */
    enum copy_state state;
    int is_awaited; /* was there when the commit began to wait for copies: it is part of it */
    unsigned home;
    uint64_t far_block, near_block;
    void *page;
    struct copy *behind; /* in the same write */
    struct store_io io;  /* of the first one */
};

static struct copy copies[COPY_COUNT];
static struct list_node idle, busy, by_key[KEY_LIST_COUNT];
static unsigned copy_count; /* busy ones */
static uint64_t used[USED_COUNT / 64];
static struct {
    uint64_t wanted_count; /* copies that are to go */
    unsigned home;         /* where the hand of the clock is */
    uint64_t far_block;
    unsigned rounds;       /* it has come to the beginning so often since it found one to drop */
    int found_none;        /* all were looked at twice: there are none */
} drop;

/* The map has whole pages for the numbers of blocks; those of sectors come after them. */
static uint64_t first_sector_key(unsigned home) {
    return (store.far[home - 1].block_count + COUNTS_PER_PAGE - 1) / COUNTS_PER_PAGE * COUNTS_PER_PAGE;
}

/* What the map has a far page under: its block; a compressed one, of which a block holds several, its sector. */
uint64_t copy_key(const struct block_ptr_disk *pointer) {
    return ptr_compressed(pointer) ? first_sector_key(ptr_store(pointer)) + ptr_place(pointer) : ptr_block(pointer);
}

/* No key of the map is as large. */
static uint64_t map_end(unsigned home) {
    return first_sector_key(home) + store.far[home - 1].block_count * SECTORS_PER_BLOCK;
}

static struct node_key map_key(unsigned home, uint64_t far_block) {
    return page_of(TREE_META, META_PRESENCE + home, far_block / COUNTS_PER_PAGE);
}

static uint32_t *map_entry(struct node *page, uint64_t far_block) {
    return (uint32_t *)(void *)page->page + far_block % COUNTS_PER_PAGE;
}

/* *near_block: where the copy is, 0: there is none. */
int copy_find(unsigned home, uint64_t far_block, uint64_t *near_block) {
    struct node *page;
    int status = tree_read(map_key(home, far_block), &page);
    *near_block = 0;
    if (status == 0 && page != NULL)
        *near_block = *map_entry(page, far_block);
    if (*near_block >= store.header.block_count || (*near_block != 0 && block_is_fixed(*near_block)))
        *near_block = 0;
    return status;
}

/* Whether a far block, or a compressed page in it, has a copy; also where that cannot be known now. */
int copy_has_part(unsigned home, uint64_t far_block) {
    uint64_t near_block, sector = first_sector_key(home) + far_block * SECTORS_PER_BLOCK;
    struct node *page;
    int status = copy_find(home, far_block, &near_block);
    if (status != 0 || near_block != 0 || tree_read(map_key(home, sector), &page) != 0)
        return 1;
    for (unsigned i = 0; page != NULL && i < SECTORS_PER_BLOCK; i++)
        if (*map_entry(page, sector + i) != 0)
            return 1;
    return 0;
}

int copy_set(unsigned home, uint64_t far_block, uint64_t near_block) {
    struct node *page;
    int status = tree_modify(map_key(home, far_block), &page);
    if (status == 0)
        *map_entry(page, far_block) = (uint32_t)near_block;
    return status;
}

static uint64_t *used_word(unsigned home, uint64_t far_block, uint64_t *bit) {
    uint64_t index = (far_block + home * (USED_COUNT / 8)) % USED_COUNT;
    *bit = (uint64_t)1 << index % 64;
    return &used[index / 64];
}

/* Somebody wanted this copy: it stays when the hand of the clock comes by next. */
void copy_used(unsigned home, uint64_t far_block) {
    uint64_t bit;
    *used_word(home, far_block, &bit) |= bit;
}

static int take_mark(unsigned home, uint64_t far_block) {
    uint64_t bit, *word = used_word(home, far_block, &bit);
    int was_used = (*word & bit) != 0;
    *word &= ~bit;
    return was_used;
}

static int is_short(void) { return store.free_count < store.header.block_count / ROOM_SHARE; }

static struct list_node *alike(unsigned home, uint64_t far_block) {
    return &by_key[(far_block + home) % KEY_LIST_COUNT];
}

static struct copy *find(unsigned home, uint64_t far_block) {
    list_for_each(link, alike(home, far_block)) {
        struct copy *copy = list_entry(link, struct copy, alike);
        if (copy->home == home && copy->far_block == far_block)
            return copy;
    }
    return NULL;
}

const void *copy_page(unsigned home, uint64_t far_block) {
    const struct copy *copy = find(home, far_block);
    return copy != NULL ? copy->page : NULL;
}

/* An idle one for a block that no other has; NULL: there is none. */
static struct copy *slot_for(unsigned home, uint64_t far_block) {
    return list_empty(&idle) || find(home, far_block) != NULL ? NULL : list_entry(idle.next, struct copy, link);
}

static void begin(struct copy *copy, enum copy_state state, unsigned home, uint64_t far_block) {
    copy->state = state;
    copy->is_awaited = 0;
    copy->home = home;
    copy->far_block = far_block;
    list_remove(&copy->link);
    list_append(&busy, &copy->link);
    list_append(alike(home, far_block), &copy->alike);
    copy_count++;
}

/* A near that is complete may have lost its far store; and what is dropped must be there to be asked for. */
static int may_drop(void) {
    unsigned home = 1;
    while (home <= STORE_ENTRY_COUNT_MAX && !fetch_can_ask(home))
        home++;
    return !store.complete && !drop.found_none && home <= STORE_ENTRY_COUNT_MAX;
}

/* Where room is short, the next copy takes the place of another. */
static int one_goes_for_it(void) {
    if (!may_drop())
        return 0;
    if (drop.wanted_count < REST_COUNT_MAX)
        drop.wanted_count++;
    return 1;
}

/*
 * A verified far page has come: keeps a copy of it, if that is cheap now. is_ahead: as the block that lies ahead, which
 * then becomes the copy.
 */
int copy_offer(const struct block_ptr_disk *pointer, const void *page, int is_ahead) {
    struct copy *copy = slot_for(ptr_store(pointer), copy_key(pointer));
    if (copy == NULL || store.broken ||
        store.free_count < alloc_resting() + copy_count + store.header.block_count / RESERVE_SHARE)
        return copy_page(ptr_store(pointer), copy_key(pointer)) != NULL;
    if (is_short() && !one_goes_for_it())
        return 0;
    copy->page = is_ahead ? ahead_take(ptr_store(pointer), ptr_block(pointer)) : store.env->page_alloc(0);
    if (copy->page == NULL)
        return 0;
    copy_used(ptr_store(pointer), copy_key(pointer));
    if (!is_ahead)
        memcpy(copy->page, page, BLOCK_SIZE);
    begin(copy, COPY_QUEUED, ptr_store(pointer), copy_key(pointer));
    return 1;
}

/* A copy did not have its hash: it will be forgotten. */
void copy_bad(unsigned home, uint64_t far_block) {
    struct copy *copy = slot_for(home, far_block);
    if (copy == NULL)
        return;
    copy->page = NULL;
    store.complete = 0;
    fill_doubt();
    begin(copy, COPY_BAD, home, far_block);
}

/* Has changed nothing in the meta tree yet, so it may as well be part of the next commit. */
static int may_wait(const struct copy *copy) { return copy->state == COPY_QUEUED || copy->state == COPY_BAD; }
static int must_wait(const struct copy *copy) { return store.draining && may_wait(copy) && !copy->is_awaited; }

static void end_write(struct copy *first, int status) {
    for (struct copy *copy = first; copy != NULL; copy = copy->behind)
        copy->state = status == 0 ? COPY_WRITTEN : COPY_FAILED;
}

static void write_done(struct store_io *io, int status) { end_write(io->owner, status); }

static void submit_write(struct copy *first) {
    store.facts.near_writes += first->io.page_count;
    if (store.env->submit(&first->io) != 0)
        end_write(first, -E_IO);
}

/* Joins the write that begins with `first`, if it comes right behind it; else begins one of its own. */
static void join_write(struct copy **first, struct copy **last, struct copy *copy) {
    copy->state = COPY_WRITING;
    copy->behind = NULL;
    if (*first == NULL || copy->near_block != (*last)->near_block + 1) {
        if (*first != NULL)
            submit_write(*first);
        *first = copy;
        copy->io = (struct store_io){.op = STORE_WRITE, .disk = 0, .sector = copy->near_block * SECTORS_PER_BLOCK,
                                     .done = write_done, .owner = copy};
    } else {
        (*last)->behind = copy;
    }
    *last = copy;
    (*first)->io.page[(*first)->io.page_count++] = copy->page;
}

/* Writes copies that are queued, those that get blocks side by side together. -E_AGAIN and others: not even one. */
static int start_writes(void) {
    struct copy *first = NULL, *last = NULL;
    int status = 0;
    unsigned count = 0;
    list_for_each(link, &busy) {
        struct copy *copy = list_entry(link, struct copy, link);
        if (copy->state != COPY_QUEUED || must_wait(copy))
            continue;
        if (count == WRITE_COUNT || (status = alloc_block(&copy->near_block)) != 0)
            break;
        join_write(&first, &last, copy);
        count++;
    }
    if (first != NULL)
        submit_write(first);
    return first != NULL ? 0 : status;
}

static void end(struct copy *copy) {
    if (copy->page != NULL)
        store.env->page_free(copy->page);
    copy->page = NULL;
    copy->state = COPY_NONE;
    list_remove(&copy->alike);
    list_remove(&copy->link);
    list_prepend(&idle, &copy->link);
    copy_count--;
}

/* Enters a written copy in the map; a second copy of the same block is given back. */
static int enter(struct copy *copy) {
    uint64_t known;
    int status = copy_find(copy->home, copy->far_block, &known);
    if (status == 0)
        status = known != 0 ? alloc_free(copy->near_block) : copy_set(copy->home, copy->far_block, copy->near_block);
    if (status == 0)
        end(copy);
    drop.found_none = 0;
    return status;
}

/* The durable root may still name the bad copy's block, so it dies like any other; room for that comes first. */
static int forget(struct copy *copy) {
    uint64_t known;
    int status = copy_find(copy->home, copy->far_block, &known);
    if (status == 0 && known != 0)
        status = list_prepare(&list_dead);
    if (status == 0 && known != 0)
        status = copy_set(copy->home, copy->far_block, 0);
    if (status == 0 && known != 0)
        status = life_die(known, commit_generation());
    if (status == 0)
        end(copy);
    return status;
}

static int give_back(struct copy *copy) {
    int status = alloc_free(copy->near_block);
    if (status == 0)
        end(copy);
    return status;
}

/* The map or the bitmap cannot be had: a written copy is given back; what cannot be given back stays taken. */
static void give_up(struct copy *copy) {
    if (copy->state == COPY_WRITTEN)
        copy->state = COPY_FAILED;
    else
        end(copy);
}

static int step(struct copy *copy) {
    if (must_wait(copy))
        return -E_AGAIN;
    switch (copy->state) {
    case COPY_QUEUED:
        return start_writes();
    case COPY_WRITTEN:
        return enter(copy);
    case COPY_FAILED:
        return give_back(copy);
    case COPY_BAD:
        return forget(copy);
    default:
        return -E_AGAIN;
    }
}

/* --- near as a cache: the clock algorithm, its hand going over the presence maps --- */

static int drop_one(unsigned home, uint64_t far_block, uint64_t near_block) {
    int status = alloc_prepare(near_block);
    if (status == 0)
        status = copy_set(home, far_block, 0);
    if (status == 0)
        status = alloc_rest(near_block);
    if (status == 0) {
        drop.wanted_count--;
        drop.rounds = 0;
    }
    return status;
}

/* To the next page of a map, of the next store, or to the beginning. */
static void hand_next(uint64_t far_block) {
    drop.far_block = far_block;
    if (drop.far_block < map_end(drop.home) && fetch_can_ask(drop.home))
        return;
    drop.far_block = 0;
    if (++drop.home <= STORE_ENTRY_COUNT_MAX)
        return;
    drop.home = 1;
    if (++drop.rounds > 2) {
        drop.found_none = may_drop();
        drop.wanted_count = drop.rounds = 0;
    }
}

/* Anywhere, since a start has cleared the marks: else the same copies would go after each. */
static void hand_start(void) {
    uint64_t word;
    store.env->random(&word, sizeof word);
    drop.home = 1;
    drop.far_block = store.far[0].block_count != 0 ? word % map_end(1) : 0;
}

/* Moves the hand on, to the end of a page of the map at most. 1: go on; 0: there is nothing to do, or it waits. */
static int drop_step(void) {
    struct node *page;
    if (drop.wanted_count == 0 || alloc_resting() == REST_COUNT_MAX)
        return 0;
    if (drop.home == 0)
        hand_start();
    if (!fetch_can_ask(drop.home)) {
        hand_next(UINT64_MAX);
        return 1;
    }
    int status = tree_read(map_key(drop.home, drop.far_block), &page);
    uint64_t end = (drop.far_block / COUNTS_PER_PAGE + 1) * COUNTS_PER_PAGE;
    for (; status == 0 && page != NULL && drop.far_block < end; drop.far_block++) {
        uint64_t near_block = *map_entry(page, drop.far_block);
        if (near_block == 0 || take_mark(drop.home, drop.far_block))
            continue;
        status = drop_one(drop.home, drop.far_block, near_block);
        if (status == 0)
            return 1;
    }
    if (status == -E_AGAIN || status == -E_NOMEM)
        return 0;
    hand_next(end); /* what is damaged is passed over */
    return 1;
}

int copy_give_up(void) {
    if (!may_drop())
        return 0;
    drop.wanted_count = REST_COUNT_MAX;
    return 1;
}

/* Moves one copy on. 1: did something. */
int copy_step(void) {
    if (store.frozen || store.broken || rebuild_is_running())
        return 0;
    store.operation++;
    store.urgent = store.draining;
    int dropped = drop_step();
    store.urgent = 0;
    if (dropped || copy_count == 0)
        return dropped;
    for (struct list_node *link = busy.next, *next; link != &busy; link = next) {
        struct copy *copy = list_entry(link, struct copy, link);
        next = link->next;
        store.operation++;
        store.urgent = store.draining; /* a commit waits for it */
        int status = step(copy);
        store.urgent = 0;
        if (status == 0)
            return 1;
        if (status == -E_NOMEM && may_wait(copy))
            copy->is_awaited = 0; /* no commit waits for memory */
        if (status != -E_AGAIN && status != -E_NOMEM)
            give_up(copy);
    }
    return 0;
}

/* A commit begins to wait for the copies that there are; later ones wait for it. */
void copy_drain(void) {
    list_for_each(link, &busy) {
        struct copy *copy = list_entry(link, struct copy, link);
        copy->is_awaited = may_wait(copy);
    }
}

/* True when the meta tree says the truth: no copy has a block without an entry. */
int copy_settled(void) {
    list_for_each(link, &busy) {
        const struct copy *copy = list_entry(link, struct copy, link);
        if (!may_wait(copy) || copy->is_awaited)
            return 0;
    }
    return drop.wanted_count == 0 || alloc_resting() == REST_COUNT_MAX;
}

/* Others ask for copies by being touched; who only fills leaves room, and drops nothing for it. */
int copy_is_full(void) { return copy_count > COPY_COUNT / 2 || is_short(); }

/* True while a copy is on its way. */
int copy_busy(void) { return copy_count > 0; }

int copy_is_writing(void) {
    list_for_each(link, &busy)
        if (list_entry(link, struct copy, link)->state == COPY_WRITING)
            return 1;
    return 0;
}

/* The map and the bitmap are those of the durable root again: what has a block gets another. */
void copy_undo(void) {
    for (unsigned i = 0; i < COPY_COUNT; i++)
        if (copies[i].state == COPY_WRITTEN || copies[i].state == COPY_FAILED)
            copies[i].state = COPY_QUEUED;
    alloc_rested();
}

void copy_init(void) {
    memset(copies, 0, sizeof copies);
    memset(used, 0, sizeof used);
    memset(&drop, 0, sizeof drop);
    alloc_rested();
    copy_count = 0;
    list_init(&idle);
    list_init(&busy);
    for (unsigned i = 0; i < KEY_LIST_COUNT; i++)
        list_init(&by_key[i]);
    for (unsigned i = 0; i < COPY_COUNT; i++) {
        list_init(&copies[i].alike);
        list_append(&idle, &copies[i].link);
    }
}
