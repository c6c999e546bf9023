/*
 * userland/mpthreadport.h: what MicroPython's core asks of threads where it must cost nothing.
 *
 * Promise: the state of the thread that runs is always in mp_state_ctx (thread.c exchanges it), at an address that the
 * compiler knows, so that programs without threads pay nothing for them. Nobody is interrupted: a thread gives way only
 * where thread.c is called, never inside the collector or the table of strings, so their mutexes are empty.
 * Included by: py/mpthread.h.
 */
#ifndef USERLAND_MPTHREADPORT_H
#define USERLAND_MPTHREADPORT_H

#include <stdbool.h>

typedef struct {
    bool is_locked;
} mp_thread_mutex_t;

typedef struct {
} mp_thread_recursive_mutex_t;

/* Its first member is the state of a thread; the type is not complete yet. */
extern struct _mp_state_ctx_t mp_state_ctx;

static inline struct _mp_state_thread_t *mp_thread_get_state(void) {
    return (struct _mp_state_thread_t *)&mp_state_ctx;
}

static inline void mp_thread_set_state(struct _mp_state_thread_t *state) {
    (void)state;
}

static inline void mp_thread_recursive_mutex_init(mp_thread_recursive_mutex_t *mutex) {
    (void)mutex;
}

static inline int mp_thread_recursive_mutex_lock(mp_thread_recursive_mutex_t *mutex, int wait) {
    (void)mutex;
    (void)wait;
    return 1;
}

static inline void mp_thread_recursive_mutex_unlock(mp_thread_recursive_mutex_t *mutex) {
    (void)mutex;
}

#endif
