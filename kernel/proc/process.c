/*
 * kernel/proc/process.c: processes that come and go: spawn, fork, kill, what can be known of them, and their end.
 *
 * Promise: a new process costs the same whatever its template or parent holds: one operation on the tree and a record.
 * All that must survive is in its record. A process has the slot of its number, space SPACE_FIRST_USER + slot and the
 * thread in the same slot; who is its parent, or the parent of that, may wait for it and end it, and nobody else.
 * The end has two steps: ENDING, with its status (whoever waits is told), and ENDED, when its memory is given back.
 * Called by: syscall.c, schedule.c, resume.c. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

enum { HEAP_SIZE_MIN = 1 << 20, FRAMES_PER_PROCESS = 64 }; /* tables, records, a full inbox, and pages to work in */

static struct space spaces[PROCESS_COUNT_MAX];
static uint8_t noticed[PROCESS_COUNT_MAX];
static unsigned ending_count;

struct space *process_space(uint32_t slot) { return &spaces[slot]; }

static uint32_t slot_count(void) { return (uint32_t)machine_record()->process_slots; }

static int has_ended(const struct process_record *record) {
    return record->state == PROCESS_ENDED || record->state == PROCESS_ENDING;
}

int process_has_ended(uint32_t slot) { return has_ended(process_record(slot)); }
int process_is_running(uint32_t slot) { return process_record(slot)->state == PROCESS_RUNNING; }

uint32_t process_find(uint32_t id) {
    for (uint32_t slot = 0; slot < slot_count(); slot++) {
        const struct process_record *record = process_record(slot);
        if (record->id == id && (record->state == PROCESS_RUNNING || has_ended(record)))
            return slot;
    }
    return SLOT_NONE;
}

/* Whether `slot` descends from `ancestor`. Parents are always running: orphans go to the parent's parent. */
static int descends(uint32_t slot, uint32_t ancestor) {
    uint32_t id = process_record(ancestor)->id;
    for (uint32_t steps = 0; slot != SLOT_NONE && steps < PROCESS_COUNT_MAX; steps++) {
        uint32_t parent = process_record(slot)->parent;
        if (parent == 0 || parent == id)
            return parent == id;
        slot = process_find(parent);
    }
    return 0;
}

/* --- notices: a process that waits for others looks again. Not in a record: after a resume all look again --- */

int process_is_notified(uint32_t slot) { return noticed[slot]; }
void process_notice_taken(uint32_t slot) { noticed[slot] = 0; }

void process_notify(uint32_t slot) {
    noticed[slot] = 1;
    thread_notify(slot);
}

static void notify_ancestors(uint32_t slot) {
    for (uint32_t steps = 0; steps < PROCESS_COUNT_MAX; steps++) {
        uint32_t parent = process_record(slot)->parent;
        slot = parent != 0 ? process_find(parent) : SLOT_NONE;
        if (slot == SLOT_NONE)
            return;
        process_notify(slot);
    }
}

/* --- the end --- */

static void orphans_adopt(uint32_t id, uint32_t parent) {
    for (uint32_t slot = 0; slot < slot_count(); slot++)
        if (process_record(slot)->state != PROCESS_FREE && process_record(slot)->parent == id)
            process_record_write(slot)->parent = parent;
}

void process_end(uint32_t slot, int64_t exit_status, const char *last_words, enum thread_state record_state) {
    thread_end_all(slot, record_state);
    struct process_record *record = process_record_write(slot);
    record->state = PROCESS_ENDING;
    record->exit_status = exit_status;
    trace(TRACE_EXIT, record->id, (uint64_t)exit_status, 0);
    record->inbox_head = record->inbox_tail = 0;
    memset(record->last_words, 0, sizeof record->last_words);
    memcpy(record->last_words, last_words, strlen(last_words));
    orphans_adopt(record->id, record->parent);
    ending_count++;
    notify_ancestors(slot);
    message_wake_senders(slot);
    proc_attention();
}

