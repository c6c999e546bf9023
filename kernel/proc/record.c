/*
 * kernel/proc/record.c: typed access to the pages of space 0 (abi/record.h).
 *
 * Promise: what a *_write function returns is dirty in this epoch, and must be fetched again after the next return to
 * ring 3.
 * Called by: this room. Context: kernel, interrupts off.
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "proc/internal.h"

#define PATIENCE_NS 10000000000ull /* for a far store that is silent for a while */

/* Nothing can go on without this page, so that the machine ends where no store gives it. */
void record_load_wait(uint32_t page) {
    uint64_t end_ns = log_now_ns() + PATIENCE_NS;
    for (int status; (status = pager_record_load(page)) != 0; proc_env.poll()) {
        if (status == -E_CORRUPT)
            proc_env.refuse("a page of the machine's records is damaged in every copy", status);
        if (log_now_ns() > end_ns)
            proc_env.refuse("a page of the machine's records is in no store that answers", status);
    }
}

static size_t record_offset(uint32_t slot) { return slot % RECORDS_PER_PAGE * (4096u / RECORDS_PER_PAGE); }

const struct machine_record *machine_record(void) { return pager_record(RECORD_MACHINE_PAGE); }
struct machine_record *machine_record_write(void) { return pager_record_write(RECORD_MACHINE_PAGE); }
const struct console_record *console_record(void) { return pager_record(RECORD_CONSOLE_PAGE); }
struct console_record *console_record_write(void) { return pager_record_write(RECORD_CONSOLE_PAGE); }

const struct thread_record *thread_record(uint32_t slot) {
    const char *page = pager_record(RECORD_THREAD_PAGE + slot / RECORDS_PER_PAGE);
    return (const struct thread_record *)(page + record_offset(slot));
}

struct thread_record *thread_record_write(uint32_t slot) {
    char *page = pager_record_write(RECORD_THREAD_PAGE + slot / RECORDS_PER_PAGE);
    return (struct thread_record *)(page + record_offset(slot));
}

const struct process_record *process_record(uint32_t slot) {
    const char *page = pager_record(RECORD_PROCESS_PAGE + slot / RECORDS_PER_PAGE);
    return (const struct process_record *)(page + record_offset(slot));
}

struct process_record *process_record_write(uint32_t slot) {
    char *page = pager_record_write(RECORD_PROCESS_PAGE + slot / RECORDS_PER_PAGE);
    return (struct process_record *)(page + record_offset(slot));
}
