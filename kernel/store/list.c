/*
 * kernel/store/list.c: dead and held lists while they grow: entries gather in pages; full ones go to disk during the
 * commit.
 *
 * Promise: list_add after a good list_prepare cannot fail and allocates no block, so deaths may happen anywhere;
 * blocks are chained oldest to newest, each with the hash of the one before.
 * Called by: life.c, retain.c, commit.c.
 */
#include "store/internal.h"

struct list_writer list_dead;

/* While in memory, a list block's `next` field links the pages and holds the block's own place. */
struct memory_link {
    struct list_block_disk *next;
    uint64_t block; /* 0: not settled */
};

static struct memory_link *link_of(struct list_block_disk *page) { return (struct memory_link *)(void *)&page->next; }

/* Makes room for one entry. */
int list_prepare(struct list_writer *writer) {
    if (writer->last != NULL && writer->last->count < LIST_ENTRY_COUNT_MAX)
        return 0;
    struct list_block_disk *page = cache_page_alloc();
    if (page == NULL)
        return -E_NOMEM;
    memset(page, 0, BLOCK_SIZE);
    if (writer->last != NULL)
        link_of(writer->last)->next = page;
    else
        writer->first = page;
    writer->last = page;
    return 0;
}

int list_add(struct list_writer *writer, uint64_t block, uint64_t birth) {
    int status = list_prepare(writer);
    if (status != 0)
        return status;
    writer->last->entry[writer->last->count++] = (struct list_entry_disk){block, birth};
    writer->count++;
    return 0;
}

/* Goes on with a block of its own that is on the disk and has room; the page is the writer's from now on. */
void list_resume(struct list_writer *writer, struct list_block_disk *page) {
    check(writer->first == NULL);
    writer->head = page->next;
    memset(&page->next, 0, sizeof page->next);
    writer->first = writer->last = page;
}

/* Writes the oldest page: it has its place. */
static void finish_first(struct list_writer *writer) {
    struct list_block_disk *page = writer->first;
    uint64_t block = link_of(page)->block;
    writer->first = link_of(page)->next;
    if (writer->first == NULL)
        writer->last = NULL;
    page->next = writer->head;
    writer->head = pointer_make(block, 0, commit_generation(), page);
    write_page(block, page, WRITE_FREE, NULL);
}

static int place(struct list_block_disk *page) {
    return link_of(page)->block != 0 ? 0 : alloc_block(&link_of(page)->block);
}

/* Writes one full page if there is one. */
int list_flush_full(struct list_writer *writer) {
    if (writer->first == NULL || writer->first == writer->last)
        return 0;
    if (!write_room())
        return -E_AGAIN;
    int status = place(writer->first);
    if (status != 0)
        return status;
    finish_first(writer);
    return 1;
}

/* Settles the place of one page that has none. */
int list_place(struct list_writer *writer) {
    for (struct list_block_disk *page = writer->first; page != NULL; page = link_of(page)->next) {
        if (link_of(page)->block != 0)
            continue;
        int status = place(page);
        return status != 0 ? status : 1;
    }
    return 0;
}

/* Forgets all that was added and not written. */
void list_drop(struct list_writer *writer) {
    for (struct list_block_disk *page = writer->first, *next; page != NULL; page = next) {
        next = link_of(page)->next;
        store.env->page_free(page);
    }
    memset(writer, 0, sizeof *writer);
}

/* Writes all that is left; every page has its place. */
int list_finish(struct list_writer *writer) {
    while (writer->first != NULL) {
        if (!write_room())
            return -E_AGAIN;
        finish_first(writer);
    }
    return 0;
}
