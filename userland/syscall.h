/*
 * userland/syscall.h: the system calls of kernel/proc/SYSCALLS.md as C functions.
 *
 * Promise: exactly one SYSCALL each; results as the kernel gave them (negative: enum syscall_error). A caller that
 * waits inside one may wake after a restart of the machine without noticing.
 * Called by: the port's files only.
 */
#ifndef USERLAND_SYSCALL_H
#define USERLAND_SYSCALL_H

#include <stddef.h>
#include <stdint.h>

#include "abi/syscall.h"

/* RDI and RDX are in and out: SYS_COMMIT and SYS_TAG put their tickets there. */
static inline long syscall3(long number, uintptr_t a, uintptr_t b, uintptr_t c) {
    long result;
    __asm__ volatile ("syscall"
                      : "=a" (result), "+D" (a), "+d" (c)
                      : "0" (number), "S" (b)
                      : "rcx", "r11", "memory");
    return result;
}

/* words: why it ends, for whoever looks. */
static inline void sys_exit(long status, const char *words, size_t size) {
    syscall3(SYS_EXIT, (uintptr_t)status, (uintptr_t)words, size);
}

static inline long sys_console_write(const void *buf, size_t size) {
    return syscall3(SYS_CONSOLE_WRITE, (uintptr_t)buf, size, 0);
}

static inline long sys_console_read(void *buf, size_t size) {
    return syscall3(SYS_CONSOLE_READ, (uintptr_t)buf, size, 0);
}

static inline long sys_wait(unsigned int mask, uint64_t deadline_ns) {
    return syscall3(SYS_WAIT, mask, deadline_ns, 0);
}

static inline uint64_t sys_clock(enum clock_id clock) {
    return (uint64_t)syscall3(SYS_CLOCK, clock, 0, 0);
}

static inline long sys_generation(void) {
    return syscall3(SYS_GENERATION, 0, 0, 0);
}

static inline long sys_commit(void) {
    return syscall3(SYS_COMMIT, 0, 0, 0);
}

static inline long sys_random(void *buf, size_t size) {
    return syscall3(SYS_RANDOM, (uintptr_t)buf, size, 0);
}

static inline long sys_stats(struct machine_stats *stats) {
    return syscall3(SYS_STATS, (uintptr_t)stats, sizeof *stats, 0);
}

static inline long sys_power(enum power_kind kind) {
    return syscall3(SYS_POWER, kind, 0, 0);
}

static inline long sys_discard(void *start, size_t size) {
    return syscall3(SYS_DISCARD, (uintptr_t)start, size, 0);
}

static inline long sys_exec_write(void *to, const void *from, size_t size) {
    return syscall3(SYS_EXEC_WRITE, (uintptr_t)to, (uintptr_t)from, size);
}

/* Without a name: an automatic tag. */
static inline long sys_tag(const char *name, size_t size) {
    return syscall3(SYS_TAG, (uintptr_t)name, size, 0);
}

static inline long sys_history(struct generation_info *info, size_t size, uint64_t after) {
    return syscall3(SYS_HISTORY, (uintptr_t)info, size, after);
}

static inline enum resume_reason sys_resume_reason(void) {
    return (enum resume_reason)syscall3(SYS_RESUME_REASON, 0, 0, 0);
}

static inline long sys_spawn(const void *request, size_t size) {
    return syscall3(SYS_SPAWN, (uintptr_t)request, size, 0);
}

static inline long sys_fork(void) {
    return syscall3(SYS_FORK, 0, 0, 0);
}

static inline long sys_kill(uint64_t id) {
    return syscall3(SYS_KILL, id, 0, 0);
}

static inline long sys_process(struct process_info *info, uint64_t after) {
    return syscall3(SYS_PROCESS, (uintptr_t)info, sizeof *info, after);
}

static inline long sys_send(uint64_t id, const void *buf, size_t size) {
    return syscall3(SYS_SEND, id, (uintptr_t)buf, size);
}

static inline long sys_receive(void *buf, size_t size) {
    return syscall3(SYS_RECEIVE, (uintptr_t)buf, size, 0);
}

static inline long sys_poll(uint64_t id) {
    return syscall3(SYS_POLL, id, 0, 0);
}

static inline long sys_machine_id(void *buf, size_t size) {
    return syscall3(SYS_MACHINE_ID, (uintptr_t)buf, size, 0);
}

static inline long sys_resume_count(void) {
    return syscall3(SYS_RESUME_COUNT, 0, 0, 0);
}

#endif
