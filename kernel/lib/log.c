/*
 * kernel/lib/log.c: the kernel's voice: log lines and the panic.
 *
 * Promise: log_print adds the newline; nothing here allocates. A panic says its reason,
 * the backtrace, what was being committed and the last events, then ends in the sink; a fault inside a panic goes on
 * with the panic's next step.
 * Called by: everybody, interrupts off. The sink comes from main.c; without one, log lines are lost and a panic is a
 * trap.
 */
#include "lib/lib.h"

enum { LINE_SIZE = 512, BACKTRACE_DEPTH_MAX = 32 };

static const struct log_sink *log_sink;
static enum log_level log_level;
static char panic_reason[LINE_SIZE];

void log_set_sink(const struct log_sink *sink, enum log_level level) {
    log_sink = sink;
    log_level = level;
}

uint64_t log_now_ns(void) { return log_sink && log_sink->now_ns ? log_sink->now_ns() : 0; }

void log_write(const char *text, size_t length) {
    if (log_sink && log_sink->write && log_level >= LOG_NOTICE)
        log_sink->write(text, length);
}

static size_t clamp_length(int wanted, size_t size) {
    return (size_t)wanted < size ? (size_t)wanted : size - 1;
}

void log_print(enum log_level level, const char *template, ...) {
    if (*template != ' ') /* indented: more about the line before */
        trace_text(template);
    if (!log_sink || !log_sink->write || level > log_level)
        return;
    char line[LINE_SIZE];
    uint64_t now_us = log_now_ns() / 1000;
    size_t length = (size_t)format(line, sizeof line, "[%4lu.%06lu] ", now_us / 1000000, now_us % 1000000);
    va_list arguments;
    va_start(arguments, template);
    size_t room = sizeof line - 1 - length; /* one byte is for the newline */
    length += clamp_length(format_list(line + length, room, template, arguments), room);
    va_end(arguments);
    if (line[length - 1] != '\n')
        line[length++] = '\n';
    log_sink->write(line, length);
}

__attribute__((format(printf, 1, 2))) static void panic_say(const char *template, ...) {
    if (!log_sink || !log_sink->panic_write)
        return;
    char line[LINE_SIZE];
    va_list arguments;
    va_start(arguments, template);
    size_t length = clamp_length(format_list(line, sizeof line, template, arguments), sizeof line);
    va_end(arguments);
    log_sink->panic_write(line, length);
}

/* Frames live in the kernel's image (stacks are part of it); anything else ends the walk. */
static int in_kernel(uint64_t address) {
    return address >= 0xffffffff80000000ull && address < 0xfffffffffffff000ull;
}

static void panic_backtrace(void) {
    const uint64_t *frame = __builtin_frame_address(0);
    panic_say("backtrace:");
    for (int depth = 0; depth < BACKTRACE_DEPTH_MAX; depth++) {
        if (!in_kernel((uint64_t)frame) || (uint64_t)frame % 8)
            break;
        panic_say(" %lx", frame[1]);
        frame = (const uint64_t *)frame[0];
    }
    panic_say("\n");
}

static void panic_describe(void) {
    char text[LINE_SIZE];
    if (log_sink && log_sink->describe && log_sink->describe(text, sizeof text) > 0)
        panic_say("%s\n", text);
}

/* Not to the console: on a screen they would take the room of all that was said before. */
static void panic_trace(void) {
    if (log_sink && log_sink->write)
        trace_print(log_sink->write, TRACE_PRINT_COUNT);
}

static void panic_end(void) {
    if (log_sink && log_sink->panic)
        log_sink->panic(panic_reason);
}

void panic(const char *template, ...) {
    static void (*const steps[])(void) = {panic_backtrace, panic_describe, panic_trace, panic_end};
    static size_t step;
    static int said;
    if (!said++) {
        va_list arguments;
        va_start(arguments, template);
        format_list(panic_reason, sizeof panic_reason, template, arguments);
        va_end(arguments);
        panic_say("\npanic: %s\n", panic_reason);
    }
    while (step < sizeof steps / sizeof *steps)
        steps[step++](); /* a panic in one of them comes here again, and goes on with the next */
    __builtin_trap();
}
