/*
 * kernel/drivers/screen.h: the cells of a VGA in text mode, 25 rows of 80, and its cursor.
 *
 * Promise: where firmware has set no such mode up, or there is no VGA, nothing is found, and two ports were read for
 * it. Nothing of it is kept: each start finds an empty screen. A cell is a character of code page 437 and, above it,
 * its colours.
 * Called by: main.c (screen_init), terminal.c. Context: interrupts off. Positions are row * SCREEN_COLUMN_COUNT +
 * column.
 */
#ifndef DRIVERS_SCREEN_H
#define DRIVERS_SCREEN_H

#include <stdint.h>

enum { SCREEN_ROW_COUNT = 25, SCREEN_COLUMN_COUNT = 80, SCREEN_CELL_COUNT = SCREEN_ROW_COUNT * SCREEN_COLUMN_COUNT };

int screen_init(void);  /* an empty one, not to be seen yet; -E_NOENT: there is none */
void screen_reveal(void);
int screen_exists(void);
void screen_fill(unsigned position, unsigned count, uint16_t cell);
void screen_scroll(uint16_t blank); /* one row up; the last is filled with blanks */
void screen_show(unsigned cursor_position, int cursor_visible); /* after changes */

#endif
