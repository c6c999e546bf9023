/*
 * userland/main.c: the first instruction in ring 3, and the interpreter's life: start, programs, prompt, soft reset.
 *
 * Promise: never ends. A soft reset (Ctrl-D, SystemExit) ends threads, empties heap and native code and keeps the
 * files.
 * Called by: the kernel, once, at genesis, and for each process that is spawned. Every later start goes on in the
 * middle of this program.
 */
#include <stdlib.h>

#include "py/compile.h"
#include "py/cstack.h"
#include "py/gc.h"
#include "py/mphal.h"
#include "py/runtime.h"
#include "shared/readline/readline.h"
#include "shared/runtime/pyexec.h"

#include "layout.h"
#include "syscall.h"
#include "thread.h"

/* Clean stack and floating-point state, whatever the image builder put there (MXCSR 0 traps each inexact result). */
__asm__ (
    ".section .text._start, \"ax\"\n"
    ".globl _start\n"
    "_start:\n"
    "    mov $0x01000000, %esp\n"
    "    xor %ebp, %ebp\n"
    "    cld\n"
    "    fninit\n"
    "    ldmxcsr mxcsr_default(%rip)\n"
    "    call main\n" /* RDI is 1 in a spawned process */
    "    ud2\n"
    ".section .rodata\n"
    ".balign 4\n"
    "mxcsr_default: .long 0x1f80\n"
    ".text\n"
);

const char port_help_text[] =
    "This is MicroPython on Revenant: programs do not die. Cut the power, start again, and all goes on.\n"
    "\n"
    "Nothing needs to be saved. To know more about it:\n"
    "  import revenant\n"
    "  revenant.sleep_until(t)  waits until time.time() is t, with the power on or off\n"
    "  revenant.generation()    newest generation that is durable\n"
    "  revenant.commit()        waits until this moment is durable\n"
    "  revenant.tag(name)       the same, and keeps this moment under a name\n"
    "  revenant.history()       the moments that are kept\n"
    "  revenant.on_resume(f)    f('restart') is called after each start of the machine\n"
    "  revenant.stats()         what the machine counts\n"
    "  revenant.heap_limit(n)   how far the heap may grow, in bytes\n"
    "  revenant.spawn(source)   another Python in a space of its own; returns its id\n"
    "  revenant.fork()          this one goes on twice; returns the other's id, or 0 in it\n"
    "  revenant.processes()     what runs and what has ended\n"
    "  revenant.wait(id), kill(id), send(id, value), receive()\n"
    "  revenant.power_off()     commits and turns the machine off\n"
    "\n"
    "Control keys:\n"
    "  CTRL-A   raw REPL mode\n"
    "  CTRL-B   normal REPL mode\n"
    "  CTRL-C   interrupt a running program\n"
    "  CTRL-D   soft reset: forgets all objects, keeps files; the moment before is tagged\n"
    "  CTRL-E   paste mode\n"
    "\n"
    "For a list of modules, type help('modules').\n";

static void interpreter_init(void) {
    port_heap_init();
    port_exec_init();
    mp_init();
    port_resume_init();
    readline_init0();
    port_line_init();
    port_files_mount();
}

/* Returns true when a program asked for a soft reset. */
static bool programs_run(void) {
    if (pyexec_file_if_exists("boot.py") & PYEXEC_FORCED_EXIT) {
        return true;
    }
    if (pyexec_mode_kind != PYEXEC_MODE_FRIENDLY_REPL) {
        return false; /* a tool asked for the soft reset: main.py would be in its way */
    }
    return pyexec_file_if_exists("main.py") & PYEXEC_FORCED_EXIT;
}

static void prompt_run(void) {
    int result = 0;
    while (!(result & PYEXEC_FORCED_EXIT)) {
        result = pyexec_mode_kind == PYEXEC_MODE_RAW_REPL ? pyexec_raw_repl() : pyexec_friendly_repl();
    }
}

/* Keeps the moment before a soft reset under a tag. False when the machine has been brought back to this very
 * moment. */
static bool reset_confirmed(void) {
    port_console_flush();
    sys_tag(NULL, 0);
    enum resume_reason reason = sys_resume_reason();
    return reason == RESUME_RESTART || reason == RESUME_UPGRADE;
}

int main(int is_spawned) {
    mp_cstack_init_with_top((void *)LAYOUT_STACK_END, LAYOUT_STACK_END - LAYOUT_STACK_START - PORT_STACK_RESERVE_SIZE);
    if (is_spawned) {
        port_child_begin();
        interpreter_init();
        port_child_run();
    }
    for (;;) {
        interpreter_init();
        bool reset = programs_run() && reset_confirmed();
        while (!reset) {
            prompt_run();
            reset = reset_confirmed();
        }
        port_atexit_run();
        mp_hal_stdout_tx_str("MPY: soft reboot\r\n");
        port_threads_end();
        gc_sweep_all();
        mp_deinit();
    }
}

/* An exception outside of every handler: a bug of the port. The machine shows it once and stops the program. */
void nlr_jump_fail(void *value) {
    (void)value;
    mp_hal_stdout_tx_str("FATAL: uncaught exception outside of the interpreter\r\n");
    abort();
}
