;
; kernel/arch/x86_64/boot.asm: the 64-bit entry (boot/PROTOCOL.md) and temporary page tables.
;
; Promise: boot_high runs at its linked address with the first 4 GiB identity-mapped and the first GiB at KERNEL_BASE,
; until paging_init. Runs where it is loaded, at physical addresses.
; Entered by: the MBR loader; pvh.asm makes its tables by boot_make_tables.
;
%include "arch/x86_64/layout.inc"

global boot_entry64_phys, boot_make_tables, boot_tables
extern boot_high
extern boot_tables_physical         ; linker.ld

section .boot.text progbits alloc exec nowrite align=16

bits 64
; In: RDI physical address of boot_info, any small stack. Never returns.
boot_entry64_phys:
    cli
    cld
    mov rbx, rdi
    call boot_make_tables
    mov eax, boot_tables_physical
    mov cr3, rax
    mov rdi, rbx
    mov rax, boot_high
    jmp rax

bits 32
; Fills the temporary tables: PML4, low and high PDPT, four PDs. Called in 32-bit and in 64-bit mode: every
; instruction here has the same bytes and the same meaning in both (no absolute addresses, no one-byte inc/dec).
; In: zeroed boot_tables. Clobbers: EAX, ECX, EDI.
boot_make_tables:
    mov edi, boot_tables_physical
    lea eax, [edi + 1 * 0x1000 + PTE_TABLE]
    mov [edi], eax
    lea eax, [edi + 2 * 0x1000 + PTE_TABLE]
    mov [edi + 511 * 8], eax
    lea eax, [edi + 3 * 0x1000 + PTE_TABLE]
    mov [edi + 1 * 0x1000], eax
    mov [edi + 2 * 0x1000 + 510 * 8], eax       ; KERNEL_BASE: the first GiB again
    add eax, 0x1000
    mov [edi + 1 * 0x1000 + 1 * 8], eax
    add eax, 0x1000
    mov [edi + 1 * 0x1000 + 2 * 8], eax
    add eax, 0x1000
    mov [edi + 1 * 0x1000 + 3 * 8], eax
    add edi, 3 * 0x1000
    mov eax, PTE_TABLE | PTE_LARGE
    mov ecx, 4 * 512
.next:
    mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop .next
    ret

section .bss align=4096
boot_tables: resb 7 * 4096

section .note.GNU-stack noalloc noexec nowrite progbits
