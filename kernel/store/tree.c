/*
 * kernel/store/tree.c: the newest tree: find a pointer, make a path dirty, set a pointer; the same code for both trees.
 *
 * Promise: paths become dirty from the top down, and a dirty node's parent is dirty; a dirty child's slot holds a
 * placeholder with the child's level. What is missing reads as zeros.
 * Called by: lookups, the commit, allocation, life, localising. -E_AGAIN: store.wait_key is being read.
 */
#include "store/internal.h"

static struct node_key directory_key(enum tree_id tree, unsigned level, uint64_t space) {
    return (struct node_key){tree, LEVEL_DIRECTORY + level, 0, space >> (NODE_FANOUT_BITS * level)};
}

static struct node_key parent_key(struct node_key key) {
    return (struct node_key){key.tree, key.level + 1, key.space, key.prefix >> NODE_FANOUT_BITS};
}

/* True when a tree of this height has no place for the key. */
static int beyond(struct node_key key, unsigned height) {
    return key.level > height || key.prefix >> (NODE_FANOUT_BITS * (height - key.level)) != 0;
}

static unsigned slot_index(uint64_t prefix) { return prefix % NODE_FANOUT; }

/* The pointer of a node of the directory. */
static int directory_pointer(struct node_key key, struct block_ptr_disk *pointer) {
    const struct tree *tree = &store.tree[key.tree];
    memset(pointer, 0, sizeof *pointer);
    if (beyond(key, LEVEL_DIRECTORY + tree->height))
        return 0;
    if (key.level == LEVEL_DIRECTORY + tree->height) {
        *pointer = tree->root;
        return 0;
    }
    struct node *parent;
    int status = tree_read(parent_key(key), &parent);
    if (status == 0 && parent != NULL)
        *pointer = parent->page->child[slot_index(key.prefix)];
    return status;
}

/* The root pointer of a space: its level is the height. */
int tree_space_pointer(enum tree_id tree, uint64_t space, struct block_ptr_disk *pointer) {
    struct node *node;
    memset(pointer, 0, sizeof *pointer);
    if (store.tree[tree].height == 0) {
        if (space == 0)
            *pointer = store.tree[tree].root;
        return 0;
    }
    int status = tree_read(directory_key(tree, 1, space), &node);
    if (status == 0 && node != NULL)
        *pointer = node->page->child[slot_index(space)];
    if (ptr_present(pointer) && ptr_level(pointer) > store.height_bound)
        store.height_bound = ptr_level(pointer);
    return status;
}

/* The current pointer of any node or page; not present when missing, a placeholder when dirty. */
int tree_pointer(struct node_key key, struct block_ptr_disk *pointer) {
    if (key.level > LEVEL_DIRECTORY)
        return directory_pointer(key, pointer);
    struct node *parent = NULL;
    int status = 0;
    if (key.level < SPACE_HEIGHT_MAX)
        parent = cache_find(parent_key(key));
    if (parent == NULL) {
        status = tree_space_pointer(key.tree, key.space, pointer);
        if (status != 0 || !ptr_present(pointer) || ptr_level(pointer) == key.level) {
            if (key.prefix != 0)
                memset(pointer, 0, sizeof *pointer);
            return status;
        }
        unsigned height = ptr_level(pointer);
        memset(pointer, 0, sizeof *pointer);
        if (height > SPACE_HEIGHT_MAX)
            return -E_CORRUPT;
        if (beyond(key, height))
            return 0;
    }
    status = tree_read(parent_key(key), &parent);
    memset(pointer, 0, sizeof *pointer);
    if (status == 0 && parent != NULL)
        *pointer = parent->page->child[slot_index(key.prefix)];
    return status;
}

/* A loaded node, or NULL for a missing one. */
int tree_read(struct node_key key, struct node **out) {
    struct block_ptr_disk pointer;
    *out = cache_find(key);
    if (*out != NULL) {
        int status = cache_ready(*out);
        return status;
    }
    int status = tree_pointer(key, &pointer);
    if (status != 0 || !ptr_present(&pointer))
        return status;
    return cache_load(key, &pointer);
}

