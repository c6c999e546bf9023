/*
 * kernel/arch/x86_64/cpu.c: CPU features, system-call MSRs, extended state, idling, and the ends of the machine.
 *
 * Promise: what the kernel depends on is checked by CPUID before it is switched on; what is optional (SMEP, SMAP,
 * UMIP, PGE, RDRAND) is used where it exists. Intel SDM vol. 3, chapter 2.
 * Called by: main.c, mm, proc, drivers; in the kernel's usual context (interrupts off).
 */
#include "arch/x86_64/cpu.h"
#include "lib/lib.h"

enum cpuid_bits {
    CPUID_1_ECX_RDRAND = 1 << 30,
    CPUID_1_EDX_MSR = 1 << 5,
    CPUID_1_EDX_APIC = 1 << 9,
    CPUID_1_EDX_MCE = 1 << 7,
    CPUID_1_EDX_PGE = 1 << 13,
    CPUID_1_EDX_FXSR = 1 << 24,
    CPUID_1_EDX_SSE2 = 1 << 26,
    CPUID_7_EBX_SMEP = 1 << 7,
    CPUID_7_EBX_SMAP = 1 << 20,
    CPUID_7_ECX_UMIP = 1 << 2,
    CPUID_EXT_EDX_SYSCALL = 1 << 11,
    CPUID_EXT_EDX_NX = 1 << 20,
    CPUID_EXT_EDX_GIGABYTE_PAGES = 1 << 26,
};

#define CR0_PE (1ull << 0)
#define CR0_MP (1ull << 1)
#define CR0_ET (1ull << 4)
#define CR0_NE (1ull << 5)
#define CR0_WP (1ull << 16)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define CR4_MCE (1ull << 6)
#define CR4_PGE (1ull << 7)
#define CR4_OSFXSR (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_UMIP (1ull << 11)
#define CR4_SMEP (1ull << 20)
#define CR4_SMAP (1ull << 21)
#define EFER_SCE (1ull << 0)
#define EFER_NXE (1ull << 11)

enum { RANDOM_TRY_COUNT = 10, MXCSR_OFFSET = 24, MXCSR_MASK_OFFSET = 28, MXCSR_MASK_DEFAULT = 0xffbf, FX_SIZE = 512 };

struct cpu boot_cpu;
static int has_smap, has_random;
static uint32_t mxcsr_mask;

static uint32_t extended_features(void) {
    return cpuid(0x80000000, 0).eax >= 0x80000001 ? cpuid(0x80000001, 0).edx : 0;
}

int cpu_has_gigabyte_pages(void) {
    return (extended_features() & CPUID_EXT_EDX_GIGABYTE_PAGES) != 0;
}

void cpu_nx_enable(void) {
    if (!(extended_features() & CPUID_EXT_EDX_NX))
        panic("this CPU has no NX");
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_NXE);
}

static void syscall_init(void) {
    msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_SCE);
    msr_write(MSR_STAR, (uint64_t)SELECTOR_KERNEL_DATA << 48 | (uint64_t)SELECTOR_KERNEL_CODE << 32);
    msr_write(MSR_LSTAR, (uint64_t)entry_syscall);
    msr_write(MSR_CSTAR, 0); /* no 32-bit code segment exists, so nothing enters there */
    msr_write(MSR_FMASK, RFLAGS_IF | RFLAGS_DF | RFLAGS_TF | RFLAGS_AC | RFLAGS_NT);
}

/* An image of all zeros but the mask means: the default (SDM vol. 1, 11.6.6). */
static void mxcsr_mask_read(void) {
    static uint8_t image[FX_SIZE] __attribute__((aligned(16)));
    __asm__ volatile("fxsave64 %0" : "=m"(image));
    memcpy(&mxcsr_mask, image + MXCSR_MASK_OFFSET, sizeof mxcsr_mask);
    if (!mxcsr_mask)
        mxcsr_mask = MXCSR_MASK_DEFAULT;
}

