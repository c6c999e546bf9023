/*
 * kernel/store/fill.c: what nobody asks for comes, too: all that the adopted root reaches, until no far store is
 * needed.
 *
 * Promise: asks for nothing while somebody else waits for a store, nor at once after that (misses come in bursts);
 * leaves the links' queues short (pace.c) and an eighth of near free; goes on while a commit runs, so that the link
 * does not run dry. Near is said to be complete only after a walk that met nothing without an entry in the presence
 * map, and by a root that makes that map durable.
 * Called by: store_fill (pager, in small pieces), open.c (which root), commit.c (may it be said). The walk is over the
 * far store's own tree: all far blocks of any later generation are in it, and it never changes.
 */
#include "store/internal.h"

enum {
    FETCH_COUNT = 16,
    DEPTH_MAX = DIRECTORY_HEIGHT_MAX + SPACE_HEIGHT_MAX + 1,
    ROOT_POINTER_COUNT = 2, /* tree, resume list */
};
#define RETRY_NS 1000000000ull
#define TELL_NS 500000000ull
#define HOLD_NS 2000000ull

/* A page on its way, or a node whose children are walked. */
struct fill_fetch {
    struct store_fetch fetch;
    int busy;
    unsigned directory; /* levels of the directory that are left, this one included; 0: in a space */
    unsigned slot;      /* of a node: the child that comes next */
};

static struct {
    int known, walking, failed;
    int deciding;            /* a walk over what is durable: near may be complete */
    struct block_ptr_disk root[ROOT_POINTER_COUNT];
    unsigned root_index, tree_height;
    uint64_t missing_count;  /* met in this walk */
    uint64_t retry_ns;
    int others_waited;       /* when it was last looked */
    uint64_t hold_ns;        /* until then, those who have got what they waited for go on undisturbed */
    unsigned ahead_home;     /* where reading on has come to */
    uint64_t ahead_block;
    uint64_t position;       /* the last block of the adopted store that a walk has come to */
    uint64_t told_ns, told_position;
    unsigned depth;
    struct fill_fetch node[DEPTH_MAX]; /* from the top down */
    struct fill_fetch page[FETCH_COUNT];
} fill;

/* The far root that near has adopted, store numbers ours. */
void fill_init(const struct root_disk *root) {
    memset(&fill, 0, sizeof fill);
    if (root == NULL)
        return;
    fill.known = 1;
    fill.root[0] = root->tree;
    fill.root[1] = root->resume;
    fill.tree_height = root->tree_height;
}

int fill_is_known(void) { return fill.known; }

/* The same, of a root as the first far store has it: all of it will be fetched. One that makes no sense is not. */
void fill_adopt(const struct root_disk *adopted) {
    static struct root_disk root;
    root = *adopted;
    if (pointers_translate(&root.tree, 1, 1) == 0 && pointers_translate(&root.resume, 1, 1) == 0)
        fill_init(&root);
}

static void fetched(struct store_fetch *fetch, int status) {
    struct fill_fetch *own = fetch->owner;
    own->busy = 0;
    if (status != 0)
        fill.failed = 1;
}

/* Store numbers become ours, once. */
static void node_fetched(struct store_fetch *fetch, int status) {
    struct node_disk *node = fetch->page;
    if (status == 0)
        status = pointers_translate(node->child, NODE_FANOUT, ptr_store(&fetch->pointer));
    fetched(fetch, status);
}

static void start_fetch(struct fill_fetch *own, const struct block_ptr_disk *pointer,
                        void (*done)(struct store_fetch *fetch, int status)) {
    own->busy = 1;
    own->fetch = (struct store_fetch){.pointer = *pointer, .page = own->fetch.page, .done = done, .owner = own};
    check(store_fetch(&own->fetch) == 0);
}

static int own_busy_count(void) {
    int count = 0;
    for (unsigned i = 0; i < FETCH_COUNT; i++)
        count += fill.page[i].busy;
    for (unsigned i = 0; i < fill.depth; i++)
        count += fill.node[i].busy;
    return count;
}

static int make_page(struct fill_fetch *own) {
    if (own->fetch.page == NULL)
        own->fetch.page = cache_page_alloc();
    return own->fetch.page != NULL;
}

