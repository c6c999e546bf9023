/*
 * userland/include/inttypes.h: formats of fixed-width integers.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_INTTYPES_H
#define USERLAND_INCLUDE_INTTYPES_H

#include <stdint.h>

#define PRId32 "d"
#define PRIu32 "u"
#define PRIx32 "x"
#define PRIu64 "lu"

#endif
