/*
 * userland/collect.c: when garbage is collected, and what follows the marking, which is py/gc.c's.
 *
 * Promise: a collection frees what py/gc.c would free, 32 blocks at a time instead of one. A program that keeps little
 * collects early and fills the same few pages again and again, for each page that it has written is hashed and saved by
 * the next snapshot. What a program has given gc.threshold() goes before that, and is what gc.threshold() tells.
 * Called by: py/gc.c, heap.c, py/modgc.c (its calls of mp_obj_get_int and mp_obj_new_int come here: micropython.mk).
 */
#include <string.h>

#include "py/gc.h"
#include "py/mpstate.h"
#include "py/obj.h"
#include "shared/runtime/gchelper.h"

#include "heap.h"
#include "thread.h"

#define BLOCKS_PER_KIB (1024 / MICROPY_BYTES_PER_GC_BLOCK)
#define EARLY_COUNT (128 * BLOCKS_PER_KIB)   /* allocated since the last collection, besides as much as lives */
#define EARLY_USED_MAX (64 * BLOCKS_PER_KIB) /* more takes longer to mark than the pages to save */
#define RUN_COUNT (16 * BLOCKS_PER_KIB)      /* free in a row: where an early collection lets the allocator begin */
#define NEVER SIZE_MAX

/* --- when --- */

static bool threshold_is_given;

static void threshold_set(size_t used_count) {
    if (!threshold_is_given) {
        MP_STATE_MEM(gc_alloc_threshold) = used_count <= EARLY_USED_MAX ? EARLY_COUNT + used_count : NEVER;
    }
}

void port_collect_init(void) {
    threshold_is_given = false;
    threshold_set(0);
}

mp_int_t port_threshold_given(mp_const_obj_t bytes) {
    mp_int_t value = mp_obj_get_int(bytes);
    threshold_is_given = value >= 0;
    return value;
}

mp_obj_t port_threshold_told(mp_int_t bytes) {
    return mp_obj_new_int(threshold_is_given ? bytes : -1);
}

/* --- an allocation table's entries: 0 free, 1 head, 2 tail, 3 marked head; 32 are looked at together --- */

#define LOW_BITS 0x5555555555555555ull
#define ENTRIES_PER_BYTE 4

/* How many are not 0. Without a call, for it is done at each collection. */
static unsigned int entries_used_count(uint64_t entries) {
    uint64_t used = (entries | entries >> 1) & LOW_BITS;
    used = (used & 0x3333333333333333ull) + (used >> 2 & 0x3333333333333333ull);
    used = (used + (used >> 4)) & 0x0f0f0f0f0f0f0f0full;
    return used * 0x0101010101010101ull >> 56;
}

/* The bytes of the table up to the last that is in use. */
static size_t table_size(const mp_state_mem_area_t *area) {
    return MIN(area->gc_last_used_block / ENTRIES_PER_BYTE + 1, area->gc_alloc_table_byte_len);
}

/* Of a table of so many bytes, from byte i on. */
static uint64_t entries_load(const byte *table, size_t i, size_t size) {
    uint64_t entries = 0;
    if (size - i >= sizeof entries) {
        memcpy(&entries, table + i, sizeof entries);
    } else {
        memcpy(&entries, table + i, size - i);
    }
    return entries;
}

static void entries_store(byte *table, size_t i, size_t size, uint64_t entries) {
    if (size - i >= sizeof entries) {
        memcpy(table + i, &entries, sizeof entries);
    } else {
        memcpy(table + i, &entries, size - i);
    }
}

size_t port_area_used_count(const mp_state_mem_area_t *area) {
    size_t count = 0, size = table_size(area);
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        count += entries_used_count(entries_load(area->gc_alloc_table_start, i, size));
    }
    return count;
}

/* --- what is not marked goes --- */

struct sweep {
    size_t freed_count; /* objects */
    size_t used_count;  /* blocks */
    uint64_t in_dead;   /* 1: the object that the entries before end in was not marked */
};

/*
 * Heads become free, and the tails behind them; marked ones become heads. An addition runs through the tails of a dead
 * head: each tail is 3 there and all else 0, so that the carry of a 1 put into the first one leaves 0 in each, and
 * stops in the entry behind the last.
 */
static uint64_t entries_swept(uint64_t entries, struct sweep *sweep) {
    if (entries == 0) {
        sweep->in_dead = 0;
        return 0;
    }
    uint64_t low = entries & LOW_BITS, high = entries >> 1 & LOW_BITS;
    uint64_t head = low & ~high, tail = high & ~low, marked = low & high;
    uint64_t tails = tail * 3, sum = tails + ((head << 2 | sweep->in_dead) & tail);
    sweep->in_dead = sum < tails || head >> 62;
    sweep->freed_count += entries_used_count(head);
    return entries & ~(head | marked << 1 | (tails & ~sum));
}

