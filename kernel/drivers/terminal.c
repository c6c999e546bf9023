/*
 * kernel/drivers/terminal.c: a terminal of the xterm kind, as far as programs at a prompt need it (terminal.h).
 *
 * Promise: any bytes leave row, column and sequence in their bounds. A character in the last column keeps the cursor
 * there until another comes (deferred wrap). What is erased gets the background of the moment.
 * Called by: console.c, main.c. Context: interrupts off. Sources: ECMA-48, xterm's ctlseqs.
 */
#include "drivers/terminal.h"

#include "drivers/screen.h"
#include "lib/lib.h"

enum {
    LAST_ROW = SCREEN_ROW_COUNT - 1,
    LAST_COLUMN = SCREEN_COLUMN_COUNT - 1,
    TAB_SIZE = 8,
    ESCAPE = 0x1b,
    BELL = 0x07,
    ARGUMENT_COUNT_MAX = 8,
    ARGUMENT_MAX = 9999,
    FOREGROUND = 7, /* of ANSI's colours */
    BACKGROUND = 0,
    BRIGHT = 8,
};

enum state {
    TEXT,
    ESCAPED,  /* behind ESC */
    SEQUENCE, /* behind ESC [ */
    STRING,   /* a title or the like, up to BEL or ESC */
};

static struct terminal {
    unsigned row, column;
    uint8_t wraps; /* the last column is written: the next character goes to the next row */
    uint8_t cursor_hidden;
    uint8_t foreground, background, bold, reverse;

    uint8_t state; /* enum state */
    uint8_t is_private; /* ESC [ ? */
    uint8_t is_unknown; /* has something that we do not know: passed over to its end */
    unsigned argument_count;
    unsigned argument[ARGUMENT_COUNT_MAX];

    uint32_t code; /* of UTF-8, so far */
    unsigned code_missing; /* bytes that belong to it and have not come */
} terminal = {.foreground = FOREGROUND, .background = BACKGROUND};

/* Upper half of code page 437. */
static const uint16_t code_page[128] = {
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec,
    0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2,
    0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310,
    0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556,
    0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c,
    0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df,
    0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229,
    0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2,
    0x25a0, 0x00a0,
};

static unsigned smaller(unsigned a, unsigned b) {
    return a < b ? a : b;
}

/* --- cells --- */

/* VGA counts blue, green, red from the lowest bit; ANSI red, green, blue. */
static unsigned vga_colour(unsigned ansi) {
    return (ansi & (BRIGHT | 2)) | (ansi & 1) << 2 | (ansi >> 2 & 1);
}

static uint16_t cell_of(uint8_t character) {
    unsigned front = vga_colour(terminal.foreground | (terminal.bold ? BRIGHT : 0));
    unsigned back = vga_colour(terminal.background);
    unsigned colours = terminal.reverse ? back | (front & 7) << 4 : front | back << 4;
    return (uint16_t)(colours << 8 | character);
}

static uint16_t blank(void) {
    return (uint16_t)((vga_colour(terminal.background) << 4 | FOREGROUND) << 8 | ' ');
}

static unsigned position(void) {
    return terminal.row * SCREEN_COLUMN_COUNT + terminal.column;
}

static void move(unsigned row, unsigned column) {
    terminal.row = smaller(row, LAST_ROW);
    terminal.column = smaller(column, LAST_COLUMN);
    terminal.wraps = 0;
}

static void next_row(void) {
    terminal.wraps = 0;
    if (terminal.row < LAST_ROW)
        terminal.row++;
    else
        screen_scroll(blank());
}

static void put(uint8_t character) {
    if (terminal.wraps) {
        terminal.column = 0;
        next_row();
    }
    screen_fill(position(), 1, cell_of(character));
    if (terminal.column < LAST_COLUMN)
        terminal.column++;
    else
        terminal.wraps = 1;
}

/* --- sequences --- */

/* The argument, or what stands for none; 0 is none, too. */
static unsigned argument(unsigned index, unsigned missing) {
    unsigned value = index < terminal.argument_count ? terminal.argument[index] : 0;
    return value > 0 ? value : missing;
}

/* Part 0: from the cursor to the end; 1: from the begin to the cursor; 2: all of what begins at `first`. */
static void erase(unsigned part, unsigned first, unsigned count) {
    unsigned at = position();
    if (part == 0)
        screen_fill(at, first + count - at, blank());
    else if (part == 1)
        screen_fill(first, at + 1 - first, blank());
    else if (part == 2)
        screen_fill(first, count, blank());
}

static void set_colour(unsigned code) {
    if (code == 0) {
        terminal.foreground = FOREGROUND;
        terminal.background = BACKGROUND;
        terminal.bold = terminal.reverse = 0;
    } else if (code == 1 || code == 22)
        terminal.bold = code == 1;
    else if (code == 7 || code == 27)
        terminal.reverse = code == 7;
    else if (code >= 30 && code <= 37)
        terminal.foreground = (uint8_t)(code - 30);
    else if (code == 39)
        terminal.foreground = FOREGROUND;
    else if (code >= 40 && code <= 47)
        terminal.background = (uint8_t)(code - 40);
    else if (code == 49)
        terminal.background = BACKGROUND;
    else if (code >= 90 && code <= 97)
        terminal.foreground = (uint8_t)(code - 90) | BRIGHT;
    else if (code >= 100 && code <= 107)
        terminal.background = (uint8_t)(code - 100); /* a bright one would blink */
}