static void free_page(struct fill_fetch *own) {
    if (own->fetch.page != NULL)
        store.env->page_free(own->fetch.page);
    own->fetch.page = NULL;
}

static void end_walk(void) {
    for (unsigned i = 0; i < FETCH_COUNT; i++)
        free_page(&fill.page[i]);
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        free_page(&fill.node[i]);
    fill.walking = fill.failed = 0;
    fill.depth = 0;
    fill.retry_ns = store.env->now_ns() + RETRY_NS;
}

/* 0: it has a durable or coming entry in the presence map; 1: it has to be fetched; or a negative error. */
static int is_missing(const struct block_ptr_disk *pointer) {
    uint64_t near_block;
    int status = ptr_store(pointer) != 0 ? copy_find(ptr_store(pointer), copy_key(pointer), &near_block) : 0;
    if (status != 0 || ptr_store(pointer) == 0 || near_block != 0)
        return status;
    fill.missing_count++;
    return copy_page(ptr_store(pointer), copy_key(pointer)) == NULL;
}

/* Reads on from a missing block. 1: it is here, or only who asks for it alone may get it; 0: it is on its way. */
static int bring(const struct block_ptr_disk *pointer) {
    unsigned home = ptr_store(pointer), disk;
    uint64_t block = ptr_block(pointer);
    const void *page;
    int status = 1;
    if (home != fill.ahead_home || block > fill.ahead_block || ahead_find(home, block, &page, &disk) == AHEAD_NONE)
        fill.ahead_block = block;
    fill.ahead_home = home;
    while (status > 0 && fill.ahead_block - block < PACE_WINDOW_MAX) {
        status = fetch_unasked(home, block, fill.ahead_block - block, 0);
        if (status == -E_AGAIN && fill.ahead_block == block)
            return 0; /* for want of room, which what is on its way will make */
        fill.ahead_block += status > 0 ? (unsigned)status : 0;
    }
    return ahead_find(home, block, &page, &disk) != AHEAD_LOADING;
}

static void push(const struct block_ptr_disk *pointer, unsigned directory) {
    struct fill_fetch *node = &fill.node[fill.depth++];
    node->directory = directory;
    node->slot = 0;
    start_fetch(node, pointer, node_fetched);
}

/* What cannot be kept as it came (compressed, damaged) is fetched like anything else. 0: later. */
static int take_page(const struct block_ptr_disk *pointer) {
    struct fill_fetch *own = NULL;
    if (fetch_keep(pointer))
        return 1;
    for (unsigned i = 0; own == NULL && i < FETCH_COUNT; i++)
        own = fill.page[i].busy ? NULL : &fill.page[i];
    if (own == NULL || !make_page(own))
        return 0;
    start_fetch(own, pointer, fetched);
    return 1;
}

/* A page is taken, a node is entered. 1: done, 0: later; or a negative error. */
static int visit(const struct block_ptr_disk *pointer, unsigned directory) {
    int is_page = directory == 0 && ptr_level(pointer) == 0;
    if (pointer_check(pointer, ptr_level(pointer)) != 0 || (!is_page && fill.depth == DEPTH_MAX))
        return -E_CORRUPT;
    if (!is_page && !make_page(&fill.node[fill.depth]))
        return 0;
    int missing = is_missing(pointer);
    if (missing < 0)
        return missing == -E_AGAIN || missing == -E_NOMEM ? 0 : missing;
    if (missing && (!bring(pointer) || (is_page && !take_page(pointer))))
        return 0;
    if (ptr_store(pointer) == 1 && ptr_block(pointer) > fill.position)
        fill.position = ptr_block(pointer);
    if (!is_page)
        push(pointer, directory);
    return 1;
}

/* The next child of the node at the end of the path. */
static int walk_node(struct fill_fetch *node) {
    const struct node_disk *page = node->fetch.page;
    while (node->slot < NODE_FANOUT && !ptr_present(&page->child[node->slot]))
        node->slot++;
    if (node->slot == NODE_FANOUT) {
        fill.depth--;
        return 1;
    }
    int status = visit(&page->child[node->slot], node->directory > 0 ? node->directory - 1 : 0);
    node->slot += status == 1;
    return status;
}

