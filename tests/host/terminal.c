/*
 * tests/host/terminal.c: the kernel's terminal on the host, on a screen in memory.
 *
 * Reads bytes from stdin, gives them to the terminal in pieces as small as its UART's, and prints every cell, row by
 * row, as character and colours in hexadecimal; then the cursor's position and whether it is visible. Built and called
 * by: test_terminal.py.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/terminal.c"

enum { PIECE_SIZE = 16 };

static uint16_t cells[SCREEN_CELL_COUNT];
static unsigned cursor_position;
static int is_cursor_visible;

int screen_exists(void) {
    return 1;
}

void screen_fill(unsigned at, unsigned count, uint16_t cell) {
    if (at > SCREEN_CELL_COUNT || count > SCREEN_CELL_COUNT - at)
        abort();
    for (unsigned i = 0; i < count; i++)
        cells[at + i] = cell;
}

void screen_scroll(uint16_t cell) {
    memmove(cells, cells + SCREEN_COLUMN_COUNT, sizeof cells - SCREEN_COLUMN_COUNT * sizeof *cells);
    screen_fill(SCREEN_CELL_COUNT - SCREEN_COLUMN_COUNT, SCREEN_COLUMN_COUNT, cell);
}

void screen_show(unsigned at, int cursor_visible) {
    if (at >= SCREEN_CELL_COUNT)
        abort();
    cursor_position = at;
    is_cursor_visible = cursor_visible;
}

int main(void) {
    uint8_t piece[PIECE_SIZE];
    screen_fill(0, SCREEN_CELL_COUNT, 0x0720);
    for (size_t count; (count = fread(piece, 1, sizeof piece, stdin)) > 0;)
        terminal_write(piece, count);
    for (unsigned i = 0; i < SCREEN_CELL_COUNT; i++)
        printf("%02x%02x%s", cells[i] & 0xff, cells[i] >> 8, i % SCREEN_COLUMN_COUNT == LAST_COLUMN ? "\n" : "");
    printf("%u %d\n", cursor_position, is_cursor_visible);
    return 0;
}