/* Returns the first of RUN_COUNT free blocks in a row, or the area's end. What does not change is not written. */
static size_t area_sweep(mp_state_mem_area_t *area, struct sweep *sweep) {
    byte *table = area->gc_alloc_table_start;
    size_t size = table_size(area), end = area->gc_alloc_table_byte_len * ENTRIES_PER_BYTE, free_start = 0, run = end;
    sweep->in_dead = 0;
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t entries = entries_load(table, i, size), left = entries_swept(entries, sweep);
        if (left != entries) {
            entries_store(table, i, size, left);
        }
        if (left == 0) {
            continue;
        }
        sweep->used_count += entries_used_count(left);
        if (run == end && i * ENTRIES_PER_BYTE + __builtin_ctzll(left) / 2 >= free_start + RUN_COUNT) {
            run = free_start;
        }
        free_start = i * ENTRIES_PER_BYTE + (63 - __builtin_clzll(left)) / 2 + 1;
    }
    area->gc_last_used_block = free_start > 0 ? free_start - 1 : 0;
    return run == end && end - free_start >= RUN_COUNT ? free_start : run;
}

/* Whether one of these blocks, for which 1 is set, is the head of an object that was not marked. */
static bool is_any_dead(const byte *table, size_t block, uint64_t flags) {
    for (; flags != 0; flags &= flags - 1) {
        size_t i = block + __builtin_ctzll(flags);
        if ((table[i / ENTRIES_PER_BYTE] >> i % ENTRIES_PER_BYTE * 2 & 3) == 1) {
            return true;
        }
    }
    return false;
}

/* Whether a finaliser may have to run. */
static bool has_final(const mp_state_mem_area_t *area) {
    size_t size = area->gc_last_used_block / 8 + 1;
    bool has = false;
    for (size_t i = 0; i < size && !has; i += sizeof(uint64_t)) {
        has = is_any_dead(area->gc_alloc_table_start, i * 8, entries_load(area->gc_finaliser_table_start, i, size));
    }
    return has;
}

static bool can_sweep(void) {
    bool can = !MP_STATE_MEM(gc_stack_overflow);
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); can && area != NULL; area = area->next) {
        can = !has_final(area);
    }
    return can;
}

static void areas_sweep(struct sweep *sweep) {
    mp_state_mem_area_t *before = NULL;
    for (mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = before->next) {
        area->gc_last_free_atb_index = area_sweep(area, sweep) / ENTRIES_PER_BYTE;
        if (area->gc_last_used_block == 0 && before != NULL) {
            before->next = area->next;
            port_heap_free(area);
        } else {
            before = area;
        }
    }
}

/*
 * Where the allocator begins to look. After an early collection, behind shorter runs: it would go over all that lies
 * between them at each allocation of several blocks, until they are filled. What finds no place then would have found
 * none in them; and the next collection that comes because nothing is free opens them.
 */
static void search_from_runs(bool is_early) {
    mp_state_mem_area_t *area = &MP_STATE_MEM(area);
    while (is_early && area != NULL && area->gc_last_free_atb_index == area->gc_alloc_table_byte_len) {
        area = area->next;
    }
    MP_STATE_MEM(gc_last_free_area) = is_early && area != NULL ? area : &MP_STATE_MEM(area);
    if (is_early && area != NULL) {
        return;
    }
    for (area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        area->gc_last_free_atb_index = 0;
    }
}

/* What gc_collect_end does, where no mark is missing and no finaliser has to run. */
static size_t sweep_end(bool is_early) {
    struct sweep sweep = {0};
    areas_sweep(&sweep);
    search_from_runs(is_early);
    MP_STATE_MEM(gc_collected) = sweep.freed_count;
    MP_STATE_THREAD(gc_lock_depth) &= ~GC_COLLECT_FLAG;
    mp_thread_recursive_mutex_unlock(&MP_STATE_MEM(gc_mutex));
    return sweep.used_count;
}

static size_t collect_end(void) {
    gc_collect_end();
    size_t count = 0;
    for (const mp_state_mem_area_t *area = &MP_STATE_MEM(area); area != NULL; area = area->next) {
        count += port_area_used_count(area);
    }
    return count;
}

void gc_collect(void) {
    bool is_early = MP_STATE_MEM(gc_alloc_amount) >= MP_STATE_MEM(gc_alloc_threshold);
    gc_collect_start();
    gc_helper_collect_regs_and_stack();
    port_threads_collect();
    size_t used_count = can_sweep() ? sweep_end(is_early) : collect_end();
    port_heap_settle(used_count);
    threshold_set(used_count);
}
