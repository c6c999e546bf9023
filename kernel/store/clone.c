/*
 * kernel/store/clone.c: clones and drops of whole spaces: queued, then applied at the start of the next new generation.
 *
 * Promise: a clone costs one pointer and one count; a drop takes its subtree down to what others share. A drop that
 * finds a damaged node leaves what is below it allocated, and says so; one that leads to itself ends.
 * Called by: pager (queueing), commit.c (applying, before the pages of that commit), tree.c (lookups of spaces still
 * queued).
 */
#include "store/internal.h"

enum { OPERATION_COUNT_MAX = 64, READ_TRY_COUNT = 4 };

struct operation {
    int drop;
    uint64_t from, to;
};

/* A node on the way down of a drop. */
struct descent {
    struct node_disk *page;
    unsigned level, index;
};

static struct operation queued[OPERATION_COUNT_MAX];
static unsigned queued_count;
static unsigned owned_count;    /* of those queued: what the commit of generation `owner` applies */
static unsigned applying_count; /* the same, while that commit runs */
static unsigned applied_count;  /* of these: they go when it is durable */
static uint64_t owner;
static struct descent stack[SPACE_HEIGHT_MAX + 1];
static unsigned depth;
static uint64_t visit_bound; /* blocks that the drop at hand may still meet: a tree has no more than are taken */
static struct block_ptr_disk leaving; /* the pointer that leaves the tree now; its node is being read when present */
static struct store_fetch fetch;
static int reading, loaded, fetch_status;
static unsigned read_tries;

static int queue(struct operation operation) {
    if (operation.to < SPACE_FIRST_USER || operation.to >= SPACE_COUNT_MAX)
        return -E_INVAL;
    if (queued_count == OPERATION_COUNT_MAX)
        return -E_LIMIT;
    queued[queued_count++] = operation;
    return 0;
}

int store_space_clone(uint64_t from, uint64_t to, const void **key_out) {
    (void)key_out;
    if (from < SPACE_FIRST_USER || from >= SPACE_COUNT_MAX || from == to)
        return -E_INVAL;
    if (to > store.space_bound)
        store.space_bound = to;
    return queue((struct operation){0, from, to});
}

int store_space_drop(uint64_t space) { return queue((struct operation){1, 0, space}); }

/* The space whose tree a lookup has to read: of a clone that is still queued, its origin. */
uint64_t clone_alias(uint64_t space) {
    for (unsigned i = queued_count; i > applied_count; i--)
        if (queued[i - 1].to == space && !queued[i - 1].drop)
            space = queued[i - 1].from;
    return space;
}

int clone_pending(void) { return queued_count != 0; }

/* What is queued from now on belongs to a later generation, however often the commit of this one has to be begun. */
void clone_own(uint64_t generation) {
    if (owner != generation)
        owned_count = queued_count;
    owner = generation;
}

void clone_begin(void) {
    applying_count = commit_generation() > store.root.generation ? owned_count : 0;
    depth = loaded = 0;
    memset(&leaving, 0, sizeof leaving);
}

static void node_read(struct store_fetch *done, int status) {
    (void)done;
    fetch_status = status;
    loaded = 1;
    reading = 0;
}

/* Reads the node of `leaving` into the next place of the stack. */
static int load_leaving(void) {
    struct descent *next = &stack[depth];
    if (loaded)
        return 0;
    if (reading)
        return -E_AGAIN;
    if (next->page == NULL && (next->page = cache_page_alloc()) == NULL)
        return -E_NOMEM;
    reading = 1;
    fetch = (struct store_fetch){.pointer = leaving, .page = next->page, .done = node_read};
    store_fetch(&fetch);
    return -E_AGAIN;
}

/* Only what somebody has crafted meets more blocks than there are. */
static void abandon_drop(void) {
    store_notice("a dropped space has more blocks than near: its tree is damaged, what is left of it stays taken");
    while (depth > 0) {
        store.env->page_free(stack[--depth].page);
        stack[depth].page = NULL;
    }
    memset(&leaving, 0, sizeof leaving);
}

