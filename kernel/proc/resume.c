/*
 * kernel/proc/resume.c: from records to running threads. There is no other way to start a program in this kernel.
 *
 * Promise: a generation with records that this kernel does not know, or that make no sense, is refused with a notice
 * and nothing is changed.
 * Called by: main.c, once, after pager_init. May wait for the disk (proc_env.poll).
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

struct proc_env proc_env;
uint64_t proc_resume_count, proc_resume_reason;

static int machine_check(const struct machine_record *machine) {
    if (machine->magic != RECORD_MAGIC) {
        notice("this generation has no machine record");
        return -E_CORRUPT;
    }
    if (machine->version != RECORD_VERSION) {
        notice("records have version %u, this kernel knows %u: start it with the kernel that it came with",
               machine->version, RECORD_VERSION);
        return -E_VERSION;
    }
    if (machine->process_slots > PROCESS_COUNT_MAX || machine->thread_slots > THREAD_COUNT_MAX) {
        notice("records name %llu processes and %llu threads: too many for this kernel",
               (unsigned long long)machine->process_slots, (unsigned long long)machine->thread_slots);
        return -E_LIMIT;
    }
    return 0;
}

static int region_is_sane(const struct region_record *region) {
    return region->start < region->end && region->end <= USER_END && region->start >= FRAME_SIZE &&
           ((region->start | region->end) & (FRAME_SIZE - 1)) == 0 &&
           (region->access & (REGION_WRITE | REGION_EXEC)) != (REGION_WRITE | REGION_EXEC);
}

static int has_space(const struct process_record *record) {
    return record->state == PROCESS_RUNNING || record->state == PROCESS_TEMPLATE;
}

/* Two processes in one space would each have a version of its pages of their own. */
static int space_is_sane(uint64_t space, uint32_t slot) {
    for (uint32_t i = 0; i < slot; i++)
        if (has_space(process_record(i)) && process_record(i)->space == space)
            return 0;
    return space >= SPACE_FIRST_USER && space >> (NODE_FANOUT_BITS * DIRECTORY_HEIGHT_MAX) == 0;
}

static int record_check(uint32_t slot) {
    const struct process_record *record = process_record(slot);
    if (!space_is_sane(record->space, slot)) {
        notice("process %u: there is no space %llu, or another process has it", record->id,
               (unsigned long long)record->space);
        return -E_CORRUPT;
    }
    if (record->region_count > REGION_COUNT_MAX)
        return -E_CORRUPT;
    for (uint32_t i = 0; i < record->region_count; i++)
        if (!region_is_sane(&record->region[i]))
            return -E_CORRUPT;
    return message_inbox_is_sane(record) ? 0 : -E_CORRUPT;
}

static int space_resume(uint32_t slot) {
    const struct process_record *record = process_record(slot);
    int status = has_space(record) ? record_check(slot) : 0;
    if (status != 0 || record->state != PROCESS_RUNNING)
        return status;
    struct space *space = process_space(slot);
    status = space_init(space, record->space);
    memcpy(space->region, record->region, sizeof space->region);
    space->region_count = record->region_count;
    return status;
}

static int thread_resume(uint32_t slot, uint32_t process_slots) {
    const struct thread_record *record = thread_record(slot);
    if (record->state != THREAD_READY && record->state != THREAD_WAITING)
        return 0;
    if (record->process >= process_slots)
        return -E_CORRUPT;
    const struct process_record *process = process_record(record->process);
    if (process->state == PROCESS_ENDED || process->state == PROCESS_ENDING)
        return 0; /* another thread has ended it */
    if (process_space(record->process)->root == 0)
        return -E_CORRUPT;
    thread_add(slot, record->process, process_space(record->process));
    return 0;
}

static void load_pages(uint32_t first, uint64_t slots) {
    for (uint64_t i = 0; i * RECORDS_PER_PAGE < slots; i++)
        record_load_wait(first + (uint32_t)i);
}

/* What ended them was said in another life. */
static void tell_ends(uint32_t process_slots) {
    for (uint32_t i = 0; i < process_slots; i++) {
        const struct process_record *record = process_record(i);
        if (process_has_ended(i) && !(record->flags & PROCESS_SPAWNED))
            notice("process %u (%.63s) had ended with status %lld", record->id, record->name,
                   (long long)record->exit_status);
    }
}

/* On another near than before, what was published or copied goes on as a machine of its own, and is told so, unless the
 * tool that made it said why itself. */
static void machine_identify(void) {
    _Static_assert(sizeof machine_record()->machine_id == STORE_ID_SIZE, "machine_id");
    if (memcmp(machine_record()->machine_id, store_id(), STORE_ID_SIZE) == 0)
        return;
    struct machine_record *machine = machine_record_write();
    memcpy(machine->machine_id, store_id(), STORE_ID_SIZE);
    if (machine->resume_reason == RESUME_RESTART)
        machine->resume_reason = RESUME_OTHER_MACHINE;
}

int proc_resume(const struct proc_env *env) {
    proc_env = *env;
    record_load_wait(RECORD_MACHINE_PAGE);
    record_load_wait(RECORD_CONSOLE_PAGE);
    const struct machine_record *machine = machine_record();
    int status = machine_check(machine);
    uint32_t process_slots = (uint32_t)machine->process_slots, thread_slots = (uint32_t)machine->thread_slots;
    if (status != 0)
        return status;
    load_pages(RECORD_PROCESS_PAGE, process_slots);
    load_pages(RECORD_THREAD_PAGE, thread_slots > process_slots ? thread_slots : process_slots);
    for (uint32_t i = 0; i < process_slots && status == 0; i++)
        status = space_resume(i);
    for (uint32_t i = 0; i < thread_slots && status == 0; i++)
        status = thread_resume(i, process_slots);
    if (status == 0)
        status = console_resume();
    if (status != 0) {
        notice("the records of generation %llu make no sense (error %d)", (unsigned long long)store_generation(),
               -status);
        return status;
    }
    for (uint32_t i = 0; i < process_slots && proc_env.test_resident != 0; i++)
        if (process_space(i)->root != 0)
            space_test_load(process_space(i), proc_env.test_resident);
    status = space_test_make(proc_env.test_spaces);
    if (status != 0)
        return status;
    if (schedule_is_empty()) {
        tell_ends(process_slots);
        return 0; /* nothing will run, so that nothing is to be written */
    }
    machine_identify();
    proc_resume_reason = machine_record()->resume_reason;
    proc_resume_count = ++machine_record_write()->resume_count;
    trace(TRACE_RESUME, (uint32_t)proc_resume_reason, store_generation(), proc_resume_count);
    process_resume();
    return 0;
}
