/*
 * kernel/store/cache.c: the cache of nodes and of the store's own pages, by their position in the newest tree.
 *
 * Promise: a dirty node is never evicted, nor one that the running operation has touched; a node becomes clean only
 * with verified contents whose store numbers are ours.
 * Called by: this room; completions of node reads run in interrupt context.
 */
#include "store/internal.h"

enum { BUCKET_COUNT = 4096 };

static struct node *bucket[BUCKET_COUNT];
static struct node *free_nodes; /* linked by hash_next */
static struct list_node clean;  /* least recently used first */
static struct list_node dirty[TREE_COUNT][LEVEL_COUNT], placed[TREE_COUNT][LEVEL_COUNT];
static struct list_node loading;
static uint64_t node_count;

static unsigned bucket_index(struct node_key key) {
    uint64_t word = key.prefix ^ key.space << 35 ^ (uint64_t)key.level << 57 ^ (uint64_t)key.tree << 61;
    return (unsigned)((word * 0x9e3779b97f4a7c15ull) >> 52);
}

static int key_equal(struct node_key a, struct node_key b) {
    return a.prefix == b.prefix && a.space == b.space && a.level == b.level && a.tree == b.tree;
}

struct list_node *cache_dirty(enum tree_id tree, unsigned level) { return &dirty[tree][level]; }
struct list_node *cache_placed(enum tree_id tree, unsigned level) { return &placed[tree][level]; }

int cache_has_dirty(enum tree_id tree) {
    for (unsigned level = 0; level < LEVEL_COUNT; level++)
        if (!list_empty(&dirty[tree][level]))
            return 1;
    return 0;
}

static void unlink_from_bucket(struct node *node) {
    struct node **at = &bucket[bucket_index(node->key)];
    while (*at != node)
        at = &(*at)->hash_next;
    *at = node->hash_next;
}

static void release(struct node *node) {
    list_remove(&node->link);
    if (node->page != NULL)
        store.env->page_free(node->page);
    node->hash_next = free_nodes;
    free_nodes = node;
    node_count--;
}

/* Takes a node out of the cache; one that is being read is released by its completion. */
void cache_forget(struct node *node) {
    unlink_from_bucket(node);
    if (node->state == NODE_LOADING)
        node->orphan = 1;
    else
        release(node);
}

/* Empties the cache of one space. */
void cache_forget_space(enum tree_id tree, uint64_t space) {
    for (unsigned i = 0; i < BUCKET_COUNT; i++) {
        for (struct node *node = bucket[i], *next; node != NULL; node = next) {
            next = node->hash_next;
            if (node->key.tree == tree && node->key.space == space && node->key.level <= LEVEL_DIRECTORY)
                cache_forget(node);
        }
    }
}

static int evict_one(void) {
    list_for_each(link, &clean) {
        struct node *node = list_entry(link, struct node, link);
        if (node->operation == store.operation)
            continue;
        cache_forget(node);
        return 1;
    }
    return 0;
}

size_t store_shrink(size_t page_count) {
    size_t freed = ahead_shrink(page_count);
    while (freed < page_count && evict_one())
        freed++;
    return freed;
}

/* A page for the store's own use; when there is none, one of its clean pages is dropped for it. */
void *cache_page_alloc(void) {
    void *page = store.env->page_alloc(store.urgent);
    if (page == NULL && (ahead_shrink(1) != 0 || evict_one()))
        page = store.env->page_alloc(store.urgent);
    return page;
}

static int add_descriptors(void) {
    struct node *slab = cache_page_alloc();
    if (slab == NULL)
        return -E_NOMEM;
    for (unsigned i = 0; i < BLOCK_SIZE / sizeof *slab; i++) {
        slab[i].hash_next = free_nodes;
        free_nodes = &slab[i];
    }
    return 0;
}

static int node_new(struct node_key key, struct node **out) {
    if (free_nodes == NULL && add_descriptors() != 0)
        return -E_NOMEM;
    void *page = cache_page_alloc();
    if (page == NULL)
        return -E_NOMEM;
    struct node *node = free_nodes;
    free_nodes = node->hash_next;
    memset(node, 0, sizeof *node);
    node->page = page;
    node->key = key;
    list_init(&node->link);
    node->operation = store.operation;
    node->hash_next = bucket[bucket_index(key)];
    bucket[bucket_index(key)] = node;
    node_count++;
    *out = node;
    return 0;
}

