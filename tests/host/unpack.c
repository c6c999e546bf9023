/*
 * tests/host/unpack.c: kernel/lib/zstd.c under sanitizers, in buffers of exactly their size.
 *
 * Promise: for each frame on stdin (u32 length, bytes), in this order, a byte on stdout that says whether it gives a
 * page, and that page.
 * Used by: test_zstd.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "lib/zstd.c"

enum { PAGE_SIZE = 4096 };

int main(void) {
    for (uint32_t size; fread(&size, sizeof size, 1, stdin) == 1;) {
        uint8_t *frame = malloc(size), *page = calloc(1, PAGE_SIZE);
        if (size != 0 && fread(frame, size, 1, stdin) != 1)
            return 1;
        putchar(zstd_unpack(page, PAGE_SIZE, frame, size));
        fwrite(page, PAGE_SIZE, 1, stdout);
        free(frame);
        free(page);
    }
    return 0;
}
