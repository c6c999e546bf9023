"""Registers that come from records: whatever a disk says, ring 3 has only its own rights, and ring 0 no fault.

Programs of a few instructions beside Python, in images whose thread records are as a test wants them.
Called by: pytest.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.machine import Machine
from revenant.record import ThreadRecord
from revenant.script import wait_for_prompt

Start = Callable[..., Machine]
Craft = Callable[..., Path]

SPIN = "bits 64\nsection .text\nglobal _start\n_start: jmp _start\nsection .data align=4096\n dq 0\n"
PORT = "bits 64\nsection .text\nglobal _start\n_start: in al, 0x60\n jmp _start\nsection .data align=4096\n dq 0\n"
INTERRUPTS = "bits 64\nsection .text\nglobal _start\n_start: cli\n jmp _start\nsection .data align=4096\n dq 0\n"
CALLS = """
bits 64
section .text
global _start
_start:
    mov ebx, 300000
.next:
    mov eax, 4
    xor edi, edi
    syscall
    dec ebx
    jnz .next
    xor eax, eax
    syscall
section .data align=4096
    dq 0
"""
READS = """
bits 64
section .text
global _start
_start:
    mov eax, 2
    mov edi, 5
    mov esi, 4
    syscall
    cmp rax, -6
    je _start
    cmp rax, -2
    jne .wrong
    xor eax, eax
    xor edi, edi
    syscall
.wrong:
    ud2
section .data align=4096
    dq 0
"""
BASES = """
bits 64
section .text
global _start
_start:
    mov rbx, [rel mark]
.next:
    cmp [fs:8], rbx
    jne .wrong
    lea rax, [rbx + 1]
    cmp [gs:8], rax
    je .next
.wrong:
    ud2
section .data align=4096
    dq 0
mark: dq {mark}
    dq 0, 0
    dq {mark} + 1
"""
DATA = 0x500000


@pytest.fixture
def craft(
    build_files: genesis.BuildFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assemble: Any
) -> Craft:
    """Makes an image with those programs beside Python, and with their registers and FXSAVE image changed."""
    real = genesis.thread_record

    def create(sources: list[str], fx: bytes | None = None, **registers: int) -> Path:
        def thread_record(program: genesis.Program, slot: int) -> ThreadRecord:
            record = real(program, slot)
            if slot == 0:
                return record
            return replace(record, registers=replace(record.registers, **registers), fx=fx or record.fx)

        monkeypatch.setattr(genesis, "thread_record", thread_record)
        programs = [assemble(source, f"other{number}", DATA) for number, source in enumerate(sources)]
        path = tmp_path / "crafted.img"
        genesis.create_image(path, build_files, 64 << 20, others=programs)
        return path

    return create


@pytest.mark.parametrize("name", ["rip", "fs_base", "gs_base"])
@pytest.mark.parametrize("value", [0x800000000000, 0xFFFF800000000000, 0xFFFFFFFF80101000])
def test_addresses_beyond_ring_3(machine: Start, craft: Craft, name: str, value: int) -> None:
    """The CPU would fault in ring 0 while it loads them."""
    now = machine(craft([SPIN], **{name: value}))
    now.expect_voice("(other0) stopped")
    wait_for_prompt(now)
    assert now.command_at_prompt("6 * 7") == "42"


@pytest.mark.parametrize("source", [PORT, INTERRUPTS], ids=["in", "cli"])
@pytest.mark.parametrize("rflags", [0x3202, 0x3FFEFF & ~0x200])
def test_flags_that_only_a_kernel_may_set(machine: Start, craft: Craft, source: str, rflags: int) -> None:
    """I/O privilege for ring 3; with it nested task, virtual 8086 mode, resume, and interrupts off."""
    now = machine(craft([source], rflags=rflags))
    now.expect_voice("(other0) stopped")
    assert "(vector 13, " in now.voice
    wait_for_prompt(now)
    assert now.command_at_prompt("6 * 7") == "42"


def test_interrupts_are_on_in_ring_3(machine: Start, craft: Craft) -> None:
    """Else a program that never waits would have the CPU for ever."""
    now = machine(craft([SPIN], rflags=2))
    wait_for_prompt(now)
    assert now.command_at_prompt("6 * 7") == "42"


def test_interrupts_at_the_border(machine: Start, craft: Craft) -> None:
    """A program of hardly anything but system calls: many interrupts are due when one begins, on no stack yet."""
    now = machine(craft([CALLS]), interval_ms=1)
    wait_for_prompt(now)
    now.send(b"while True: print('x')\r\r")
    now.expect_voice("(other0) ended with status 0")
    now.send(b"\x03")
    wait_for_prompt(now)


def test_turns_end_by_themselves(machine: Start, craft: Craft) -> None:
    """No snapshots, no input: nothing interrupts a program that never waits but the end of its turn."""
    machine(craft([SPIN, CALLS]), interval_ms=0).expect_voice("(other1) ended with status 0")


def test_input_for_a_bad_pointer(machine: Start, craft: Craft) -> None:
    """It is refused when there is something to write; until then there is nothing to read."""
    now = machine(craft([READS]))
    wait_for_prompt(now)
    while "(other0) " not in now.voice:
        now.send(b"#")
        select.select([], [], [], 0.01)
    now.expect_voice("(other0) ended with status 0")


def test_vector_control_with_all_bits_set(machine: Start, craft: Craft) -> None:
    """FXRSTOR faults on bits of MXCSR that the CPU does not have."""
    image = bytearray(genesis.fx_image())
    image[24:28] = b"\xff\xff\xff\xff"
    now = machine(craft([SPIN], fx=bytes(image)))
    wait_for_prompt(now)
    assert now.command_at_prompt("6 * 7") == "42"
    assert "stopped" not in now.voice


def test_segment_bases_are_a_thread_s_own(machine: Start, craft: Craft) -> None:
    """Two programs that take turns, over two lives."""
    image = craft([BASES.format(mark=1000), BASES.format(mark=2000)], fs_base=DATA, gs_base=DATA + 24)
    for _ in range(2):
        now = machine(image)
        wait_for_prompt(now)
        now.command_at_prompt("import time; time.sleep_ms(200)")  # ten turns of each
        assert "stopped" not in now.voice
        now.kill()
