/*
 * kernel/proc/stack.c: what a report says of a stopped program's stack.
 *
 * Programs keep no frame pointers, and the rules that find their callers (DWARF's call frame information) are with the
 * host (tools/revenant/unwind.py). These need few words: return addresses, and saved values of RBP where a frame hangs
 * on it. So those are printed that point to code, or further up the stack to where a return address lies above.
 * Called by: syscall.c. Context: kernel, interrupts off. Only what is in RAM is looked at, and none of it is believed.
 */
#include "lib/lib.h"
#include "mm/frame.h"
#include "proc/internal.h"

enum { DEPTH_MAX = 16384, WORD_COUNT_MAX = 96, LINE_WORD_COUNT = 8 };
enum { WORD_SIZE = sizeof(uint64_t), FRAME_ALIGNMENT = 16 }; /* the ABI's: of RBP where it is a frame pointer */
enum { WORD_TEXT_SIZE = 1 + 4 + 1 + 16, LINE_SIZE = 256 };   /* " offset:word" */

/* NULL: not in RAM. */
static const uint64_t *word_at(struct space *space, uint64_t address) {
    const uint64_t *entry = address < USER_END ? space_entry(space, address, 0) : NULL;
    if (entry == NULL || !(*entry & PTE_PRESENT))
        return NULL;
    return (const uint64_t *)((const char *)phys_to_virt(*entry & PTE_ADDRESS) + address % FRAME_SIZE);
}

static int is_code(const struct space *space, uint64_t address) {
    const struct region_record *region = space_region(space, address);
    return region != NULL && region->access & REGION_EXEC;
}

/* Where a function's frame hangs on RBP, that points to its caller's RBP, and the return address lies above that. */
static int is_frame_pointer(struct space *space, uint64_t place, uint64_t word) {
    if (word <= place || word % FRAME_ALIGNMENT != 0)
        return 0;
    const uint64_t *return_address = word_at(space, word + WORD_SIZE);
    return return_address != NULL && is_code(space, *return_address);
}

static void line_print(const char *words) {
    char line[LINE_SIZE];
    log_write(line, (size_t)format(line, sizeof line, "  stack%s\n", words));
}

void stack_print(struct space *space, uint64_t rsp) {
    char words[LINE_WORD_COUNT * WORD_TEXT_SIZE + 1];
    uint64_t first = rsp + -rsp % WORD_SIZE;
    size_t length = 0;
    unsigned count = 0;
    for (uint64_t address = first; address - first < DEPTH_MAX && count < WORD_COUNT_MAX; address += WORD_SIZE) {
        const uint64_t *word = word_at(space, address);
        if (word == NULL || !(is_code(space, *word) || is_frame_pointer(space, address, *word)))
            continue;
        length += (size_t)format(words + length, sizeof words - length, " %lx:%lx", address - rsp, *word);
        if (++count % LINE_WORD_COUNT == 0) {
            line_print(words);
            length = 0;
        }
    }
    if (length > 0)
        line_print(words);
}
