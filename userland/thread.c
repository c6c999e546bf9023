/*
 * userland/thread.c: Python's threads (`_thread`): they take turns inside the one thread that the kernel gives a
 * process.
 *
 * Promise: one gives way where it waits (input, sleep, messages, select, locks) and at the VM's polls (mpconfigport.h),
 * never in between, so that no object is seen half changed; only when all wait does the process wait in the kernel,
 * until the nearest deadline. Stacks and records are ordinary memory, so threads outlive power cuts, and a fork copies
 * all of them.
 * Called by: py/modthread.c, console.c, heap.c, main.c, processes.c.
 */
#include "py/gc.h"
#include "py/mperrno.h"
#include "py/mphal.h"
#include "py/mpthread.h"
#include "py/runtime.h"

#include "layout.h"
#include "syscall.h"
#include "thread.h"

#define STACK_SIZE_DEFAULT (256 * 1024)
#define STACK_SIZE_MIN (16 * 1024)

_Static_assert(offsetof(mp_state_ctx_t, thread) == 0, "mp_thread_get_state (mpthreadport.h)");

struct port_thread port_main_thread = { .next = &port_main_thread, .stack_end = (void **)LAYOUT_STACK_END, .id = 1 };
static struct port_thread *current = &port_main_thread;
static struct port_thread *ended; /* it stood on its stack until another one ran */
static struct port_thread *forker; /* in a fork: the one that called it */
static nlr_buf_t *forker_outermost; /* of its handlers: has the exception that nobody else took, or NULL */
static struct port_thread *in_callback; /* while the scheduler is locked: it waits in one of its callbacks */

/* Keeps the registers that a function must keep, and the stack pointer; goes on with those of another. The control
 * words of x87 and SSE are the same for all: nobody changes them. */
void port_stack_switch(void ***stack_pointer, void **other);
__asm__ (
    ".text\n"
    "port_stack_switch:\n"
    "    push %rbp\n"
    "    push %rbx\n"
    "    push %r12\n"
    "    push %r13\n"
    "    push %r14\n"
    "    push %r15\n"
    "    mov %rsp, (%rdi)\n"
    "    mov %rsi, %rsp\n"
    "    pop %r15\n"
    "    pop %r14\n"
    "    pop %r13\n"
    "    pop %r12\n"
    "    pop %rbx\n"
    "    pop %rbp\n"
    "    ret\n"
);
#define KEPT_REGISTER_COUNT 6

static void thread_free(struct port_thread *thread) {
    struct port_thread *before = thread;
    while (before->next != thread) {
        before = before->next;
    }
    before->next = thread->next;
    sys_discard(thread->memory, thread->memory_size);
}

static void ended_free(void) {
    if (ended != NULL) {
        thread_free(ended);
        ended = NULL;
    }
}

static void switch_to(struct port_thread *next) {
    struct port_thread *from = current;
    if (next == from) {
        return;
    }
    if (MP_STATE_VM(sched_state) >= 0) {
        in_callback = NULL;
    } else if (in_callback == NULL) {
        in_callback = from;
    }
    from->state = mp_state_ctx.thread;
    mp_state_ctx.thread = next->state;
    current = next;
    port_stack_switch(&from->stack_pointer, next->stack_pointer);
    ended_free();
}

/* While it sweeps, finalisers run: of a file, which may lie on a block device made in Python. Nobody else may allocate
 * then. */
static bool is_collecting(void) {
    return MP_STATE_THREAD(gc_lock_depth) & GC_COLLECT_FLAG;
}

static bool can_run(const struct port_thread *thread, uint64_t now_ns) {
    return !thread->has_ended && (thread->has_event || thread->deadline_ns <= now_ns);
}

/* Whose turn it is, the current one's last; NULL when all wait. */
static struct port_thread *next_to_run(void) {
    uint64_t now_ns = port_mono_ns();
    struct port_thread *thread = current;
    do {
        thread = thread->next;
        if (can_run(thread, now_ns)) {
            return thread;
        }
    } while (thread != current);
    return NULL;
}

static uint64_t nearest_deadline(void) {
    uint64_t nearest_ns = current->deadline_ns;
    for (const struct port_thread *thread = current->next; thread != current; thread = thread->next) {
        nearest_ns = MIN(nearest_ns, thread->deadline_ns);
    }
    return nearest_ns;
}

void port_threads_wake(void) {
    struct port_thread *thread = current;
    do {
        thread->has_event = true;
        thread = thread->next;
    } while (thread != current);
}

void port_thread_wait(uint64_t deadline_ns) {
    port_console_flush();
    if (is_collecting()) {
        port_events_take(deadline_ns);
        return;
    }
    current->deadline_ns = deadline_ns;
    port_events_take(next_to_run() != NULL ? 0 : nearest_deadline());
    struct port_thread *next;
    while ((next = next_to_run()) == NULL) {
        port_events_take(nearest_deadline());
    }
    switch_to(next);
    current->deadline_ns = 0;
    current->has_event = false;
}