/* NULL, or the node in whatever state; it becomes the most recently used. */
struct node *cache_find(struct node_key key) {
    struct node *node = bucket[bucket_index(key)];
    while (node != NULL && !key_equal(node->key, key))
        node = node->hash_next;
    if (node == NULL)
        return NULL;
    node->operation = store.operation;
    if (node->state == NODE_CLEAN) {
        list_remove(&node->link);
        list_append(&clean, &node->link);
    }
    return node;
}

void cache_set_state(struct node *node, enum node_state state, struct list_node *list) {
    list_remove(&node->link);
    list_append(list, &node->link);
    node->state = state;
}

void cache_clean(struct node *node) { cache_set_state(node, NODE_CLEAN, &clean); }

/* The cache is that of the durable root again: what was changed since is forgotten. */
void cache_undo(void) {
    for (unsigned i = 0; i < BUCKET_COUNT; i++) {
        for (struct node *node = bucket[i], *next; node != NULL; node = next) {
            next = node->hash_next;
            if (node->state == NODE_DIRTY || node->state == NODE_WRITING)
                cache_forget(node);
        }
    }
}

/* A new, empty, dirty node. */
int cache_create(struct node_key key, struct node **out) {
    int status = node_new(key, out);
    if (status != 0)
        return status;
    memset((*out)->page, 0, BLOCK_SIZE);
    cache_set_state(*out, NODE_DIRTY, &dirty[key.tree][key.level]);
    return 0;
}

/* 0: usable. A failure is told once, so that the next call reads again. */
int cache_ready(struct node *node) {
    if (node->state == NODE_LOADING) {
        store.wait_key = node;
        return -E_AGAIN;
    }
    if (node->state != NODE_FAILED)
        return 0;
    int status = node->status;
    cache_forget(node);
    return status;
}

static void load_done(struct store_fetch *fetch, int status) {
    struct node *node = fetch->owner;
    if (node->orphan) {
        release(node);
        return;
    }
    if (status == 0 && node->key.level > 0)
        status = pointers_translate(node->page->child, NODE_FANOUT, ptr_store(&node->pointer));
    node->status = status;
    if (status == 0)
        cache_clean(node);
    else
        cache_set_state(node, NODE_FAILED, &clean);
    store.env->wake(node);
    fetch_node_loaded();
}

/*
 * Starts to read the node that the pointer names. -E_AGAIN when it has; wait_key is set. The meta tree is near's own:
 * to find a far block it is asked for a copy, so a part of it that lay in far would wait for itself.
 */
int cache_load(struct node_key key, const struct block_ptr_disk *pointer) {
    struct node *node;
    unsigned level = key.level <= LEVEL_DIRECTORY ? key.level : key.level - LEVEL_DIRECTORY;
    int status = pointer_check(pointer, level);
    if (status == 0 && key.tree == TREE_META && ptr_store(pointer) != 0)
        status = -E_CORRUPT;
    if (status == 0)
        status = node_new(key, &node);
    if (status != 0)
        return status;
    node->pointer = *pointer;
    cache_set_state(node, NODE_LOADING, &loading);
    node->fetch = (struct store_fetch){.pointer = *pointer, .page = node->page, .done = load_done, .owner = node};
    int is_missing = store_must_ask(pointer);
    status = store_fetch(&node->fetch);
    check(status == 0);
    if (ptr_store(pointer) != 0)
        fetch_nodes_ahead(pointer, is_missing);
    store.wait_key = node;
    return -E_AGAIN;
}

void cache_init(void) {
    memset(bucket, 0, sizeof bucket);
    list_init(&clean);
    list_init(&loading);
    for (unsigned tree = 0; tree < TREE_COUNT; tree++) {
        for (unsigned level = 0; level < LEVEL_COUNT; level++) {
            list_init(&dirty[tree][level]);
            list_init(&placed[tree][level]);
        }
    }
    free_nodes = NULL;
    node_count = 0;
}

void store_facts(struct store_facts *facts) {
    *facts = store.facts;
    facts->generation = store.root.generation;
    facts->sequence = store.root.sequence;
    facts->near_blocks_total = store.header.block_count;
    facts->near_blocks_free = store.free_count;
    facts->cached_nodes = node_count;
    facts->far_remaining = fill_remaining();
    facts->complete = (store.root.flags & ROOT_COMPLETE) != 0;
}
