/*
 * kernel/drivers/keyboard.c: scan codes of set 1 from an i8042, by IRQ 1, as the bytes of a terminal (keyboard.h).
 *
 * Promise: a code stays in the controller while the sink has no room for all bytes of a key. IRQ 1 is an edge: its
 * handler leaves only when the controller is empty, or room has to come first. Its lamps stay as they are.
 * Called by: main.c, interrupts. Context: interrupts off. Sources: IBM PS/2 technical reference, "Keyboard/Auxiliary
 * Device Controller"; readline.c of MicroPython for the keys' sequences.
 */
#include "drivers/keyboard.h"

#include "arch/x86_64/arch.h"
#include "lib/error.h"
#include "lib/lib.h"

enum {
    DATA = 0x60, /* ports */
    STATUS = 0x64,
    COMMAND = 0x64,
    KEYBOARD_IRQ = 1,

    STATUS_OUTPUT_FULL = 0x01, /* a byte for us */
    STATUS_INPUT_FULL = 0x02,  /* the controller still has ours */
    STATUS_MOUSE = 0x20,       /* the byte for us is the mouse's */
    STATUS_ABSENT = 0xff,

    READ_CONFIGURATION = 0x20, /* commands of the controller */
    WRITE_CONFIGURATION = 0x60,
    DISABLE_MOUSE = 0xa7,
    DISABLE_KEYBOARD = 0xad,
    ENABLE_KEYBOARD = 0xae,
    KEYBOARD_INTERRUPTS = 0x01, /* bits of the configuration */
    MOUSE_INTERRUPTS = 0x02,
    KEYBOARD_CLOCK_OFF = 0x10,
    TRANSLATE = 0x40, /* into set 1 */
    SCAN = 0xf4,      /* command of the keyboard; its answer looks like the release of a key that no keyboard has */

    PREFIX_EXTENDED = 0xe0,
    PREFIX_PAUSE = 0xe1,
    PAUSE_CODE_COUNT = 2, /* behind the prefix, both for pressed and for released */
    RELEASED = 0x80,
    KEY_ENTER = 0x1c,
    KEY_CTRL = 0x1d,
    KEY_SHIFT_LEFT = 0x2a,
    KEY_SLASH = 0x35,
    KEY_SHIFT_RIGHT = 0x36,
    KEY_ALT = 0x38,
    KEY_CAPS_LOCK = 0x3a,
    KEY_NUM_LOCK = 0x45,
    KEY_PAD_FIRST = 0x47, /* the pad of digits, or, extended, the arrows' */

    POLL_COUNT_MAX = 10000,
    DRAIN_COUNT_MAX = 64,
    KEY_SIZE_MAX = 5, /* bytes: ESC of Alt, ESC [ 3 ~ */
};

enum held { HELD_SHIFT_LEFT = 1, HELD_SHIFT_RIGHT = 2, HELD_SHIFT = 3, HELD_CTRL = 4, HELD_ALT = 8 };

/* By scan code; 0: none. US layout. */
static const char plain[] = "\0\0331234567890-=\177\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
static const char shifted[] = "\0\033!@#$%^&*()_+\177\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";
_Static_assert(sizeof plain == 0x3b && sizeof shifted == sizeof plain, "one for each code up to the space bar's");

/* From KEY_PAD_FIRST on. What comes behind ESC, and the digit where Num Lock is on. */
static const struct {
    char sequence[4], digit;
} pad[] = {
    {"[H", '7'}, {"[A", '8'}, {"[5~", '9'}, {"", '-'}, {"[D", '4'},  {"", '5'},    {"[C", '6'},
    {"", '+'},   {"[F", '1'}, {"[B", '2'},  {"[6~", '3'}, {"[2~", '0'}, {"[3~", '.'},
};

static const struct console_sink *sink; /* NULL: no keyboard */
static int is_throttled;                /* the sink has no room: codes stay in the controller */
static struct {
    uint8_t held; /* enum held */
    uint8_t caps_lock, num_lock;
    uint8_t is_extended;
    uint8_t pause_codes; /* still to be passed over */
} keys;

/* --- keys to bytes --- */

static int is_letter(char c) {
    return c >= 'a' && c <= 'z';
}

static char character_of(uint8_t code, int is_extended) {
    if (code >= sizeof plain || (is_extended && code != KEY_ENTER && code != KEY_SLASH))
        return 0;
    char c = plain[code];
    int is_shifted = !is_extended && (keys.held & HELD_SHIFT) != 0;
    if (is_letter(c) && keys.caps_lock)
        is_shifted = !is_shifted;
    c = is_shifted ? shifted[code] : c;
    if (!(keys.held & HELD_CTRL))
        return c;
    if (c >= '@' && c <= 0x7e)
        return c & 0x1f;
    return c;
}

