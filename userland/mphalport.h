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
void port_wait_until(uint64_t deadline_ns); /* until then, or an event; CLOCK_MONO_NS */
uint64_t port_mono_ns(void);
int port_readline_rx_chr(void);            /* mp_hal_stdin_rx_chr for readline */

extern size_t port_heap_limit; /* of all areas together, in bytes; survives a soft reset */
void port_heap_init(void);  /* empty heap with one small area; pages of an earlier one are given back */
void port_exec_init(void);  /* forgets all native code */
void port_files_mount(void); /* mounts the files region at "/", formatting it at the first start */
void port_resumed(void);    /* the kernel says that the machine has resumed: reseed, schedule callbacks */
void port_resume_init(void); /* no callbacks */

#endif
