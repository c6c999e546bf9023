/*
 * kernel/proc/syscall.c: the system calls of SYSCALLS.md, page faults and exceptions of programs.
 *
 * Promise: a call completes, or leaves the thread poised to make it again (call_again); user pointers are claims until
 * pager_user_prepare has said PAGER_DONE. Called by: arch, from ring 3. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "proc/internal.h"

#define REACH_RETRY_NS 250000000ull /* a page of the records that no store gives now */

enum { LAST_WORDS_SIZE_MAX = sizeof(((struct process_record *)0)->last_words) - 1 };
enum { TRANSFER_SIZE_MAX = 65536, RANDOM_SIZE_MAX = 256, SYSCALL_INSTRUCTION_SIZE = 2 };

int64_t syscall_again(const void *key, uint64_t deadline_ns) {
    check(key != NULL);
    thread_block(key, deadline_ns);
    return SYSCALL_AGAIN;
}

int64_t syscall_prepare(uint64_t address, uint64_t size, int write) {
    const void *key = NULL;
    switch (pager_user_prepare(address, size, write, &key)) {
    case PAGER_DONE:
        return 0;
    case PAGER_WAIT:
        return syscall_again(key, UINT64_MAX);
    default:
        return ERR_FAULT;
    }
}

int64_t syscall_reach(uint32_t record_page) {
    const void *key = NULL;
    int status = pager_record_reach(record_page, &key);
    if (status == 0)
        return 0;
    return syscall_again(key, status == -E_AGAIN ? UINT64_MAX : proc_env.now_ns() + REACH_RETRY_NS);
}

static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static int64_t sys_exit(const struct thread_registers *r) {
    char words[LAST_WORDS_SIZE_MAX + 1] = "";
    uint64_t size = smaller(r->rdx, LAST_WORDS_SIZE_MAX);
    int64_t status = syscall_prepare(r->rsi, size, 0);
    if (status == SYSCALL_AGAIN)
        return status;
    if (status == 0) { /* else it has none that can be read */
        arch_user_access_begin();
        memcpy(words, (const void *)r->rsi, size);
        arch_user_access_end();
    }
    uint32_t slot = thread_current()->process;
    const struct process_record *process = process_record(slot);
    if (!(process->flags & PROCESS_SPAWNED))
        notice("process %u (%.63s) ended with status %lld", process->id, process->name, (long long)r->rdi);
    process_end(slot, (int64_t)r->rdi, words, THREAD_FREE);
    return SYSCALL_AGAIN;
}

static int current_has(uint32_t flag) { return (process_record(thread_current()->process)->flags & flag) != 0; }

static int64_t sys_console_write(const struct thread_registers *r) {
    if (current_has(PROCESS_QUIET))
        return (int64_t)smaller(r->rsi, TRANSFER_SIZE_MAX);
    uint64_t size = smaller(smaller(r->rsi, TRANSFER_SIZE_MAX), console_output_room());
    if (r->rsi > 0 && size == 0)
        return syscall_again(&console_event_key, UINT64_MAX);
    int64_t status = syscall_prepare(r->rdi, size, 0);
    if (status != 0)
        return status;
    if (size > 0)
        console_write((const void *)r->rdi, size);
    return (int64_t)size;
}

static int64_t sys_console_read(const struct thread_registers *r) {
    uint64_t waiting = current_has(PROCESS_SPAWNED) ? 0 : console_input_waiting();
    uint64_t size = smaller(smaller(r->rsi, TRANSFER_SIZE_MAX), waiting);
    int64_t status = syscall_prepare(r->rdi, size, 1);
    if (status != 0)
        return status;
    if (r->rsi > 0 && size == 0)
        return ERR_AGAIN;
    if (size > 0)
        console_read((void *)r->rdi, size);
    return (int64_t)size;
}

static int is_told_of_resume(void) {
    return process_record(thread_current()->process)->resume_seen == proc_resume_count;
}

static uint64_t events_now(void) {
    return (console_input_waiting() > 0 && !current_has(PROCESS_SPAWNED) ? WAIT_CONSOLE_IN : 0) |
           (console_output_room() > 0 ? WAIT_CONSOLE_OUT : 0) | (is_told_of_resume() ? 0 : WAIT_RESUMED) |
           (process_is_notified(thread_current()->process) ? WAIT_NOTICE : 0);
}

