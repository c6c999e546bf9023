/*
 * tests/qemu/programs/syscall_fuzz.c: a program that makes every system call with every kind of bad argument.
 *
 * Promise: after each call it has looked at what came back: a result that SYSCALLS.md allows, registers as they were,
 * and no byte changed beyond what the call may write. It ends with status 0, or with the number of the check that
 * failed (see `fail`). Built and started by: tests/qemu/test_border.py, which patches `order`.
 */
#include "abi/syscall.h"
#include "layout.h"

#include <stddef.h>

enum { PAGE_SIZE = 4096, ARENA_SIZE = 16 * PAGE_SIZE, FENCE_SIZE = 64, TRANSFER_SIZE_MAX = 65536, FILLER = '.' };

/* The only data that are not zero: the tests write them into the ELF. */
static volatile struct {
    uint64_t seed, call_count;
} order = {1, 1000};
static volatile uint64_t calls_made;

static uint8_t arena[ARENA_SIZE] __attribute__((aligned(PAGE_SIZE)));
__attribute__((used)) static uint8_t stack[4 * PAGE_SIZE] __attribute__((aligned(PAGE_SIZE)));
static uint64_t state;
extern uint8_t __executable_start[], etext[], end[]; /* ld's; the end is that of .bss */

struct call {
    uint64_t number, rdi, rsi, rdx, r10;
};

static uint64_t random_word(void) { /* xorshift64*, Vigna 2016 */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 2685821657736338717ull;
}

static uint64_t below(uint64_t limit) { return random_word() % limit; }

static int64_t make(struct call *call) {
    register uint64_t r10 __asm__("r10") = call->r10;
    int64_t result;
    __asm__ volatile("syscall" : "=a"(result), "+D"(call->rdi), "+d"(call->rdx) : "0"(call->number), "S"(call->rsi), "r"(r10)
                     : "rcx", "r11", "memory");
    return result;
}

_Noreturn static void fail(uint64_t number, uint64_t check) {
    struct call call = {SYS_EXIT, 1000 * number + check, 0, 0, 0};
    make(&call);
    __builtin_trap();
}

/* RBX, RBP and R12 to R15 go in with marks and must come out with them. */
static int64_t make_marked(struct call *call) {
    int64_t result;
    uint64_t wrong;
    register uint64_t r10 __asm__("r10") = call->r10;
    __asm__ volatile("push %%rbx\n push %%rbp\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n"
                     "lea 1(%%rsi), %%rbx\n lea 2(%%rsi), %%rbp\n lea 3(%%rsi), %%r12\n lea 4(%%rsi), %%r13\n"
                     "lea 5(%%rsi), %%r14\n lea 6(%%rsi), %%r15\n mov %%rsi, %%r8\n std\n"
                     "syscall\n"
                     "pushfq\n pop %%rcx\n cld\n not %%rcx\n and $0x400, %%rcx\n"
                     "sub %%r8, %%rbx\n sub %%r8, %%rbp\n sub %%r8, %%r12\n sub %%r8, %%r13\n sub %%r8, %%r14\n sub %%r8, %%r15\n"
                     "xor $1, %%rbx\n xor $2, %%rbp\n xor $3, %%r12\n xor $4, %%r13\n xor $5, %%r14\n xor $6, %%r15\n"
                     "or %%rbx, %%rcx\n or %%rbp, %%rcx\n or %%r12, %%rcx\n or %%r13, %%rcx\n or %%r14, %%rcx\n or %%r15, %%rcx\n"
                     "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbp\n pop %%rbx"
                     : "=a"(result), "+D"(call->rdi), "+d"(call->rdx), "=c"(wrong)
                     : "0"(call->number), "S"(call->rsi), "r"(r10)
                     : "r8", "r11", "memory", "cc");
    if (wrong != 0)
        fail(call->number, 1);
    return result;
}

static uint64_t any_address(void) {
    static const uint64_t bad[] = {
        0, 1, 0xfff, 0x1000, 0x7fffffffffff, 0x7ffffffff000, 0x800000000000, 0xffff800000000000, 0xffff888000000000,
        0xffffffff80000000, 0xffffffff80100000, 0xffffffffffffffff, 0xfffffffffffff000, 0x00a00000, 0x03000000, 0xfee00000,
    };
    switch (below(8)) {
    case 0:
        return bad[below(sizeof bad / sizeof bad[0])] - below(2) * below(64);
    case 1:
        return random_word() >> below(64);
    case 2:
        return (uintptr_t)&random_word; /* text: may be read only */
    case 3:
        return (uintptr_t)arena + ARENA_SIZE - below(64);
    default:
        return (uintptr_t)arena + below(ARENA_SIZE);
    }
}

