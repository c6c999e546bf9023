/*
 * tests/host/native/fuzz_store.c: stores that are wrong behind good hashes: opened, read, changed, opened again.
 *
 * Promise: for any input no panic, no access out of bounds, no wait for ever; bad data is a negative error.
 * An input is a byte that chooses the store (a life of life.c; the last is a blank near with a far store), then changes
 * of eight bytes, struct change_input; after each, all hashes above the changed block are made right (seal.c).
 * Used by: libFuzzer (`make fuzz`) through LLVMFuzzerTestOneInput; corpus_main.c replays files, without clang.
 */
#include "life.h"
#include "seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BASE_COUNT = 7, BLANK_BASE = 6, FAR_SEED = 4, STEP_COUNT = 24, CHANGE_MAX = 24, READ_COUNT = 24, COMMIT_COUNT = 3 };

/* How a change's value is put in its place. */
enum change_kind {
    CHANGE_BYTE,
    CHANGE_WORD,        /* u64: the value */
    CHANGE_LARGE,       /* u64: all ones, minus the value */
    CHANGE_HALF,        /* u32: the value */
    CHANGE_ADD,         /* u64 */
    CHANGE_REDIRECT,    /* a pointer to member `value` of class kind / 16, level offset % 8, with its hash */
    CHANGE_ZERO,        /* the rest of the block */
    CHANGE_UNSEALED,    /* a byte; no hash is made right */
    CHANGE_KIND_COUNT,
};

struct change_input {
    uint8_t kind, class;
    uint16_t member, offset;
    uint16_t value;
};

static struct base {
    int made;
    struct sheet **near, **far_blocks;
    struct far far;
    struct model model;
    struct sealed sealed;
} bases[BASE_COUNT];

static struct record record;

