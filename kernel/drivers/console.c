/*
 * kernel/drivers/console.c: two 16550 UARTs (console.h), 115200 baud, 8 bits, no parity, FIFOs on.
 *
 * Promise: COM1 works by interrupt in both directions; IRQ 4 is an edge, so its handler leaves only when the UART
 * asks for nothing more, or makes a new edge. Each port access is an exit under emulation: bytes are counted, not
 * asked for singly.
 * Called by: proc (through main.c's tables), lib/log's sink. Context: interrupts off. Sources: National PC16550D.
 */
#include "drivers/console.h"

#include "arch/x86_64/arch.h"
#include "drivers/terminal.h"
#include "lib/error.h"
#include "lib/lib.h"

enum {
    COM1 = 0x3f8,
    COM1_IRQ = 4,
    COM2 = 0x2f8,

    DATA = 0, /* registers */
    INTERRUPT_ENABLE = 1,
    INTERRUPT_ID = 2,
    FIFO_CONTROL = 2,
    LINE_CONTROL = 3,
    MODEM_CONTROL = 4,
    LINE_STATUS = 5,
    MODEM_STATUS = 6,

    ENABLE_RECEIVE = 1,
    ENABLE_SEND = 2,
    ID_NONE = 1,
    ID_MASK = 0x0e,
    ID_MODEM = 0x00,
    ID_SEND = 0x02,
    ID_RECEIVE = 0x04, /* as many bytes as the trigger says */
    ID_LINE = 0x06,
    ID_TIMEOUT = 0x0c, /* fewer, and no more came for four characters */
    FIFO_ON_CLEARED_TRIGGER_14 = 0xc7,
    LINE_8N1 = 3,
    LINE_DIVISOR = 0x80,
    MODEM_DTR = 1,
    MODEM_RTS = 2,
    MODEM_INTERRUPTS = 8, /* OUT2: connects the interrupt line on a PC */
    MODEM_LOOP = 0x10,    /* disconnects the receiver */
    STATUS_RECEIVED = 1,
    STATUS_OVERRUN = 2,
    STATUS_SEND_EMPTY = 0x20,
    STATUS_ALL_EMPTY = 0x40,
    STATUS_ABSENT = 0xff,

    FIFO_SIZE = 16,
    TRIGGER_SIZE = 14,
    SEND_SIZE_MAX = 64,         /* in one interrupt, where the FIFO empties at once (emulation) */
    PASS_COUNT_MAX = 16,        /* in one interrupt */
    POLL_COUNT_MAX = 20000,     /* more than a FIFO's time at 115200 baud */
    MARK = 0,
};

struct polled_port {
    uint16_t base;
    uint8_t is_set_up, is_absent, is_stuck;
    uint8_t early_count, early_given_count;
    uint8_t early[1 + FIFO_SIZE]; /* what waited when the port was set up, and came meanwhile */
};

static const struct console_sink *sink;
static int is_sending;  /* the UART has bytes, or the sink may have */
static int is_throttled; /* the sink has no room: input stays in the UART */
static struct polled_port com1 = {.base = COM1}, com2 = {.base = COM2};

static uint8_t get(unsigned reg) {
    return arch_inb((uint16_t)(COM1 + reg));
}

static void put(unsigned reg, uint8_t value) {
    arch_outb((uint16_t)(COM1 + reg), value);
}

static int is_received(const struct polled_port *port) {
    return arch_inb(port->base + LINE_STATUS) & STATUS_RECEIVED;
}

/*
 * Where a byte waited there may be more behind it, which QEMU's multiplexer gives only when a byte is read outside of
 * loop mode. So one is looped back, and read then.
 */
static void send_mark(const struct polled_port *port) {
    arch_outb(port->base + DATA, MARK);
    for (unsigned i = 0; i < POLL_COUNT_MAX && !is_received(port); i++)
        ;
}

/* Bytes before the mark are input: emulated UARTs receive in loop mode, too. */
static void take_until_mark(struct polled_port *port) {
    for (unsigned i = 0; i < FIFO_SIZE && is_received(port); i++) {
        uint8_t byte = arch_inb(port->base + DATA);
        if (byte == MARK)
            return;
        port->early[port->early_count++] = byte;
    }
}

/* -E_NOENT: there is no UART. */
static int set_up(struct polled_port *port) {
    uint16_t base = port->base;
    port->is_set_up = 1;
    port->is_absent = arch_inb(base + LINE_STATUS) == STATUS_ABSENT;
    if (port->is_absent)
        return -E_NOENT;
    arch_outb(base + INTERRUPT_ENABLE, 0);
    arch_outb(base + LINE_CONTROL, LINE_DIVISOR);
    arch_outb(base + DATA, 1); /* divisor 1: 115200 baud */
    arch_outb(base + INTERRUPT_ENABLE, 0);
    arch_outb(base + LINE_CONTROL, LINE_8N1);
    arch_outb(base + MODEM_CONTROL, MODEM_LOOP); /* receive nothing: turning the FIFO on drops what waits */
    int has_early = is_received(port);
    if (has_early)
        port->early[port->early_count++] = arch_inb(base + DATA);
    arch_outb(base + FIFO_CONTROL, FIFO_ON_CLEARED_TRIGGER_14);
    if (has_early)
        send_mark(port);
    arch_outb(base + MODEM_CONTROL, MODEM_DTR | MODEM_RTS | MODEM_INTERRUPTS);
    if (has_early)
        take_until_mark(port);
    return 0;
}

