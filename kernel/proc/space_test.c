/*
 * kernel/proc/space_test.c: system call 13, for benchmarks of the freeze only (option test=1).
 *
 * operation 0: `value` more spaces become part of the machine, each with a mapped, written page. Returns how many there are.
 * They hold no program and are not in any record: they vanish at the next start.
 */
#include "lib/lib.h"
#include "proc/internal.h"

enum { TEST_SPACE_COUNT_MAX = 128 };

static struct space test_spaces[TEST_SPACE_COUNT_MAX];
static unsigned test_space_count;

int64_t space_test(uint64_t operation, uint64_t value) {
    if (operation != 0 || value > TEST_SPACE_COUNT_MAX - test_space_count)
        return ERR_INVAL;
    struct space *current = thread_current()->space;
    while (value-- > 0) {
        struct space *space = &test_spaces[test_space_count];
        if (space_init(space, (1u << 20) + test_space_count) != 0)
            return ERR_NOMEM;
        space->region[0] = (struct region_record){.start = 1 << 20, .end = 2 << 20, .access = REGION_READ | REGION_WRITE};
        space->region_count = 1;
        test_space_count++;
        pager_switch(space);
        const void *key;
        enum pager_result result = pager_user_prepare(1 << 20, 1, 1, &key);
        pager_switch(current);
        if (result != PAGER_DONE)
            return ERR_NOMEM; /* needs a node or memory that is not here: try again from the program */
    }
    return test_space_count;
}