_Noreturn void fail(const char *template, ...) {
    va_list arguments;
    va_start(arguments, template);
    vfprintf(stderr, template, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

static uint64_t newest_root_block(const struct root_disk *root, uint64_t block_count) {
    return RING_FIRST_BLOCK + root->sequence % RING_COUNT * ((block_count - RING_FIRST_BLOCK) / RING_COUNT);
}

static void make_base(struct base *base, unsigned index) {
    recording = &record;
    life_run(index == BLANK_BASE ? FAR_SEED : index, STEP_COUNT);
    base->far = far;
    base->model = roots[root_count - 1].model;
    base->far_blocks = far.attached ? disk_copy(disks[FAR].now, disks[FAR].block_count) : NULL;
    if (index == BLANK_BASE) {
        base->model = far.model;
        seal_learn(&base->sealed, FAR, newest_root_block(&far.root, disks[FAR].block_count));
        disk_make(NEAR, disks[NEAR].block_count);
    } else {
        const struct root_disk *root = &roots[root_count - 1].disk;
        seal_learn(&base->sealed, NEAR, newest_root_block(root, disks[NEAR].block_count));
    }
    base->near = disk_copy(disks[NEAR].now, disks[NEAR].block_count);
    base->made = 1;
}

/* The bases are as large as each other. */
static void take_base(const struct base *base) {
    memcpy(disks[NEAR].now, base->near, disks[NEAR].block_count * sizeof *base->near);
    disks[NEAR].volatile_count = 0;
    far = base->far;
    disks[FAR].block_count = far.attached ? disks[NEAR].block_count : 0;
    if (far.attached)
        disks[FAR].now = disk_copy(base->far_blocks, disks[FAR].block_count);
}

/* One slot of a node comes to lead elsewhere. */
static void redirect(uint8_t *page, const struct change_input *input, const struct sealed *sealed) {
    struct block_ptr_disk *pointer = (struct block_ptr_disk *)(void *)page + input->offset / 8 % NODE_FANOUT;
    unsigned class = input->kind / 16 % CLASS_COUNT;
    if (sealed->member_count[class] == 0)
        return;
    uint64_t block = sealed->member[class][input->value % sealed->member_count[class]];
    *pointer = pointer_make(block, input->offset % 8, ptr_birth(pointer), disks[sealed->disk].now[block]->data);
}

static void edit(uint8_t *page, const struct change_input *input, const struct sealed *sealed) {
    uint64_t word, value = input->value;
    unsigned size = input->kind % CHANGE_KIND_COUNT == CHANGE_BYTE ? 1 : 8;
    unsigned offset = input->offset % (BLOCK_SIZE - size + 1);
    memcpy(&word, page + offset - (offset > BLOCK_SIZE - 8 ? 8 : 0), sizeof word);
    switch ((enum change_kind)(input->kind % CHANGE_KIND_COUNT)) {
    case CHANGE_BYTE:
    case CHANGE_UNSEALED:
        page[offset] = (uint8_t)value;
        break;
    case CHANGE_WORD:
        memcpy(page + offset, &value, sizeof value);
        break;
    case CHANGE_LARGE:
        value = ~value;
        memcpy(page + offset, &value, sizeof value);
        break;
    case CHANGE_HALF:
        memcpy(page + offset, &value, 4);
        break;
    case CHANGE_ADD:
        word += value;
        memcpy(page + offset, &word, sizeof word);
        break;
    case CHANGE_REDIRECT:
        redirect(page, input, sealed);
        break;
    default:
        memset(page + offset, 0, BLOCK_SIZE - offset);
    }
}

/* seal_set finds the old child by its block, so a redirected slot keeps its new hash until that block is changed. */
static void apply_change(const struct base *base, const struct change_input *input) {
    const struct sealed *sealed = &base->sealed;
    unsigned class = input->class % CLASS_COUNT;
    uint8_t page[BLOCK_SIZE] __attribute__((aligned(BLOCK_SIZE)));
    if (sealed->member_count[class] == 0)
        return;
    uint64_t block = sealed->member[class][input->member % sealed->member_count[class]];
    memcpy(page, disks[sealed->disk].now[block]->data, BLOCK_SIZE);
    edit(page, input, sealed);
    if (input->kind % CHANGE_KIND_COUNT == CHANGE_UNSEALED)
        disks[sealed->disk].now[block] = sheet_new(page);
    else
        seal_set(sealed, block, page);
    if (sealed->disk == FAR) /* the publisher meant it so */
        memcpy(far.trust, disks[FAR].now[sealed->root_block]->data + offsetof(struct root_disk, hash), ROOT_HASH_SIZE);
}

static void read_some(const struct base *base) {
    static uint64_t page[BLOCK_SIZE / 8] __attribute__((aligned(BLOCK_SIZE)));
    for (unsigned i = 0; base->model.count > 0 && i < READ_COUNT; i++)
        ram_read(base->model.entry[i * 7 % base->model.count].key, page);
    ram_read((struct page_key){300, 1 << 20}, page);
    ram_read((struct page_key){SPACE_RECORDS, 0}, page);
}

static void change_some(void) {
    static const struct change change[] = {
        {{16, 0}, 1}, {{16, 130}, 2}, {{17, 1}, 0}, {{200, 20000}, 3}, {{0, 5}, 4}, {{18, 16384}, 5},
    };
    const void *key;
    unsigned rounds = 0;
    for (unsigned i = 0; i < COMMIT_COUNT; i++) {
        store_space_clone(16 + i, 18 + i, &key);
        store_space_drop(17);
        if (ram_commit(store.root.generation + 1, change, sizeof change / sizeof change[0]) == -E_AGAIN)
            return; /* it waits for a store that is not there */
        for (unsigned idle = 0; idle < 40; idle++)
            ram_wait_step(&rounds);
        ram_commit(store.root.generation, NULL, 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    struct base *base = &bases[data[0] % BASE_COUNT];
    if (!base->made)
        make_base(base, data[0] % BASE_COUNT);
    size_t mark = arena_mark();
    ram_power_off();
    chance_seed(1);
    ram_synchronous = data[0] >> 7;
    ram_before_flush = NULL;
    take_base(base);
    for (size_t at = 1; at + sizeof(struct change_input) <= size && at < CHANGE_MAX * sizeof(struct change_input);
         at += sizeof(struct change_input)) {
        struct change_input input;
        memcpy(&input, data + at, sizeof input);
        apply_change(base, &input);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (life_open() == 0) {
            read_some(base);
            change_some();
        }
        ram_power_off();
        disks[NEAR].volatile_count = 0;
    }
    arena_release(mark);
    return 0;
}