int process_work(void) {
    for (uint32_t slot = 0; ending_count > 0 && slot < slot_count(); slot++) {
        if (process_record(slot)->state != PROCESS_ENDING)
            continue;
        int status = pager_space_end(&spaces[slot], process_record(slot)->space);
        if (status > 0)
            return 1;
        if (status < 0) {
            pager_want_commit();
            return 0;
        }
        process_record_write(slot)->state = PROCESS_ENDED;
        ending_count--;
    }
    return 0;
}

void process_resume(void) {
    for (uint32_t slot = 0; slot < slot_count(); slot++) {
        noticed[slot] = 1;
        ending_count += process_record(slot)->state == PROCESS_ENDING;
    }
}

/* --- the beginning --- */

static int space_is_free(uint64_t space) {
    for (uint32_t slot = 0; slot < slot_count(); slot++) {
        uint32_t state = process_record(slot)->state;
        if (state != PROCESS_FREE && state != PROCESS_ENDED && process_record(slot)->space == space)
            return 0;
    }
    return 1;
}

static int slot_is_free(uint32_t slot, enum process_state state) {
    uint32_t thread_state = thread_record(slot)->state;
    return process_record(slot)->state == state && !thread_is_used(slot) &&
           (thread_state == THREAD_FREE || thread_state == THREAD_FAULTED) && space_is_free(SPACE_FIRST_USER + slot);
}

static uint64_t running_count(void) {
    uint64_t count = 0;
    for (uint32_t slot = 0; slot < slot_count(); slot++)
        count += process_is_running(slot);
    return count;
}

/* A slot that was never used or is free again; when there is none, that of the process that ended longest ago. 0;
 * ERR_NOMEM: all run, or RAM has no room for more. SYSCALL_AGAIN. */
static int64_t slot_take(uint32_t *out) {
    uint32_t count = slot_count(), oldest = SLOT_NONE;
    if (running_count() >= frame_count_total() / FRAMES_PER_PROCESS)
        return ERR_NOMEM;
    for (uint32_t slot = 0; slot < count; slot++) {
        if (slot_is_free(slot, PROCESS_FREE)) {
            *out = slot;
            return 0;
        }
        if (slot_is_free(slot, PROCESS_ENDED) &&
            (oldest == SLOT_NONE || process_record(slot)->id < process_record(oldest)->id))
            oldest = slot;
    }
    *out = count < PROCESS_COUNT_MAX ? count : oldest;
    if (*out == SLOT_NONE)
        return ERR_NOMEM;
    int64_t status = syscall_reach(RECORD_PROCESS_PAGE + *out / RECORDS_PER_PAGE);
    return status == 0 ? syscall_reach(RECORD_THREAD_PAGE + *out / RECORDS_PER_PAGE) : status;
}

static uint32_t id_take(void) {
    struct machine_record *machine = machine_record_write();
    int is_first = machine->next_id == 0;
    for (uint32_t slot = 0; is_first && slot < slot_count(); slot++)
        if (process_record(slot)->id >= machine->next_id)
            machine->next_id = process_record(slot)->id + 1ull;
    return (uint32_t)machine->next_id++;
}

/* The space of a new process in `slot`: the pages and regions of `from`. 0, a negative result or SYSCALL_AGAIN. */
static int64_t space_make(uint32_t slot, uint32_t from) {
    const struct process_record *source = process_record(from);
    switch (pager_space_begin(&spaces[slot], SPACE_FIRST_USER + slot, source->space)) {
    case 0:
        memcpy(spaces[slot].region, source->region, sizeof source->region);
        spaces[slot].region_count = source->region_count;
        return 0;
    case -E_LIMIT:
        pager_want_commit();
        return syscall_again(&durable_key, UINT64_MAX);
    default:
        return ERR_NOMEM;
    }
}

static void slots_raise(uint32_t slot) {
    struct machine_record *machine = machine_record_write();
    if (machine->process_slots <= slot)
        machine->process_slots = slot + 1;
    if (machine->thread_slots <= slot)
        machine->thread_slots = slot + 1;
}