static int walk_root(void) {
    if (fill.root_index == ROOT_POINTER_COUNT)
        return own_busy_count() == 0 ? 2 : 0;
    const struct block_ptr_disk *root = &fill.root[fill.root_index];
    int status = ptr_present(root) ? visit(root, fill.root_index == 0 ? fill.tree_height : 0) : 1;
    fill.root_index += status == 1;
    return status;
}

static int boot_objects_are_near(void) {
    return pointer_is_near(&store.root.kernel) && pointer_is_near(&store.root.loader);
}

/* A published store is laid out as the walk goes; of others, this is a guess. */
uint64_t fill_remaining(void) {
    uint64_t block_count = store.far[0].block_count;
    return store.complete || fill.position >= block_count ? 0 : block_count - fill.position;
}

/* For who looks on: a line for each disk that has given something. */
static void tell(void) {
    for (unsigned disk = 1; disk < store.env->disk_count; disk++) {
        const struct store_far_facts *far = &store.facts.far[disk];
        if (far->fetched != 0)
            store_notice("progress: far%u %lu fetched, %lu verified, %lu unused; %lu remain", disk,
                         (unsigned long)far->fetched, (unsigned long)far->verified, (unsigned long)far->unused,
                         (unsigned long)fill_remaining());
    }
}

static void finish_walk(void) {
    int complete = fill.deciding && fill.missing_count == 0 && boot_objects_are_near();
    int again = !fill.deciding || fill.missing_count != 0;
    end_walk();
    fill.deciding = 1;
    fill.position = UINT64_MAX;
    if (complete) {
        store.complete = store.unsaved = 1;
        tell();
    } else if (again) {
        fill.retry_ns = 0; /* look again: now all of it should be here */
    }
}

static int begin_walk(void) {
    if (fill.retry_ns > store.env->now_ns())
        return 0; /* also in the same call in which the last one has ended */
    if (fill.deciding && (copy_busy() || store.unsaved))
        return 0; /* what came last time is made durable first */
    fill.walking = 1;
    fill.root_index = 0;
    fill.missing_count = 0;
    return 1;
}

static int fill_step(void) {
    store.operation++;
    if (!fill.walking)
        return begin_walk();
    struct fill_fetch *node = fill.depth > 0 ? &fill.node[fill.depth - 1] : NULL;
    if (node != NULL && node->busy)
        return 0;
    int status = fill.failed ? -E_IO : node != NULL ? walk_node(node) : walk_root();
    if (status == 2)
        finish_walk();
    else if (status < 0 && own_busy_count() == 0)
        end_walk();
    else if (status < 0)
        fill.failed = 1;
    return status > 0;
}

/* A copy that this walk may have counted is none. */
void fill_doubt(void) { fill.missing_count++; }

static void tell_at_times(uint64_t now) {
    if (now - fill.told_ns < TELL_NS || fill.position == fill.told_position)
        return;
    fill.told_ns = now;
    fill.told_position = fill.position;
    tell();
}

static int others_come_first(uint64_t now) {
    int others_wait = fetch_count() != (unsigned)own_busy_count() + boot_fetch_count();
    if (others_wait || fill.others_waited)
        fill.hold_ns = now + HOLD_NS;
    fill.others_waited = others_wait;
    return fill.hold_ns > now;
}

int store_fill(unsigned budget) {
    uint64_t now = store.env->now_ns();
    if (!fill.known || store.complete || store.broken || copy_is_full() ||
        (store_commit_running() && (!fill.walking || fill.deciding)) || /* which is about what is durable */
        others_come_first(now))
        return 0;
    tell_at_times(now);
    unsigned left = budget;
    while (left > 0 && fill_step())
        left--;
    if (fill.walking)
        fill.retry_ns = now + RETRY_NS; /* it may wait for memory, which nobody tells */
    return left < budget || fetch_is_ready(); /* what has been kept is to be written */
}

/* All that was missing has come, or near is complete. */
int fill_waits_for_root(void) {
    return store.complete || (fill.deciding && !fill.walking && fill.retry_ns == 0 && !copy_busy());
}

/* When it wants to be called again; what is past: no need. */
uint64_t fill_retry_ns(void) {
    return !fill.known || store.complete ? 0 : fill.retry_ns > fill.hold_ns ? fill.retry_ns : fill.hold_ns;
}
