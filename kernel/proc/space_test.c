/*
 * kernel/proc/space_test.c: more spaces than programs, for benchmarks of the freeze (option test_spaces); and all pages
 * of a program before it goes on, for a debugger that compares them (option test_resident).
 *
 * Each such space has one mapped, written page. They hold no program and are in no record: they vanish at the next
 * start.
 * Called by: resume.c, after the programs' spaces exist. May wait for the disk (proc_env.poll).
 */
#include "lib/error.h"
#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

enum { TEST_SPACE_COUNT_MAX = 128, TEST_SPACE_FIRST = 1 << 20, TEST_ADDRESS = 1 << 20 };

static struct space spaces[TEST_SPACE_COUNT_MAX];

/* By the faults that the program would have had. There must be memory for all of them. */
void space_test_load(struct space *space, uint64_t page_count) {
    pager_switch(space);
    for (uint64_t page = 0; page < page_count; page++) {
        const void *key;
        while (pager_user_prepare(page << FRAME_SHIFT, FRAME_SIZE, 0, &key) == PAGER_WAIT)
            proc_env.poll();
    }
}

int space_test_make(uint64_t count) {
    if (count > TEST_SPACE_COUNT_MAX)
        return -E_LIMIT;
    for (uint64_t i = 0; i < count; i++) {
        int status = space_init(&spaces[i], TEST_SPACE_FIRST + i);
        if (status != 0)
            return status;
        spaces[i].region[0] = (struct region_record){
            .start = TEST_ADDRESS, .end = TEST_ADDRESS + FRAME_SIZE, .access = REGION_READ | REGION_WRITE};
        spaces[i].region_count = 1;
        pager_switch(&spaces[i]);
        const void *key;
        while (pager_user_prepare(TEST_ADDRESS, FRAME_SIZE, 1, &key) == PAGER_WAIT)
            proc_env.poll();
        arch_user_access_begin();
        *(volatile uint64_t *)TEST_ADDRESS = i + 1;
        arch_user_access_end();
    }
    return 0;
}
