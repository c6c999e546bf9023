;
; kernel/arch/x86_64/boot_high.asm: the first instructions at the kernel's linked address, and its stack.
;
; Promise: kernel_main(struct boot_info *) runs on an empty kernel stack, interrupts off.
; Entered by: boot.asm, pvh.asm. A file of its own because NASM's debug information describes one section of code.
;
%include "arch/x86_64/layout.inc"

global boot_high, boot_high_pvh, kernel_stack_guard, kernel_stack_top
extern kernel_main, pvh_boot_info

section .text

bits 64
; In: RDI physical address of hvm_start_info, RSI TSC at entry.
boot_high_pvh:
    mov rsp, kernel_stack_top
    xor ebp, ebp
    call pvh_boot_info
    mov rdi, rax
; In: RDI address of boot_info. Never returns.
boot_high:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov rsp, kernel_stack_top
    xor ebp, ebp
    call kernel_main
    ud2

section .bss align=4096
kernel_stack_guard: resb 4096       ; paging_init leaves it unmapped
    resb KERNEL_STACK_SIZE
kernel_stack_top:

section .note.GNU-stack noalloc noexec nowrite progbits
