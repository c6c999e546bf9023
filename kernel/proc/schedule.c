/*
 * kernel/proc/schedule.c: which thread runs, what is done between, and when the CPU sleeps.
 *
 * Promise: ready threads take turns of QUANTUM_NS; while memory is short, a few do for TURN_NS, then others, so that
 * each has its pages long enough to get on; a thread that waits is its registers plus a key; an idle machine halts the
 * CPU. The loaded thread's registers are put into its record only when another is loaded or at a freeze, so that idling
 * dirties nothing. When the last thread has ended, that is saved, the output let out, and the machine ends.
 * Called by: arch (before each return to ring 3), syscall.c, pager's hooks. Context: kernel, interrupts off.
 */
#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

#define QUANTUM_NS 10000000ull
#define TURN_NS 1000000000ull
#define SLICE_INTERVAL_NS 500000ull /* between slices of background work while a program runs */
#define POWER_POLL_NS 10000000ull /* the last byte leaves the UART without an interrupt */
/* With a reader that takes nothing: the rest is in the record, and shown at the next start. */
#define POWER_PATIENCE_NS 5000000000ull
enum { FRAMES_PER_TURN = 1024 }; /* of memory, for each thread that runs while it is short */
enum { SLICE_BUDGET = 20, IDLE_BUDGET = 64 }; /* steps of the store: about a page each */

const char durable_key;

static struct thread threads[THREAD_COUNT_MAX];
static struct list_node ready = {&ready, &ready}, waiting = {&waiting, &waiting};
static struct thread *loaded;  /* whose registers arch_user_registers() holds */
static int registers_unsaved;  /* it ran since they were last put into its record */
static int attention = 1;
static uint64_t quantum_end_ns;
static uint64_t idle_cycles; /* halted, since the start */
static uint64_t resume_cycles; /* until the first program ran, waiting for devices left out */

static int power_pending;
static void (*power_end)(void); /* ends the machine, once the output has left */
static uint64_t power_generation;
static uint64_t power_sent, power_patience_ns; /* how much output has left, and until when some more has to */

uint64_t schedule_idle_cycles(void) { return idle_cycles; }
uint64_t schedule_resume_cycles(void) { return resume_cycles; }

struct thread *thread_current(void) { return loaded; }

void thread_add(uint32_t slot, uint32_t process, struct space *space) {
    check(slot < THREAD_COUNT_MAX && threads[slot].state == RUNTIME_UNUSED);
    threads[slot] = (struct thread){.state = RUNTIME_READY, .slot = slot, .process = process, .space = space};
    list_append(&ready, &threads[slot].link);
}

static void thread_make_ready(struct thread *thread) {
    list_remove(&thread->link);
    thread->state = RUNTIME_READY;
    thread->wait_key = NULL;
    list_append(&ready, &thread->link);
    attention = 1;
}

/* key NULL: for good. */
void thread_block(const void *key, uint64_t deadline_ns) {
    list_remove(&loaded->link);
    loaded->state = RUNTIME_WAITING;
    loaded->wait_key = key;
    if (key == NULL || key == &durable_key || key == &console_event_key)
        loaded->turn_end_ns = 0; /* others wait for pages: their turn goes on */
    loaded->deadline_ns = deadline_ns;
    list_append(&waiting, &loaded->link);
    attention = 1;
}

void proc_wake(const void *key) {
    for (struct list_node *node = waiting.next, *next; node != &waiting; node = next) {
        struct thread *thread = list_entry(node, struct thread, link);
        next = node->next;
        if (thread->wait_key == key)
            thread_make_ready(thread);
    }
}

void proc_attention(void) { attention = 1; }

/* Wakes the sleepers that are due; returns when the next one is. */
static uint64_t sleepers_wake(uint64_t now) {
    uint64_t next_ns = UINT64_MAX;
    for (struct list_node *node = waiting.next, *next; node != &waiting; node = next) {
        struct thread *thread = list_entry(node, struct thread, link);
        next = node->next;
        if (thread->deadline_ns <= now)
            thread_make_ready(thread);
        else if (thread->deadline_ns < next_ns)
            next_ns = thread->deadline_ns;
    }
    return next_ns;
}

/* --- registers --- */

static void registers_save(void) {
    if (loaded == NULL || !registers_unsaved)
        return;
    struct thread_record *record = thread_record_write(loaded->slot);
    record->registers = *arch_user_registers();
    arch_fx_save(record->fx);
    registers_unsaved = 0;
}

static void thread_load(struct thread *thread) {
    if (loaded == thread)
        return;
    registers_save();
    const struct thread_record *record = thread_record(thread->slot);
    *arch_user_registers() = record->registers;
    arch_fx_load(record->fx);
    if (loaded == NULL || loaded->space != thread->space)
        pager_switch(thread->space);
    loaded = thread;
}

void proc_freezing(void) {
    registers_save();
    console_freezing();
    trace_freezing();
}

void proc_durable(uint64_t generation) {
    (void)generation;
    console_durable();
    proc_wake(&durable_key);
}

int thread_is_used(uint32_t slot) { return threads[slot].state != RUNTIME_UNUSED; }

void thread_notify(uint32_t process) {
    for (struct list_node *node = waiting.next, *next; node != &waiting; node = next) {
        struct thread *thread = list_entry(node, struct thread, link);
        next = node->next;
        if (thread->process == process && thread->wait_key == &console_event_key)
            thread_make_ready(thread);
    }
}

/* --- power --- */

static void power_begin(void (*end)(void), uint64_t generation) {
    power_pending = 1;
    power_end = end;
    power_generation = generation;
    power_sent = UINT64_MAX; /* patience begins with the first look */
}

