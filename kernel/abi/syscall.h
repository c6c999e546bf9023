/*
 * kernel/abi/syscall.h: numbers and structures of system calls; their meaning is in kernel/proc/SYSCALLS.md.
 *
 * Promise: numbers are never reused; structures only grow at their end.
 * Used by: kernel/proc and userland alike.
 */
#ifndef ABI_SYSCALL_H
#define ABI_SYSCALL_H

#include <stdint.h>

enum syscall_number {
    SYS_EXIT = 0,
    SYS_CONSOLE_WRITE = 1,
    SYS_CONSOLE_READ = 2,
    SYS_WAIT = 3,
    SYS_CLOCK = 4,
    SYS_GENERATION = 5,
    SYS_COMMIT = 6,
    SYS_RANDOM = 7,
    SYS_STATS = 8,
    SYS_POWER = 9,
    SYS_DISCARD = 10,
    SYS_EXEC_WRITE = 11,
    SYS_RESUME_COUNT = 12,
    SYS_TAG = 13,
    SYS_HISTORY = 14,
    SYS_RESUME_REASON = 15,
    SYS_SPAWN = 16,
    SYS_FORK = 17,
    SYS_KILL = 18,
    SYS_PROCESS = 19,
    SYS_SEND = 20,
    SYS_RECEIVE = 21,
    SYS_POLL = 22,
    SYS_MACHINE_ID = 23,
    SYS_COUNT
};

enum syscall_error {
    ERR_OK = 0,
    ERR_INVAL = -1,  /* an argument makes no sense */
    ERR_FAULT = -2,  /* a pointer leaves the caller's regions */
    ERR_NOSYS = -3,  /* no such call */
    ERR_NOMEM = -4,  /* a limit of the process or the machine */
    ERR_TIMEOUT = -5,
    ERR_AGAIN = -6,  /* nothing to read now */
    ERR_EXISTS = -7, /* the name is taken */
    ERR_NOPROC = -8, /* no such process, or not the caller's to ask */
};

enum clock_id { CLOCK_MONO_NS = 0, CLOCK_WALL_NS = 1 };
enum wait_bits { WAIT_CONSOLE_IN = 1, WAIT_CONSOLE_OUT = 2, WAIT_RESUMED = 4, WAIT_NOTICE = 8 };
enum power_kind { POWER_OFF = 0, POWER_RESET = 1 };

/* Why the machine went on in another way than by going on. Written into the machine record by the tools; the last one
 * by the kernel, which finds itself on another near than before. */
enum resume_reason {
    RESUME_RESTART = 0, RESUME_ROLLBACK = 1, RESUME_FORK = 2, RESUME_UPGRADE = 3, RESUME_OTHER_MACHINE = 4
};

#define WAIT_FOREVER UINT64_MAX
enum { MACHINE_ID_SIZE = 16 };

/* --- processes --- */

enum spawn_flags { SPAWN_QUIET = 2 }; /* as in the process record */
enum exit_status { EXIT_FAULT = -1, EXIT_KILLED = -2 }; /* of processes that did not call exit themselves */
enum poll_bits { POLL_MESSAGE = 1, POLL_ROOM = 2, POLL_ENDED = 4 };
enum process_info_state { PROCESS_INFO_RUNNING = 1, PROCESS_INFO_ENDED = 2 };

enum { INBOX_SIZE = 65536, MESSAGE_SIZE_MAX = 32760 }; /* half an inbox with its header */
#define PROCESS_SELF UINT64_MAX

struct spawn_request {         /* the first message follows it: at most an inbox full, with its header */
    uint64_t memory_size;      /* bytes that the heap may have; 0: as many as the caller's */
    uint32_t flags;
    uint32_t zero;
    char name[64];             /* NUL-terminated, no control characters */
};

struct message_header {        /* what receive puts before the message */
    uint32_t sender;           /* id; in the first message of a spawned process its parent's */
    uint32_t size;
};

struct process_info {
    uint32_t id;
    uint32_t parent;
    uint32_t state;
    uint32_t flags;
    int64_t exit_status;
    uint64_t page_limit;       /* of the heap */
    uint64_t pages;            /* in RAM now */
    uint64_t inbox_bytes;      /* waiting, with headers */
    char name[64];
    char last_words[512];      /* what it said when it ended, or why it was stopped */
};

enum generation_info_flags { GENERATION_INFO_TAGGED = 1, GENERATION_INFO_ROLLBACK = 4 }; /* as in the disk format */

struct generation_info {
    uint64_t generation;
    uint64_t wall_ns;          /* of its freeze */
    uint64_t mono_ns;
    uint64_t pages;            /* written by its commit */
    uint64_t origin;           /* with GENERATION_INFO_ROLLBACK: the generation whose contents it has */
    uint64_t flags;
    char tag[48];              /* NUL-padded */
};

struct machine_stats {
    uint64_t generation;       /* newest durable */
    uint64_t epoch;            /* running now */
    uint64_t resume_count;
    uint64_t mono_ns;
    uint64_t frames_total;     /* of 4096 bytes */
    uint64_t frames_free;
    uint64_t pages_dirty;
    uint64_t pages_resident;
    uint64_t faults;           /* page faults of user programs and of the kernel for them */
    uint64_t pages_copied;     /* copied since a frozen version was not yet on disk */
    uint64_t commits;
    uint64_t commit_pages;     /* data pages written by commits */
    uint64_t commit_ns_last;   /* freeze to durable */
    uint64_t freeze_cycles_last; /* TSC difference; guest instructions under -icount shift=0 */
    uint64_t freeze_cycles_max;
    uint64_t write_fault_cycles; /* sum over first writes */
    uint64_t write_fault_count;
    uint64_t write_fault_cycles_max;
    uint64_t near_reads;       /* blocks */
    uint64_t near_writes;
    uint64_t far_reads;
    uint64_t far_requests;
    uint64_t near_blocks_total;
    uint64_t near_blocks_free;
    uint64_t boot_cycles;      /* kernel entry to the first wait for input, waiting for devices left out */
    uint64_t throttled_count;  /* waits of programs that made pages dirty faster than near took them */
    uint64_t throttled_ns;     /* while at least one waited so */
    uint64_t pages_dirty_max;  /* that one program may make in one epoch, now */
    uint64_t resume_cycles;    /* kernel entry to the first program, waiting for devices left out */
    uint64_t far_used;         /* of far_reads: what was asked for, not only read ahead */
    uint64_t far_remaining;    /* blocks of the far store that nobody touched yet, nor the fill has come to */
    uint64_t complete;         /* 1: no far store is needed any more */
    struct far_stats {
        uint64_t fetched;      /* blocks */
        uint64_t verified;     /* pages that had their hash */
        uint64_t unused;       /* blocks read ahead, and dropped before anyone wanted them */
    } far[8];                  /* of this start, in the order of preference */
    uint64_t idle_cycles;      /* the CPU was halted, in this start */
};

#endif
