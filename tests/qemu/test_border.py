"""The border of ring 3: a fuzzer of the system calls, and programs that do what they must not.

Whatever a program does, the kernel goes on, the others too, and no byte crosses that was not meant to.
Called by: pytest. REVENANT_FUZZ_CALLS makes the fuzzer's run longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest
from revenant import genesis
from revenant.machine import Machine
from revenant.qemu import MachineConfig
from revenant.script import wait_for_prompt

CALL_COUNT = int(os.environ.get("REVENANT_FUZZ_CALLS", "300000"))
PROGRAMS = Path(__file__).with_name("programs")
CUTS = 2

# What each program does; all of it must end the program, and nothing else.
BAD_INSTRUCTIONS = {
    "hlt": "hlt",
    "cli": "cli",
    "in": "in al, 0x60",
    "out": "mov dx, 0xf4\n mov al, 0x10\n out dx, al",
    "read cr3": "mov rax, cr3",
    "write cr3": "xor eax, eax\n mov cr3, rax",
    "rdmsr": "mov ecx, 0xc0000080\n rdmsr",
    "wrmsr": "mov ecx, 0xc0000080\n wrmsr",
    "xsetbv": "xor ecx, ecx\n mov eax, 7\n xor edx, edx\n xsetbv",
    "lidt": "lidt [rsp]",
    "swapgs": "swapgs",
    "sysret": "o64 sysret",
    "iretq to ring 0": "push 0x10\n push rsp\n push 2\n push 8\n push 0x400000\n iretq",
    "int timer": "int 0x30",
    "int double fault": "int 8",
    "int3": "int3",
    "ud2": "ud2",
    "divide by 0": "xor ecx, ecx\n div ecx",
    "single step": "pushf\n or qword [rsp], 0x100\n popf\n nop",
    "single step into a call": "mov eax, 4\n pushf\n or qword [rsp], 0x100\n popf\n syscall\n ud2",
    "read kernel": "mov rax, [0xffffffff80110000]",
    "write kernel": "mov rbx, 0xffffffff80110000\n mov [rbx], rax",
    "read direct map": "mov rbx, 0xffff888000000000\n mov rax, [rbx]",
    "read nothing": "mov rax, [0x1000]",
    "write text": "mov [rel _start], rax",
    "execute data": "jmp place",
    "jump to kernel": "mov rax, 0xffffffff80110000\n jmp rax",
    "jump beyond": "mov rax, 0x800000000000\n jmp rax",
    "no stack": "xor esp, esp\n push rax",
    "stack beyond": "mov rsp, 0x800000000000\n push rax",
    "avx": "vaddpd ymm0, ymm1, ymm2",
    "write fs base": "xor eax, eax\n wrfsbase rax",
    "execute heap": "mov rbx, 0x3000000\n mov byte [rbx], 0xc3\n call rbx",
    "execute what is not there": "mov rbx, 0x4000000\n jmp rbx",
    "write exec region": "mov rbx, 0xa00000\n mov al, [rbx]\n mov [rbx], al",
    "write exec region that is not there": "mov rbx, 0xa10000\n mov [rbx], al",
    "write below the stack": "mov rbx, 0xe00ff8\n mov [rbx], rax",
    "syscall without stack": "mov rsp, 0xffffffff80110000\n mov eax, 4\n xor edi, edi\n syscall\n ud2",
}

TEMPLATE = """
bits 64
section .text
global _start
_start:
    lea rsp, [rel place + 2048]
    {instructions}
    mov eax, 0
    mov edi, 77
    syscall
section .data align=4096
place: times 4096 db 0xc3
"""


def build_fuzzer(folder: Path, root: Path, seed: int, call_count: int) -> Path:
    """The fuzzer as an ELF file with its seed and the number of its calls."""
    program = folder / "fuzz.elf"
    words = "-std=c17 -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic -no-pie -static -nostdlib -mno-red-zone"
    words += " -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -ffixed-xmm15"
    words += " -fno-tree-loop-distribute-patterns -Wl,-Ttext=0x400000,-Tdata=0x500000,-z,max-page-size=4096"
    folders = [f"-B{root}/userland/toolchain/", f"-I{root}/kernel", f"-I{root}/userland"]
    command = ["gcc", *words.split(), "-Wl,--build-id=none", *folders, "-o", program, PROGRAMS / "syscall_fuzz.c"]
    subprocess.run(command, check=True)
    subprocess.run(["objcopy", "--dump-section", f".data={folder}/data", program], check=True)
    data = bytearray((folder / "data").read_bytes())
    data[0:16] = seed.to_bytes(8, "little") + call_count.to_bytes(8, "little")
    (folder / "data").write_bytes(data)
    subprocess.run(["objcopy", "--update-section", f".data={folder}/data", program], check=True)
    return program


def drain_until(machine: Machine, text: str, timeout_s: float) -> None:
    """Wait for the kernel's words; the fuzzer writes to the console, and would wait for who does not read it."""
    end_s = time.monotonic() + timeout_s
    while text not in machine.voice:
        assert machine.process.poll() is None and time.monotonic() < end_s
        with contextlib.suppress(pexpect.TIMEOUT):
            machine.console.read_nonblocking(65536, 0.1)


def test_system_calls_with_bad_arguments(
    tmp_path: Path, root: Path, build_files: genesis.BuildFiles, rng: random.Random
) -> None:
    """With power cuts in between; Python beside it answers afterwards."""
    seed = rng.randrange(1, 1 << 32)
    print(f"fuzzer's seed {seed}, {CALL_COUNT} calls")
    image = tmp_path / "near.img"
    program = genesis.load_program(build_fuzzer(tmp_path, root, seed, CALL_COUNT), "fuzz")
    genesis.create_image(image, build_files, others=[program])
    for _ in range(CUTS):
        with Machine(MachineConfig(image, interval_ms=20)) as machine:
            machine.expect_voice("goes on")
            select.select([], [], [], rng.uniform(0, 0.5))
            assert "(fuzz) " not in machine.voice, "it still had calls to make"
    with Machine(MachineConfig(image, interval_ms=20)) as machine:
        drain_until(machine, "(fuzz) ", 300 + CALL_COUNT // 1000)
        machine.expect_voice("(fuzz) ended with status 0\n")
        wait_for_prompt(machine)  # until now the fuzzer took what was typed
        assert machine.command_at_prompt("6 * 7") == "42"


@pytest.mark.parametrize("cpu", ["max", "qemu64"])
def test_what_no_program_may_do(
    tmp_path: Path, build_files: genesis.BuildFiles, assemble: Callable[..., genesis.Program], cpu: str
) -> None:
    """Each ends its own program with a word to the owner; Python beside them goes on, and so does the next start."""
    image = tmp_path / "near.img"
    bad = BAD_INSTRUCTIONS.items()
    programs = [assemble(TEMPLATE.format(instructions=instructions), name) for name, instructions in bad]
    genesis.create_image(image, build_files, others=programs)
    with Machine(MachineConfig(image, extra=("-cpu", cpu))) as machine:
        wait_for_prompt(machine)
        for name in BAD_INSTRUCTIONS:
            machine.expect_voice(f"({name}) stopped")
        assert "status 77" not in machine.voice
        machine.command_at_prompt("kept = 'kept'")
        machine.command_at_prompt("import revenant; revenant.commit()")
    with Machine(MachineConfig(image)) as machine:
        wait_for_prompt(machine)  # the last line may come again first
        assert machine.command_at_prompt("kept") == "'kept'"
        assert "stopped" not in machine.voice
