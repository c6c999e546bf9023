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

enum { THREAD_COUNT_MAX = 1024, PROCESS_COUNT_MAX = 256 };

enum runtime_state { RUNTIME_UNUSED, RUNTIME_READY, RUNTIME_WAITING };

/* The volatile side of a thread; everything that must survive is in its record. */
struct thread {
    enum runtime_state state;
    uint32_t slot;
    uint32_t process;     /* slot */
    struct space *space;
    const void *wait_key; /* WAITING: woken by proc_wake with this key */
    uint64_t deadline_ns; /* WAITING: woken then at the latest */
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
void thread_end(enum thread_state record_state);          /* the current thread */
/* commits, lets output out (to a reader that takes it), then switches off */
void machine_power(enum power_kind kind);

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

/* space_test.c */
int space_test_make(uint64_t count);
void space_test_load(struct space *space, uint64_t page_count);

#endif
