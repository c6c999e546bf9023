/*
 * userland/include/limits.h: ranges of integer types.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_LIMITS_H
#define USERLAND_INCLUDE_LIMITS_H

#define CHAR_BIT 8
#define INT_MAX __INT_MAX__
#define INT_MIN (-INT_MAX - 1)
#define UINT_MAX (2u * INT_MAX + 1u)
#define LONG_MAX __LONG_MAX__
#define LONG_MIN (-LONG_MAX - 1L)
#define ULONG_MAX (2ul * LONG_MAX + 1ul)
#define SSIZE_MAX LONG_MAX
#define PATH_MAX 512

#endif