/* The record of a new process, and its thread, which begins as `thread` says. */
static struct process_record *record_make(uint32_t slot, uint32_t from, uint32_t thread, uint32_t parent) {
    uint32_t id = id_take();
    slots_raise(slot);
    struct thread_record *begin = thread_record_write(slot);
    *begin = *thread_record(thread);
    begin->state = THREAD_READY;
    begin->id = id;
    begin->process = slot;
    begin->done_size = 0;
    struct process_record *record = process_record_write(slot);
    *record = *process_record(from);
    record->state = PROCESS_RUNNING;
    record->id = id;
    record->space = SPACE_FIRST_USER + slot;
    record->parent = process_record(parent)->id;
    record->inbox_head = record->inbox_tail = 0;
    record->resume_seen = proc_resume_count;
    memset(record->last_words, 0, sizeof record->last_words);
    noticed[slot] = 0;
    trace(TRACE_SPAWN, id, record->parent, 0);
    return record;
}

/* --- spawn --- */

static uint32_t template_find(void) {
    for (uint32_t slot = 0; slot < slot_count(); slot++)
        if (process_record(slot)->state == PROCESS_TEMPLATE && thread_record(slot)->state == THREAD_TEMPLATE &&
            process_record(slot)->region_count > 0)
            return slot;
    return SLOT_NONE;
}

static int request_is_sane(const struct spawn_request *request) {
    if (request->flags & ~(uint32_t)SPAWN_QUIET || request->zero != 0 || request->name[sizeof request->name - 1] != 0)
        return 0;
    for (const char *at = request->name; *at != 0; at++)
        if ((uint8_t)*at < ' ' || *at == 0x7f)
            return 0;
    return request->memory_size == 0 || request->memory_size >= HEAP_SIZE_MIN;
}

/* Makes the heap's region as small as the request and the parent's own say. */
static void heap_limit(uint32_t slot, uint32_t parent, uint64_t size) {
    struct process_record *record = process_record_write(slot);
    const struct process_record *above = process_record(parent);
    struct region_record *heap = &record->region[record->region_count - 1];
    const struct region_record *heap_above = &above->region[above->region_count - 1];
    uint64_t size_above = heap_above->end - heap_above->start;
    size = (size + FRAME_SIZE - 1) & ~(uint64_t)(FRAME_SIZE - 1);
    size = size == 0 || size > size_above ? size_above : size;
    if (size < heap->end - heap->start)
        heap->end = heap->start + size;
    record->page_limit = (heap->end - heap->start) >> FRAME_SHIFT;
    spaces[slot].region[record->region_count - 1] = *heap;
}

static int64_t request_read(struct spawn_request *request, const struct thread_registers *r) {
    if (r->rsi < sizeof *request || r->rsi > sizeof *request + INBOX_SIZE - sizeof(struct message_record))
        return ERR_INVAL;
    int64_t status = syscall_prepare(r->rdi, r->rsi, 0);
    if (status != 0)
        return status;
    arch_user_access_begin();
    memcpy(request, (const void *)r->rdi, sizeof *request);
    arch_user_access_end();
    return request_is_sane(request) ? 0 : ERR_INVAL;
}

static int64_t inbox_reach(uint32_t slot, uint64_t size) {
    int64_t status = 0;
    for (uint64_t page = 0; status == 0 && page * FRAME_SIZE < size + sizeof(struct message_record); page++)
        status = syscall_reach(RECORD_INBOX_PAGE + slot * INBOX_PAGE_COUNT + (uint32_t)page);
    return status;
}

int64_t sys_spawn(const struct thread_registers *r) {
    struct spawn_request request;
    uint32_t slot, parent = thread_current()->process, template = template_find();
    if (template == SLOT_NONE)
        return ERR_NOSYS;
    int64_t status = request_read(&request, r);
    if (status == 0)
        status = slot_take(&slot);
    if (status == 0)
        status = inbox_reach(slot, r->rsi - sizeof request);
    if (status == 0)
        status = space_make(slot, template);
    if (status != 0)
        return status;
    struct process_record *record = record_make(slot, template, template, parent);
    record->flags = PROCESS_SPAWNED | request.flags | (process_record(parent)->flags & PROCESS_QUIET);
    memcpy(record->name, request.name, sizeof record->name);
    heap_limit(slot, parent, request.memory_size);
    thread_record_write(slot)->registers.rdi = 1; /* how it knows that it was spawned */
    check(message_put(slot, process_record(parent)->id, r->rdi + sizeof request, r->rsi - sizeof request) == 0);
    thread_add(slot, slot, &spaces[slot]);
    return process_record(slot)->id;
}