/* Makes the node in *slot dirty, or a new one where the slot is empty. The slot is in a dirty parent. */
static int make_dirty(struct node_key key, struct block_ptr_disk *slot, struct node **out) {
    struct node *node = cache_find(key);
    unsigned level = key.level <= LEVEL_DIRECTORY ? key.level : key.level - LEVEL_DIRECTORY;
    int status;
    check(!(store.frozen && key.tree == TREE_META));
    if (node == NULL && ptr_present(slot))
        return cache_load(key, slot);
    if (node == NULL) {
        status = cache_create(key, &node);
    } else {
        status = cache_ready(node);
        if (status == 0 && node->state != NODE_DIRTY) {
            check(node->state == NODE_CLEAN);
            status = life_release(&node->pointer, key.tree, key.space, key.level > 0 ? node->page : NULL);
        }
    }
    if (status != 0)
        return status;
    if (node->state != NODE_DIRTY) {
        node->block = 0;
        cache_set_state(node, NODE_DIRTY, cache_dirty(key.tree, key.level));
    }
    store.unsaved |= key.tree == TREE_META;
    *slot = pointer_placeholder(level);
    *out = node;
    return 0;
}

/* Puts new top nodes over the directory until it has a place for the space. */
static int grow_directory(enum tree_id id, uint64_t space) {
    struct tree *tree = &store.tree[id];
    while (tree->height == 0 || space >> (NODE_FANOUT_BITS * tree->height) != 0) {
        struct node *top;
        check(tree->height < DIRECTORY_HEIGHT_MAX);
        if (ptr_present(&tree->root)) {
            int status = cache_create((struct node_key){id, LEVEL_DIRECTORY + tree->height + 1, 0, 0}, &top);
            if (status != 0)
                return status;
            top->page->child[0] = tree->root;
            tree->root = pointer_placeholder(tree->height + 1);
        }
        tree->height++;
    }
    return 0;
}

/* The slot of a space's root pointer, its path dirty. */
int tree_space_slot(enum tree_id id, uint64_t space, struct block_ptr_disk **slot) {
    int status = grow_directory(id, space);
    *slot = &store.tree[id].root;
    for (unsigned level = store.tree[id].height; status == 0 && level > 0; level--) {
        struct node *node;
        status = make_dirty(directory_key(id, level, space), *slot, &node);
        if (status == 0)
            *slot = &node->page->child[slot_index(space >> (NODE_FANOUT_BITS * (level - 1)))];
    }
    return status;
}

static unsigned height_for(struct node_key key) {
    unsigned height = key.level;
    while (beyond(key, height))
        height++;
    return height;
}

/* Puts new top nodes over a space until its height suffices. */
static int grow_space(struct node_key key, struct block_ptr_disk *slot, unsigned needed) {
    for (unsigned height = ptr_level(slot); height < needed; height++) {
        struct node *top;
        int status = cache_create((struct node_key){key.tree, height + 1, key.space, 0}, &top);
        if (status != 0)
            return status;
        top->page->child[0] = *slot;
        *slot = pointer_placeholder(height + 1);
    }
    return 0;
}

/* The slot that holds the key's pointer; all above it is dirty. For keys inside a space. */
int tree_slot(struct node_key key, struct block_ptr_disk **slot) {
    unsigned needed = height_for(key);
    if (needed > SPACE_HEIGHT_MAX || key.space >= SPACE_COUNT_MAX)
        return -E_RANGE;
    int status = tree_space_slot(key.tree, key.space, slot);
    if (status == 0 && ptr_present(*slot))
        status = grow_space(key, *slot, needed);
    if (status != 0)
        return status;
    unsigned height = ptr_present(*slot) ? ptr_level(*slot) : needed;
    if (height > SPACE_HEIGHT_MAX)
        return -E_CORRUPT;
    for (unsigned level = height; level > key.level; level--) {
        unsigned shift = NODE_FANOUT_BITS * (level - key.level);
        struct node *node;
        status = make_dirty((struct node_key){key.tree, level, key.space, key.prefix >> shift}, *slot, &node);
        if (status != 0)
            return status;
        *slot = &node->page->child[slot_index(key.prefix >> (shift - NODE_FANOUT_BITS))];
    }
    return 0;
}

