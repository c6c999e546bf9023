/*
 * tests/host/keyboard.c: the kernel's keyboard driver on the host, with a controller that holds scan codes.
 *
 * Reads scan codes from stdin; the sink has room for as many bytes as the argument says, and again so many whenever the
 * driver waits for room. Prints what the sink was given. Exit status 1 with a word if the driver takes a code that it
 * should leave. Built and called by: test_keyboard.py.
 */
#define ARCH_H /* the ports are here */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*interrupt_fn)(void *context);
static uint8_t arch_inb(uint16_t port);
static void arch_outb(uint16_t port, uint8_t value);
static int interrupt_alloc(interrupt_fn fn, void *context);
static void interrupt_route_isa(unsigned irq, unsigned vector);

#include "drivers/keyboard.c"

enum { CODE_COUNT_MAX = 1 << 16, VECTOR = 40 };

static uint8_t codes[CODE_COUNT_MAX];
static size_t code_count, code_index;
static uint8_t configuration = KEYBOARD_CLOCK_OFF | MOUSE_INTERRUPTS, last_command, answer;
static int has_answer, is_enabled;
static interrupt_fn handler;
static size_t room, room_size;

static void fail(const char *what) {
    printf("%s\n", what);
    exit(1);
}

void trace(enum trace_kind kind, uint32_t small, uint64_t a, uint64_t b) {
    (void)kind, (void)small, (void)a, (void)b;
    fail("input was lost");
}

/* --- the controller --- */

static int is_full(void) { return has_answer || (is_enabled && code_index < code_count); }

static uint8_t arch_inb(uint16_t port) {
    if (port == STATUS)
        return is_full() ? STATUS_OUTPUT_FULL : 0;
    if (!is_full())
        fail("read from an empty controller");
    if (!has_answer)
        return codes[code_index++];
    has_answer = 0;
    return answer;
}

static void arch_outb(uint16_t port, uint8_t value) {
    if (port == DATA && last_command == WRITE_CONFIGURATION)
        configuration = value;
    else if (port == COMMAND && value == READ_CONFIGURATION)
        answer = configuration, has_answer = 1;
    else if (port == COMMAND && value == ENABLE_KEYBOARD)
        is_enabled = 1;
    last_command = port == COMMAND ? value : 0;
}

static int interrupt_alloc(interrupt_fn fn, void *context) {
    (void)context;
    handler = fn;
    return VECTOR;
}

static void interrupt_route_isa(unsigned irq, unsigned vector) {
    if (irq != KEYBOARD_IRQ || vector != VECTOR)
        fail("another interrupt");
}

/* --- the sink --- */

static size_t give_input(const uint8_t *bytes, size_t count) {
    size_t taken = count < room ? count : room;
    fwrite(bytes, 1, taken, stdout);
    room -= taken;
    return taken;
}

static size_t input_room(void) { return room; }

static const struct console_sink test_sink = {NULL, give_input, input_room};

int main(int argc, char **argv) {
    room_size = argc > 1 ? strtoul(argv[1], NULL, 10) : CODE_COUNT_MAX;
    code_count = fread(codes, 1, sizeof codes, stdin);
    answer = 0x1e, has_answer = 1; /* typed before the start: nobody's */
    if (keyboard_init(&test_sink) != 0 || configuration != (KEYBOARD_INTERRUPTS | TRANSLATE))
        fail("the controller is not set up");
    handler(NULL);
    while (code_index < code_count) {
        size_t before = code_index;
        keyboard_input_room(); /* no room yet */
        if (code_index != before)
            fail("a code was taken without room");
        room = room_size;
        keyboard_input_room();
        if (code_index == before)
            fail("nothing is taken any more");
    }
    return 0;
}