/* CR4 is written whole: FSGSBASE, OSXSAVE, PCE, TSD and the rest are off. */
static void control_registers_init(uint32_t features) {
    struct cpuid seven = {0};
    if (cpuid(0, 0).eax >= 7)
        seven = cpuid(7, 0);
    has_smap = (seven.ebx & CPUID_7_EBX_SMAP) != 0;
    uint64_t cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_MP | CR0_PE;
    uint64_t cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT;
    cr4 |= features & CPUID_1_EDX_PGE ? CR4_PGE : 0;
    cr4 |= features & CPUID_1_EDX_MCE ? CR4_MCE : 0;
    cr4 |= seven.ebx & CPUID_7_EBX_SMEP ? CR4_SMEP : 0;
    cr4 |= has_smap ? CR4_SMAP : 0;
    cr4 |= seven.ecx & CPUID_7_ECX_UMIP ? CR4_UMIP : 0;
    __asm__ volatile("mov %0, %%cr0" ::"r"(cr0) : "memory");
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4) : "memory");
    arch_user_access_end();
}

static void cpu_features_init(void) {
    struct cpuid one = cpuid(1, 0);
    uint32_t needed = CPUID_1_EDX_MSR | CPUID_1_EDX_APIC | CPUID_1_EDX_FXSR | CPUID_1_EDX_SSE2;
    if ((one.edx & needed) != needed || !(extended_features() & CPUID_EXT_EDX_SYSCALL))
        panic("this CPU lacks MSR, APIC, FXSR, SSE2 or SYSCALL: CPUID 1 EDX is %x", one.edx);
    has_random = (one.ecx & CPUID_1_ECX_RDRAND) != 0;
    cpu_nx_enable();
    control_registers_init(one.edx);
    mxcsr_mask_read();
}

void arch_init(const struct arch_handlers *handlers) {
    struct cpu *cpu = &boot_cpu;
    cpu->stack_top = (uint64_t)kernel_stack_top;
    trap_init(handlers);
    descriptors_init(cpu);
    msr_write(MSR_GS_BASE, (uint64_t)cpu);
    msr_write(MSR_FS_BASE, 0);
    msr_write(MSR_KERNEL_GS_BASE, 0);
    cpu_features_init();
    syscall_init();
    interrupt_init();
}

void arch_fx_save(void *image) {
    __asm__ volatile("fxsave64 (%0)" ::"r"(image) : "memory");
}

void arch_fx_load(const void *image) {
    static uint8_t cleaned[FX_SIZE] __attribute__((aligned(16)));
    uint32_t mxcsr;
    memcpy(&mxcsr, (const uint8_t *)image + MXCSR_OFFSET, sizeof mxcsr);
    if (mxcsr & ~mxcsr_mask) { /* FXRSTOR would fault */
        memcpy(cleaned, image, FX_SIZE);
        mxcsr &= mxcsr_mask;
        memcpy(cleaned + MXCSR_OFFSET, &mxcsr, sizeof mxcsr);
        image = cleaned;
    }
    __asm__ volatile("fxrstor64 (%0)" ::"r"(image) : "memory");
}

/* STI lets nothing in before the next instruction has begun, so no interrupt is lost between the two. */
void arch_idle(void) {
    __asm__ volatile("sti; hlt; cli" ::: "memory");
}

void arch_idle_poll(void) {
    __asm__ volatile("sti; nop; cli" ::: "memory");
}

/* CLAC and STAC are invalid opcodes without SMAP. */
void arch_user_access_begin(void) {
    if (has_smap)
        __asm__ volatile("stac" ::: "memory", "cc");
}

void arch_user_access_end(void) {
    if (has_smap)
        __asm__ volatile("clac" ::: "memory", "cc");
}

int arch_random(uint64_t *value) {
    for (int i = 0; has_random && i < RANDOM_TRY_COUNT; i++) {
        uint8_t ok;
        __asm__ volatile("rdrand %0; setc %1" : "=r"(*value), "=qm"(ok)::"cc");
        if (ok)
            return 1;
    }
    return 0;
}

_Noreturn static void halt(void) {
    for (;;)
        __asm__ volatile("cli; hlt");
}

void arch_power_off(void) {
    arch_outw(0x604, 0x2000);  /* PM1a_CNT of pc and q35: SLP_EN, SLP_TYP 0 */
    arch_outw(0xb004, 0x2000); /* older QEMU, Bochs */
    halt();
}

void arch_reset(void) {
    arch_outb(0xcf9, 0x06);
    arch_outb(0x64, 0xfe); /* keyboard controller, where there is no 0xcf9 */
    static const uint8_t no_idt[10];
    __asm__ volatile("lidt %0; int3" ::"m"(no_idt)); /* triple fault */
    halt();
}

void arch_debug_signal(uint8_t value) { arch_outb(0xf4, value); }

void arch_debug_exit(uint8_t value) {
    arch_debug_signal(value);
    halt();
}
