/*
 * kernel/store/root.c: a root record becomes the state in memory.
 *
 * Promise: what a commit that is undone has changed is as the root says again (root_restore); nothing is written.
 * Called by: open.c, adopt.c; commit.c (root_restore).
 */
#include "store/internal.h"

/* What a commit changes in memory, as the root says it. */
void root_restore(const struct root_disk *root) {
    store.tree[TREE_MAIN] = (struct tree){root->tree, root->tree_height};
    store.tree[TREE_META] = (struct tree){root->meta, root->meta_height};
    store.boot[BOOT_KERNEL] = root->kernel;
    store.boot[BOOT_LOADER] = root->loader;
    store.boot[BOOT_RESUME] = root->resume;
    store.boot_size[BOOT_KERNEL] = root->kernel_size;
    store.boot_size[BOOT_LOADER] = root->loader_size;
    store.boot_size[BOOT_RESUME] = root->resume_list_size;
    store.boot[BOOT_STORES] = root->stores;
    store.boot[BOOT_STORES_COPY] = root->stores_copy;
    store.free_count = root->free_count;
    if (store.header.block_count > root->block_count) /* it has been grown */
        store.free_count += store.header.block_count - root->block_count;
}

void root_take(const struct root_disk *root) {
    cache_init();
    retain_forget();
    store.root = *root;
    root_restore(root);
    store.alloc_next = root->alloc_next;
    store.complete = (root->flags & ROOT_COMPLETE) != 0;
    store.retention = (struct store_retention){root->retain_wanted != 0 ? root->retain_wanted : root->retain_count,
                                               root->retain_hourly, root->retain_daily};
}

/* Reads the top node of a tree, so that a root is known to lead somewhere. */
int root_verify_top(enum tree_id tree) {
    struct node *node;
    struct node_key key = {tree, LEVEL_DIRECTORY + store.tree[tree].height, 0, 0};
    if (store.tree[tree].height == 0 || !ptr_present(&store.tree[tree].root))
        return 0;
    for (;;) {
        store.operation++;
        int status = tree_read(key, &node);
        if (status != -E_AGAIN)
            return status;
        store.env->poll();
        fetch_hedge();
        fetch_pump();
    }
}

static int read_table_at(unsigned disk, const struct block_ptr_disk *pointer, struct store_entry_disk *table) {
    if (!ptr_present(pointer))
        return 0;
    struct store_entry_disk *page = store.env->page_alloc(0);
    if (page == NULL)
        return -E_NOMEM;
    int status = ptr_store(pointer) == 0 ? sync_run(STORE_READ, disk, ptr_block(pointer), page) : -E_CORRUPT;
    if (status == 0 && !hash_matches(pointer, page))
        status = -E_CORRUPT;
    if (status == 0)
        memcpy(table, page, BLOCK_SIZE);
    store.env->page_free(page);
    return status;
}

/* Reads a table of stores from a disk, or its copy. One that lacks its copy, or is damaged, is written anew. */
int root_read_table(unsigned disk, const struct root_disk *root, struct store_entry_disk *table) {
    int status = read_table_at(disk, &root->stores, table);
    int has_copy = ptr_present(&root->stores_copy);
    store.far_changed = ptr_present(&root->stores) && (status != 0 || !has_copy);
    if (status == 0 || ptr_store(&root->stores) != 0 || !has_copy)
        return status;
    if (read_table_at(disk, &root->stores_copy, table) != 0)
        return status;
    store_notice("%s: its table of stores is damaged: the copy is taken", view_disk_name(disk));
    return 0;
}
