/*
 * kernel/proc/proc.h: programs: resume, scheduling, system calls, held console output.
 *
 * Promise: after proc_resume, every thread of the generation goes on from its saved registers; a thread that waited
 * makes its call again.
 * Called by: main.c, which puts these functions into the tables of arch, pager and console. Context: kernel, interrupts
 * off.
 */
#ifndef PROC_PROC_H
#define PROC_PROC_H

#include <stddef.h>
#include <stdint.h>

struct proc_env {
    void (*poll)(void);              /* lets disk completions run; used only by proc_resume */
    void (*refuse)(const char *what, int status); /* ends the machine; used only by proc_resume */
    void (*ended)(int badly);        /* ends the machine: no thread is left; badly: not all with status 0 */
    void (*timer_arm)(uint64_t deadline_ns); /* of now_ns */
    uint64_t (*now_ns)(void);        /* machine time: monotonic over all resumes; stands still until programs go on */
    int64_t (*birth_ns)(void);       /* the same when the clock of log and trace was 0, had it run then */
    uint64_t (*wall_ns)(void);
    void (*random)(void *buffer, size_t size);
    void (*output_ready)(void);      /* console: there are bytes to take */
    void (*input_room)(void);
    int (*output_idle)(void);
    uint64_t entry_cycles;           /* TSC at the kernel's entry */
    uint64_t (*waited_cycles)(void); /* of it, waiting for devices before the first program ran */
    uint64_t (*ns_per_cycle)(void);  /* of the TSC, times 2 to the 32 */
    int relaxed;                     /* output is not held */
    uint64_t test_spaces;            /* more spaces, for benchmarks of the freeze */
    uint64_t test_resident;          /* pages below that index come in before programs go on */
};

/* 0, or a negative error after a notice: this generation is not for this kernel. */
int proc_resume(const struct proc_env *env);
_Noreturn void proc_run(void);

/* arch's handlers */
void proc_page_fault(uint64_t address, uint64_t error_code);
void proc_exception(unsigned vector, uint64_t error_code);
void proc_syscall(void);
void proc_before_user(void);

/* pager's hooks */
void proc_freezing(void);
void proc_durable(uint64_t generation);
void proc_wake(const void *key);
void proc_attention(void);

/* Says from where the console goes on; whoever waits for that may type, so the port has to be set up before. */
void console_announce(void);
/* What the port was given before this start, oldest first, as far as it is kept: for a screen that is empty. */
void console_repeat(void (*show)(const uint8_t *bytes, size_t count));

/* console's sink */
size_t console_take_output(uint8_t *buffer, size_t size);
size_t console_give_input(const uint8_t *bytes, size_t count);
size_t console_input_room_left(void);

#endif
