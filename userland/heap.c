/*
 * userland/heap.c: where the garbage collector's areas lie, and when the heap grows.
 *
 * Promise: starts with 512 KiB; after a collection that leaves more than half in use, of the first area alone an
 * eighth, an area as large as all others together is added (pages that are never touched cost nothing); empty areas are
 * given back to the kernel. A small program so dirties few pages, and a large one does not collect again and again. It
 * never grows beyond its limit, nor by more than half of the disk's free space: a program that runs away gets a
 * MemoryError, not a full disk. Stacks of threads lie between the areas and count as they do.
 * Called by: py/gc.c, collect.c, main.c, modrevenant.c, thread.c.
 */
#include <string.h>

#include "py/gc.h"
#include "py/mphal.h"
#include "py/misc.h"

#include "heap.h"
#include "layout.h"
#include "syscall.h"
#include "thread.h"

#define HEAP_FIRST_SIZE (512 * 1024ul)

size_t port_heap_limit = LAYOUT_HEAP_END - LAYOUT_HEAP_START;
static uintptr_t heap_end = LAYOUT_HEAP_END; /* of the region, as the process was made */

size_t port_heap_size(size_t page_count) {
    return page_count == 0 ? LAYOUT_HEAP_END - LAYOUT_HEAP_START : page_count * LAYOUT_PAGE_SIZE;
}

size_t port_heap_end_set(size_t page_count) {
    heap_end = LAYOUT_HEAP_START + port_heap_size(page_count);
    return heap_end - LAYOUT_HEAP_START;
}

static uintptr_t page_round_up(uintptr_t address) {
    return (address + LAYOUT_PAGE_SIZE - 1) & ~(LAYOUT_PAGE_SIZE - 1);
}

static uintptr_t area_end(const mp_state_mem_area_t *area) {
    return page_round_up((uintptr_t)area->gc_pool_end);
}

/* Later areas begin with their own header; the first one has it in mp_state_ctx. */
static uintptr_t area_start(const mp_state_mem_area_t *area) {
    return area == &MP_STATE_MEM(area) ? LAYOUT_HEAP_START : (uintptr_t)area;
}

/* Of threads; the main one is left out, whose stack has a region of its own. */
static const struct port_thread *next_stack(const struct port_thread *thread) {
    return thread->next == &port_main_thread ? NULL : thread->next;
}

static uintptr_t stack_start(const struct port_thread *thread) {
    return (uintptr_t)thread->memory;
}

static uintptr_t stack_end(const struct port_thread *thread) {
    return stack_start(thread) + thread->memory_size;
}

static const struct port_thread *first_stack(void) {
    return next_stack(&port_main_thread);
}

/* How much is free from an address up to the next area or stack; 0 inside of one. */
static size_t gap_size(uintptr_t address) {
    uintptr_t end = heap_end;
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        if (area_end(area) > address && area_start(area) < end) {
            end = area_start(area);
        }
    }
    for (const struct port_thread *thread = first_stack(); thread != NULL; thread = next_stack(thread)) {
        if (stack_end(thread) > address && stack_start(thread) < end) {
            end = stack_start(thread);
        }
    }
    return end > address ? end - address : 0;
}

void *port_heap_alloc(size_t size) {
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        if (gap_size(area_end(area)) >= size) {
            return (void *)area_end(area);
        }
    }
    for (const struct port_thread *thread = first_stack(); thread != NULL; thread = next_stack(thread)) {
        if (gap_size(stack_end(thread)) >= size) {
            return (void *)stack_end(thread);
        }
    }
    return NULL;
}

/* Areas that the collection under way takes for empty; whether they go is decided when it is over. */
static mp_state_mem_area_t *released;

void port_heap_free(void *area) {
    ((mp_state_mem_area_t *)area)->next = released;
    released = area;
}

static void areas_discard(mp_state_mem_area_t *area) {
    while (area != NULL) {
        mp_state_mem_area_t *next = area->next;
        sys_discard(area, area_end(area) - (uintptr_t)area);
        area = next;
    }
}

static size_t disk_free_half(void) {
    struct machine_stats stats;
    if (sys_stats(&stats) != sizeof stats) {
        return 0;
    }
    return stats.near_blocks_free / 2 * LAYOUT_PAGE_SIZE;
}

size_t gc_get_max_new_split(void) {
    size_t size_max = 0, size_all = 0;
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        size_max = MAX(size_max, gap_size(area_end(area)));
        size_all += area_end(area) - area_start(area);
    }
    for (const struct port_thread *thread = first_stack(); thread != NULL; thread = next_stack(thread)) {
        size_max = MAX(size_max, gap_size(stack_end(thread)));
        size_all += thread->memory_size;
    }
    size_t size_left = port_heap_limit > size_all ? port_heap_limit - size_all : 0;
    return MIN(size_max, MIN(size_left, disk_free_half()));
}

void port_heap_init(void) {
    areas_discard(MP_STATE_MEM(area).next);
    areas_discard(released);
    released = NULL;
    sys_discard((void *)LAYOUT_HEAP_START, HEAP_FIRST_SIZE);
    gc_init((void *)LAYOUT_HEAP_START, (void *)(LAYOUT_HEAP_START + HEAP_FIRST_SIZE));
    port_collect_init();
}

static size_t heap_block_count(void) {
    size_t count = 0;
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        count += area->gc_alloc_table_byte_len * 4;
    }
    return count;
}

/* More than half is in use; of the first area alone an eighth: a mark costs more there than the pages of a second
 * one. */
static bool heap_is_full(size_t used_count) {
    size_t block_count = heap_block_count();
    return used_count > block_count / (MP_STATE_MEM(area).next == NULL ? 8 : 2);
}

static void heap_append(mp_state_mem_area_t *area) {
    mp_state_mem_area_t *last = &MP_STATE_MEM(area);
    while (last->next != NULL) {
        last = last->next;
    }
    last->next = area;
    area->next = NULL;
    area->gc_last_free_atb_index = 0;
}

/*
 * gc.c takes an area for empty, too, when its first block is all that lives there: that one stays. And one that would
 * be added anew at once stays as it is, for a new one dirties its tables, a page for each 86 of its own.
 */
static void released_settle(size_t used_count) {
    while (released != NULL) {
        mp_state_mem_area_t *area = released;
        released = area->next;
        area->next = NULL;
        bool in_use = port_area_used_count(area) > 0;
        if (in_use || (heap_is_full(used_count) && area_end(area) - area_start(area) <= gc_get_max_new_split())) {
            heap_append(area);
        } else {
            areas_discard(area);
        }
    }
}

static void heap_grow_if_full(size_t used_count) {
    if (!heap_is_full(used_count)) {
        return;
    }
    size_t size = page_round_up(heap_block_count() * MICROPY_BYTES_PER_GC_BLOCK);
    char *start = size <= gc_get_max_new_split() ? port_heap_alloc(size) : NULL;
    if (start != NULL) {
        gc_add(start, start + size);
    }
}

void *port_stack_alloc(size_t *size) {
    *size = page_round_up(*size);
    return *size <= gc_get_max_new_split() ? port_heap_alloc(*size) : NULL;
}

void port_heap_settle(size_t used_count) {
    released_settle(used_count);
    heap_grow_if_full(used_count);
}