/* Kernel entry to the first time that a program waits for input, waiting for devices left out. */
static uint64_t boot_cycles;

static int64_t sys_wait(const struct thread_registers *r) {
    uint64_t bits = events_now() & r->rdi;
    if (bits & WAIT_NOTICE)
        process_notice_taken(thread_current()->process);
    if (bits != 0)
        return (int64_t)bits;
    if (proc_env.now_ns() >= r->rsi)
        return ERR_TIMEOUT;
    if (boot_cycles == 0 && r->rdi & WAIT_CONSOLE_IN) {
        pager_start_over();
        boot_cycles = arch_cycles() - proc_env.entry_cycles - proc_env.waited_cycles() - schedule_idle_cycles();
    }
    return syscall_again(&console_event_key, r->rsi);
}

static int64_t sys_clock(const struct thread_registers *r) {
    switch (r->rdi) {
    case CLOCK_MONO_NS:
        return (int64_t)proc_env.now_ns();
    case CLOCK_WALL_NS:
        return (int64_t)proc_env.wall_ns();
    default:
        return ERR_INVAL;
    }
}

static int64_t sys_generation(const struct thread_registers *r) {
    (void)r;
    return (int64_t)pager_durable();
}

static int64_t sys_commit(const struct thread_registers *r) {
    struct thread_registers *registers = arch_user_registers();
    if (r->rdi == 0)
        registers->rdi = pager_epoch();
    if (registers->rdi > pager_epoch())
        return ERR_INVAL;
    if (pager_durable() >= registers->rdi)
        return (int64_t)registers->rdi;
    if (registers->rdi == pager_epoch())
        pager_want_commit();
    return syscall_again(&durable_key, UINT64_MAX);
}

/* 0: written. Prepares the range first: else as syscall_prepare. */
static int64_t user_write(uint64_t address, const void *from, uint64_t size) {
    int64_t status = syscall_prepare(address, size, 1);
    if (status != 0)
        return status;
    arch_user_access_begin();
    memcpy((void *)address, from, size);
    arch_user_access_end();
    return 0;
}

static int64_t sys_machine_id(const struct thread_registers *r) {
    uint64_t size = smaller(r->rsi, MACHINE_ID_SIZE);
    int64_t status = user_write(r->rdi, machine_record()->machine_id, size);
    return status == 0 ? (int64_t)size : status;
}

static int64_t sys_random(const struct thread_registers *r) {
    if (r->rsi > RANDOM_SIZE_MAX)
        return ERR_INVAL;
    uint8_t bytes[RANDOM_SIZE_MAX];
    proc_env.random(bytes, r->rsi);
    int64_t status = user_write(r->rdi, bytes, r->rsi);
    return status == 0 ? (int64_t)r->rsi : status;
}

void stats_take(struct machine_stats *stats) {
    pager_stats(stats);
    stats->resume_count = proc_resume_count;
    stats->mono_ns = proc_env.now_ns();
    stats->boot_cycles = boot_cycles;
    stats->resume_cycles = schedule_resume_cycles();
    stats->idle_cycles = schedule_idle_cycles();
}

static int64_t sys_stats(const struct thread_registers *r) {
    uint64_t size = smaller(r->rsi, sizeof(struct machine_stats));
    static struct machine_stats stats;
    stats_take(&stats);
    int64_t status = user_write(r->rdi, &stats, size);
    return status == 0 ? (int64_t)size : status;
}

static int64_t sys_power(const struct thread_registers *r) {
    if ((r->rdi != POWER_OFF && r->rdi != POWER_RESET) || current_has(PROCESS_SPAWNED))
        return ERR_INVAL;
    arch_user_registers()->rax = 0; /* the call is complete: after the next start the thread is behind it */
    machine_power((enum power_kind)r->rdi);
    return SYSCALL_AGAIN;
}

static int64_t from_pager(enum pager_result result, const void *key) {
    if (result == PAGER_WAIT)
        return syscall_again(key, UINT64_MAX);
    return result == PAGER_DONE ? 0 : ERR_FAULT;
}

