;
; kernel/arch/x86_64/pvh.asm: the PVH entry, for QEMU's -kernel.
;
; Promise: from 32-bit protected mode without paging to boot_high_pvh in long mode; a CPU without long mode is told so
; on COM1.
; Entered by: QEMU, which finds the address in the ELF note (XEN_ELFNOTE_PHYS32_ENTRY); EBX = physical address of
; hvm_start_info.
;
%include "arch/x86_64/layout.inc"

extern boot_make_tables, boot_high_pvh
extern boot_tables_physical, kernel_stack_top_physical  ; linker.ld

COM1 equ 0x3f8
CR0_PROTECTED_PAGED equ 0x80000011  ; PG, ET, PE
CR4_PAE equ 1 << 5
MSR_EFER equ 0xc0000080
EFER_LONG_MODE equ 1 << 8
CPUID_LONG_MODE equ 1 << 29

section .note.pvh progbits alloc noexec nowrite align=4
    dd 4, 8, 18                     ; lengths of name and descriptor, type
    db "Xen", 0
    dq pvh_entry

section .boot.text progbits alloc exec nowrite align=16

bits 32
pvh_entry:
    cli
    cld
    rdtsc
    mov esi, eax
    mov ebp, edx                    ; EBP:ESI: TSC at entry
    mov esp, kernel_stack_top_physical
    push ebx
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    test edx, CPUID_LONG_MODE
    jz no_long_mode

    call boot_make_tables
    mov eax, boot_tables_physical
    mov cr3, eax
    mov eax, CR4_PAE
    mov cr4, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LONG_MODE
    wrmsr
    pop ebx
    mov eax, CR0_PROTECTED_PAGED
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    jmp SELECTOR_KERNEL_CODE:enter64

no_long_mode:
    mov esi, no_long_mode_text
    mov edx, COM1
.next:
    lodsb
    test al, al
    jz .stop
    out dx, al
    jmp .next
.stop:
    hlt
    jmp .stop

bits 64
enter64:
    mov edi, ebx
    mov esi, esi
    shl rbp, 32
    or rsi, rbp
    mov rax, boot_high_pvh
    jmp rax

section .boot.data progbits alloc noexec nowrite align=8
boot_gdt:
    dq 0
    dq 0x00209b0000000000           ; SELECTOR_KERNEL_CODE: 64-bit, ring 0, accessed
boot_gdt_pointer:
    dw boot_gdt_pointer - boot_gdt - 1
    dd boot_gdt
no_long_mode_text: db "revenant: this CPU has no long mode", 13, 10, 0

section .note.GNU-stack noalloc noexec nowrite progbits