void machine_power(enum power_kind kind) {
    pager_want_commit();
    power_begin(kind == POWER_RESET ? arch_reset : arch_power_off, pager_epoch());
    thread_block(NULL, UINT64_MAX);
}

/* Those of the image count; what became of others, their parents know. */
static void programs_ended(void) {
    int badly = 0;
    for (uint32_t i = 0; i < machine_record()->process_slots; i++)
        badly |= process_has_ended(i) && !(process_record(i)->flags & PROCESS_SPAWNED) &&
                 process_record(i)->exit_status != 0;
    proc_env.ended(badly);
}

int schedule_is_empty(void) { return list_empty(&ready) && list_empty(&waiting); }

static void thread_end(struct thread *thread, enum thread_state record_state) {
    if (thread == loaded) {
        registers_save();
        loaded = NULL;
    }
    thread_record_write(thread->slot)->state = record_state;
    list_remove(&thread->link);
    thread->wait_key = NULL;
    thread->state = RUNTIME_UNUSED;
    attention = 1;
}

void thread_end_all(uint32_t process, enum thread_state record_state) {
    for (uint32_t slot = 0; slot < THREAD_COUNT_MAX; slot++)
        if (thread_is_used(slot) && threads[slot].process == process)
            thread_end(&threads[slot], record_state);
    if (schedule_is_empty()) {
        pager_want_commit();
        power_begin(programs_ended, pager_epoch());
    }
}

static void power_check(uint64_t now) {
    if (!power_pending || pager_durable() < power_generation)
        return;
    if (power_sent != console_sent()) {
        power_sent = console_sent();
        power_patience_ns = now + POWER_PATIENCE_NS;
    }
    if (!proc_env.output_idle() && now < power_patience_ns)
        return;
    power_end();
}

/* --- the scheduler --- */

static unsigned turn_count(const struct list_node *list, uint64_t now) {
    unsigned count = 0;
    list_for_each(node, list)
        count += list_entry(node, struct thread, link)->turn_end_ns > now;
    return count;
}

/* The first ready thread whose turn ends, or ended, within [from, to]. */
static struct thread *first_ready(uint64_t from, uint64_t to) {
    list_for_each(node, &ready) {
        struct thread *thread = list_entry(node, struct thread, link);
        if (thread->turn_end_ns >= from && thread->turn_end_ns <= to)
            return thread;
    }
    return NULL;
}

/*
 * Memory is short: more programs at once would only take pages from each other. Who comes from an event is next, then
 * who has waited longest. NULL: those whose turn it is wait for their pages.
 */
static struct thread *thread_on_turn(uint64_t now) {
    uint64_t most = frame_count_total() / FRAMES_PER_TURN;
    if (turn_count(&ready, now) + turn_count(&waiting, now) < (most > 2 ? most : 2)) {
        struct thread *next = first_ready(0, 0);
        if (next == NULL)
            next = first_ready(0, now);
        if (next != NULL)
            next->turn_end_ns = now + TURN_NS;
    }
    return first_ready(now + 1, UINT64_MAX);
}

static struct thread *thread_pick(uint64_t now) {
    if (power_pending || list_empty(&ready))
        return NULL;
    if (loaded != NULL && loaded->state == RUNTIME_READY && now < quantum_end_ns)
        return loaded;
    struct thread *first = list_entry(ready.next, struct thread, link);
    struct thread *thread = pager_memory_is_short(now) ? thread_on_turn(now) : first;
    if (thread == NULL)
        return NULL;
    list_remove(&thread->link);
    list_append(&ready, &thread->link);
    quantum_end_ns = now + QUANTUM_NS;
    return thread;
}

static void timer_arm(uint64_t deadline_ns) {
    uint64_t pager_ns = pager_deadline_ns();
    proc_env.timer_arm(pager_ns < deadline_ns ? pager_ns : deadline_ns);
}

static void schedule(void) {
    for (;;) {
        attention = 0;
        uint64_t now = proc_env.now_ns();
        uint64_t sleepers_ns = sleepers_wake(now);
        int more = list_empty(&ready) ? pager_work(IDLE_BUDGET, 1) : pager_work(SLICE_BUDGET, 0);
        more |= process_work();
        struct thread *thread = thread_pick(now);
        if (thread != NULL) {
            thread_load(thread);
            uint64_t deadline_ns = ready.next->next != &ready ? quantum_end_ns : UINT64_MAX;
            if (more && now + SLICE_INTERVAL_NS < deadline_ns)
                deadline_ns = now + SLICE_INTERVAL_NS;
            timer_arm(sleepers_ns < deadline_ns ? sleepers_ns : deadline_ns);
            live_update(now, 0);
            return;
        }
        power_check(now);
        if (more || attention) {
            arch_idle_poll();
            continue;
        }
        if (!list_empty(&ready) && now + QUANTUM_NS < sleepers_ns)
            sleepers_ns = now + QUANTUM_NS; /* a turn may have ended */
        timer_arm(power_pending ? now + POWER_POLL_NS : sleepers_ns);
        live_update(now, 1);
        uint64_t start = arch_cycles();
        arch_idle();
        idle_cycles += arch_cycles() - start;
    }
}

void proc_before_user(void) {
    if (attention || loaded->state != RUNTIME_READY)
        schedule();
    registers_unsaved = 1;
}

_Noreturn void proc_run(void) {
    resume_cycles = arch_cycles() - proc_env.entry_cycles - proc_env.waited_cycles();
    proc_attention();
    if (schedule_is_empty())
        power_begin(programs_ended, pager_durable());
    schedule();
    registers_unsaved = 1;
    arch_user_run();
}
