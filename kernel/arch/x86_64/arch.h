/*
 * kernel/arch/x86_64/arch.h: everything that the rest of the kernel may ask of the CPU.
 *
 * Promise: after arch_init, exceptions, interrupts and system calls reach the handlers of struct arch_handlers, on an
 * empty kernel stack with interrupts off; when a handler of a ring-3 event returns, ring 3 goes on with
 * arch_user_registers(). Intel SDM vol. 3.
 * Called by: main.c, mm, pager, proc, drivers.
 */
#ifndef ARCH_H
#define ARCH_H

#include <stddef.h>
#include <stdint.h>

#include "abi/boot_info.h"
#include "abi/record.h"

/* --- entries --- */
struct arch_handlers {
    void (*page_fault)(uint64_t address, uint64_t error_code); /* from ring 3 only */
    void (*exception)(unsigned vector, uint64_t error_code);   /* from ring 3 only; from ring 0 arch panics */
    void (*syscall)(void);                                     /* number and arguments in arch_user_registers() */
    void (*before_user)(void);  /* runs last, before each return to ring 3: scheduler and background work */
};

void arch_init(const struct arch_handlers *handlers);      /* GDT, TSS, IDT, CPU features, APIC; interrupts stay off */
struct thread_registers *arch_user_registers(void);        /* the saved registers of ring 3: what arch_user_run loads */
_Noreturn void arch_user_run(void);                        /* resets the kernel stack, before_user, enters ring 3 */
void arch_fx_save(void *image);       /* 512 bytes, 16-byte aligned */
void arch_dump_registers(const struct thread_registers *registers); /* as notices */
void arch_fx_load(const void *image); /* a bad MXCSR from a record must not fault: masked */
void arch_idle(void);                 /* sti; hlt; cli: returns after at least one interrupt was handled */
void arch_idle_poll(void);            /* sti; nop; cli: lets waiting interrupts in, returns at once */
_Noreturn void arch_power_off(void);  /* ACPI S5 of QEMU's machines (ports 0x604, 0xb004), else halt */
_Noreturn void arch_reset(void);
void arch_debug_signal(uint8_t value);         /* isa-debug-exit at 0xf4 ends QEMU; without that device it returns */
_Noreturn void arch_debug_exit(uint8_t value); /* the same, else halt */

/* --- interrupts --- */
typedef void (*interrupt_fn)(void *context);
int interrupt_alloc(interrupt_fn fn, void *context);       /* a vector (>= 32), or -E_LIMIT */
void interrupt_route_isa(unsigned irq, unsigned vector);   /* IOAPIC, edge, to this CPU */
uint64_t interrupt_msi_address(void);
uint32_t interrupt_msi_data(unsigned vector);
void apic_timer_set(uint32_t divide, uint32_t initial_count, unsigned vector); /* one-shot; 0 stops */
uint32_t apic_timer_current(void);

/* --- CPU --- */
static inline uint64_t arch_cycles(void) {
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}
static inline void arch_outb(uint16_t port, uint8_t value) {
    __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
static inline void arch_outw(uint16_t port, uint16_t value) {
    __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port));
}
static inline void arch_outl(uint16_t port, uint32_t value) {
    __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port));
}
static inline uint8_t arch_inb(uint16_t port) {
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t arch_inw(uint16_t port) {
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t arch_inl(uint16_t port) {
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void arch_barrier_compiler(void) { __asm__ volatile("" ::: "memory"); }
static inline void arch_barrier_full(void) { __asm__ volatile("mfence" ::: "memory"); }
int arch_vector_init(void);           /* 1: this CPU has AVX2, and the two below may be called */
void arch_vector_begin(void);         /* ring 3's vector state is put aside; interrupts stay off until the end */
void arch_vector_end(void);
int arch_random(uint64_t *value);     /* RDRAND: 1 if it gave one */
void arch_user_access_begin(void);    /* STAC where SMAP is on */
void arch_user_access_end(void);      /* CLAC */

/* --- paging --- */
#define DIRECT_MAP_BASE 0xffff800000000000ull
#define MMIO_BASE 0xffffc00000000000ull
#define KERNEL_BASE 0xffffffff80000000ull

enum page_bits {
    PTE_PRESENT = 1 << 0,
    PTE_WRITE = 1 << 1,
    PTE_USER = 1 << 2,
    PTE_WRITE_THROUGH = 1 << 3,
    PTE_NO_CACHE = 1 << 4,
    PTE_ACCESSED = 1 << 5,
    PTE_DIRTY = 1 << 6,
    PTE_LARGE = 1 << 7,
};
#define PTE_NX (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull
enum page_fault_bits { FAULT_PRESENT = 1, FAULT_WRITE = 2, FAULT_USER = 4, FAULT_RESERVED = 8, FAULT_FETCH = 16 };

static inline void *phys_to_virt(uint64_t physical) { return (void *)(physical + DIRECT_MAP_BASE); }
uint64_t virt_to_phys(const void *address);                /* of the direct map or of the kernel image */

/* Kernel page tables: direct map of [0, memory_end), kernel sections W^X in the image and in the direct map alike.
 * alloc_page gives zeroed physical pages that the identity map of the loader covers (below 4 GiB). Loads CR3. May come
 * before arch_init or after it. */
void paging_init(uint64_t memory_end, uint64_t (*alloc_page)(void));
void paging_kernel_half_copy(uint64_t *pml4);              /* fills entries 256 to 511 of a program's table */
uint64_t paging_kernel_root(void);                         /* physical address of the kernel's own table */
/* Uncached, never unmapped; after paging_init. In all 8 MiB of mappings below 2 MiB, and 1 GiB of larger ones. */
void *mmio_map(uint64_t physical, size_t size);
static inline void paging_load(uint64_t root) { __asm__ volatile("mov %0, %%cr3" ::"r"(root) : "memory"); }
static inline void paging_invalidate(uint64_t address) { __asm__ volatile("invlpg (%0)" ::"r"(address) : "memory"); }

#endif
