;
; kernel/arch/x86_64/entry.asm: every way from ring 3 (and from the idle loop) into the kernel, and the one way back.
;
; Promise: an entry from ring 3 saves all general registers in struct cpu, reached through GS, takes the kernel stack
; from its top and calls C with clean flags (DF, AC, TF, NT clear, IF 0). The return loads whatever struct cpu holds
; by then: another thread's, maybe. Returns are always by IRETQ: SYSRET would fault in ring 0 on a non-canonical RIP,
; and cannot load RCX and R11.
;
; NMI, double fault and machine check may come between SWAPGS and its neighbours, where GS may be of either ring: they
; never touch it and never return. They and the debug exception have stacks of their own, since SYSCALL leaves ring
; 3's RSP in place for a few instructions.
;
%include "arch/x86_64/layout.inc"

global entry_stubs, entry_syscall, entry_user_return, arch_user_run
extern trap_from_user, trap_syscall, trap_before_user, trap_from_kernel

VECTOR_NMI equ 2
VECTOR_DOUBLE_FAULT equ 8
VECTOR_MACHINE_CHECK equ 18
; the exceptions that push an error code: 8, 10 to 14, 17, 21, 29, 30
ERROR_CODE_VECTORS equ 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30

; Saves all but RIP, RFLAGS and RSP in struct cpu. In: GS is the kernel's.
%macro SAVE_USER 0
    mov [gs:CPU_RAX], rax
    mov [gs:CPU_RBX], rbx
    mov [gs:CPU_RCX], rcx
    mov [gs:CPU_RDX], rdx
    mov [gs:CPU_RSI], rsi
    mov [gs:CPU_RDI], rdi
    mov [gs:CPU_RBP], rbp
    mov [gs:CPU_R8], r8
    mov [gs:CPU_R9], r9
    mov [gs:CPU_R10], r10
    mov [gs:CPU_R11], r11
    mov [gs:CPU_R12], r12
    mov [gs:CPU_R13], r13
    mov [gs:CPU_R14], r14
    mov [gs:CPU_R15], r15
%endmacro

; The kernel stack from its top, no flag left over from ring 3, and an end for backtraces. Clobbers: RSP, RBP, flags.
%macro ENTER_KERNEL 0
    mov rsp, [gs:CPU_STACK_TOP]
    push 2
    popfq
    xor ebp, ebp
%endmacro

section .text

bits 64

; Stack at each stub, from the top: the error code if the vector has one, RIP, CS, RFLAGS, RSP, SS. A stub adds what is
; missing, and the vector.
%assign vector 0
%rep 256
stub_ %+ vector:
%if vector >= 32 || (ERROR_CODE_VECTORS >> vector & 1) == 0
    push 0
%endif
    push vector
%if vector == VECTOR_NMI || vector == VECTOR_DOUBLE_FAULT || vector == VECTOR_MACHINE_CHECK
    jmp kernel_entry
%else
    jmp common_entry
%endif
%assign vector vector + 1
%endrep

; Stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
common_entry:
    test byte [rsp + 24], 3
    jz kernel_entry
    swapgs
    SAVE_USER
    mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rax, [rsp + 16]
    mov [gs:CPU_RIP], rax
    mov rax, [rsp + 32]
    mov [gs:CPU_RFLAGS], rax
    mov rax, [rsp + 40]
    mov [gs:CPU_RSP], rax
    ENTER_KERNEL
    call trap_from_user             ; (vector, error code)
    jmp entry_user_return

; SYSCALL: RCX = RIP, R11 = RFLAGS, RSP still ring 3's; MSR_FMASK has cleared IF, DF, TF, AC, NT.
entry_syscall:
    swapgs
    SAVE_USER
    mov [gs:CPU_RIP], rcx
    mov [gs:CPU_RFLAGS], r11
    mov [gs:CPU_RSP], rsp
    ENTER_KERNEL
    call trap_syscall
    jmp entry_user_return

; void arch_user_run(void): never returns to its caller, the kernel stack starts anew. In: GS is the kernel's.
arch_user_run:
entry_user_return:
    ENTER_KERNEL
    call trap_before_user
    push SELECTOR_USER_DATA
    push qword [gs:CPU_RSP]
    push qword [gs:CPU_RFLAGS]
    push SELECTOR_USER_CODE
    push qword [gs:CPU_RIP]
    mov rax, [gs:CPU_RAX]
    mov rbx, [gs:CPU_RBX]
    mov rcx, [gs:CPU_RCX]
    mov rdx, [gs:CPU_RDX]
    mov rsi, [gs:CPU_RSI]
    mov rdi, [gs:CPU_RDI]
    mov rbp, [gs:CPU_RBP]
    mov r8, [gs:CPU_R8]
    mov r9, [gs:CPU_R9]
    mov r10, [gs:CPU_R10]
    mov r11, [gs:CPU_R11]
    mov r12, [gs:CPU_R12]
    mov r13, [gs:CPU_R13]
    mov r14, [gs:CPU_R14]
    mov r15, [gs:CPU_R15]
    swapgs
    iretq

; An interrupt of the idle loop, or an exception that will panic. Builds struct kernel_frame; touches no GS.
kernel_entry:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    push qword [rsp + 17 * 8]       ; RIP: with RBP it looks like a call from there, so a backtrace shows it
    push rbp
    mov rbp, rsp
    call trap_from_kernel           ; (const struct kernel_frame *)
    add rsp, 16
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                     ; vector, error code
    iretq

section .rodata
align 8
entry_stubs:
%assign vector 0
%rep 256
    dq stub_ %+ vector
%assign vector vector + 1
%endrep

section .note.GNU-stack noalloc noexec nowrite progbits
