/*
 * kernel/proc/console.c: the console's two rings in space 0, and external synchrony.
 *
 * Invariant: no byte leaves the machine before the generation in which it was written is durable (unless relaxed):
 *     out_tail <= sent <= released <= out_head, and released is the out_head of a durable generation.
 * `released` never steps back.
 * `sent` counts what the UART was given; UART_HELD_MAX of that may still be inside it and go with the power. out_tail
 * (in the record) is what had certainly left at the last freeze. After a power cut the bytes from out_tail on are sent
 * (again), and before them the line in which out_tail is, so that a person sees the prompt: what was saved is always
 * seen; the last few bytes may be seen twice, never lost. A ring slot is used again only when it can no longer be asked
 * for: REPEAT_SIZE_MAX bytes behind `sent`.
 * Called by: syscall.c, pager's hooks, the console driver (interrupts). Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "proc/internal.h"

#define PAGE_SIZE 4096u
#define OUT_SIZE (RECORD_CONSOLE_OUT_PAGE_COUNT * PAGE_SIZE)
#define IN_SIZE (RECORD_CONSOLE_IN_PAGE_COUNT * PAGE_SIZE)

enum { LINE_SIZE_MAX = 256, UART_HELD_MAX = 17, REPEAT_SIZE_MAX = LINE_SIZE_MAX + UART_HELD_MAX };

const char console_event_key;

static uint64_t sent, released, frozen_head;

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* The longest piece of a ring from a counter on that lies in one page. */
static size_t ring_piece(uint64_t counter, size_t size) { return smaller(size, PAGE_SIZE - counter % PAGE_SIZE); }
static uint32_t out_page(uint64_t counter) {
    return RECORD_CONSOLE_OUT_PAGE + (uint32_t)(counter % OUT_SIZE / PAGE_SIZE);
}
static uint32_t in_page(uint64_t counter) {
    return RECORD_CONSOLE_IN_PAGE + (uint32_t)(counter % IN_SIZE / PAGE_SIZE);
}

/* Where the line begins that holds byte `end`; at most LINE_SIZE_MAX back. */
static uint64_t line_start(uint64_t end) {
    uint64_t start = end;
    while (start > 0 && end - start < LINE_SIZE_MAX) {
        const char *page = pager_record(out_page(start - 1));
        if (page[(start - 1) % PAGE_SIZE] == '\n')
            break;
        start--;
    }
    return start;
}

static int ring_is_sane(uint64_t head, uint64_t tail, uint64_t size) { return tail <= head && head - tail <= size; }

int console_resume(void) {
    const struct console_record *record = console_record();
    if (!ring_is_sane(record->out_head, record->out_tail, OUT_SIZE) ||
        !ring_is_sane(record->in_head, record->in_tail, IN_SIZE)) {
        notice("the console's record counts more bytes than its rings hold");
        return -E_CORRUPT;
    }
    for (uint32_t i = 0; i < RECORD_CONSOLE_OUT_PAGE_COUNT; i++)
        record_load_wait(RECORD_CONSOLE_OUT_PAGE + i);
    for (uint32_t i = 0; i < RECORD_CONSOLE_IN_PAGE_COUNT; i++)
        record_load_wait(RECORD_CONSOLE_IN_PAGE + i);
    sent = line_start(record->out_tail);
    released = frozen_head = record->out_head;
    return 0;
}

void console_announce(void) {
    debug("console: goes on at byte %llu out, %llu in", (unsigned long long)sent,
          (unsigned long long)console_record()->in_head);
}

void console_repeat(void (*show)(const uint8_t *bytes, size_t count)) {
    uint64_t head = console_record()->out_head;
    uint64_t counter = head > OUT_SIZE ? head - OUT_SIZE : 0;
    for (size_t piece; counter < sent; counter += piece) {
        piece = ring_piece(counter, (size_t)(sent - counter));
        show((const uint8_t *)pager_record(out_page(counter)) + counter % PAGE_SIZE, piece);
    }
}

void console_freezing(void) {
    uint64_t left = proc_env.output_idle() || sent < UART_HELD_MAX ? sent : sent - UART_HELD_MAX;
    if (console_record()->out_tail < left)
        console_record_write()->out_tail = left;
    frozen_head = console_record()->out_head;
}

void console_durable(void) {
    if (released >= frozen_head) /* greater when relaxed: a write releases itself at once */
        return;
    released = frozen_head;
    proc_env.output_ready();
}

/* --- the program's side --- */

/* After a resume more may wait than a program could have written: what is sent again counts, too. */
size_t console_output_room(void) {
    size_t waiting = (size_t)(console_record()->out_head - sent);
    return waiting < OUT_SIZE - REPEAT_SIZE_MAX ? OUT_SIZE - REPEAT_SIZE_MAX - waiting : 0;
}

size_t console_input_waiting(void) { return (size_t)(console_record()->in_head - console_record()->in_tail); }

uint64_t console_sent(void) { return sent; }

void console_write(const void *user, size_t size) {
    uint64_t head = console_record()->out_head;
    const char *from = user;
    arch_user_access_begin();
    for (size_t piece; size > 0; size -= piece, from += piece, head += piece) {
        piece = ring_piece(head, size);
        memcpy((char *)pager_record_write(out_page(head)) + head % PAGE_SIZE, from, piece);
    }
    arch_user_access_end();
    console_record_write()->out_head = head;
    if (!proc_env.relaxed) {
        pager_want_commit();
        return;
    }
    released = head;
    proc_env.output_ready();
}

void console_read(void *user, size_t size) {
    uint64_t tail = console_record()->in_tail;
    char *to = user;
    arch_user_access_begin();
    for (size_t piece; size > 0; size -= piece, to += piece, tail += piece) {
        piece = ring_piece(tail, size);
        memcpy(to, (const char *)pager_record(in_page(tail)) + tail % PAGE_SIZE, piece);
    }
    arch_user_access_end();
    console_record_write()->in_tail = tail;
    proc_env.input_room();
}

/* --- the driver's side --- */

size_t console_take_output(uint8_t *buffer, size_t size) {
    size_t count = smaller(size, (size_t)(released - sent));
    int was_full = console_output_room() == 0;
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = ring_piece(sent, count - done);
        memcpy(buffer + done, (const char *)pager_record(out_page(sent)) + sent % PAGE_SIZE, piece);
        sent += piece;
    }
    if (was_full && count > 0)
        proc_wake(&console_event_key);
    return count;
}

size_t console_input_room_left(void) { return IN_SIZE - console_input_waiting(); }

size_t console_give_input(const uint8_t *bytes, size_t count) {
    count = smaller(count, console_input_room_left());
    uint64_t head = console_record()->in_head;
    for (size_t done = 0, piece; done < count; done += piece, head += piece) {
        piece = ring_piece(head, count - done);
        memcpy((char *)pager_record_write(in_page(head)) + head % PAGE_SIZE, bytes + done, piece);
    }
    if (count > 0) {
        console_record_write()->in_head = head;
        proc_wake(&console_event_key);
    }
    return count;
}