/* 0: a generation holds the moment of the call, so that nothing in the caller's space is dirty. Else as
 * syscall_again. */
static int64_t fork_generation_wait(uint32_t thread) {
    uint64_t generation = thread_record(thread)->fork_generation;
    if (generation == 0)
        thread_record_write(thread)->fork_generation = generation = pager_epoch();
    if (generation == pager_epoch())
        pager_want_commit();
    return pager_durable() >= generation ? 0 : syscall_again(&durable_key, UINT64_MAX);
}

int64_t sys_fork(const struct thread_registers *r) {
    uint32_t slot, parent = thread_current()->process, thread = thread_current()->slot;
    int64_t status = fork_generation_wait(thread);
    if (status == 0)
        status = slot_take(&slot);
    if (status == 0)
        status = space_make(slot, parent);
    if (status == SYSCALL_AGAIN)
        return status;
    thread_record_write(thread)->fork_generation = 0; /* for the next call */
    if (status != 0)
        return status;
    record_make(slot, parent, thread, parent)->flags |= PROCESS_SPAWNED;
    struct thread_record *begin = thread_record_write(slot); /* the caller's own record is older than its registers */
    begin->registers = *r;
    begin->registers.rax = 0;
    arch_fx_save(begin->fx);
    thread_add(slot, slot, &spaces[slot]);
    return process_record(slot)->id;
}

/* --- kill and look --- */

int64_t sys_kill(const struct thread_registers *r) {
    uint32_t self = thread_current()->process;
    uint32_t slot = r->rdi <= UINT32_MAX ? process_find((uint32_t)r->rdi) : SLOT_NONE;
    if (slot == SLOT_NONE || (slot != self && !descends(slot, self)))
        return ERR_NOPROC;
    if (!process_is_running(slot))
        return 0;
    process_end(slot, EXIT_KILLED, "killed", THREAD_FREE);
    return slot == self ? SYSCALL_AGAIN : 0;
}

/* Of those that descend from the caller, and itself: the one with the next id after this. */
static uint32_t next_visible(uint32_t self, uint64_t after) {
    uint32_t found = SLOT_NONE;
    if (after == PROCESS_SELF)
        return self;
    for (uint32_t slot = 0; slot < slot_count(); slot++) {
        const struct process_record *record = process_record(slot);
        if ((record->state == PROCESS_RUNNING || has_ended(record)) && record->id > after &&
            (found == SLOT_NONE || record->id < process_record(found)->id) && (slot == self || descends(slot, self)))
            found = slot;
    }
    return found;
}

static void info_fill(struct process_info *info, uint32_t slot) {
    const struct process_record *record = process_record(slot);
    memset(info, 0, sizeof *info);
    info->id = record->id;
    info->parent = record->parent;
    info->state = has_ended(record) ? PROCESS_INFO_ENDED : PROCESS_INFO_RUNNING;
    info->flags = record->flags;
    info->exit_status = record->exit_status;
    info->page_limit = record->page_limit;
    info->pages = has_ended(record) ? 0 : spaces[slot].resident_count;
    info->inbox_bytes = record->inbox_head - record->inbox_tail;
    memcpy(info->name, record->name, sizeof info->name - 1);
    memcpy(info->last_words, record->last_words, sizeof record->last_words);
}

int64_t sys_process(const struct thread_registers *r) {
    static struct process_info info;
    uint64_t size = r->rsi < sizeof info ? r->rsi : sizeof info;
    int64_t status = syscall_prepare(r->rdi, size, 1);
    if (status != 0)
        return status;
    uint32_t slot = next_visible(thread_current()->process, r->rdx);
    if (slot == SLOT_NONE)
        return 0;
    info_fill(&info, slot);
    arch_user_access_begin();
    memcpy((void *)r->rdi, &info, size);
    arch_user_access_end();
    return (int64_t)size;
}
