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
    RECORD_TRACE_PAGE = 64, /* a ring of struct trace_page (abi/trace.h) */
    RECORD_TRACE_PAGE_COUNT = 32,
    RECORD_PROCESS_PAGE = 256, /* 4 records a page */
    RECORD_PROCESS_PAGE_COUNT = 4096,
    RECORD_THREAD_PAGE = 8192, /* 4 records a page */
    RECORD_THREAD_PAGE_COUNT = 4096,
    RECORD_INBOX_PAGE = 12288, /* 16 pages for each process slot: the ring of its inbox */
    RECORD_INBOX_PAGE_COUNT = 4096,
    INBOX_PAGE_COUNT = 16,
    RECORDS_PER_PAGE = 4,
    REGION_COUNT_MAX = 16,
};

struct machine_record { /* page 0 */
    uint64_t magic;
    uint32_t version;
    uint32_t zero;
    uint8_t machine_id[16];  /* store_id of the near that it ran on last: with another one it is another machine */
    uint64_t resume_reason;  /* enum resume_reason (abi/syscall.h): kept until programs have been told */
    uint64_t resume_count;
    uint64_t process_slots;  /* process records in use lie below this index */
    uint64_t thread_slots;
    uint64_t next_space;
    uint64_t resume_seen;    /* the resume_count that some program has been told */
    uint64_t next_id;        /* of the next process; 0: greater than all there are */
    uint64_t trace_page_number; /* of the newest trace page: at RECORD_TRACE_PAGE + number % RECORD_TRACE_PAGE_COUNT */
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

enum process_state {
    PROCESS_FREE = 0,
    PROCESS_RUNNING = 1,
    PROCESS_ENDED = 2,    /* its memory is given back; the record stays until its slot is needed */
    PROCESS_TEMPLATE = 3, /* has never run: what spawn clones */
    PROCESS_ENDING = 4,   /* ended, but its memory is not given back yet */
};

enum process_flags {
    PROCESS_SPAWNED = 1, /* made by spawn or fork: has no console input */
    PROCESS_QUIET = 2,   /* its output goes nowhere */
};

struct process_record { /* 1024 bytes */
    uint32_t state;
    uint32_t id;
    uint64_t space;
    int64_t exit_status;
    uint32_t region_count;
    uint32_t flags;
    struct region_record region[REGION_COUNT_MAX]; /* the last one is the heap, which a limit makes shorter */
    uint64_t page_limit;   /* pages of the heap's region; 0: as the program was made */
    uint32_t parent;       /* id of the process that may wait for it and end it; 0: none */
    uint32_t zero;
    uint64_t inbox_head;   /* byte counters of its ring of messages; both 0 when it is empty */
    uint64_t inbox_tail;
    uint64_t resume_seen;  /* the resume_count that it has been told */
    char last_words[504];  /* what it left when it ended: a traceback; NUL-padded */
    char name[64];
};

/* A message in an inbox, its bytes behind it; the next one begins at a multiple of 8. */
struct message_record {
    uint32_t sender; /* id */
    uint32_t size;   /* of the bytes */
};

enum thread_state {
    THREAD_FREE = 0,
    THREAD_READY = 1,   /* runs, or would */
    THREAD_WAITING = 2, /* will make its system call again, or touch its page again */
    THREAD_FAULTED = 3, /* stopped for good by a fault of its own */
    THREAD_TEMPLATE = 4, /* of a template: where clones of it begin */
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
    uint64_t fork_generation; /* which a fork waits for; 0: none is under way */
    uint8_t zero[304];
    uint8_t fx[512]; /* FXSAVE image, 16-byte aligned */
};

_Static_assert(sizeof(struct machine_record) == 96, "machine_record");
_Static_assert(sizeof(struct console_record) == 32, "console_record");
_Static_assert(sizeof(struct region_record) == 24, "region_record");
_Static_assert(sizeof(struct process_record) == 1024, "process_record");
_Static_assert(offsetof(struct process_record, region) == 32, "process_record.region");
_Static_assert(offsetof(struct process_record, page_limit) == 416, "process_record.page_limit");
_Static_assert(offsetof(struct process_record, last_words) == 456, "process_record.last_words");
_Static_assert(sizeof(struct message_record) == 8, "message_record");
_Static_assert(sizeof(struct thread_registers) == 160, "thread_registers");
_Static_assert(sizeof(struct thread_record) == 1024, "thread_record");
_Static_assert(offsetof(struct thread_record, registers) == 32, "thread_record.registers");
_Static_assert(offsetof(struct thread_record, done_size) == 192, "thread_record.done_size");
_Static_assert(offsetof(struct thread_record, fork_generation) == 200, "thread_record.fork_generation");
_Static_assert(offsetof(struct thread_record, fx) == 512, "thread_record.fx");

#endif
