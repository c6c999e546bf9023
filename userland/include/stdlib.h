/*
 * userland/include/stdlib.h: abort.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_STDLIB_H
#define USERLAND_INCLUDE_STDLIB_H

#include <stddef.h>

void abort(void) __attribute__((noreturn));
#define abs(x) __builtin_abs(x)

#endif
