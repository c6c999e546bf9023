/*
 * kernel/store/copy.c: localising: what was fetched from a far store is written to near and entered in the presence
 * map.
 *
 * Promise: a copy is named only after its write has completed, in meta pages that become durable with the next root;
 * what has come before a commit's last page was written becomes durable with that commit. When memory or space is
 * short, or all slots are taken, a copy is simply not made. A near that cannot hold all of them is a cache: copies that
 * were not used go for those that somebody asks for, or for a commit that finds no other room. What comes while a
 * commit runs, which may wait long for its flushes, gathers in memory: who only fills goes on for 4 MiB.
 * Called by: fetch.c (offers, finds), store_work (steps), commit.c (waits until none is half done).
 */
#include "store/internal.h"

enum {
    COPY_COUNT = 2048,    /* what far can bring while a commit holds the meta tree */
    KEY_LIST_COUNT = 512,
    WRITE_COUNT = 16,     /* requests; each writes up to STORE_IO_PAGES_MAX copies: most of its cost is the request */
    STEP_COUNT = 16,      /* copies moved on at once */
    RESERVE_SHARE = 16,   /* of near stays free, also when all copies on their way have a block: roots need some */
    USED_COUNT = 1 << 17, /* marks of use: one a block of the first 512 MiB of a far store, shared beyond */
};
enum copy_state { COPY_NONE, COPY_QUEUED, COPY_WRITING, COPY_WRITTEN, COPY_FAILED, COPY_BAD };

struct copy {
    struct list_node link;  /* in the list that its state says, or in a write's */
    struct list_node alike; /* of its key, in by_key */
    enum copy_state state;
    int is_awaited; /* was there when the commit began to wait for copies: it is part of it */
    unsigned home;
    uint64_t far_block, near_block;
    void *page;
};

/* A request: copies that get blocks side by side. */
struct copy_write {
    struct list_node link;    /* in writes_idle, or nowhere */
    struct list_node copies;
    struct store_io io;
};

static struct copy copies[COPY_COUNT];
static struct list_node idle, queued, due, by_key[KEY_LIST_COUNT]; /* due: all others, but for those being written */
static unsigned copy_count, queued_count; /* copy_count: all but the idle ones */
static struct copy_write writes[WRITE_COUNT];
static struct list_node writes_idle;
static unsigned writes_idle_count;
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

static void set_state(struct copy *copy, enum copy_state state, struct list_node *list) {
    if (copy->state == COPY_QUEUED)
        queued_count--;
    if (state == COPY_QUEUED)
        queued_count++;
    copy->state = state;
    list_remove(&copy->link);
    list_append(list, &copy->link);
}

