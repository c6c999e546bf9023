/*
 * tests/qemu/programs/mosaic.c: a program whose memory at any moment follows from one number, its step.
 *
 * Promise: each step changes one tile, a page far from most others, as `splitmix` of the step says: by a store, by a
 * system call, to zero. So whoever reads a generation can tell what each page must hold. Before the change it looks
 * whether the tile is as it was left; if not, it ends with the number of the check (`fail`). Whoever changes this
 * changes the model in test_memory.py.
 * Built and started by: tests/qemu/test_memory.py, which patches `order`.
 */
#include "abi/syscall.h"
#include "layout.h"

enum { PAGE_SIZE = 4096, TILE_COUNT_MAX = 1 << 14, WORD_LAST = PAGE_SIZE / 8 - 1, RUN = 16, EXEC_TILE_COUNT = 64 };
enum kind { KIND_DISCARD, KIND_EXEC, KIND_RANDOM, KIND_RUN, KIND_STORE = 32, KIND_COUNT = 64 }; /* between: backwards */
enum check { CHECK_TILE = 1, CHECK_STEP, CHECK_RESULT, CHECK_ZERO, CHECK_EXEC, CHECK_RUN };

/* The only data that are not zero: the test writes them into the program's page. */
static volatile struct {
    uint64_t seed, tile_count, step;
} order = {1, 256, 0};
/* All of .bss, so that the test knows where it is. */
__attribute__((used)) static volatile struct {
    uint64_t content[TILE_COUNT_MAX]; /* of each tile's first and last word */
    uint64_t exec_content[EXEC_TILE_COUNT];
    uint8_t stack[8 * PAGE_SIZE - EXEC_TILE_COUNT * 8];
} noted __attribute__((aligned(PAGE_SIZE)));
_Static_assert(sizeof noted == 40 * PAGE_SIZE, "_start puts the stack at its end");

register uint64_t done __asm__("r15"); /* steps: the same as in memory, or one less */

static uint64_t splitmix(uint64_t x) { /* Steele, Lea, Flood 2014 */
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static int64_t call(uint64_t number, uint64_t rdi, uint64_t rsi, uint64_t rdx) {
    int64_t result;
    __asm__ volatile("syscall" : "=a"(result), "+D"(rdi), "+d"(rdx) : "0"(number), "S"(rsi) : "rcx", "r11", "memory");
    return result;
}

_Noreturn static void fail(enum check check) {
    call(SYS_EXIT, check, 0, 0);
    __builtin_trap();
}

/* Eight areas: four tables of pages of tables, two leaf tables in each. */
static volatile uint64_t *tile(uint64_t i) {
    uint64_t area = i % 8, start = LAYOUT_HEAP_START + (area >> 1) * 0x40000000 + (area & 1) * 0x10000000;
    return (volatile uint64_t *)(start + i / 8 * PAGE_SIZE);
}

static volatile uint64_t *exec_tile(uint64_t i) { return (volatile uint64_t *)(LAYOUT_EXEC_START + 3 * i * PAGE_SIZE); }

static void change_exec(uint64_t i, uint64_t step) {
    if (exec_tile(i)[1] != noted.exec_content[i])
        fail(CHECK_EXEC);
    if (call(SYS_EXEC_WRITE, (uintptr_t)&exec_tile(i)[1], (uintptr_t)&step, sizeof step) != 0)
        fail(CHECK_RESULT);
    if (exec_tile(i)[1] != step)
        fail(CHECK_EXEC);
    noted.exec_content[i] = step;
}

/* A long buffer, which the kernel has to have in memory all at once. */
static void copy_run(uint64_t i) {
    volatile uint64_t *from = tile(i % 8 + i / 8 / RUN * RUN * 8);
    volatile uint64_t *to = (volatile uint64_t *)(LAYOUT_EXEC_END - RUN * PAGE_SIZE);
    if (call(SYS_EXEC_WRITE, (uintptr_t)to, (uintptr_t)from, RUN * PAGE_SIZE) != 0)
        fail(CHECK_RESULT);
    for (unsigned at = 0; at < RUN * PAGE_SIZE / 8; at += PAGE_SIZE / 8)
        if (to[at] != from[at])
            fail(CHECK_RUN);
}

static void discard(uint64_t i) {
    if (call(SYS_DISCARD, (uintptr_t)tile(i), PAGE_SIZE, 0) != 0)
        fail(CHECK_RESULT);
    for (unsigned word = 0; word <= WORD_LAST; word++)
        if (tile(i)[word] != 0)
            fail(CHECK_ZERO);
    noted.content[i] = 0;
}

/* The kernel writes the first word, this program only reads it; the last one stays as it was. */
static void randomise(uint64_t i) {
    if (call(SYS_RANDOM, (uintptr_t)tile(i), sizeof(uint64_t), 0) != sizeof(uint64_t))
        fail(CHECK_RESULT);
    noted.content[i] = tile(i)[0];
}

/* With the direction flag set: it is this program's, and the kernel copies pages meanwhile. */
static void store_backwards(volatile uint64_t *to, uint64_t value) {
    __asm__ volatile("std\n mov %1, %0\n cld" : "=m"(*to) : "r"(value) : "cc");
}

static void store(uint64_t i, uint64_t step, int backwards) {
    noted.content[i] = step;
    if (backwards)
        store_backwards(&tile(i)[0], step);
    tile(i)[0] = step;
    tile(i)[WORD_LAST] = step;
}

static void change(uint64_t i, enum kind kind, uint64_t step) {
    if (tile(i)[0] != noted.content[i])
        fail(CHECK_TILE);
    if (kind == KIND_DISCARD)
        discard(i);
    else if (kind == KIND_EXEC)
        change_exec(i % EXEC_TILE_COUNT, step);
    else if (kind == KIND_RANDOM)
        randomise(i);
    else if (kind == KIND_RUN)
        copy_run(i);
    else
        store(i, step, kind < KIND_STORE);
}

__attribute__((used)) void lay_mosaic(void) {
    for (done = order.step;; done++) {
        if (order.step != done) /* registers and memory are of one moment */
            fail(CHECK_STEP);
        order.step = done + 1;
        uint64_t hash = splitmix(order.seed + done + 1);
        change(hash % order.tile_count, (enum kind)(hash >> 40) % KIND_COUNT, done + 1);
    }
}

__asm__(".globl _start\n_start: lea noted+40*4096(%rip), %rsp\n call lay_mosaic\n ud2");