/* --- sending --- */

static void send(void) {
    uint8_t bytes[FIFO_SIZE];
    for (unsigned sent = 0; sent < SEND_SIZE_MAX && (get(LINE_STATUS) & STATUS_SEND_EMPTY); sent += FIFO_SIZE) {
        size_t count = sink->take_output(bytes, FIFO_SIZE);
        check(count <= FIFO_SIZE);
        is_sending = count > 0;
        terminal_write(bytes, count);
        for (size_t i = 0; i < count; i++)
            put(DATA, bytes[i]);
        if (count < FIFO_SIZE)
            return;
    }
}

void console_output_ready(void) {
    if (!sink || is_sending)
        return; /* the interrupt of what is being sent comes and asks */
    is_sending = 1;
    send();
}

int console_output_idle(void) {
    return !sink || (!is_sending && (get(LINE_STATUS) & STATUS_ALL_EMPTY));
}

/* --- receiving --- */

static void set_throttle(int on) {
    is_throttled = on;
    put(INTERRUPT_ENABLE, on ? ENABLE_SEND : ENABLE_SEND | ENABLE_RECEIVE);
    put(MODEM_CONTROL, MODEM_DTR | MODEM_INTERRUPTS | (on ? 0 : MODEM_RTS));
}

/* known_count bytes are surely there; behind them the line status is asked. Stops input when the sink is full. */
static void receive(size_t known_count) {
    uint8_t bytes[FIFO_SIZE];
    size_t room = sink->input_room();
    size_t size = room < FIFO_SIZE ? room : FIFO_SIZE;
    size_t count = 0;
    while (count < size && (count < known_count || (get(LINE_STATUS) & STATUS_RECEIVED)))
        bytes[count++] = get(DATA);
    if (count > 0 && sink->give_input(bytes, count) != count)
        trace(TRACE_INPUT_LOST, 0, count, room); /* the sink promised room */
    if (sink->input_room() == 0)
        set_throttle(1);
}

/* 1: the sink has them all. */
static int give_early(void) {
    size_t count = com1.early_count - com1.early_given_count;
    com1.early_given_count += (uint8_t)sink->give_input(com1.early + com1.early_given_count, count);
    return com1.early_given_count == com1.early_count;
}

void console_input_room(void) {
    if (!sink || !is_throttled || !give_early() || sink->input_room() == 0)
        return;
    set_throttle(0);
    receive(0); /* what waited in the FIFO may be too little for an interrupt */
}

/* --- the interrupt --- */

static void serve(uint8_t id) {
    switch (id & ID_MASK) {
    case ID_RECEIVE:
        receive(TRIGGER_SIZE);
        break;
    case ID_TIMEOUT:
        receive(1);
        break;
    case ID_SEND:
        send();
        break;
    case ID_LINE:
        (void)get(LINE_STATUS); /* reading clears it */
        break;
    default:
        (void)get(MODEM_STATUS);
        break;
    }
}

static void on_interrupt(void *context) {
    (void)context;
    for (unsigned pass = 0; pass < PASS_COUNT_MAX; pass++) {
        uint8_t id = get(INTERRUPT_ID);
        if (id & ID_NONE)
            return;
        serve(id);
    }
    put(INTERRUPT_ENABLE, 0); /* a new edge for what is left */
    put(INTERRUPT_ENABLE, is_throttled ? ENABLE_SEND : ENABLE_SEND | ENABLE_RECEIVE);
}

int console_init(const struct console_sink *console_sink) {
    int status = set_up(&com1);
    if (status < 0)
        return status;
    int vector = interrupt_alloc(on_interrupt, NULL);
    if (vector < 0)
        return vector;
    sink = console_sink;
    interrupt_route_isa(COM1_IRQ, (unsigned)vector);
    set_throttle(!give_early());
    return 0;
}

/* --- polled output --- */

static int wait_empty(struct polled_port *port) {
    unsigned limit = port->is_stuck ? 1 : POLL_COUNT_MAX; /* a stuck reader costs its time once */
    for (unsigned i = 0; i < limit; i++)
        if (arch_inb(port->base + LINE_STATUS) & STATUS_SEND_EMPTY) {
            port->is_stuck = 0;
            return 1;
        }
    port->is_stuck = 1;
    return 0;
}

static void write_polled(struct polled_port *port, const char *text, size_t length) {
    if (!port->is_set_up)
        (void)set_up(port); /* is_absent remembers */
    if (port->is_absent)
        return;
    for (size_t i = 0; i < length; i++) {
        if (i % FIFO_SIZE == 0 && !wait_empty(port))
            return;
        arch_outb(port->base + DATA, (uint8_t)text[i]);
    }
}

void voice_write(const char *text, size_t length) {
    write_polled(&com2, text, length);
}

void console_panic_write(const char *text, size_t length) {
    terminal_write((const uint8_t *)text, length);
    write_polled(&com1, text, length);
    write_polled(&com2, text, length);
}
