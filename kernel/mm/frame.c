/*
 * kernel/mm/frame.c: the frame array, the free list and the part of RAM that was never used yet.
 *
 * Frames above the watermark have never been given out and are not even initialised. See frame.h.
 */
#include "mm/frame.h"

#include "lib/lib.h"

enum { RANGE_COUNT_MAX = BOOT_RANGE_COUNT_MAX };

struct memory_range {
    uint64_t start, end;
};

static struct memory_range range[RANGE_COUNT_MAX]; /* page-aligned, ascending, disjoint */
static unsigned range_count;
static unsigned watermark_range;
static uint64_t watermark; /* next physical address never given out, inside range[watermark_range] */
static uint64_t memory_end;

struct frame *frame_array;
static struct list_node free_list = {&free_list, &free_list};
static uint64_t free_count, total_count, reserve_count;

static void range_add(uint64_t start, uint64_t end) {
    start = (start + FRAME_SIZE - 1) & ~(uint64_t)(FRAME_SIZE - 1);
    end &= ~(uint64_t)(FRAME_SIZE - 1);
    if (start >= end || range_count == RANGE_COUNT_MAX)
        return;
    unsigned i = range_count++;
    for (; i > 0 && range[i - 1].start > start; i--)
        range[i] = range[i - 1];
    range[i] = (struct memory_range){start, end};
}

/* Takes [start, end) out of all ranges; a range may fall in two. */
static void range_cut(uint64_t start, uint64_t end) {
    for (unsigned i = 0; i < range_count; i++) {
        struct memory_range r = range[i];
        if (r.end <= start || r.start >= end)
            continue;
        range[i].end = r.start < start ? start & ~(uint64_t)(FRAME_SIZE - 1) : r.start;
        if (r.end > end)
            range_add(end, r.end); /* lands behind i */
    }
}

/* A range may end inside of any before it. */
static void range_trim_overlaps(void) {
    uint64_t end = 0; /* of all before */
    for (unsigned i = 0; i < range_count; i++) {
        if (range[i].start < end)
            range[i].start = end < range[i].end ? end : range[i].end;
        end = range[i].end > end ? range[i].end : end;
    }
}

uint64_t frame_early_init(const struct boot_info *info, uint64_t kernel_end) {
    unsigned count = info->range_count <= BOOT_RANGE_COUNT_MAX ? info->range_count : BOOT_RANGE_COUNT_MAX;
    for (unsigned i = 0; i < count; i++)
        if (info->range[i].type == BOOT_RANGE_RAM && info->range[i].start + info->range[i].size > info->range[i].start)
            range_add(info->range[i].start, info->range[i].start + info->range[i].size);
    for (unsigned i = 0; i < count; i++)
        if (info->range[i].type != BOOT_RANGE_RAM)
            range_cut(info->range[i].start, info->range[i].start + info->range[i].size);
    range_cut(0, kernel_end); /* the first MiB belongs to the loader and the firmware, then comes the kernel */
    range_trim_overlaps();
    for (unsigned i = 0; i < range_count; i++) {
        total_count += (range[i].end - range[i].start) >> FRAME_SHIFT;
        memory_end = range[i].end > memory_end ? range[i].end : memory_end;
    }
    check(total_count > 0);
    free_count = total_count;
    watermark = range[0].start;
    return memory_end;
}

/* The next physical page never given out, or 0. */
static uint64_t watermark_take(void) {
    while (watermark >= range[watermark_range].end) {
        if (watermark_range + 1 >= range_count)
            return 0;
        watermark = range[++watermark_range].start;
    }
    uint64_t physical = watermark;
    watermark += FRAME_SIZE;
    free_count--;
    return physical;
}

uint64_t frame_early_alloc(void) {
    uint64_t physical = watermark_take();
    if (physical == 0 || physical >= 1ull << 32)
        panic("no memory below 4 GiB for the first page tables");
    memset((void *)physical, 0, FRAME_SIZE); /* the loader's identity map */
    return physical;
}

/* page_count physically contiguous pages never given out, or 0. Skips the rest of a range that is too small. */
static uint64_t watermark_take_run(uint64_t page_count) {
    for (;;) {
        uint64_t left = (range[watermark_range].end - watermark) >> FRAME_SHIFT;
        if (watermark < range[watermark_range].end && left >= page_count)
            break;
        if (watermark_range + 1 >= range_count)
            return 0;
        free_count -= watermark < range[watermark_range].end ? left : 0;
        watermark = range[++watermark_range].start;
    }
    uint64_t physical = watermark;
    watermark += page_count << FRAME_SHIFT;
    free_count -= page_count;
    return physical;
}

void frame_init(void) {
    uint64_t size = (memory_end >> FRAME_SHIFT) * sizeof(struct frame);
    uint64_t physical = watermark_take_run((size + FRAME_SIZE - 1) >> FRAME_SHIFT);
    if (physical == 0)
        panic("no memory for the frame array (%llu bytes)", (unsigned long long)size);
    frame_array = phys_to_virt(physical);
    reserve_count = free_count / 32;
    reserve_count = reserve_count < 256 ? 256 : reserve_count;
}

struct frame *frame_alloc(enum frame_kind kind, int urgent) {
    if (!urgent && free_count <= reserve_count)
        return NULL;
    struct frame *frame;
    if (!list_empty(&free_list)) {
        frame = list_entry(list_pop(&free_list), struct frame, link);
        free_count--;
    } else {
        uint64_t physical = watermark_take();
        if (physical == 0)
            return NULL;
        frame = frame_of(physical);
    }
    *frame = (struct frame){.kind = (uint8_t)kind};
    list_init(&frame->link);
    return frame;
}

void frame_free(struct frame *frame) {
    check(frame->kind != FRAME_FREE && !list_linked(&frame->link));
    frame->kind = FRAME_FREE;
    list_prepend(&free_list, &frame->link);
    free_count++;
}

void frame_free_all(struct list_node *list, uint64_t count) {
    list_append_all(&free_list, list);
    free_count += count;
}

void *frame_alloc_contiguous(unsigned page_count) {
    uint64_t physical = watermark_take_run(page_count);
    if (physical == 0)
        return NULL;
    memset(phys_to_virt(physical), 0, (size_t)page_count << FRAME_SHIFT);
    return phys_to_virt(physical);
}

uint64_t frame_count_total(void) { return total_count; }
uint64_t frame_count_free(void) { return free_count; }
uint64_t frame_end_used(void) { return watermark >> FRAME_SHIFT; }
