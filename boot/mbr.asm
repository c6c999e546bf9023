;
; boot/mbr.asm: sector 0. Loads the loader (the first blocks of its area, 2 to 17) to LOADER_BASE and jumps to it.
;
; Promise: trusts nothing of the firmware but DL and INT 13h extensions; writes to no disk; says which step failed.
; Entered by: the firmware, real mode, at linear 0x7c00 by whatever segment.
; Leaves with: DL drive, ECX:EBX time-stamp at the first instruction, CS:IP LOADER_SEGMENT:0.
;
%include "layout.inc"

READ_TRIES          equ 3

org MBR_BASE
bits 16

start:
    cli
    cld
    mov bp, dx                          ; RDTSC takes EDX
    rdtsc
    mov ebx, eax
    mov ecx, edx
    xor ax, ax
    mov ss, ax
    mov sp, STACK_TOP
    mov ds, ax
    mov es, ax
    jmp 0:.flat
.flat:
    sti
    push ecx
    push ebx
    mov dx, bp
    mov [drive], dl

    mov ah, 0x41                        ; extensions present?
    mov bx, 0x55aa
    int 0x13
    mov si, no_extensions
    jc print_fail
    cmp bx, 0xaa55
    jne print_fail
    test cl, 1                          ; packet reads
    jz print_fail

    call read_packet
    mov ax, LOADER_SEGMENT
    mov es, ax
    mov si, no_loader
    cmp dword [es:LOADER_MAGIC_OFFSET], LOADER_MAGIC_LOW
    jne print_fail
    cmp dword [es:LOADER_MAGIC_OFFSET + 4], LOADER_MAGIC_HIGH
    jne print_fail
    mov dl, [drive]
    pop ebx
    pop ecx
    jmp LOADER_SEGMENT:0

; Reads `packet`, again if need be. Clobbers: AX, CX, DX, SI, flags. Does not return when the disk does not answer.
read_packet:
    mov cx, READ_TRIES
.again:
    mov word [packet.count], LOADER_READ_SECTORS
    mov ah, 0x42
    call int13
    jnc .done
    xor ah, ah                          ; reset the drive
    call int13
    loop .again
    mov si, read_error
    jmp print_fail
.done:
    ret

; In: AH function. Out: CF. Keeps all registers but AX, DL, SI, DS (set to 0).
int13:
    push cx
    push di
    mov si, packet
    mov dl, [drive]
    int 0x13
    pop di
    pop cx
    push word 0
    pop ds
    ret

%include "print.inc"

no_extensions:  db "disk: no INT 13h extensions", 0
read_error:     db "loader: read error", 0
no_loader:      db "loader: bad magic", 0
drive:          db 0

align 4
packet:                                 ; INT 13h, AH = 42h
    db 16, 0
.count:
    dw LOADER_READ_SECTORS
    dw 0
.segment:
    dw LOADER_SEGMENT
.sector:
    dq LOADER_SECTOR

%if $ - $$ > 440
    %error "the boot record's code is over 440 bytes"
%endif
times 510 - ($ - $$) db 0
    dw 0xaa55
