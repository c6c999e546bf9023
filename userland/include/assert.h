/*
 * userland/include/assert.h: assertions; off, as in every release of MicroPython.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_ASSERT_H
#define USERLAND_INCLUDE_ASSERT_H

#define assert(condition) ((void)0)

#endif
