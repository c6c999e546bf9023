/*
 * userland/thread.h: the threads of a program, for the port's files that wait, collect or look for memory.
 *
 * Promise: a ring of at least one. All of it is ordinary memory of the process: the kernel knows nothing of it.
 * Included by: thread.c, console.c, heap.c, main.c, processes.c.
 */
#ifndef USERLAND_THREAD_H
#define USERLAND_THREAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "py/mpstate.h"

/* What a check of the C stack leaves for the frames below it: libm, littlefs, console, the collector. */
#define PORT_STACK_RESERVE_SIZE (32 * 1024)

struct port_thread {
    struct port_thread *next;        /* of the ring, in the order of turns */
    mp_state_thread_t state;         /* while another one runs; of the one that runs it is in mp_state_ctx */
    void **stack_pointer;            /* likewise; registers lie there */
    void **stack_end;
    char *memory;                    /* the stack, and this record at its end; NULL: the main thread's */
    size_t memory_size;
    uint64_t deadline_ns;            /* it waits until then or an event; 0: it goes on at its turn */
    bool has_event;                  /* something happened that it may not have looked at yet */
    bool has_ended;
    const mp_thread_mutex_t *wanted; /* it waits for that one */
    void *(*entry)(void *);
    void *arg;
    mp_uint_t id;
};

extern struct port_thread port_main_thread;

void port_threads_wake(void);                 /* an event: every wait ends */
void port_thread_wait(uint64_t deadline_ns);  /* until then or an event; others run meanwhile */
void port_thread_turn(void);                  /* others run, if they can */
void port_thread_interrupt(void);             /* KeyboardInterrupt, in the main thread */
void port_threads_collect(void);              /* marks what threads hold that do not run */
void port_threads_end(void);                  /* all but the main one, which calls it */
void port_thread_forked(void);                /* this process is a copy, and ends with the thread that calls this */

#endif
