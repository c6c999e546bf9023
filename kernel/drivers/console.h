/*
 * kernel/drivers/console.h: the two serial ports. COM1 is the programs' console, COM2 the kernel's voice.
 *
 * Promise: bytes go out in order, by interrupt, FIFO filled at each; input is handed to the sink as it comes, none is
 * dropped while the sink takes it. No busy waiting but in panic. What goes to COM1 is shown on the screen (terminal.h),
 * if there is one, at the same moment.
 * Called by: proc/console (through main.c's tables), lib/log's sink. Context: interrupts off.
 */
#ifndef DRIVERS_CONSOLE_H
#define DRIVERS_CONSOLE_H

#include <stddef.h>
#include <stdint.h>

struct console_sink {
    /* Next bytes to send: at most size into buffer, returns how many (0: none now). Interrupt context. */
    size_t (*take_output)(uint8_t *buffer, size_t size);
    /* One received batch, at most input_room(); returns how many were taken. The rest stays in the UART. */
    size_t (*give_input)(const uint8_t *bytes, size_t count);
    size_t (*input_room)(void);
};

int console_init(const struct console_sink *sink);
void console_output_ready(void);  /* there are bytes to take: start sending if idle */
void console_input_room(void);    /* the sink has room again */
int console_output_idle(void);    /* nothing left in the sink nor the UART */
void voice_write(const char *text, size_t length);   /* COM2; polled, bounded */
void console_panic_write(const char *text, size_t length); /* COM1 and COM2, polled, no interrupts */

#endif