static int64_t sys_discard(const struct thread_registers *r) {
    const void *key = NULL;
    uint32_t slot = thread_current()->slot;
    uint64_t done_size = thread_record(slot)->done_size;
    enum pager_result result = pager_user_discard(r->rdi, r->rsi, &done_size, &key);
    if (result == PAGER_DONE || result == PAGER_BAD)
        done_size = 0; /* for the next call */
    if (thread_record(slot)->done_size != done_size)
        thread_record_write(slot)->done_size = done_size;
    return result == PAGER_MORE ? SYSCALL_MORE : from_pager(result, key);
}

static int64_t sys_exec_write(const struct thread_registers *r) {
    if (r->rdx > TRANSFER_SIZE_MAX)
        return ERR_INVAL;
    int64_t status = syscall_prepare(r->rsi, r->rdx, 0);
    if (status != 0)
        return status;
    const void *key = NULL;
    enum pager_result result = pager_user_exec_write(r->rdi, (const void *)r->rsi, r->rdx, &key);
    return from_pager(result, key);
}

/* --- tags and history --- */

enum { HISTORY_COUNT = 8 };
static struct generation_disk history[HISTORY_COUNT];

/* 0: nobody has this tag and there is room for one more. */
static int64_t tag_is_free(const char *name) {
    uint64_t last = 0;
    unsigned tag_count = 0;
    const void *key = NULL;
    int found;
    while ((found = store_history(last, history, HISTORY_COUNT, &key)) > 0) {
        for (int i = 0; i < found; i++) {
            if (strncmp(history[i].tag, name, sizeof history[i].tag) == 0)
                return ERR_EXISTS;
            tag_count += history[i].tag[0] != 0;
        }
        last = history[found - 1].generation;
    }
    if (found == -E_AGAIN)
        return syscall_again(key, UINT64_MAX);
    return found < 0 || tag_count >= TAG_COUNT_MAX ? ERR_NOMEM : 0;
}

/* 0: name is what the caller gave, or for nothing the name of an automatic tag. */
static int64_t tag_name(char *name, const struct thread_registers *r) {
    if (r->rsi > TAG_SIZE_MAX)
        return ERR_INVAL;
    int64_t status = syscall_prepare(r->rdi, r->rsi, 0);
    if (status != 0)
        return status;
    arch_user_access_begin();
    memcpy(name, (const void *)r->rdi, r->rsi);
    arch_user_access_end();
    name[r->rsi] = 0;
    int digits_only = 1;
    for (uint64_t i = 0; i < r->rsi; i++) {
        if ((uint8_t)name[i] < ' ' || name[i] == 0x7f)
            return ERR_INVAL;
        digits_only &= name[i] >= '0' && name[i] <= '9';
    }
    if (r->rsi == 0)
        format(name, TAG_SIZE_MAX + 1, "reset-%llu", (unsigned long long)pager_epoch());
    return r->rsi > 0 && digits_only ? ERR_INVAL : 0; /* numbers are generations */
}

/* As sys_commit, with the ticket in RDX. */
static int64_t sys_tag(const struct thread_registers *r) {
    char name[TAG_SIZE_MAX + 1];
    if (r->rdx > pager_epoch())
        return ERR_INVAL;
    if (r->rdx != 0)
        return r->rdx <= pager_durable() ? (int64_t)r->rdx : syscall_again(&durable_key, UINT64_MAX);
    int64_t status = tag_name(name, r);
    if (status == 0)
        status = tag_is_free(name);
    if (status != 0)
        return status;
    if (pager_tag(name, r->rsi == 0) == 0)
        arch_user_registers()->rdx = pager_epoch();
    return syscall_again(&durable_key, UINT64_MAX);
}

static int64_t sys_history(const struct thread_registers *r) {
    const void *key = NULL;
    uint64_t count = smaller(r->rsi / sizeof(struct generation_info), HISTORY_COUNT);
    int64_t status = syscall_prepare(r->rdi, count * sizeof(struct generation_info), 1);
    if (status != 0)
        return status;
    int found = store_history(r->rdx, history, (unsigned)count, &key);
    if (found == -E_AGAIN)
        return syscall_again(key, UINT64_MAX);
    if (found < 0)
        return ERR_NOMEM;
    struct generation_info *info = (struct generation_info *)r->rdi;
    for (int i = 0; i < found; i++) {
        struct generation_info one = {history[i].generation, history[i].wall_ns, history[i].mono_ns,
                                      history[i].dirty_pages, history[i].origin, history[i].flags, ""};
        memcpy(one.tag, history[i].tag, sizeof one.tag - 1);
        arch_user_access_begin();
        memcpy(&info[i], &one, sizeof one);
        arch_user_access_end();
    }
    return (int64_t)found * (int64_t)sizeof(struct generation_info);
}

