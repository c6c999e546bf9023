/*
 * kernel/proc/message.c: messages between processes: each has one inbox, a ring of pages in space 0.
 *
 * Promise: a message is there whole or not at all, once, in the order of sending, with the true sender's id; what a
 * call has put or taken is in the same epoch as its result. A full inbox refuses (ERR_AGAIN) and nobody is waited for
 * in here. An empty ring begins at its first page again, so that small traffic stays in one page.
 * Called by: syscall.c, process.c, resume.c. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "proc/internal.h"

#define PAGE_SIZE 4096u
_Static_assert(INBOX_SIZE == INBOX_PAGE_COUNT * PAGE_SIZE, "the ring's pages");
_Static_assert(sizeof(struct message_record) == sizeof(struct message_header), "receive copies it as it is");

#define ANY_ID UINT32_MAX

/* The id of whose inbox had no room when a process wanted to send, or ANY_ID of several; 0: none. After a resume all
 * look again. */
static uint32_t sending_to[PROCESS_COUNT_MAX];

static void room_wanted(uint32_t self, uint32_t id) {
    sending_to[self] = sending_to[self] == 0 || sending_to[self] == id ? id : ANY_ID;
}

static uint64_t padded(uint64_t size) { return (sizeof(struct message_record) + size + 7) & ~7ull; }

static uint32_t ring_page(uint32_t slot, uint64_t counter) {
    return RECORD_INBOX_PAGE + slot * INBOX_PAGE_COUNT + (uint32_t)(counter % INBOX_SIZE / PAGE_SIZE);
}

static size_t ring_piece(uint64_t counter, uint64_t size) {
    uint64_t left = PAGE_SIZE - counter % PAGE_SIZE;
    return size < left ? size : left;
}

static uint64_t inbox_used(uint32_t slot) {
    return process_record(slot)->inbox_head - process_record(slot)->inbox_tail;
}

int message_inbox_is_sane(const struct process_record *record) {
    return record->inbox_tail <= record->inbox_head && record->inbox_head - record->inbox_tail <= INBOX_SIZE &&
           (record->inbox_head | record->inbox_tail) % 8 == 0;
}

/* 0: the pages of [counter, counter + size) are here. */
static int64_t ring_reach(uint32_t slot, uint64_t counter, uint64_t size) {
    int64_t status = 0;
    for (uint64_t at = counter; status == 0 && at < counter + size; at += ring_piece(at, counter + size - at))
        status = syscall_reach(ring_page(slot, at));
    return status;
}

void message_wake_senders(uint32_t slot) {
    uint32_t id = process_record(slot)->id, count = (uint32_t)machine_record()->process_slots;
    for (uint32_t i = 0; i < count; i++) {
        if (sending_to[i] == id || sending_to[i] == ANY_ID) {
            sending_to[i] = 0;
            process_notify(i);
        }
    }
}

/* --- send --- */

static void ring_write(uint32_t slot, uint64_t counter, const void *from, uint64_t size) {
    for (size_t piece; size > 0; size -= piece, counter += piece, from = (const char *)from + piece) {
        piece = ring_piece(counter, size);
        memcpy((char *)pager_record_write(ring_page(slot, counter)) + counter % PAGE_SIZE, from, piece);
    }
}

int64_t message_put(uint32_t slot, uint32_t sender, uint64_t user, uint64_t size) {
    uint64_t head = process_record(slot)->inbox_head;
    struct message_record header = {sender, (uint32_t)size};
    int64_t status = ring_reach(slot, head, padded(size));
    if (status != 0)
        return status;
    ring_write(slot, head, &header, sizeof header);
    arch_user_access_begin();
    ring_write(slot, head + sizeof header, (const void *)user, size);
    arch_user_access_end();
    process_record_write(slot)->inbox_head = head + padded(size);
    process_notify(slot);
    return 0;
}

static uint32_t find(uint64_t id) { return id <= UINT32_MAX ? process_find((uint32_t)id) : SLOT_NONE; }

int64_t sys_send(const struct thread_registers *r) {
    uint32_t self = thread_current()->process, slot = find(r->rdi);
    if (r->rdx > MESSAGE_SIZE_MAX)
        return ERR_INVAL;
    if (slot == SLOT_NONE || !process_is_running(slot))
        return ERR_NOPROC;
    int64_t status = syscall_prepare(r->rsi, r->rdx, 0);
    if (status != 0)
        return status;
    if (INBOX_SIZE - inbox_used(slot) < padded(r->rdx)) {
        room_wanted(self, (uint32_t)r->rdi);
        return ERR_AGAIN;
    }
    return message_put(slot, process_record(self)->id, r->rsi, r->rdx);
}

/* --- receive --- */

static void ring_read(uint32_t slot, uint64_t counter, void *to, uint64_t size) {
    for (size_t piece; size > 0; size -= piece, counter += piece, to = (char *)to + piece) {
        piece = ring_piece(counter, size);
        memcpy(to, (const char *)pager_record(ring_page(slot, counter)) + counter % PAGE_SIZE, piece);
    }
}

/* Takes `size` bytes out of the ring, all of it where that is more than there is. */
static void take(uint32_t slot, uint64_t size) {
    struct process_record *record = process_record_write(slot);
    record->inbox_tail = size < inbox_used(slot) ? record->inbox_tail + size : record->inbox_head;
    if (record->inbox_tail == record->inbox_head)
        record->inbox_head = record->inbox_tail = 0;
    message_wake_senders(slot);
}

int64_t sys_receive(const struct thread_registers *r) {
    struct message_record header;
    uint32_t slot = thread_current()->process;
    if (r->rsi < sizeof header)
        return ERR_INVAL;
    if (inbox_used(slot) == 0)
        return ERR_AGAIN;
    uint64_t tail = process_record(slot)->inbox_tail;
    int64_t status = ring_reach(slot, tail, sizeof header);
    if (status != 0)
        return status;
    ring_read(slot, tail, &header, sizeof header);
    if (padded(header.size) > inbox_used(slot)) {
        notice("process %u: its inbox made no sense and was emptied", process_record(slot)->id);
        take(slot, INBOX_SIZE);
        return ERR_AGAIN;
    }
    uint64_t size = sizeof header + header.size;
    int is_all = r->rsi >= size;
    size = is_all ? size : sizeof header;
    status = syscall_prepare(r->rdi, size, 1);
    if (status == 0)
        status = ring_reach(slot, tail, size);
    if (status != 0)
        return status;
    arch_user_access_begin();
    ring_read(slot, tail, (void *)r->rdi, size);
    arch_user_access_end();
    if (is_all)
        take(slot, padded(header.size));
    return (int64_t)size;
}

int64_t sys_poll(const struct thread_registers *r) {
    uint32_t self = thread_current()->process, slot = r->rdi == 0 ? self : find(r->rdi);
    if (slot == SLOT_NONE)
        return ERR_NOPROC;
    if (!process_is_running(slot))
        return POLL_ENDED;
    int64_t bits = slot == self && inbox_used(slot) > 0 ? POLL_MESSAGE : 0;
    if (inbox_used(slot) <= INBOX_SIZE / 2)
        return bits | POLL_ROOM;
    room_wanted(self, process_record(slot)->id);
    return bits;
}
