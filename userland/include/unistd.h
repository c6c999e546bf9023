/*
 * userland/include/unistd.h: ssize_t, and where to seek from.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_UNISTD_H
#define USERLAND_INCLUDE_UNISTD_H

#include <sys/types.h>

#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2

#endif
