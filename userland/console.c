/*
 * userland/console.c: console input and output, clocks, and every wait of the interpreter.
 *
 * Promise: output is handed to the kernel at each line end, when the buffer is full and before every wait or read, in
 * order; input is drained into a ring as soon as the program looks, so that Ctrl-C is seen while it runs; an event that
 * came between a check and the wait that follows ends that wait.
 * Called by: MicroPython's streams, readline, time and select; the VM hook. Not from native code's loops.
 */
#include <string.h>

#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/readline/readline.h"

#include "syscall.h"
#include "thread.h"

#define INPUT_SIZE 4096 /* power of two */
#define OUTPUT_SIZE 1024

static struct {
    uint32_t head; /* counters; offset = counter mod INPUT_SIZE */
    uint32_t tail;
    uint8_t byte[INPUT_SIZE];
} input;

static struct {
    size_t size;
    char byte[OUTPUT_SIZE];
} output;

unsigned int port_poll_countdown = PORT_POLL_PERIOD;

static void write_all(const char *text, size_t size) {
    while (size > 0) {
        long written = sys_console_write(text, size);
        if (written <= 0) {
            return; /* the kernel refuses the buffer: nobody is left to tell */
        }
        text += written;
        size -= written;
    }
}

void port_console_flush(void) {
    size_t size = output.size;
    if (size > 0) {
        output.size = 0;
        write_all(output.byte, size);
    }
}

mp_uint_t mp_hal_stdout_tx_strn(const char *text, size_t size) {
    if (port_is_child && size == 1 && text[0] == 4) {
        return size; /* pyexec tells its tool that a program has ended: not the forked one's to say */
    }
    if (size > OUTPUT_SIZE - output.size) {
        port_console_flush();
    }
    if (size > OUTPUT_SIZE) {
        write_all(text, size);
        return size;
    }
    memcpy(output.byte + output.size, text, size);
    output.size += size;
    if (size > 0 && text[size - 1] == '\n') {
        port_console_flush();
    }
    return size;
}

static uint32_t input_count(void) {
    return input.head - input.tail;
}

static void input_accept(uint8_t byte) {
    if (byte == mp_interrupt_char) {
        port_thread_interrupt();
    } else {
        input.byte[input.head++ % INPUT_SIZE] = byte;
    }
}

/* Moves what has arrived into the ring, as far as it has room. */
static void input_drain(void) {
    uint8_t chunk[256];
    for (;;) {
        size_t room = INPUT_SIZE - input_count();
        size_t wanted = room < sizeof chunk ? room : sizeof chunk;
        long count = wanted > 0 ? sys_console_read(chunk, wanted) : 0;
        for (long i = 0; i < count; i++) {
            input_accept(chunk[i]);
        }
        if (count > 0) {
            port_threads_wake();
        }
        if (count < (long)wanted || wanted == 0) {
            return;
        }
    }
}

/* Input that fits, a message, a resume. */
void port_events_take(uint64_t deadline_ns) {
    unsigned int mask = WAIT_RESUMED | WAIT_NOTICE;
    if (input_count() < INPUT_SIZE) {
        mask |= WAIT_CONSOLE_IN;
    }
    long bits = sys_wait(mask, deadline_ns);
    if (bits <= 0) {
        return;
    }
    if (bits & WAIT_CONSOLE_IN) {
        input_drain();
    }
    if (bits & (WAIT_NOTICE | WAIT_RESUMED)) {
        port_threads_wake();
    }
    if (bits & WAIT_RESUMED) {
        port_resumed();
    }
}

void port_poll(void) {
    port_poll_countdown = PORT_POLL_PERIOD;
    port_console_flush();
    port_events_take(0);
    port_thread_turn();
}

uint64_t port_mono_ns(void) {
    return sys_clock(CLOCK_MONO_NS);
}