/* Takes the pointer `leaving` out: one count less, or the block's death and, for a node, the way down. */
static int leave(void) {
    uint32_t count = 0;
    int descend = ptr_level(&leaving) > 0;
    int status = life_share_read(ptr_block(&leaving), &count);
    if (status == 0 && count == 0 && descend)
        status = load_leaving();
    if (status == 0 && count == 0 && descend && fetch_status == -E_IO && ++read_tries < READ_TRY_COUNT) {
        loaded = 0; /* its disk may answer later */
        return -E_IO;
    }
    if (status == 0)
        status = count > 0 ? life_share_add(ptr_block(&leaving), -1)
                           : life_die(ptr_block(&leaving), ptr_birth(&leaving));
    if (status != 0)
        return status;
    if (count == 0 && descend && fetch_status != 0) {
        store_notice("a dropped space has a damaged node: what is below it stays taken");
    } else if (count == 0 && descend) {
        stack[depth].level = ptr_level(&leaving);
        stack[depth++].index = 0;
    }
    loaded = 0;
    visit_bound--;
    read_tries = 0;
    memset(&leaving, 0, sizeof leaving);
    return 0;
}

/* One step of taking a subtree down. 2: nothing is left. */
static int descend(void) {
    if (ptr_present(&leaving) && visit_bound == 0)
        abandon_drop();
    if (ptr_present(&leaving))
        return leave();
    if (depth == 0)
        return 2;
    struct descent *top = &stack[depth - 1];
    while (top->index < NODE_FANOUT && !pointer_is_near(&top->page->child[top->index]))
        top->index++;
    if (top->index < NODE_FANOUT) {
        const struct block_ptr_disk *child = &top->page->child[top->index++];
        if (pointer_check(child, top->level - 1) == 0)
            leaving = *child;
        return 1;
    }
    store.env->page_free(top->page);
    top->page = NULL;
    depth--;
    return 1;
}

/* Starts a drop: the space's pointer leaves its directory. What a bad pointer names stays taken. */
static int begin_drop(uint64_t space) {
    struct block_ptr_disk *slot;
    int status = tree_space_slot(TREE_MAIN, space, &slot);
    if (status != 0)
        return status;
    if (pointer_is_near(slot) && ptr_level(slot) <= SPACE_HEIGHT_MAX && pointer_check(slot, ptr_level(slot)) == 0)
        leaving = *slot;
    visit_bound = store.header.block_count - store.free_count;
    memset(slot, 0, sizeof *slot);
    cache_forget_space(TREE_MAIN, space);
    return 0;
}

static int clone(uint64_t from, uint64_t to) {
    struct block_ptr_disk origin, *slot;
    int status = tree_space_pointer(TREE_MAIN, from, &origin);
    if (status == 0)
        status = tree_space_slot(TREE_MAIN, to, &slot);
    if (status == 0 && pointer_is_near(&origin))
        status = life_share_add(ptr_block(&origin), 1);
    if (status == 0)
        *slot = origin;
    return status;
}

/* A clone over a space that exists drops it first. */
static int apply(const struct operation *operation) {
    struct block_ptr_disk present;
    int status = tree_space_pointer(TREE_MAIN, operation->to, &present);
    if (status == 0 && ptr_present(&present)) {
        status = begin_drop(operation->to);
        return status == 0 ? 1 : status;
    }
    if (status == 0 && !operation->drop)
        status = clone(operation->from, operation->to);
    return status == 0 ? 2 : status;
}

/* One step. 2: all operations that were queued before the commit are applied. */
int clone_step(void) {
    int status = descend();
    if (status != 2)
        return status;
    if (applied_count == applying_count)
        return 2;
    status = apply(&queued[applied_count]);
    if (status != 2)
        return status;
    applied_count++;
    return 1;
}

int clone_is_reading(void) { return reading; }

/* The commit is durable. */
void clone_done(void) {
    queued_count -= applied_count;
    owned_count -= applied_count;
    memmove(&queued[0], &queued[applied_count], queued_count * sizeof queued[0]);
    applied_count = applying_count = 0;
}

/* The tree is that of the durable root again: what was read of the spaces since is not. */
void clone_undo(void) {
    for (unsigned i = 0; i < applied_count; i++)
        cache_forget_space(TREE_MAIN, queued[i].to);
    applied_count = applying_count = 0;
}

void clone_init(void) {
    queued_count = owned_count = applying_count = applied_count = depth = 0;
    owner = 0;
    reading = loaded = 0;
    memset(stack, 0, sizeof stack);
    memset(&leaving, 0, sizeof leaving);
}
