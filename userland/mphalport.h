/*
 * userland/mphalport.h: what the port's files offer each other and MicroPython's hardware layer.
 *
 * Promise: console.c owns all input, output and waiting; nothing else makes those system calls.
 * Included by: py/mphal.h.
 */
#ifndef USERLAND_MPHALPORT_H
#define USERLAND_MPHALPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "py/mpconfig.h"
#include "shared/runtime/interrupt_char.h"

void port_console_flush(void);             /* hands buffered output to the kernel */
void port_events_take(uint64_t deadline_ns); /* waits in the kernel and takes in what has come */
void port_sleep_until_wall(uint64_t wall_ns); /* CLOCK_WALL_NS: time without power counts */
uint64_t port_mono_ns(void);
uint64_t port_deadline_ms(uint64_t timeout_ms);
void port_console_forget_input(void);      /* what was typed is the parent's */
int port_readline_rx_chr(void);            /* mp_hal_stdin_rx_chr for readline */
struct _vstr_t;
int port_readline(struct _vstr_t *line, const char *prompt); /* for the prompt and input(), of several threads */
#define mp_hal_readline port_readline
void port_line_init(void);                 /* nobody has a line */

#define PORT_MEMORY_SIZE_MIN (1024 * 1024ul) /* of a process's heap */
size_t port_heap_end_set(size_t page_count);  /* the region has so many pages (0: all); returns its size in bytes */
size_t port_heap_size(size_t page_count);     /* the same in bytes */
extern size_t port_heap_limit; /* of all areas together, in bytes; survives a soft reset */
void *port_stack_alloc(size_t *size); /* for a thread, rounded up to pages; NULL: the heap could not grow so either */
void port_heap_init(void);  /* empty heap with one small area; pages of an earlier one are given back */
void port_exec_init(void);  /* forgets all native code */
void port_files_mount(void); /* mounts the files region at "/", formatting it at the first start */
void port_resumed(void);    /* the kernel says that the machine has resumed: reseed, schedule callbacks */
void port_resume_init(void); /* no callbacks */
void port_random_reseed(void);

extern bool port_is_child;  /* spawned or forked: has no console input, and ends where the first process prompts */
void port_child_begin(void);
NORETURN void port_child_run(void);           /* what spawn was given */
NORETURN void port_child_end(void *exception); /* NULL: none */
void port_atexit_run(void);                   /* the end of a process or of an interpreter */

#endif
