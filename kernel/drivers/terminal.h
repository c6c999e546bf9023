/*
 * kernel/drivers/terminal.h: what a stream of bytes looks like on the screen.
 *
 * Promise: any bytes are safe, they come from programs. UTF-8; the control bytes and ANSI sequences of README.md's
 * "The window"; others are passed over. Without a screen a call returns at once.
 * Called by: console.c with each byte that it sends; main.c after a start with those that were sent before.
 * Context: interrupts off.
 */
#ifndef DRIVERS_TERMINAL_H
#define DRIVERS_TERMINAL_H

#include <stddef.h>
#include <stdint.h>

void terminal_write(const uint8_t *bytes, size_t count);

#endif
