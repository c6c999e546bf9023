/*
 * kernel/proc/internal.h: what the files of this room share. Nobody else includes this.
 */
#ifndef PROC_INTERNAL_H
#define PROC_INTERNAL_H

#include "abi/record.h"
#include "abi/syscall.h"
#include "arch/x86_64/arch.h"
#include "pager/pager.h"
#include "proc/proc.h"

extern struct proc_env proc_env;
extern uint64_t proc_resume_count;
extern uint64_t proc_resume_reason; /* of this life */

enum { THREAD_COUNT_MAX = 1024, PROCESS_COUNT_MAX = 256 };
#define SLOT_NONE UINT32_MAX

enum runtime_state { RUNTIME_UNUSED, RUNTIME_READY, RUNTIME_WAITING };

/* The volatile side of a thread; everything that must survive is in its record. */
struct thread {
    enum runtime_state state;
    uint32_t slot;
    uint32_t process;     /* slot */
    struct space *space;
    const void *wait_key; /* WAITING: woken by proc_wake with this key */
    uint64_t deadline_ns; /* WAITING: woken then at the latest */
    uint64_t turn_end_ns; /* while memory is short: it may run until then; 0: it has waited for an event since */
    struct list_node link; /* READY: ready list; WAITING: waiting list */
};

/* record.c */
const struct machine_record *machine_record(void);
struct machine_record *machine_record_write(void);
const struct console_record *console_record(void);
struct console_record *console_record_write(void);
const struct thread_record *thread_record(uint32_t slot);
struct thread_record *thread_record_write(uint32_t slot);
const struct process_record *process_record(uint32_t slot);
struct process_record *process_record_write(uint32_t slot);
void record_load_wait(uint32_t page); /* at the start only */

/* schedule.c */
extern const char durable_key; /* woken at every durable generation */
struct thread *thread_current(void);
uint64_t schedule_idle_cycles(void);
int schedule_is_empty(void);                               /* no thread is left */
uint64_t schedule_resume_cycles(void);
void thread_add(uint32_t slot, uint32_t process, struct space *space);
void thread_block(const void *key, uint64_t deadline_ns); /* the current thread, as its registers are now */
int thread_is_used(uint32_t slot);
void thread_end_all(uint32_t process, enum thread_state record_state); /* of this process */
void thread_notify(uint32_t process); /* its threads look again what they wait for */
/* commits, lets output out (to a reader that takes it), then switches off */
void machine_power(enum power_kind kind);

/* stack.c */
/* To the log: words from rsp on that may be a frame's, in lines "  stack OFFSET:WORD …", in hex, offsets from rsp. */
void stack_print(struct space *space, uint64_t rsp);

/* console.c */
extern const char console_event_key; /* woken at input, and when a full output ring has room again */
int console_resume(void); /* 0, or -E_CORRUPT before anything was loaded */
void console_freezing(void);
void console_durable(void);
size_t console_output_room(void);
size_t console_input_waiting(void);
uint64_t console_sent(void); /* bytes that the UART was given, ever */
void console_write(const void *user, size_t size); /* prepared; at most the room */
void console_read(void *user, size_t size);        /* prepared; at most what waits */

/* trace.c */
void trace_freezing(void);

/* live.c */
void live_update(uint64_t now_ns, int idle); /* idle: the CPU is about to wait */

/* syscall.c */
void stats_take(struct machine_stats *stats);
/* What a call returns instead of a result when the thread now waits and will make it again. */
#define SYSCALL_AGAIN INT64_MIN
/* A piece is done: the thread makes the call again at once, but interrupts and other threads come first. */
#define SYSCALL_MORE (INT64_MIN + 1)
int64_t syscall_again(const void *key, uint64_t deadline_ns);
/* 0: the range may be touched now, until the next call of this. SYSCALL_AGAIN or ERR_FAULT: return that. */
int64_t syscall_prepare(uint64_t address, uint64_t size, int write);
int64_t syscall_reach(uint32_t record_page); /* 0, or SYSCALL_AGAIN: the page of space 0 is not here yet */

/* process.c */
struct space *process_space(uint32_t slot);
uint32_t process_find(uint32_t id);    /* the slot of a process that runs or has ended, or SLOT_NONE */
int process_is_running(uint32_t slot);
int process_has_ended(uint32_t slot);
void process_end(uint32_t slot, int64_t exit_status, const char *last_words, enum thread_state record_state);
void process_notify(uint32_t slot);    /* something that it may wait for has happened */
int process_is_notified(uint32_t slot);
void process_notice_taken(uint32_t slot);
void process_resume(void);             /* after all records are loaded: ends what was ending, tells all to look again */
int process_work(void);                /* a piece of giving back what ended processes had; 1: more to do right now */
int64_t sys_spawn(const struct thread_registers *r);
int64_t sys_fork(const struct thread_registers *r);
int64_t sys_kill(const struct thread_registers *r);
int64_t sys_process(const struct thread_registers *r);

/* message.c */
int message_inbox_is_sane(const struct process_record *record);
void message_wake_senders(uint32_t slot); /* who found no room in its inbox tries again */
int64_t message_put(uint32_t slot, uint32_t sender, uint64_t user, uint64_t size); /* prepared; 0 or SYSCALL_AGAIN */
int64_t sys_send(const struct thread_registers *r);
int64_t sys_receive(const struct thread_registers *r);
int64_t sys_poll(const struct thread_registers *r);

/* space_test.c */
int space_test_make(uint64_t count);
void space_test_load(struct space *space, uint64_t page_count);

#endif
