/*
 * userland/include/stdio.h: names that headers mention; printf is MicroPython's.
 *
 * Promise: only what this program calls (include/README.md).
 * Included by: MicroPython and its libraries.
 */
#ifndef USERLAND_INCLUDE_STDIO_H
#define USERLAND_INCLUDE_STDIO_H

#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

int printf(const char *format, ...);
int snprintf(char *to, size_t size, const char *format, ...);
int vsnprintf(char *to, size_t size, const char *format, va_list args);

#endif