/* The scheduler's callbacks and finalisers are not interrupted by others' turns (upstream does likewise); where one
 * waits, the others still take turns: else it would wait for ever. */
void port_thread_turn(void) {
    bool is_callback = MP_STATE_VM(sched_state) < 0 && (in_callback == NULL || in_callback == current);
    if (current->next != current && !is_callback && !is_collecting()) {
        switch_to(next_to_run());
    }
}

void port_thread_interrupt(void) {
    mp_sched_keyboard_interrupt(); /* into the state of who runs */
    if (current != &port_main_thread) {
        port_main_thread.state.mp_pending_exception = MP_STATE_THREAD(mp_pending_exception);
        MP_STATE_THREAD(mp_pending_exception) = MP_OBJ_NULL;
    }
}

void port_threads_collect(void) {
    gc_collect_root(&current->arg, 1);
    for (struct port_thread *thread = current->next; thread != current; thread = thread->next) {
        gc_collect_root((void **)thread, sizeof *thread / sizeof(void *));
        gc_collect_root(thread->stack_pointer, thread->stack_end - thread->stack_pointer);
    }
}

void port_threads_end(void) {
    while (port_main_thread.next != &port_main_thread) {
        thread_free(port_main_thread.next);
    }
    in_callback = NULL;
}

void port_thread_forked(void) {
    forker = current;
    forker_outermost = MP_STATE_THREAD(nlr_top);
    while (forker_outermost->prev != NULL) {
        forker_outermost = forker_outermost->prev;
    }
    forker_outermost->ret_val = NULL;
}

/* --- the life of a thread --- */

NORETURN static void thread_run(void) {
    ended_free();
    current->entry(current->arg);
    current->has_ended = true;
    ended = current;
    port_thread_wait(WAIT_FOREVER);
    MP_UNREACHABLE;
}

/* As port_stack_switch leaves a stack: registers, and where to return to; above it no caller, as after a call. */
static void stack_init(struct port_thread *thread) {
    thread->stack_end[-1] = NULL;
    thread->stack_end[-2] = (void *)thread_run;
    thread->stack_pointer = thread->stack_end - 2 - KEPT_REGISTER_COUNT;
}

mp_uint_t mp_thread_create(void *(*entry)(void *), void *arg, size_t *stack_size) {
    static mp_uint_t id_last = 1;
    if (*stack_size > LAYOUT_HEAP_END) {
        mp_raise_OSError(MP_ENOMEM);
    }
    *stack_size = *stack_size == 0 ? STACK_SIZE_DEFAULT : MAX(*stack_size, STACK_SIZE_MIN);
    size_t size = *stack_size + PORT_STACK_RESERVE_SIZE + sizeof(struct port_thread);
    char *memory = port_stack_alloc(&size);
    if (memory == NULL) {
        mp_raise_OSError(MP_ENOMEM);
    }
    struct port_thread *thread = (struct port_thread *)((uintptr_t)(memory + size - sizeof *thread) & ~15ul);
    *thread = (struct port_thread) {
        .next = current, .stack_end = (void **)thread, .memory = memory, .memory_size = size,
        .entry = entry, .arg = arg, .id = ++id_last,
    };
    stack_init(thread);
    struct port_thread *last = current;
    while (last->next != current) {
        last = last->next;
    }
    last->next = thread;
    return thread->id;
}

mp_uint_t mp_thread_get_id(void) {
    return current->id;
}

void mp_thread_start(void) {
}

/* Its exception, if it ends with one, has been printed; unless it is SystemExit. */
void mp_thread_finish(void) {
    if (current == forker) {
        port_child_end(MP_OBJ_FROM_PTR(forker_outermost->ret_val));
    }
}

/* --- locks --- */

void mp_thread_mutex_init(mp_thread_mutex_t *mutex) {
    mutex->is_locked = false;
}

/* 1: it is the caller's now; 0: it is another's. Ctrl-C ends the main thread's wait. */
int mp_thread_mutex_lock(mp_thread_mutex_t *mutex, int wait) {
    if (mutex == &MP_STATE_VM(qstr_mutex)) {
        return 1; /* nobody gives way inside */
    }
    while (mutex->is_locked) {
        if (!wait) {
            return 0;
        }
        if (is_collecting()) {
            return -MP_EAGAIN; /* a finaliser: nobody may run who could unlock it */
        }
        current->wanted = mutex;
        port_thread_wait(WAIT_FOREVER);
        if (current->wanted == NULL) {
            return 1;
        }
        current->wanted = NULL;
        mp_handle_pending(true);
    }
    mutex->is_locked = true;
    return 1;
}

/* It goes to the next one that waits for it, so that who takes it again at once comes after all of those. */
void mp_thread_mutex_unlock(mp_thread_mutex_t *mutex) {
    for (struct port_thread *thread = current->next; thread != current; thread = thread->next) {
        if (thread->wanted == mutex) {
            thread->wanted = NULL;
            thread->has_event = true;
            return;
        }
    }
    mutex->is_locked = false;
}