static int64_t sys_resume_reason(const struct thread_registers *r) {
    (void)r;
    return is_told_of_resume() ? RESUME_RESTART : (int64_t)proc_resume_reason;
}

/* The reason stays in the record until the first program was told; the others are told in the same life. */
static int64_t sys_resume_count(const struct thread_registers *r) {
    (void)r;
    if (machine_record()->resume_seen != proc_resume_count) {
        machine_record_write()->resume_seen = proc_resume_count;
        machine_record_write()->resume_reason = RESUME_RESTART;
    }
    if (!is_told_of_resume())
        process_record_write(thread_current()->process)->resume_seen = proc_resume_count;
    return (int64_t)proc_resume_count;
}

static int64_t (*const table[SYS_COUNT])(const struct thread_registers *) = {
    [SYS_EXIT] = sys_exit,
    [SYS_CONSOLE_WRITE] = sys_console_write,
    [SYS_CONSOLE_READ] = sys_console_read,
    [SYS_WAIT] = sys_wait,
    [SYS_CLOCK] = sys_clock,
    [SYS_GENERATION] = sys_generation,
    [SYS_COMMIT] = sys_commit,
    [SYS_RANDOM] = sys_random,
    [SYS_STATS] = sys_stats,
    [SYS_POWER] = sys_power,
    [SYS_DISCARD] = sys_discard,
    [SYS_EXEC_WRITE] = sys_exec_write,
    [SYS_RESUME_COUNT] = sys_resume_count,
    [SYS_TAG] = sys_tag,
    [SYS_HISTORY] = sys_history,
    [SYS_RESUME_REASON] = sys_resume_reason,
    [SYS_SPAWN] = sys_spawn,
    [SYS_FORK] = sys_fork,
    [SYS_KILL] = sys_kill,
    [SYS_PROCESS] = sys_process,
    [SYS_SEND] = sys_send,
    [SYS_RECEIVE] = sys_receive,
    [SYS_POLL] = sys_poll,
    [SYS_MACHINE_ID] = sys_machine_id,
};

void proc_syscall(void) {
    struct thread_registers *registers = arch_user_registers();
    int64_t result = registers->rax < SYS_COUNT ? table[registers->rax](registers) : ERR_NOSYS;
    if (result != SYSCALL_AGAIN && result != SYSCALL_MORE) {
        registers->rax = (uint64_t)result;
    } else if (result == SYSCALL_MORE || (thread_current() != NULL && thread_current()->wait_key != NULL)) {
        registers->rip -= SYSCALL_INSTRUCTION_SIZE; /* RAX still has the number */
    }
}

/* --- faults --- */

static void program_stopped(const char *what, unsigned vector, uint64_t address, uint64_t error_code) {
    char words[LAST_WORDS_SIZE_MAX + 1];
    uint32_t slot = thread_current()->process;
    const struct process_record *process = process_record(slot);
    format(words, sizeof words, "%s (vector %u, address 0x%llx, error 0x%llx)", what, vector,
           (unsigned long long)address, (unsigned long long)error_code);
    trace(TRACE_FAULT, vector, arch_user_registers()->rip, address);
    notice("process %u (%.63s) stopped: %s", process->id, process->name, words);
    trace_print(log_write, TRACE_PRINT_COUNT);
    stack_print(thread_current()->space, arch_user_registers()->rsp);
    arch_dump_registers(arch_user_registers());
    process_end(slot, EXIT_FAULT, words, THREAD_FAULTED);
}

void proc_page_fault(uint64_t address, uint64_t error_code) {
    const void *key = NULL;
    switch (pager_fault(address, error_code, &key)) {
    case PAGER_DONE:
        return;
    case PAGER_WAIT:
        check(key != NULL);
        thread_block(key, UINT64_MAX);
        return;
    default:
        program_stopped("it touched memory that it has not", 14, address, error_code);
    }
}

void proc_exception(unsigned vector, uint64_t error_code) {
    program_stopped("exception", vector, arch_user_registers()->rip, error_code);
}
