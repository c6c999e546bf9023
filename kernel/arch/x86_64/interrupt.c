/*
 * kernel/arch/x86_64/interrupt.c: vectors, the legacy PIC (off), the local APIC with its timer, and the IOAPIC.
 *
 * Promise: a handler runs with interrupts off and its vector is acknowledged after it; an interrupt that nobody asked
 * for is acknowledged and traced. Intel SDM vol. 3 chapter 11; 82093AA (IOAPIC). Edge-triggered, to this CPU, ISA IRQ
 * n on input n.
 * Called by: drivers (allocation, routes), entry through trap.c (dispatch).
 */
#include "arch/x86_64/cpu.h"
#include "lib/error.h"
#include "lib/lib.h"

enum apic_register {
    APIC_ID = 0x20,
    APIC_TASK_PRIORITY = 0x80,
    APIC_EOI = 0xb0,
    APIC_SPURIOUS = 0xf0,
    APIC_ERROR_STATUS = 0x280,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
};

enum apic_value { LVT_MASKED = 1 << 16, LVT_EXTINT = 0x700, LVT_NMI = 0x400, SPURIOUS_ENABLE = 0x100 };
enum { APIC_BASE_ENABLE = 1 << 11, APIC_BASE_X2APIC = 1 << 10, APIC_PHYSICAL = 0xfee00000 };

#define IOAPIC_PHYSICAL 0xfec00000ull
enum ioapic_register { IOAPIC_VERSION = 0x01, IOAPIC_REDIRECTION = 0x10, IOAPIC_MASKED = 1 << 16 };
enum { IOAPIC_SELECT_WORD = 0, IOAPIC_WINDOW_WORD = 4 };

enum pic_port { PIC1_COMMAND = 0x20, PIC1_DATA = 0x21, PIC2_COMMAND = 0xa0, PIC2_DATA = 0xa1 };

static struct {
    interrupt_fn fn;
    void *context;
} handlers[VECTOR_COUNT];
static unsigned vector_next = VECTOR_DEVICE_FIRST;

/* Through the temporary identity map until paging_init has made the real mappings. */
static volatile uint32_t *apic = (volatile uint32_t *)(uintptr_t)APIC_PHYSICAL;
static volatile uint32_t *ioapic = (volatile uint32_t *)IOAPIC_PHYSICAL;

static uint32_t apic_read(enum apic_register at) {
    return apic[at / 4];
}

static void apic_write(enum apic_register at, uint32_t value) {
    apic[at / 4] = value;
}

static uint32_t ioapic_read(uint32_t at) {
    ioapic[IOAPIC_SELECT_WORD] = at;
    return ioapic[IOAPIC_WINDOW_WORD];
}

static void ioapic_write(uint32_t at, uint32_t value) {
    ioapic[IOAPIC_SELECT_WORD] = at;
    ioapic[IOAPIC_WINDOW_WORD] = value;
}

void interrupt_map(void) {
    apic = mmio_map(APIC_PHYSICAL, 4096);
    ioapic = mmio_map(IOAPIC_PHYSICAL, 4096);
}

/* Away from the exceptions' vectors, since a spurious one comes even when all is masked. */
static void pic_disable(void) {
    arch_outb(PIC1_COMMAND, 0x11); /* ICW1: edge, cascade, ICW4 follows */
    arch_outb(PIC2_COMMAND, 0x11);
    arch_outb(PIC1_DATA, VECTOR_PIC_FIRST);
    arch_outb(PIC2_DATA, VECTOR_PIC_FIRST + 8);
    arch_outb(PIC1_DATA, 4); /* the second one is on input 2 */
    arch_outb(PIC2_DATA, 2);
    arch_outb(PIC1_DATA, 1); /* 8086 mode */
    arch_outb(PIC2_DATA, 1);
    arch_outb(PIC1_DATA, 0xff);
    arch_outb(PIC2_DATA, 0xff);
}

