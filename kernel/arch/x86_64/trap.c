/*
 * kernel/arch/x86_64/trap.c: what entry.asm calls: events of ring 3 to their handlers, interrupts to theirs, the rest
 * to a panic.
 *
 * Promise: ring 3 never goes on with flags, an RIP or segment bases that would fault in ring 0: registers may come
 * from a record on a disk. Every exception in ring 0 panics with all registers; so do NMI and machine check, wherever
 * they come.
 * Called by: entry.asm, on the kernel stack (or an IST stack on the way to a panic), interrupts off.
 */
#include "lib/lib.h"
#include "arch/x86_64/cpu.h"

/* The first address above the lower canonical half. */
#define USER_END 0x0000800000000000ull

static struct arch_handlers handlers;

static const char *const exception_names[32] = {
    "divide error", "debug", "NMI", "breakpoint",
    "overflow", "bound range", "invalid opcode", "no x87",
    "double fault", "coprocessor segment", "invalid TSS", "segment not present",
    "stack fault", "general protection", "page fault", "exception 15",
    "x87 error", "alignment check", "machine check", "SIMD error",
    "virtualization", "control protection", "exception 22", "exception 23",
    "exception 24", "exception 25", "exception 26", "exception 27",
    "hypervisor injection", "VMM communication", "security", "exception 31",
};

static uint64_t fault_address(void) {
    uint64_t address;
    __asm__ volatile("mov %%cr2, %0" : "=r"(address));
    return address;
}

void trap_init(const struct arch_handlers *given) {
    handlers = *given;
}

struct thread_registers *arch_user_registers(void) {
    return &boot_cpu.user;
}

void trap_syscall(void) {
    handlers.syscall();
}

void trap_from_user(uint64_t vector, uint64_t error_code) {
    if (vector == VECTOR_PAGE_FAULT)
        handlers.page_fault(fault_address(), error_code);
    else if (vector < 32)
        handlers.exception((unsigned)vector, error_code);
    else
        interrupt_dispatch(vector);
}

/* The MSRs change only when the value does: most threads have no bases, and ring 3 cannot write them (no FSGSBASE). */
static void load_bases(struct cpu *cpu) {
    if (cpu->user.fs_base != cpu->fs_base_loaded)
        msr_write(MSR_FS_BASE, cpu->fs_base_loaded = cpu->user.fs_base);
    if (cpu->user.gs_base != cpu->gs_base_loaded)
        msr_write(MSR_KERNEL_GS_BASE, cpu->gs_base_loaded = cpu->user.gs_base);
}

void trap_before_user(void) {
    struct thread_registers *user = &boot_cpu.user;
    handlers.before_user();
    while (user->rip >= USER_END || user->fs_base >= USER_END || user->gs_base >= USER_END) {
        handlers.exception(VECTOR_PROTECTION, 0); /* as IRETQ and WRMSR would, but in ring 0 */
        handlers.before_user();
    }
    user->rflags = (user->rflags & RFLAGS_USER) | RFLAGS_ALWAYS | RFLAGS_IF;
    load_bases(&boot_cpu);
}

_Noreturn static void panic_exception(const struct kernel_frame *f) {
    panic("%s %s, error code %lx, cr2 %lx\n"
          "  rip %016lx  rsp %016lx  rflags %lx  cs %lx\n"
          "  rax %016lx  rbx %016lx  rcx %016lx  rdx %016lx\n"
          "  rsi %016lx  rdi %016lx  rbp %016lx  r8  %016lx\n"
          "  r9  %016lx  r10 %016lx  r11 %016lx  r12 %016lx\n"
          "  r13 %016lx  r14 %016lx  r15 %016lx",
          exception_names[f->vector], f->cs & 3 ? "under a program" : "in the kernel", f->error_code, fault_address(),
          f->rip, f->rsp, f->rflags, f->cs, f->rax, f->rbx, f->rcx, f->rdx, f->rsi, f->rdi, f->rbp, f->r8,
          f->r9, f->r10, f->r11, f->r12, f->r13, f->r14, f->r15);
}

void trap_from_kernel(const struct kernel_frame *frame) {
    if (frame->vector < 32)
        panic_exception(frame);
    interrupt_dispatch(frame->vector);
}

void arch_dump_registers(const struct thread_registers *r) {
    notice("  rip %016lx  rsp %016lx  rflags %lx", r->rip, r->rsp, r->rflags);
    notice("  fs base %lx  gs base %lx", r->fs_base, r->gs_base);
    notice("  rax %016lx  rbx %016lx  rcx %016lx  rdx %016lx", r->rax, r->rbx, r->rcx, r->rdx);
    notice("  rsi %016lx  rdi %016lx  rbp %016lx  r8  %016lx", r->rsi, r->rdi, r->rbp, r->r8);
    notice("  r9  %016lx  r10 %016lx  r11 %016lx  r12 %016lx", r->r9, r->r10, r->r11, r->r12);
    notice("  r13 %016lx  r14 %016lx  r15 %016lx", r->r13, r->r14, r->r15);
}
