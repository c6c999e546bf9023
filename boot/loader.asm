;
; boot/loader.asm: stage 2. From the boot record to the kernel's 64-bit entry (boot/PROTOCOL.md).
;
; Promise: runs the kernel of the newest valid root whose every block verifies; writes to no disk; a step that fails
; says so on the screen and COM2 and stops.
; Entered by: mbr.asm, real mode, at LOADER_SEGMENT:0. In: DL drive, ECX:EBX time-stamp of the boot record's start.
;
%include "layout.inc"

org 0                                   ; offsets in the loader's segment; RIP-relative in 64-bit code
bits 16

loader:
    jmp short start
    times LOADER_MAGIC_OFFSET - ($ - $$) db 0
    dd LOADER_MAGIC_LOW, LOADER_MAGIC_HIGH

start:
    cli
    cld
    mov ax, LOADER_SEGMENT
    mov ds, ax
    mov es, ax
    xor ax, ax
    mov ss, ax
    mov sp, STACK_TOP
    sti
    mov [drive], dl
    mov di, boot_info
    push cx
    mov cx, INFO_SIZE
    rep stosb
    pop cx
    mov dword [is_fallback], 0
    mov [boot_info + INFO_ENTRY_TSC], ebx
    mov [boot_info + INFO_ENTRY_TSC + 4], ecx
    call cpu_check
    call low_memory_check
    call a20_enable
    call memory_map_read
    call page_tables_make
    call long_enter

bits 64
    call header_read
    call ring_read
.root:
    call ring_next
    test rbx, rbx
    jz .none_left
    call kernel_load
    test eax, eax
    jnz .next_older
    mov r13d, [rbx + ROOT_KERNEL_SIZE]
    call elf_check
    test eax, eax
    jnz .next_older
    call elf_load
    call boot_info_fill
    lea rdi, [rel boot_info]
    jmp [KERNEL_FILE + ELF_ENTRY]
.next_older:
    bts dword [rel is_fallback], 0
    jc .root                            ; only the newest root's fault is told
    mov si, ax
    mov eax, print_line
    call real_call
    jmp .root
.none_left:
    mov eax, .no_root
    cmp dword [rel is_fallback], 0
    je fail
    mov eax, .no_older_root
    jmp fail
.no_root:           db "root: no valid one", 0
.no_older_root:     db "root: no older one to start from", 0

; In: RBX root. Clobbers: RAX, RDX.
boot_info_fill:
    mov rax, BOOT_INFO_MAGIC
    mov [rel boot_info + INFO_MAGIC], rax
    mov dword [rel boot_info + INFO_VERSION], BOOT_INFO_VERSION
    mov dword [rel boot_info + INFO_METHOD], BOOT_BY_MBR
    mov rax, [rbx + ROOT_SEQUENCE]
    mov [rel boot_info + INFO_SEQUENCE], rax
    mov rax, [rbx + ROOT_STORE_ID]
    mov rdx, [rbx + ROOT_STORE_ID + 8]
    mov [rel boot_info + INFO_STORE_ID], rax
    mov [rel boot_info + INFO_STORE_ID + 8], rdx
    ret

; Ends the start from long mode. In: EAX offset of a message. Never returns.
fail:
    mov si, ax
    call long_leave
bits 16
    jmp print_fail

%include "print.inc"
%include "firmware.inc"
%include "long_mode.inc"
%include "disk.inc"
%include "store.inc"
%include "elf.inc"
%include "blake2b.inc"

LOADER_SIZE         equ $ - $$

; Scratch memory behind the code; not in the file, not zeroed. On pages of its own: a write next to code costs
; emulators and CPUs alike what they know of that code.
section .bss align=BLOCK_SIZE
boot_info:          resb INFO_SIZE
alignb 16
blake2b_state:      resq 8
blake2b_count:      resq 1
blake2b_final:      resq 1
blake2b_tail:       resb BLAKE2B_BLOCK
ring_limit:         resq 1
is_fallback:        resd 1
packets:            resb PACKET_COUNT_MAX * PACKET_SIZE
packet_count:       resw 1
disk_failed:        resw 1
real_routine:       resw 1
drive:              resb 1
alignb SECTOR_SIZE
header:             resb SECTOR_SIZE
ring:               resb RING_COUNT * SECTOR_SIZE
node:               resb BLOCK_SIZE
SCRATCH_SIZE        equ $ - $$

%if LOADER_SIZE > LOADER_READ_SECTORS * SECTOR_SIZE
    %error "the loader is larger than what the boot record reads"
%endif
%if LOADER_SIZE + BLOCK_SIZE + SCRATCH_SIZE > LOADER_SIZE_MAX
    %error "the loader and its scratch memory are over 64 KiB"
%endif
