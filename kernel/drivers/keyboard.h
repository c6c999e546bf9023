/*
 * kernel/drivers/keyboard.h: a PS/2 keyboard as a second source of the console's input.
 *
 * Promise: keys become the bytes that a terminal would send, US layout, none dropped while the sink takes them. What is
 * held down is forgotten at a start. Called by: main.c. Context: interrupts off.
 */
#ifndef DRIVERS_KEYBOARD_H
#define DRIVERS_KEYBOARD_H

#include "drivers/console.h"

int keyboard_init(const struct console_sink *sink); /* -E_NOENT: there is none */
void keyboard_input_room(void);                     /* the sink has room again */

#endif