/* What the key sends; returns how many bytes. */
static size_t key_bytes(char *bytes, uint8_t code, int is_extended) {
    unsigned index = code - KEY_PAD_FIRST;
    if (code < KEY_PAD_FIRST || index >= sizeof pad / sizeof pad[0]) {
        bytes[0] = character_of(code, is_extended);
        return bytes[0] != 0;
    }
    size_t length = strlen(pad[index].sequence);
    if (length == 0 || (keys.num_lock && !is_extended)) {
        bytes[0] = pad[index].digit;
        return 1;
    }
    bytes[0] = '\033';
    memcpy(bytes + 1, pad[index].sequence, length);
    return length + 1;
}

static void type(uint8_t code, int is_extended) {
    char bytes[KEY_SIZE_MAX];
    size_t prefix_count = 0;
    if (keys.held & HELD_ALT)
        bytes[prefix_count++] = '\033';
    size_t key_count = key_bytes(bytes + prefix_count, code, is_extended), count = prefix_count + key_count;
    if (key_count > 0 && sink->give_input((const uint8_t *)bytes, count) != count)
        trace(TRACE_INPUT_LOST, 0, count, 0); /* the sink promised room */
}

/* --- scan codes --- */

static void hold(uint8_t bit, int is_released) {
    keys.held = is_released ? keys.held & ~bit : keys.held | bit;
}

static void take_key(uint8_t code, int is_released, int is_extended) {
    switch (code) {
    case KEY_SHIFT_LEFT:
    case KEY_SHIFT_RIGHT:
        if (!is_extended) /* those come with the arrows, and nobody holds shift */
            hold(code == KEY_SHIFT_LEFT ? HELD_SHIFT_LEFT : HELD_SHIFT_RIGHT, is_released);
        break;
    case KEY_CTRL:
        hold(HELD_CTRL, is_released);
        break;
    case KEY_ALT:
        hold(HELD_ALT, is_released);
        break;
    case KEY_CAPS_LOCK:
        keys.caps_lock ^= !is_released;
        break;
    case KEY_NUM_LOCK:
        keys.num_lock ^= !is_released;
        break;
    default:
        if (!is_released)
            type(code, is_extended);
        break;
    }
}

static void take(uint8_t byte) {
    if (keys.pause_codes > 0)
        keys.pause_codes--;
    else if (byte == PREFIX_PAUSE)
        keys.pause_codes = PAUSE_CODE_COUNT;
    else if (byte == PREFIX_EXTENDED)
        keys.is_extended = 1;
    else {
        int is_extended = keys.is_extended;
        keys.is_extended = 0;
        take_key(byte & ~RELEASED, byte & RELEASED, is_extended);
    }
}

static void on_interrupt(void *context) {
    (void)context;
    uint8_t status;
    while ((status = arch_inb(STATUS)) & STATUS_OUTPUT_FULL) {
        is_throttled = sink->input_room() < KEY_SIZE_MAX;
        if (is_throttled)
            return; /* keyboard_input_room goes on: as long as a byte waits, there is no edge */
        uint8_t byte = arch_inb(DATA);
        if (!(status & STATUS_MOUSE))
            take(byte);
    }
}

void keyboard_input_room(void) {
    if (sink && is_throttled)
        on_interrupt(NULL);
}

/* --- start --- */

static int send(uint16_t port, uint8_t byte) {
    for (unsigned i = 0; i < POLL_COUNT_MAX; i++)
        if (!(arch_inb(STATUS) & STATUS_INPUT_FULL)) {
            arch_outb(port, byte);
            return 0;
        }
    return -E_IO;
}

static int receive(void) {
    for (unsigned i = 0; i < POLL_COUNT_MAX; i++)
        if (arch_inb(STATUS) & STATUS_OUTPUT_FULL)
            return arch_inb(DATA);
    return -E_IO;
}

/* What was typed before is nobody's; then the controller's answer comes next. */
static int silence(void) {
    if (arch_inb(STATUS) == STATUS_ABSENT)
        return -E_NOENT;
    if (send(COMMAND, DISABLE_KEYBOARD) < 0 || send(COMMAND, DISABLE_MOUSE) < 0)
        return -E_IO;
    for (unsigned i = 0; i < DRAIN_COUNT_MAX && (arch_inb(STATUS) & STATUS_OUTPUT_FULL); i++)
        (void)arch_inb(DATA);
    return 0;
}

static int configure(void) {
    int status = send(COMMAND, READ_CONFIGURATION);
    int configuration = status < 0 ? status : receive();
    if (configuration < 0)
        return configuration;
    configuration |= KEYBOARD_INTERRUPTS | TRANSLATE;
    configuration &= ~(MOUSE_INTERRUPTS | KEYBOARD_CLOCK_OFF);
    status = send(COMMAND, WRITE_CONFIGURATION);
    return status < 0 ? status : send(DATA, (uint8_t)configuration);
}

int keyboard_init(const struct console_sink *console_sink) {
    int status = silence();
    if (status == 0)
        status = configure();
    int vector = status < 0 ? status : interrupt_alloc(on_interrupt, NULL);
    if (vector < 0)
        return vector;
    sink = console_sink;
    interrupt_route_isa(KEYBOARD_IRQ, (unsigned)vector);
    status = send(COMMAND, ENABLE_KEYBOARD);
    return status < 0 ? status : send(DATA, SCAN);
}
