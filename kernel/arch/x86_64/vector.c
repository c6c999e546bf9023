/*
 * kernel/arch/x86_64/vector.c: lends the kernel the 256-bit vector registers (AVX2) for a while, where BMI2 comes with
 * them.
 *
 * Promise: ring 3's x87 and SSE state is the same after arch_vector_end; ring 3 itself never has AVX, since XCR0 allows
 * it only between begin and end, so its state stays the 512 bytes of FXSAVE. Intel SDM vol. 1, chapters 13 and 14.
 * Called by: main.c, for hashing. Not nested; interrupts stay off between begin and end.
 */
#include "arch/x86_64/cpu.h"
#include "lib/lib.h"

enum { CPUID_1_ECX_XSAVE = 1 << 26, CPUID_1_ECX_AVX = 1 << 28, CPUID_7_EBX_AVX2_BMI2 = 1 << 5 | 1 << 8 };
enum xcr0_bits { XCR0_X87 = 1, XCR0_SSE = 2, XCR0_AVX = 4 };
#define CR4_OSXSAVE (1ull << 18)

static int available, is_lent;
static uint8_t user_state[512] __attribute__((aligned(16)));

static void xcr0_set(uint32_t value) { __asm__ volatile("xsetbv" ::"c"(0), "a"(value), "d"(0) : "memory"); }

int arch_vector_init(void) {
    uint32_t needed = CPUID_1_ECX_XSAVE | CPUID_1_ECX_AVX;
    available = (cpuid(1, 0).ecx & needed) == needed && cpuid(0, 0).eax >= 7 &&
                (cpuid(7, 0).ebx & CPUID_7_EBX_AVX2_BMI2) == CPUID_7_EBX_AVX2_BMI2;
    if (!available)
        return 0;
    uint64_t cr4;
    __asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
    __asm__ volatile("mov %0, %%cr4" ::"r"(cr4 | CR4_OSXSAVE) : "memory");
    xcr0_set(XCR0_X87 | XCR0_SSE);
    return 1;
}

void arch_vector_begin(void) {
    check(available && !is_lent);
    is_lent = 1;
    arch_fx_save(user_state);
    xcr0_set(XCR0_X87 | XCR0_SSE | XCR0_AVX);
}

void arch_vector_end(void) {
    check(is_lent);
    __asm__ volatile("vzeroupper" ::: "memory");
    xcr0_set(XCR0_X87 | XCR0_SSE);
    __asm__ volatile("fxrstor64 %0" ::"m"(user_state) : "memory");
    is_lent = 0;
}
