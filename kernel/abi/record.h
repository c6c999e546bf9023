/*
 * kernel/abi/record.h: the kernel's persistent records: pages of space 0 (RECORD_VERSION 1).
 *
 * Promise: everything that must survive and is not a page of a program is here; sizes are asserted; a kernel
 * that does not know a version refuses the generation and changes nothing.
 * Used by: kernel/proc and kernel/pager (through accessors that mark pages dirty); written first by `revenant create`.
 */
#ifndef ABI_RECORD_H
#define ABI_RECORD_H

#include <stddef.h>
#include <stdint.h>

#define RECORD_MAGIC 0x4843414d544e5652ull /* "RVNTMACH" */

enum { RECORD_VERSION = 1 };

/* Page indexes in space 0. */
enum {
    RECORD_MACHINE_PAGE = 0,
    RECORD_CONSOLE_PAGE = 1,
    RECORD_CONSOLE_OUT_PAGE = 16,
    RECORD_CONSOLE_OUT_PAGE_COUNT = 16,
    RECORD_CONSOLE_IN_PAGE = 32,
    RECORD_CONSOLE_IN_PAGE_COUNT = 16,
    RECORD_PROCESS_PAGE = 256, /* 4 records a page */
    RECORD_PROCESS_PAGE_COUNT = 4096,
    RECORD_THREAD_PAGE = 8192, /* 4 records a page */
    RECORD_THREAD_PAGE_COUNT = 8192,
    RECORDS_PER_PAGE = 4,
    REGION_COUNT_MAX = 16,
};

struct machine_record { /* page 0 */
    uint64_t magic;
    uint32_t version;
    uint32_t zero;
    uint8_t machine_id[16];
    uint64_t resume_reason;  /* enum resume_reason (abi/syscall.h): kept until programs have been told */
    uint64_t resume_count;
    uint64_t process_slots;  /* process records in use lie below this index */
    uint64_t thread_slots;
    uint64_t next_space;
    uint64_t resume_seen;    /* the resume_count that programs have been told */
};

struct console_record { /* page 1: byte counters since genesis; ring offset = counter mod ring size */
    uint64_t out_head;  /* written by programs */
    uint64_t out_tail;  /* known to have left the machine */
    uint64_t in_head;   /* received */
    uint64_t in_tail;   /* read by programs */
};

enum region_access { REGION_READ = 1, REGION_WRITE = 2, REGION_EXEC = 4 };

struct region_record {
    uint64_t start; /* virtual address, page multiple */
    uint64_t end;
    uint32_t access;
    uint32_t zero;
};

enum process_state { PROCESS_FREE = 0, PROCESS_RUNNING = 1, PROCESS_ENDED = 2, PROCESS_TEMPLATE = 3 };

struct process_record { /* 1024 bytes */
    uint32_t state;
    uint32_t id;
    uint64_t space;
    int64_t exit_status;
    uint32_t region_count;
    uint32_t zero;
    struct region_record region[REGION_COUNT_MAX];
    uint64_t page_limit;   /* pages that the process may have touched; 0: none set */
    uint8_t zero2[536];
    char name[64];
};

enum thread_state {
    THREAD_FREE = 0,
    THREAD_READY = 1,   /* runs, or would */
    THREAD_WAITING = 2, /* will make its system call again, or touch its page again */
    THREAD_FAULTED = 3, /* stopped for good by a fault of its own */
};

/* Order fixed by kernel/arch/x86_64/entry.asm, which asserts these offsets through arch.h. */
struct thread_registers {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rip, rflags, rsp;
    uint64_t fs_base, gs_base;
};

struct thread_record { /* 1024 bytes */
    uint32_t state;
    uint32_t id;
    uint32_t process; /* slot index */
    uint32_t wait_reason;
    uint64_t wait_deadline_ns;
    uint64_t wait_mask;
    struct thread_registers registers;
    uint64_t done_size; /* how far a discard has come that is made in pieces; 0: none is under way */
    uint8_t zero[312];
    uint8_t fx[512]; /* FXSAVE image, 16-byte aligned */
};

_Static_assert(sizeof(struct machine_record) == 80, "machine_record");
_Static_assert(sizeof(struct console_record) == 32, "console_record");
_Static_assert(sizeof(struct region_record) == 24, "region_record");
_Static_assert(sizeof(struct process_record) == 1024, "process_record");
_Static_assert(offsetof(struct process_record, region) == 32, "process_record.region");
_Static_assert(offsetof(struct process_record, page_limit) == 416, "process_record.page_limit");
_Static_assert(sizeof(struct thread_registers) == 160, "thread_registers");
_Static_assert(sizeof(struct thread_record) == 1024, "thread_record");
_Static_assert(offsetof(struct thread_record, registers) == 32, "thread_record.registers");
_Static_assert(offsetof(struct thread_record, done_size) == 192, "thread_record.done_size");
_Static_assert(offsetof(struct thread_record, fx) == 512, "thread_record.fx");

#endif
