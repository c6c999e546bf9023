/*
 * kernel/mm/space.c: page tables of programs. See space.h for the promise; Intel SDM vol. 3 §4.6 (access rights), §4.10
 * (caches).
 */
#include "mm/space.h"

#include "lib/error.h"
#include "lib/lib.h"
#include "mm/frame.h"

enum { TABLE_ENTRY_COUNT = 512, USER_ENTRY_COUNT = 256, BITMAP_WORD_COUNT = TABLE_ENTRY_COUNT / 64, TOP_LEVEL = 3 };

/* Bitmaps of 64 bytes, cut from frames; a free one holds the next in its first word. */
static uint64_t *bitmap_free_list;

static uint64_t *bitmap_alloc(void) {
    if (bitmap_free_list == NULL) {
        struct frame *frame = frame_alloc(FRAME_KERNEL, 0);
        if (frame == NULL)
            return NULL;
        uint64_t *bitmap = frame_data(frame);
        for (unsigned i = 0; i < FRAME_SIZE / 64; i++, bitmap += BITMAP_WORD_COUNT) {
            *bitmap = (uint64_t)bitmap_free_list;
            bitmap_free_list = bitmap;
        }
    }
    uint64_t *bitmap = bitmap_free_list;
    bitmap_free_list = (uint64_t *)*bitmap;
    memset(bitmap, 0, BITMAP_WORD_COUNT * sizeof *bitmap);
    return bitmap;
}

/* A zeroed table, or 0. */
static uint64_t table_alloc(void) {
    uint64_t *bitmap = bitmap_alloc();
    struct frame *frame = bitmap ? frame_alloc(FRAME_TABLE, 0) : NULL;
    if (frame == NULL) {
        if (bitmap != NULL) {
            *bitmap = (uint64_t)bitmap_free_list;
            bitmap_free_list = bitmap;
        }
        return 0;
    }
    frame->writable = bitmap;
    memset(frame_data(frame), 0, FRAME_SIZE);
    return frame_physical(frame);
}

static void table_free(uint64_t table) {
    struct frame *frame = frame_of(table);
    *frame->writable = (uint64_t)bitmap_free_list;
    bitmap_free_list = frame->writable;
    frame_free(frame);
}

static unsigned level_index(uint64_t address, unsigned level) {
    return (unsigned)(address >> (FRAME_SHIFT + 9 * level)) & (TABLE_ENTRY_COUNT - 1);
}

int space_init(struct space *space, uint64_t id) {
    *space = (struct space){.id = id, .root = table_alloc(), .hot_index = SPACE_HOT_NONE};
    if (space->root == 0)
        return -E_NOMEM;
    paging_kernel_half_copy(phys_to_virt(space->root));
    return 0;
}

const struct region_record *space_region(const struct space *space, uint64_t address) {
    for (uint32_t i = 0; i < space->region_count; i++)
        if (address >= space->region[i].start && address < space->region[i].end)
            return &space->region[i];
    return NULL;
}

uint64_t *space_entry(struct space *space, uint64_t address, int make) {
    check(address < USER_END);
    uint64_t table = space->root;
    for (unsigned level = TOP_LEVEL; level > 0; level--) {
        uint64_t *entry = (uint64_t *)phys_to_virt(table) + level_index(address, level);
        if (!(*entry & PTE_PRESENT)) {
            uint64_t lower = make ? table_alloc() : 0;
            if (lower == 0)
                return NULL;
            *entry = lower | PTE_PRESENT | PTE_USER;
        }
        table = *entry & PTE_ADDRESS;
    }
    return (uint64_t *)phys_to_virt(table) + level_index(address, 0);
}

/* Takes the write bit of every entry of a table that has one. */
static inline void table_protect(uint64_t table) {
    uint64_t *bitmap = frame_of(table)->writable;
    uint64_t *entry = phys_to_virt(table);
    for (unsigned word = 0; word < BITMAP_WORD_COUNT; word++, entry += 64) {
        for (uint64_t bits = bitmap[word]; bits != 0; bits &= bits - 1)
            entry[__builtin_ctzll(bits)] &= ~(uint64_t)PTE_WRITE;
        bitmap[word] = 0;
    }
}

void space_protect(struct space *space) {
    table_protect(space->root);
    space->hot_index = SPACE_HOT_NONE;
}

static inline void entry_allow(uint64_t table, unsigned index) {
    ((uint64_t *)phys_to_virt(table))[index] |= PTE_WRITE;
    frame_of(table)->writable[index / 64] |= 1ull << (index % 64);
}

/* Opens the path down to the leaf table, and remembers it. */
static void path_allow(struct space *space, uint64_t address) {
    uint64_t table = space->root;
    for (unsigned level = TOP_LEVEL; level > 0; level--) {
        unsigned index = level_index(address, level);
        uint64_t entry = ((uint64_t *)phys_to_virt(table))[index];
        uint64_t lower = entry & PTE_ADDRESS;
        if (!(entry & PTE_WRITE)) {
            table_protect(lower); /* what is set below is of an older epoch */
            entry_allow(table, index);
        }
        table = lower;
    }
    space->hot_index = address >> (FRAME_SHIFT + 9);
    space->hot_entries = phys_to_virt(table);
    space->hot_writable = frame_of(table)->writable;
}

void space_allow_write(struct space *space, uint64_t address) {
    uint64_t *entry = space_hot_entry(space, address);
    if (entry == NULL) {
        path_allow(space, address);
        entry = space_hot_entry(space, address);
    }
    unsigned index = level_index(address, 0);
    *entry |= PTE_WRITE;
    space->hot_writable[index / 64] |= 1ull << (index % 64);
    paging_invalidate(address); /* also drops the paging-structure entries that still say read-only (SDM §4.10.4.1) */
}

/* The first present entry of a table, or NULL. Of the top table only the program's half counts. */
static uint64_t *first_present(uint64_t table, unsigned level) {
    uint64_t *entry = phys_to_virt(table);
    for (unsigned i = 0; i < (level == TOP_LEVEL ? USER_ENTRY_COUNT : TABLE_ENTRY_COUNT); i++)
        if (entry[i] & PTE_PRESENT)
            return &entry[i];
    return NULL;
}

int space_take_down(struct space *space, void (*drop)(uint64_t *entry)) {
    uint64_t table = space->root, *above = &space->root, *entry;
    unsigned level = TOP_LEVEL;
    while (level > 0 && (entry = first_present(table, level)) != NULL) {
        above = entry;
        table = *entry & PTE_ADDRESS;
        level--;
    }
    uint64_t *leaf = phys_to_virt(table);
    for (unsigned i = 0; level == 0 && i < TABLE_ENTRY_COUNT; i++)
        if (leaf[i] & PTE_PRESENT)
            drop(&leaf[i]);
    *above = 0;
    table_free(table);
    return space->root != 0;
}
