/*
 * tests/host/frames.c: the kernel's frame allocator on the host, without a direct map: which pages a memory map leaves.
 *
 * Reads lines "start size type" of a firmware's memory map; prints how many frames are free, then each that is given
 * out. Built and called by: test_frames.py. kernel/mm/frame.c is included, so that the pages can be had without being
 * touched.
 */
#include <stdio.h>
#include <stdlib.h>

#include "mm/frame.c"

enum { KERNEL_END = 0x10000 };

void panic(const char *template, ...) {
    fprintf(stderr, "panic: %s\n", template);
    exit(1);
}

int main(void) {
    static struct boot_info info;
    unsigned long long start, size, physical;
    unsigned type;
    while (info.range_count < BOOT_RANGE_COUNT_MAX && scanf("%llx %llx %u", &start, &size, &type) == 3)
        info.range[info.range_count++] = (struct boot_range){.start = start, .size = size, .type = type};
    frame_early_init(&info, KERNEL_END);
    printf("%llx\n", (unsigned long long)frame_count_free());
    while ((physical = watermark_take()) != 0)
        printf("%llx\n", physical);
    return 0;
}
