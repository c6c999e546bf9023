/*
 * userland/layout.h: where the program's regions lie (kernel/README.md, "Memory map").
 *
 * Promise: only addresses. The image builder makes regions of exactly these; micropython.ld has the program's own.
 * Used by: main.c, heap.c, exec.c, files.c.
 */
#ifndef USERLAND_LAYOUT_H
#define USERLAND_LAYOUT_H

#define LAYOUT_EXEC_START   0x0000a00000ul
#define LAYOUT_EXEC_END     0x0000e00000ul
#define LAYOUT_STACK_START  0x0000e01000ul /* below it: the guard page */
#define LAYOUT_STACK_END    0x0001000000ul
#define LAYOUT_FILES_START  0x0001000000ul
#define LAYOUT_FILES_END    0x0003000000ul
#define LAYOUT_HEAP_START   0x0003000000ul
#define LAYOUT_HEAP_END     0x0103000000ul
#define LAYOUT_PAGE_SIZE    4096ul

#endif