/* The end of a time span; one too long to count is for ever. */
static uint64_t deadline_after(uint64_t span, uint64_t unit_ns) {
    uint64_t span_ns, deadline_ns;
    if (__builtin_mul_overflow(span, unit_ns, &span_ns) ||
        __builtin_add_overflow(port_mono_ns(), span_ns, &deadline_ns)) {
        return WAIT_FOREVER;
    }
    return deadline_ns;
}

uint64_t port_deadline_ms(uint64_t timeout_ms) {
    return deadline_after(timeout_ms, 1000000);
}

void port_wait_ms(mp_uint_t timeout_ms) {
    port_thread_wait(timeout_ms == (mp_uint_t)-1 ? WAIT_FOREVER : port_deadline_ms(timeout_ms));
}

static void delay_until(uint64_t deadline_ns) {
    do {
        port_thread_wait(deadline_ns);
        mp_handle_pending(true);
    } while (port_mono_ns() < deadline_ns);
}

void mp_hal_delay_ms(mp_uint_t delay_ms) {
    delay_until(deadline_after(delay_ms, 1000000));
}

void mp_hal_delay_us(mp_uint_t delay_us) {
    delay_until(deadline_after(delay_us, 1000));
}

void port_sleep_until_wall(uint64_t wall_ns) {
    for (uint64_t now_ns; (now_ns = mp_hal_time_ns()) < wall_ns;) {
        port_thread_wait(deadline_after(wall_ns - now_ns, 1)); /* a resume ends it: the wall clock has gone on */
        mp_handle_pending(true);
    }
}

void port_console_forget_input(void) {
    input.tail = input.head;
}

/* A child has no input: its programs get an EOFError, and where the prompt would be it ends. */
static void child_input(void) {
    if (MP_STATE_THREAD(nlr_top) == NULL) {
        port_child_end(NULL);
    }
    mp_raise_type(&mp_type_EOFError);
}

int mp_hal_stdin_rx_chr(void) {
    if (port_is_child) {
        child_input();
    }
    while (input_count() == 0) {
        port_console_flush();
        input_drain();
        if (input_count() == 0) {
            mp_event_wait_indefinite();
        }
    }
    return input.byte[input.tail++ % INPUT_SIZE];
}

static mp_thread_mutex_t line_mutex;

static void line_release(void *node) {
    (void)node;
    mp_thread_mutex_unlock(&line_mutex);
}

void port_line_init(void) {
    mp_thread_mutex_init(&line_mutex);
}

/* It edits one line at a time: a thread that wants another one waits until that is complete. */
int port_readline(vstr_t *line, const char *prompt) {
    if (port_is_child) {
        child_input();
    }
    mp_thread_mutex_lock(&line_mutex, 1);
    nlr_jump_callback_node_t node;
    nlr_push_jump_callback(&node, line_release);
    int end = readline(line, prompt);
    nlr_pop_jump_callback(true);
    return end;
}

/* readline ends a line at CR, which is what terminals send; programs that drive a pipe send LF, or both. */
int port_readline_rx_chr(void) {
    static int previous;
    int byte = mp_hal_stdin_rx_chr();
    bool ends_line = byte == '\n' && previous != '\r';
    previous = byte;
    return ends_line ? '\r' : byte;
}

uintptr_t mp_hal_stdio_poll(uintptr_t poll_flags) {
    if ((poll_flags & MP_STREAM_POLL_RD) && input_count() == 0) {
        input_drain();
    }
    uintptr_t ready = MP_STREAM_POLL_WR;
    if (input_count() > 0) {
        ready |= MP_STREAM_POLL_RD;
    }
    return poll_flags & ready;
}

mp_uint_t mp_hal_ticks_ms(void) {
    return port_mono_ns() / 1000000;
}

mp_uint_t mp_hal_ticks_us(void) {
    return port_mono_ns() / 1000;
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return port_mono_ns();
}

uint64_t mp_hal_time_ns(void) {
    return sys_clock(CLOCK_WALL_NS);
}

/* 32 bits are what the random module's generator takes. */
unsigned long port_random_seed(void) {
    uint32_t seed = 0;
    sys_random(&seed, sizeof seed);
    return seed;
}
