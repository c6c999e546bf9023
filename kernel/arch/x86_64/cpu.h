/*
 * kernel/arch/x86_64/cpu.h: what the files of this room share; nobody else includes it.
 *
 * Promise: everything that belongs to one CPU is in struct cpu, reached through GS while in ring 0, so that several
 * CPUs remain possible. Offsets that assembly uses are asserted here (layout.inc).
 */
#ifndef ARCH_CPU_H
#define ARCH_CPU_H

#include "arch/x86_64/arch.h"

enum selector {
    SELECTOR_KERNEL_CODE = 0x08,
    SELECTOR_KERNEL_DATA = 0x10,
    SELECTOR_USER_DATA = 0x1b,
    SELECTOR_USER_CODE = 0x23,
    SELECTOR_TSS = 0x28,
};

enum vector {
    VECTOR_DEBUG = 1,
    VECTOR_NMI = 2,
    VECTOR_BREAKPOINT = 3,
    VECTOR_DOUBLE_FAULT = 8,
    VECTOR_PROTECTION = 13,
    VECTOR_PAGE_FAULT = 14,
    VECTOR_MACHINE_CHECK = 18,
    VECTOR_DEVICE_FIRST = 0x30, /* interrupt_alloc hands these out */
    VECTOR_PIC_FIRST = 0xe0,    /* 16 of the legacy PIC: masked, so only spurious ones come */
    VECTOR_APIC_ERROR = 0xfe,
    VECTOR_SPURIOUS = 0xff,
    VECTOR_COUNT = 256,
};

enum ist { IST_NONE, IST_DEBUG, IST_NMI, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_COUNT = IST_MACHINE_CHECK };
enum { IST_STACK_SIZE = 8192 };

enum rflags {
    RFLAGS_ALWAYS = 1 << 1,
    RFLAGS_TF = 1 << 8,
    RFLAGS_IF = 1 << 9,
    RFLAGS_DF = 1 << 10,
    RFLAGS_NT = 1 << 14,
    RFLAGS_AC = 1 << 18,
    RFLAGS_USER = 0x240dd5, /* what ring 3 may have set: CF PF AF ZF SF TF DF OF AC ID */
};

enum msr {
    MSR_APIC_BASE = 0x1b,
    MSR_EFER = 0xc0000080,
    MSR_STAR = 0xc0000081,
    MSR_LSTAR = 0xc0000082,
    MSR_CSTAR = 0xc0000083,
    MSR_FMASK = 0xc0000084,
    MSR_FS_BASE = 0xc0000100,
    MSR_GS_BASE = 0xc0000101,
    MSR_KERNEL_GS_BASE = 0xc0000102, /* ring 3's GS base while in ring 0 */
};

struct __attribute__((packed)) tss {
    uint32_t zero;
    uint64_t rsp[3];
    uint64_t zero2;
    uint64_t ist[7];
    uint64_t zero3;
    uint16_t zero4;
    uint16_t io_map; /* offset; at the limit: no port is ring 3's */
};

struct cpu {
    struct thread_registers user; /* of ring 3: saved at entry, loaded at return (entry.asm) */
    uint64_t stack_top;
    uint64_t fs_base_loaded, gs_base_loaded; /* what the MSRs hold for ring 3 */
    struct tss tss;
    uint64_t gdt[7];
};

/* layout.inc */
_Static_assert(offsetof(struct thread_registers, rax) == 0, "CPU_RAX");
_Static_assert(offsetof(struct thread_registers, rbx) == 8, "CPU_RBX");
_Static_assert(offsetof(struct thread_registers, rcx) == 16, "CPU_RCX");
_Static_assert(offsetof(struct thread_registers, rdx) == 24, "CPU_RDX");
_Static_assert(offsetof(struct thread_registers, rsi) == 32, "CPU_RSI");
_Static_assert(offsetof(struct thread_registers, rdi) == 40, "CPU_RDI");
_Static_assert(offsetof(struct thread_registers, rbp) == 48, "CPU_RBP");
_Static_assert(offsetof(struct thread_registers, r8) == 56, "CPU_R8");
_Static_assert(offsetof(struct thread_registers, r9) == 64, "CPU_R9");
_Static_assert(offsetof(struct thread_registers, r10) == 72, "CPU_R10");
_Static_assert(offsetof(struct thread_registers, r11) == 80, "CPU_R11");
_Static_assert(offsetof(struct thread_registers, r12) == 88, "CPU_R12");
_Static_assert(offsetof(struct thread_registers, r13) == 96, "CPU_R13");
_Static_assert(offsetof(struct thread_registers, r14) == 104, "CPU_R14");
_Static_assert(offsetof(struct thread_registers, r15) == 112, "CPU_R15");
_Static_assert(offsetof(struct thread_registers, rip) == 120, "CPU_RIP");
_Static_assert(offsetof(struct thread_registers, rflags) == 128, "CPU_RFLAGS");
_Static_assert(offsetof(struct thread_registers, rsp) == 136, "CPU_RSP");
_Static_assert(offsetof(struct cpu, user) == 0, "CPU_RAX and so on count from struct cpu");
_Static_assert(offsetof(struct cpu, stack_top) == 160, "CPU_STACK_TOP");
_Static_assert(sizeof(struct tss) == 104, "tss");

/* What kernel_entry in entry.asm leaves on the stack. */
struct kernel_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error_code;
    uint64_t rip, cs, rflags, rsp, ss;
};

struct cpuid {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
    struct cpuid r;
    __asm__ volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
    return r;
}
static inline uint64_t msr_read(uint32_t msr) {
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}
static inline void msr_write(uint32_t msr, uint64_t value) {
    __asm__ volatile("wrmsr" ::"c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

extern struct cpu boot_cpu;

/* boot_high.asm and entry.asm */
extern char kernel_stack_guard[], kernel_stack_top[];
extern const uint64_t entry_stubs[VECTOR_COUNT];
void entry_syscall(void);
_Noreturn void entry_user_return(void);

/* Called by assembly. */
const struct boot_info *pvh_boot_info(uint64_t start_info, uint64_t entry_tsc);
void trap_from_user(uint64_t vector, uint64_t error_code);
void trap_syscall(void);
void trap_before_user(void);
void trap_from_kernel(const struct kernel_frame *frame);

void descriptors_init(struct cpu *cpu);       /* GDT, TSS, IDT */
void cpu_nx_enable(void);                     /* panics without NX */
int cpu_has_gigabyte_pages(void);
void trap_init(const struct arch_handlers *handlers);
void interrupt_init(void);                    /* PIC, local APIC, IOAPIC */
void interrupt_map(void); /* from paging_init: the controllers' registers through mmio_map from here on */
void interrupt_dispatch(uint64_t vector);

#endif
