/*
 * userland/include/alloca.h: memory on the stack.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_ALLOCA_H
#define USERLAND_INCLUDE_ALLOCA_H

#define alloca(size) __builtin_alloca(size)

#endif
