/*
 * kernel/drivers/screen.c: VGA text mode 3 (screen.h), as SeaBIOS leaves it before it starts anything.
 *
 * Promise: a row more costs the cells of that row: the adapter's memory has room for eight screens, the first shown
 * cell walks through it, and only at its end all rows are copied to its begin. Each access is an exit under emulation:
 * what is drawn before the screen is revealed is drawn in RAM.
 * Called by: main.c, terminal.c. Context: interrupts off. Sources: IBM VGA registers, as in FreeVGA's reference.
 */
#include "drivers/screen.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

#define TEXT_PHYSICAL 0xb8000ull

enum {
    GRAPHICS_INDEX = 0x3ce,
    GRAPHICS_DATA = 0x3cf,
    GRAPHICS_MISCELLANEOUS = 6,
    MISCELLANEOUS_MASK = 0x0f,
    MISCELLANEOUS_TEXT = 0x0e, /* characters, not graphics; 32 KiB at TEXT_PHYSICAL */

    CRTC_INDEX = 0x3d4,
    CRTC_DATA = 0x3d5,
    CRTC_LAST_COLUMN = 0x01,
    CRTC_CURSOR_FIRST_LINE = 0x0a,
    CRTC_CURSOR_LAST_LINE = 0x0b,
    CRTC_START = 0x0c,  /* high byte; the low one follows */
    CRTC_CURSOR = 0x0e, /* the same */
    CURSOR_OFF = 0x20,
    CURSOR_FIRST_LINE = 13, /* of the sixteen of a cell */
    CURSOR_LAST_LINE = 14,

    MEMORY_SIZE = 0x8000,
    HIDDEN_CELL_COUNT = 2 * SCREEN_CELL_COUNT,
    BLANK = 0x0700 | ' ',
};

static uint16_t hidden[HIDDEN_CELL_COUNT];
static volatile uint16_t *memory; /* where is drawn; NULL: there is no screen */
static unsigned memory_cell_count;
static unsigned origin; /* cell of the memory that is at position 0 */
static struct shown {
    unsigned origin, cursor;
    int cursor_visible;
} shown; /* what the registers say */

static void put(uint8_t reg, unsigned value) {
    arch_outb(CRTC_INDEX, reg);
    arch_outb(CRTC_DATA, (uint8_t)value);
}

static void put_pair(uint8_t reg, unsigned value) {
    put(reg, value >> 8);
    put(reg + 1, value);
}

static int is_text_mode(void) {
    arch_outb(GRAPHICS_INDEX, GRAPHICS_MISCELLANEOUS);
    if ((arch_inb(GRAPHICS_DATA) & MISCELLANEOUS_MASK) != MISCELLANEOUS_TEXT)
        return 0;
    arch_outb(CRTC_INDEX, CRTC_LAST_COLUMN);
    return arch_inb(CRTC_DATA) == SCREEN_COLUMN_COUNT - 1;
}

static void set_registers(void) {
    put_pair(CRTC_START, shown.origin);
    put_pair(CRTC_CURSOR, shown.origin + shown.cursor);
    put(CRTC_CURSOR_FIRST_LINE, CURSOR_FIRST_LINE | (shown.cursor_visible ? 0 : CURSOR_OFF));
}

int screen_init(void) {
    if (!is_text_mode())
        return -E_NOENT;
    memory = hidden;
    memory_cell_count = HIDDEN_CELL_COUNT;
    screen_fill(0, SCREEN_CELL_COUNT, BLANK);
    shown.cursor_visible = 1;
    return 0;
}

void screen_reveal(void) {
    memory = mmio_map(TEXT_PHYSICAL, MEMORY_SIZE);
    memory_cell_count = MEMORY_SIZE / sizeof *memory;
    for (unsigned i = 0; i < SCREEN_CELL_COUNT; i++)
        memory[i] = hidden[origin + i];
    shown.origin = origin = 0;
    put(CRTC_CURSOR_LAST_LINE, CURSOR_LAST_LINE);
    set_registers();
}

int screen_exists(void) {
    return memory != NULL;
}

void screen_fill(unsigned position, unsigned count, uint16_t cell) {
    check(position <= SCREEN_CELL_COUNT && count <= SCREEN_CELL_COUNT - position);
    for (unsigned i = 0; i < count; i++)
        memory[origin + position + i] = cell;
}

void screen_scroll(uint16_t blank) {
    unsigned kept = SCREEN_CELL_COUNT - SCREEN_COLUMN_COUNT;
    origin += SCREEN_COLUMN_COUNT;
    if (origin + SCREEN_CELL_COUNT > memory_cell_count) {
        for (unsigned i = 0; i < kept; i++)
            memory[i] = memory[origin + i];
        origin = 0;
    }
    screen_fill(kept, SCREEN_COLUMN_COUNT, blank);
}

void screen_show(unsigned cursor_position, int cursor_visible) {
    struct shown now = {origin, cursor_position, cursor_visible};
    if (memcmp(&now, &shown, sizeof now) == 0)
        return;
    shown = now;
    if (memory != hidden)
        set_registers();
}