static void begin(struct copy *copy, enum copy_state state, unsigned home, uint64_t far_block) {
    set_state(copy, state, state == COPY_QUEUED ? &queued : &due);
    copy->is_awaited = 0;
    copy->home = home;
    copy->far_block = far_block;
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

static void end_write(struct copy_write *write, int status) {
    struct list_node *link;
    while ((link = list_pop(&write->copies)) != NULL)
        set_state(list_entry(link, struct copy, link), status == 0 ? COPY_WRITTEN : COPY_FAILED, &due);
    list_append(&writes_idle, &write->link);
    writes_idle_count++;
}

static void write_done(struct store_io *io, int status) { end_write(io->owner, status); }

static void submit_write(struct copy_write *write) {
    store.facts.near_writes += write->io.page_count;
    if (store.env->submit(&write->io) != 0)
        end_write(write, -E_IO);
}

static struct copy_write *new_write(uint64_t near_block) {
    struct copy_write *write = list_entry(list_pop(&writes_idle), struct copy_write, link);
    writes_idle_count--;
    write->io = (struct store_io){.op = STORE_WRITE, .disk = 0, .sector = near_block * SECTORS_PER_BLOCK,
                                  .done = write_done, .owner = write};
    return write;
}

/* Joins the write if the copy's block comes right behind it; else begins another one. */
static struct copy_write *join_write(struct copy_write *write, struct copy *copy) {
    uint64_t sector = copy->near_block * SECTORS_PER_BLOCK;
    if (write != NULL && sector != write->io.sector + write->io.page_count * SECTORS_PER_BLOCK) {
        submit_write(write);
        write = NULL;
    }
    if (write == NULL)
        write = new_write(copy->near_block);
    set_state(copy, COPY_WRITING, &write->copies);
    write->io.page[write->io.page_count++] = copy->page;
    return write;
}

/* While more are coming they wait for each other: a request for many costs little more than one for one. */
static int is_time_to_write(void) {
    return queued_count > 0 && (queued_count >= STORE_IO_PAGES_MAX || store.draining || !ahead_is_loading());
}

/* Writes queued copies, as many as one request takes, in one or more. -E_AGAIN and others: not even one. */
static int start_writes(void) {
    struct copy_write *write = NULL;
    int status = -E_AGAIN;
    unsigned count = 0;
    for (struct list_node *link = queued.next, *next; link != &queued; link = next) {
        struct copy *copy = list_entry(link, struct copy, link);
        next = link->next;
        /* Whether a block lies behind the one before is known only when it is taken. */
        if (must_wait(copy) || count == STORE_IO_PAGES_MAX || writes_idle_count < (write == NULL ? 2 : 1) ||
            (status = alloc_block(&copy->near_block)) != 0)
            break;
        write = join_write(write, copy);
        count++;
    }
    if (write != NULL)
        submit_write(write);
    return write != NULL ? 0 : status;
}

static void end(struct copy *copy) {
    if (copy->page != NULL)
        store.env->page_free(copy->page);
    copy->page = NULL;
    list_remove(&copy->alike);
    set_state(copy, COPY_NONE, &idle);
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

/* Moves on copies of which something is due, as many as take less than the hash of a page. 1: did something. */
static int due_step(void) {
    unsigned count = 0;
    for (struct list_node *link = due.next, *next; link != &due && count < STEP_COUNT; link = next) {
        struct copy *copy = list_entry(link, struct copy, link);
        next = link->next;
        store.operation++;
        int status = step(copy);
        count += status == 0;
        if (status == -E_NOMEM && may_wait(copy))
            copy->is_awaited = 0; /* no commit waits for memory */
        if (status != 0 && status != -E_AGAIN && status != -E_NOMEM)
            give_up(copy);
    }
    return count > 0;
}

static void await_none(void) {
    list_for_each(link, &queued)
        list_entry(link, struct copy, link)->is_awaited = 0;
}

/* 1: did something. What gets no block, and never will, is no copy. */
static int write_step(void) {
    store.operation++;
    int status = is_time_to_write() ? start_writes() : -E_AGAIN;
    if (status == -E_NOMEM)
        await_none(); /* no commit waits for memory */
    else if (status != 0 && status != -E_AGAIN)
        give_up(list_entry(queued.next, struct copy, link));
    return status == 0;
}

/* Moves copies on. 1: did something. */
int copy_step(void) {
    if (store.settled || store.broken || rebuild_is_running())
        return 0;
    store.operation++;
    store.urgent = store.draining; /* a commit waits for them */
    int did = drop_step() || due_step() || write_step();
    store.urgent = 0;
    return did;
}

static void await(struct list_node *list) {
    list_for_each(link, list) {
        struct copy *copy = list_entry(link, struct copy, link);
        copy->is_awaited = may_wait(copy);
    }
}

/* A commit begins to wait for the copies that there are; later ones wait for it. */
void copy_drain(void) {
    await(&queued);
    await(&due);
}

static int due_is_settled(void) {
    list_for_each(link, &due) {
        const struct copy *copy = list_entry(link, struct copy, link);
        if (!may_wait(copy) || copy->is_awaited)
            return 0;
    }
    return 1;
}

/* True when the meta tree says the truth: no copy has a block without an entry. The awaited are first in `queued`. */
int copy_settled(void) {
    return !copy_is_writing() && due_is_settled() &&
           (list_empty(&queued) || must_wait(list_entry(queued.next, struct copy, link))) &&
           (drop.wanted_count == 0 || alloc_resting() == REST_COUNT_MAX);
}

/* Others ask for copies by being touched; who only fills leaves room, and drops nothing for it. */
int copy_is_full(void) { return copy_count > COPY_COUNT / 2 || is_short(); }

/* True while a copy is on its way. */
int copy_busy(void) { return copy_count > 0; }

int copy_is_writing(void) { return writes_idle_count < WRITE_COUNT; }

/* The map and the bitmap are those of the durable root again: what has a block gets another. */
void copy_undo(void) {
    for (unsigned i = 0; i < COPY_COUNT; i++)
        if (copies[i].state == COPY_WRITTEN || copies[i].state == COPY_FAILED)
            set_state(&copies[i], COPY_QUEUED, &queued);
    alloc_rested();
}

void copy_init(void) {
    memset(copies, 0, sizeof copies);
    memset(used, 0, sizeof used);
    memset(&drop, 0, sizeof drop);
    alloc_rested();
    copy_count = queued_count = writes_idle_count = 0;
    list_init(&idle);
    list_init(&queued);
    list_init(&due);
    list_init(&writes_idle);
    for (unsigned i = 0; i < KEY_LIST_COUNT; i++)
        list_init(&by_key[i]);
    for (unsigned i = 0; i < COPY_COUNT; i++) {
        list_init(&copies[i].alike);
        list_append(&idle, &copies[i].link);
    }
    for (unsigned i = 0; i < WRITE_COUNT; i++) {
        list_init(&writes[i].copies);
        list_append(&writes_idle, &writes[i].link);
        writes_idle_count++;
    }
}