static void apic_init(void) {
    uint64_t base = msr_read(MSR_APIC_BASE);
    check((base & PTE_ADDRESS) == APIC_PHYSICAL && !(base & APIC_BASE_X2APIC));
    msr_write(MSR_APIC_BASE, base | APIC_BASE_ENABLE);
    apic_write(APIC_SPURIOUS, SPURIOUS_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_LVT_TIMER, LVT_MASKED);
    apic_write(APIC_LVT_LINT0, LVT_EXTINT);
    apic_write(APIC_LVT_LINT1, LVT_NMI);
    apic_write(APIC_LVT_ERROR, VECTOR_APIC_ERROR);
    apic_write(APIC_ERROR_STATUS, 0);
    apic_write(APIC_TASK_PRIORITY, 0);
}

static void ioapic_init(void) {
    uint32_t last = ioapic_read(IOAPIC_VERSION) >> 16 & 0xff;
    for (uint32_t input = 0; input <= last; input++) {
        ioapic_write(IOAPIC_REDIRECTION + 2 * input, IOAPIC_MASKED);
        ioapic_write(IOAPIC_REDIRECTION + 2 * input + 1, 0);
    }
}

void interrupt_init(void) {
    pic_disable();
    apic_init();
    ioapic_init();
}

void interrupt_dispatch(uint64_t vector) {
    if (vector == VECTOR_SPURIOUS || (vector >= VECTOR_PIC_FIRST && vector < VECTOR_PIC_FIRST + 16)) {
        trace(TRACE_INTERRUPT, (uint32_t)vector, 0, 0);
        return; /* the APIC has nothing in service for it */
    }
    if (handlers[vector].fn)
        handlers[vector].fn(handlers[vector].context);
    else
        trace(TRACE_INTERRUPT, (uint32_t)vector, 0, 0);
    apic_write(APIC_EOI, 0);
}

int interrupt_alloc(interrupt_fn fn, void *context) {
    if (vector_next >= VECTOR_PIC_FIRST)
        return -E_LIMIT;
    handlers[vector_next].fn = fn;
    handlers[vector_next].context = context;
    return (int)vector_next++;
}

static uint32_t apic_id(void) {
    return apic_read(APIC_ID) >> 24;
}

void interrupt_route_isa(unsigned irq, unsigned vector) {
    check(irq < 16 && vector < VECTOR_COUNT && handlers[vector].fn);
    ioapic_write(IOAPIC_REDIRECTION + 2 * irq, IOAPIC_MASKED);
    ioapic_write(IOAPIC_REDIRECTION + 2 * irq + 1, apic_id() << 24);
    ioapic_write(IOAPIC_REDIRECTION + 2 * irq, vector); /* fixed, physical, active high, edge */
}

uint64_t interrupt_msi_address(void) {
    return APIC_PHYSICAL | apic_id() << 12;
}

uint32_t interrupt_msi_data(unsigned vector) {
    return vector; /* fixed, edge */
}

/* 1, 2, 4, ..., 128 as the divide register has it: bits 3, 1, 0 count from "2". */
static uint32_t divide_code(uint32_t divide) {
    check(divide && divide <= 128 && !(divide & (divide - 1)));
    uint32_t code = divide == 1 ? 7 : (uint32_t)__builtin_ctz(divide) - 1;
    return (code & 4) << 1 | (code & 3);
}

void apic_timer_set(uint32_t divide, uint32_t initial_count, unsigned vector) {
    check(vector >= VECTOR_DEVICE_FIRST && vector < VECTOR_COUNT);
    apic_write(APIC_TIMER_DIVIDE, divide_code(divide));
    apic_write(APIC_LVT_TIMER, vector); /* one-shot */
    apic_write(APIC_TIMER_INITIAL, initial_count);
}

uint32_t apic_timer_current(void) {
    return apic_read(APIC_TIMER_CURRENT);
}
