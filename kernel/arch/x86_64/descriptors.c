/*
 * kernel/arch/x86_64/descriptors.c: GDT, TSS and IDT of a CPU.
 *
 * Promise: all 256 vectors lead to entry.asm through interrupt gates (IF clear); vectors that may come while RSP is
 * not to be trusted have stacks of their own. Intel SDM vol. 3, chapters 3, 6 and 8.
 * Called by: arch_init, once per CPU.
 */
#include "arch/x86_64/cpu.h"
#include "lib/lib.h"

enum { GATE_INTERRUPT = 0x8e, GATE_RING3 = 3 << 5 };

#define SEGMENT_KERNEL_CODE 0x00209b0000000000ull /* 64-bit, present, accessed */
#define SEGMENT_KERNEL_DATA 0x0000930000000000ull
#define SEGMENT_USER_DATA 0x0000f30000000000ull
#define SEGMENT_USER_CODE 0x0020fb0000000000ull
#define SEGMENT_TSS 0x0000890000000000ull

struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

struct gate {
    uint16_t offset_low;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_middle;
    uint32_t offset_high;
    uint32_t zero;
};
_Static_assert(sizeof(struct gate) == 16, "gate");

static struct gate idt[VECTOR_COUNT];
static char ist_stack[IST_COUNT][IST_STACK_SIZE] __attribute__((aligned(16)));

static void gate_set(unsigned vector, uint8_t ist, uint8_t type) {
    uint64_t entry = entry_stubs[vector];
    idt[vector] = (struct gate){
        .offset_low = (uint16_t)entry,
        .selector = SELECTOR_KERNEL_CODE,
        .ist = ist,
        .type = type,
        .offset_middle = (uint16_t)(entry >> 16),
        .offset_high = (uint32_t)(entry >> 32),
    };
}

static void idt_init(void) {
    for (unsigned vector = 0; vector < VECTOR_COUNT; vector++)
        gate_set(vector, IST_NONE, GATE_INTERRUPT);
    gate_set(VECTOR_BREAKPOINT, IST_NONE, GATE_INTERRUPT | GATE_RING3); /* INT3 is #BP and not #GP */
    gate_set(VECTOR_DEBUG, IST_DEBUG, GATE_INTERRUPT);
    gate_set(VECTOR_NMI, IST_NMI, GATE_INTERRUPT);
    gate_set(VECTOR_DOUBLE_FAULT, IST_DOUBLE_FAULT, GATE_INTERRUPT);
    gate_set(VECTOR_MACHINE_CHECK, IST_MACHINE_CHECK, GATE_INTERRUPT);
    struct table_pointer pointer = {sizeof idt - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" ::"m"(pointer));
}

static void tss_init(struct cpu *cpu) {
    cpu->tss = (struct tss){.io_map = sizeof cpu->tss};
    cpu->tss.rsp[0] = cpu->stack_top;
    for (unsigned i = IST_DEBUG; i <= IST_COUNT; i++)
        cpu->tss.ist[i - 1] = (uint64_t)ist_stack[i - 1] + IST_STACK_SIZE;
}

static void gdt_init(struct cpu *cpu) {
    uint64_t base = (uint64_t)&cpu->tss;
    cpu->gdt[SELECTOR_KERNEL_CODE / 8] = SEGMENT_KERNEL_CODE;
    cpu->gdt[SELECTOR_KERNEL_DATA / 8] = SEGMENT_KERNEL_DATA;
    cpu->gdt[SELECTOR_USER_DATA / 8] = SEGMENT_USER_DATA;
    cpu->gdt[SELECTOR_USER_CODE / 8] = SEGMENT_USER_CODE;
    cpu->gdt[SELECTOR_TSS / 8] =
        SEGMENT_TSS | (sizeof cpu->tss - 1) | (base & 0xffffff) << 16 | (base >> 24 & 0xff) << 56;
    cpu->gdt[SELECTOR_TSS / 8 + 1] = base >> 32;
    struct table_pointer pointer = {sizeof cpu->gdt - 1, (uint64_t)cpu->gdt};
    __asm__ volatile("lgdt %0" ::"m"(pointer));
}

/* Loading FS and GS clears their bases; arch_init sets them afterwards. */
static void segments_load(void) {
    __asm__ volatile("pushq %[code]\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "lretq\n"
                     "1:\n\t"
                     "movl %[data], %%ss\n\t"
                     "movl %[null], %%ds\n\t"
                     "movl %[null], %%es\n\t"
                     "movl %[null], %%fs\n\t"
                     "movl %[null], %%gs\n\t"
                     "ltr %w[tss]" ::[code] "i"(SELECTOR_KERNEL_CODE),
                     [data] "r"(SELECTOR_KERNEL_DATA), [null] "r"(0), [tss] "r"(SELECTOR_TSS)
                     : "rax", "memory");
}

void descriptors_init(struct cpu *cpu) {
    tss_init(cpu);
    gdt_init(cpu);
    segments_load();
    idt_init();
}