/* A page of the store's own, dirty. */
int tree_modify(struct node_key key, struct node **out) {
    struct block_ptr_disk *slot;
    *out = cache_find(key);
    if (*out != NULL && (*out)->state == NODE_DIRTY)
        return 0;
    int status = tree_slot(key, &slot);
    return status == 0 ? make_dirty(key, slot, out) : status;
}

/* The slot of a page below a node that is dirty already (so is all above it, then), or NULL. */
static struct block_ptr_disk *dirty_slot(struct node_key key) {
    struct node *parent = cache_find(parent_key(key));
    return parent != NULL && parent->state == NODE_DIRTY ? &parent->page->child[slot_index(key.prefix)] : NULL;
}

/* Sets the pointer of a page of the main tree; what it replaces dies or loses a count. */
int tree_set(struct page_key key, const struct block_ptr_disk *pointer) {
    struct node_key node_key = page_of(TREE_MAIN, key.space, key.page);
    struct block_ptr_disk old, *slot = dirty_slot(node_key);
    if (slot == NULL) { /* the way of the first page below a node */
        int status = tree_pointer(node_key, &old);
        if (status == 0 && (ptr_present(&old) || ptr_present(pointer)))
            status = tree_slot(node_key, &slot);
        if (status != 0 || slot == NULL)
            return status;
    }
    int status = life_release(slot, TREE_MAIN, key.space, NULL);
    if (status == 0)
        *slot = *pointer;
    return status;
}

/* The slot of a dirty node in its (dirty) parent. */
struct block_ptr_disk *tree_node_slot(const struct node *node) {
    struct node_key key = node->key;
    struct tree *tree = &store.tree[key.tree];
    struct node *parent;
    if (key.level > LEVEL_DIRECTORY) {
        if (key.level == LEVEL_DIRECTORY + tree->height)
            return &tree->root;
        parent = cache_find(parent_key(key));
    } else {
        struct node *directory = cache_find(directory_key(key.tree, 1, key.space));
        check(directory != NULL);
        struct block_ptr_disk *root = &directory->page->child[slot_index(key.space)];
        if (ptr_level(root) == key.level)
            return root;
        parent = cache_find(parent_key(key));
    }
    check(parent != NULL && parent->state == NODE_DIRTY);
    return &parent->page->child[slot_index(key.prefix)];
}

/* Takes dirty nodes that hold nothing out of the tree, bottom-up. */
void tree_prune(enum tree_id tree) {
    for (unsigned level = 0; level < LEVEL_COUNT; level++) {
        struct list_node *list = cache_dirty(tree, level);
        for (struct list_node *link = list->next, *next; link != list; link = next) {
            struct node *node = list_entry(link, struct node, link);
            next = link->next;
            if (!page_is_zero(node->page))
                continue;
            memset(tree_node_slot(node), 0, sizeof(struct block_ptr_disk));
            cache_forget(node);
        }
    }
}

int store_lookup(struct page_key key, struct block_ptr_disk *pointer, const void **key_out) {
    if (key.space >= SPACE_COUNT_MAX || key.page >> (NODE_FANOUT_BITS * SPACE_HEIGHT_MAX) != 0 ||
        key.space == SPACE_SHARES)
        return -E_RANGE;
    store.operation++;
    if (key.space > store.space_bound)
        store.space_bound = key.space;
    if (key.page > store.page_bound)
        store.page_bound = key.page;
    int status = tree_pointer(page_of(TREE_MAIN, clone_alias(key.space), key.page), pointer);
    if (status == 0 && ptr_present(pointer))
        status = pointer_check(pointer, 0);
    if (status == -E_AGAIN)
        *key_out = store.wait_key;
    return status;
}