static void set_colours(void) {
    if (terminal.argument_count == 0)
        set_colour(0);
    for (unsigned i = 0; i < terminal.argument_count; i++) {
        unsigned code = terminal.argument[i];
        if (code == 38 || code == 48)
            return; /* one of 256 colours or more: what follows belongs to it */
        set_colour(code);
    }
}

static void finish_sequence(uint8_t final) {
    unsigned row = terminal.row, column = terminal.column, distance = argument(0, 1);
    switch (final) {
    case 'A':
        move(row > distance ? row - distance : 0, column);
        break;
    case 'B':
        move(row + distance, column);
        break;
    case 'C':
        move(row, column + distance);
        break;
    case 'D':
        move(row, column > distance ? column - distance : 0);
        break;
    case 'G':
        move(row, distance - 1);
        break;
    case 'H':
    case 'f':
        move(distance - 1, argument(1, 1) - 1);
        break;
    case 'J':
        erase(argument(0, 0), 0, SCREEN_CELL_COUNT);
        break;
    case 'K':
        erase(argument(0, 0), row * SCREEN_COLUMN_COUNT, SCREEN_COLUMN_COUNT);
        break;
    case 'm':
        set_colours();
        break;
    default:
        break;
    }
}

static void set_mode(int on) {
    for (unsigned i = 0; i < terminal.argument_count; i++)
        if (terminal.argument[i] == 25)
            terminal.cursor_hidden = !on;
}

static void begin_sequence(void) {
    terminal.state = SEQUENCE;
    terminal.is_private = terminal.is_unknown = 0;
    terminal.argument_count = 0;
    memset(terminal.argument, 0, sizeof terminal.argument);
}

static void take_digit(unsigned digit) {
    if (terminal.argument_count == 0)
        terminal.argument_count = 1;
    unsigned *value = &terminal.argument[terminal.argument_count - 1];
    *value = smaller(*value * 10 + digit, ARGUMENT_MAX);
}

static void take_separator(void) {
    if (terminal.argument_count == 0)
        terminal.argument_count = 1; /* the one before it is empty */
    if (terminal.argument_count < ARGUMENT_COUNT_MAX)
        terminal.argument_count++;
    else
        terminal.is_unknown = 1;
}

static void take_in_sequence(uint8_t byte) {
    if (byte >= '0' && byte <= '9')
        take_digit(byte - '0');
    else if (byte == ';')
        take_separator();
    else if (byte == '?')
        terminal.is_private = 1;
    else if (byte < 0x40)
        terminal.is_unknown = 1;
    else {
        terminal.state = TEXT;
        if (terminal.is_unknown || byte > 0x7e)
            return;
        if (!terminal.is_private)
            finish_sequence(byte);
        else if (byte == 'h' || byte == 'l')
            set_mode(byte == 'h');
    }
}

static void take_escaped(uint8_t byte) {
    if (byte == '[')
        begin_sequence();
    else if (byte == ']' || byte == 'P' || byte == '^' || byte == '_')
        terminal.state = STRING;
    else if (byte >= 0x30)
        terminal.state = TEXT; /* a short sequence ends; below, it goes on */
}

/* --- text --- */

static void take_control(uint8_t byte) {
    switch (byte) {
    case '\b':
        move(terminal.row, terminal.column > 0 ? terminal.column - 1 : 0);
        break;
    case '\t':
        move(terminal.row, terminal.column / TAB_SIZE * TAB_SIZE + TAB_SIZE);
        break;
    case '\n':
    case '\v':
    case '\f':
        next_row();
        break;
    case '\r':
        move(terminal.row, 0);
        break;
    default:
        break;
    }
}

static void put_code(uint32_t code) {
    for (unsigned i = 0; i < 128; i++)
        if (code_page[i] == code) {
            put((uint8_t)(128 + i));
            return;
        }
    put('?');
}

static void take_text(uint8_t byte) {
    int continues = (byte & 0xc0) == 0x80;
    if (terminal.code_missing > 0 && !continues) {
        terminal.code_missing = 0;
        put('?'); /* it was cut short */
    }
    if (byte < 0x7f)
        put(byte);
    else if (continues && terminal.code_missing > 0) {
        terminal.code = terminal.code << 6 | (byte & 0x3f);
        if (--terminal.code_missing == 0)
            put_code(terminal.code);
    } else if (byte >= 0xc2 && byte < 0xf5) {
        terminal.code_missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3;
        terminal.code = byte & (0x3fu >> terminal.code_missing);
    } else if (byte > 0x7f)
        put('?');
}

static void take(uint8_t byte) {
    if (byte == ESCAPE)
        terminal.state = ESCAPED;
    else if (terminal.state == STRING)
        terminal.state = byte == BELL ? TEXT : STRING;
    else if (byte < ' ')
        take_control(byte);
    else if (terminal.state == ESCAPED)
        take_escaped(byte);
    else if (terminal.state == SEQUENCE)
        take_in_sequence(byte);
    else
        take_text(byte);
}

void terminal_write(const uint8_t *bytes, size_t count) {
    if (!screen_exists())
        return;
    for (size_t i = 0; i < count; i++)
        take(bytes[i]);
    screen_show(position(), !terminal.cursor_hidden);
}