static uint64_t any_size(void) {
    static const uint64_t edges[] = {0, 1, 255, 256, 257, 4095, 4096, 4097, 65535, 65536, 65537, 1ull << 32, 1ull << 47, 1ull << 63};
    switch (below(4)) {
    case 0:
        return edges[below(sizeof edges / sizeof edges[0])];
    case 1:
        return 0 - below(4 * PAGE_SIZE);
    case 2:
        return random_word() >> below(64);
    default:
        return below(300);
    }
}

static int in_arena(uint64_t address, uint64_t size) {
    uint64_t start = (uintptr_t)arena;
    return address >= start && address <= start + ARENA_SIZE && size <= start + ARENA_SIZE - address;
}

/* Data, or one of the regions that every program has (userland/layout.h): stack, files, heap. */
static int is_writable(uint64_t address, uint64_t size) {
    uint64_t data = (uintptr_t)&order & ~(uint64_t)(PAGE_SIZE - 1), data_end = ((uintptr_t)end + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    return (address >= data && address < data_end && size <= data_end - address) ||
           (address >= LAYOUT_STACK_START && address < LAYOUT_HEAP_END && size <= LAYOUT_HEAP_END - address);
}

/* Text is read only, but it is an exec region to exec_write. */
static int is_executable(uint64_t address, uint64_t size) {
    uint64_t text = (uintptr_t)__executable_start, text_end = ((uintptr_t)etext + PAGE_SIZE - 1) & ~(uint64_t)(PAGE_SIZE - 1);
    return (address >= text && address < text_end && size <= text_end - address) ||
           (address >= LAYOUT_EXEC_START && address < LAYOUT_EXEC_END && size <= LAYOUT_EXEC_END - address);
}

/* Constants have one page behind the text, the ELF header one before it. */
static int is_readable(uint64_t address, uint64_t size) {
    return is_writable(address, size) || is_executable(address, size) || is_executable(address + PAGE_SIZE, size) ||
           is_executable(address - PAGE_SIZE, size) || (is_executable(address, 1) && is_executable(address + size - 1 - PAGE_SIZE, 1));
}

static uint64_t now_ns(void) {
    struct call call = {SYS_CLOCK, CLOCK_MONO_NS, 0, 0, 0};
    return (uint64_t)make(&call);
}

static int has_buffer(uint64_t number) {
    return number == SYS_CONSOLE_READ || number == SYS_RANDOM || number == SYS_STATS || number == SYS_HISTORY ||
           number == SYS_PROCESS || number == SYS_RECEIVE || number == SYS_MACHINE_ID;
}

/* Whether a call with this buffer could write this program's own variables. Only messages are larger than a page. */
static int hits_own_data(uint64_t number, uint64_t address, uint64_t size) {
    uint64_t data = (uintptr_t)&order & ~(uint64_t)(PAGE_SIZE - 1);
    uint64_t most = number == SYS_RECEIVE ? TRANSFER_SIZE_MAX : PAGE_SIZE;
    size = size < most ? size : most;
    return address + size > data && address < (uintptr_t)end && !in_arena(address, size);
}

/* This program does not end itself. */
static uint64_t own_id(void) {
    static struct process_info info;
    struct call call = {SYS_PROCESS, (uintptr_t)&info, sizeof info, PROCESS_SELF, 0};
    return make(&call) == sizeof info ? info.id : 0;
}

/* A good request; what the new Python finds in its inbox is no message. */
static struct call spawn_call(void) {
    static struct {
        struct spawn_request request;
        uint8_t message[2000];
    } spawn;
    spawn.request = (struct spawn_request){.memory_size = below(2) << 20, .flags = SPAWN_QUIET, .name = "spawned"};
    for (size_t i = 0; i < sizeof spawn.message; i++)
        spawn.message[i] = (uint8_t)random_word();
    return (struct call){SYS_SPAWN, (uintptr_t)&spawn, sizeof spawn.request + below(sizeof spawn.message), 0, 0};
}

/* Nothing that waits for ever, ends the program or switches the machine off; seldom what is slow. */
static struct call any_call(void) {
    struct call call = {below(SYS_COUNT + 3), any_address(), any_size(), any_size(), random_word()};
    switch (call.number) {
    case SYS_EXIT:
        call.number = below(2) ? SYS_COUNT + below(1000) : 0 - below(1000) - 1;
        break;
    case SYS_CONSOLE_WRITE:
        if (below(3000) != 0)
            call.rsi = below(32) == 0;
        break;
    case SYS_WAIT:
        call.rsi = below(2) ? below(1000) : now_ns() + below(2000);
        break;
    case SYS_COMMIT:
        if (below(500) != 0)
            call.rdi = random_word() | 1ull << 62;
        break;
    case SYS_TAG:
        if (below(500) != 0) /* seldom a tag, which waits for a snapshot */
            call.rdx = random_word() | 1ull << 62;
        break;
    case SYS_SPAWN:
        if (below(2000) == 0)
            call = spawn_call();
        else if (is_readable(call.rdi, sizeof(struct spawn_request)))
            call.rsi = below(sizeof(struct spawn_request)); /* zeros are a good request, of a loud one */
        break;
    case SYS_FORK: /* the other one would be silent, and take the time */
        call.number = SYS_POLL;
        break;
    case SYS_KILL:
    case SYS_SEND:
    case SYS_POLL:
        if (below(8) != 0)
            call.rdi = below(12);
        if (call.number == SYS_KILL && call.rdi == own_id())
            call.rdi = 0;
        if (call.number == SYS_SEND) {
            call.rsi = any_address();
            call.rdx = any_size();
        }
        break;
    case SYS_EXEC_WRITE:
        if (call.rdi < LAYOUT_EXEC_START)
            call.rdi |= 1ull << 47; /* it would change its own code */
        break;
    case SYS_POWER:
        call.rdi |= 2; /* neither off nor reset */
        break;
    case SYS_DISCARD:
        if (below(4) == 0)
            call.rdi &= ~(uint64_t)(PAGE_SIZE - 1);
        if (below(4) == 0)
            call.rsi = (call.rsi / PAGE_SIZE) * PAGE_SIZE;
        if (!in_arena(call.rdi, call.rsi) && call.rdi < 0x800000000000 && call.rdi + call.rsi > 0x400000 && call.rdi < LAYOUT_EXEC_START)
            call.rdi |= 1; /* it would throw away its own code and stack */
        break;
    default:
        break;
    }
    if (has_buffer(call.number) && hits_own_data(call.number, call.rdi, call.rsi))
        call.rdi |= 1ull << 63;
    return call;
}

/* How many bytes at the address in RDI may have changed. */
static uint64_t writable_size(const struct call *call, int64_t result) {
    if (call->number == SYS_DISCARD && result == 0)
        return call->rsi;
    return has_buffer(call->number) && result > 0 ? (uint64_t)result : 0;
}

static void check_result(const struct call *call, int64_t result) {
    if (call->number >= SYS_COUNT && result != ERR_NOSYS)
        fail(call->number, 2);
    if (result < ERR_NOPROC)
        fail(call->number, 3);
    if (has_buffer(call->number) && result > 0 && !is_writable(call->rdi, (uint64_t)result))
        fail(call->number, 4); /* it says that it has written where it must not */
    if (has_buffer(call->number) && result > 0 && (uint64_t)result > call->rsi)
        fail(call->number, 5);
    if (call->number == SYS_EXEC_WRITE && result == 0 && call->rdx != 0 &&
        !(is_executable(call->rdi, call->rdx) && is_readable(call->rsi, call->rdx)))
        fail(call->number, 6);
    if (call->number == SYS_CONSOLE_WRITE && result > 0 && !is_readable(call->rdi, (uint64_t)result))
        fail(call->number, 8); /* it has shown what this program may not read */
    if (call->number == SYS_SEND && result == 0 && call->rdx != 0 && !is_readable(call->rsi, call->rdx))
        fail(call->number, 9);
}

static void check_filler(uint64_t from, uint64_t to, uint64_t number) {
    for (uint64_t at = from; at < to; at++)
        if (at >= (uintptr_t)arena && at < (uintptr_t)arena + ARENA_SIZE && *(uint8_t *)at != FILLER)
            fail(number, 7);
}

static void step(void) {
    struct call call = any_call();
    uint64_t address = call.rdi, rdx = call.rdx;
    int64_t result = make_marked(&call);
    call.rdi = address;
    call.rdx = rdx;
    check_result(&call, result);
    uint64_t size = writable_size(&call, result);
    check_filler(address - FENCE_SIZE, address, call.number);
    check_filler(address + size, address + size + FENCE_SIZE, call.number);
    for (uint64_t i = 0; size != 0 && in_arena(address, size) && i < size; i++)
        ((uint8_t *)address)[i] = FILLER;
}

__attribute__((used)) void fuzz(void) {
    state = order.seed * 2654435761u + 1;
    __builtin_memset(arena, FILLER, sizeof arena);
    for (calls_made = 0; calls_made < order.call_count; calls_made++) {
        step();
        if (calls_made % 4096 == 0)
            check_filler((uintptr_t)arena, (uintptr_t)arena + ARENA_SIZE, 99);
    }
    fail(0, 0); /* nothing failed */
}

void *memset(void *to, int value, size_t size) {
    for (size_t i = 0; i < size; i++)
        ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

__asm__(".globl _start\n_start: lea stack+4*4096(%rip), %rsp\n call fuzz\n ud2");
