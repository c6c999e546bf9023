/*
 * userland/include/errno.h: error numbers are MicroPython's own (py/mperrno.h); libm sets none.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_ERRNO_H
#define USERLAND_INCLUDE_ERRNO_H

extern int errno;

#define ERANGE 34

#endif
