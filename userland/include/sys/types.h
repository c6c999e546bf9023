/*
 * userland/include/sys/types.h: ssize_t.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_SYS_TYPES_H
#define USERLAND_INCLUDE_SYS_TYPES_H

#include <stddef.h>

typedef long ssize_t;
typedef long off_t;

#endif
