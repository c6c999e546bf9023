"""Two programs, one of which never gives the CPU back: both make progress, and both survive.

The second one is machine code that counts in memory for ever and checks, at each step, that its registers are what
it left in them, two of SSE included; a wrong one stops it, which the kernel says.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant import genesis
from revenant.machine import PROMPT, Machine
from revenant.qemu import MachineConfig
from revenant.store import Store

COUNTER_ADDRESS = 0x500000
SPACE = 17
CUTS = 5

SOURCE = f"""
bits 64
section .text
global _start
_start:
    mov rbx, {COUNTER_ADDRESS:#x}
    mov rax, [rbx]
%assign n 8
%rep 8
    lea r %+ n, [rax + n]
%assign n n + 1
%endrep
    movq xmm7, rax
    movq xmm15, rax
.step:
    inc qword [rbx]
%assign n 8
%rep 8
    inc r %+ n
    lea rdx, [r %+ n - n]
    cmp rdx, [rbx]
    jne .wrong
%assign n n + 1
%endrep
    movq rcx, xmm7
    movq rdx, xmm15
    cmp rcx, rdx
    jne .wrong
    inc rcx
    cmp rcx, [rbx]
    jne .wrong
    movq xmm7, rcx
    movq xmm15, rcx
    jmp .step
.wrong:
    ud2
section .data align=4096
    dq 0
"""


@pytest.fixture
def counting_image(
    tmp_path: Path, build_files: genesis.BuildFiles, assemble: Callable[..., genesis.Program]
) -> Path:
    """Python, and the counter beside it."""
    image = tmp_path / "two.img"
    genesis.create_image(image, build_files, others=[assemble(SOURCE, "count", COUNTER_ADDRESS)])
    return image


def saved_count(image: Path) -> int:
    """The counter in the newest generation."""
    with Store(image) as store:
        pages = {key: pointer for key, pointer in store.pages(store.tree_at(None)) if key.space == SPACE}
        pointer = next(p for key, p in pages.items() if key.page == COUNTER_ADDRESS // 4096)
        return int.from_bytes(store.read(pointer, 0)[:8], "little")


def test_both_go_on(counting_image: Path, rng: random.Random) -> None:
    """The prompt answers beside a program that never waits; after each cut both are where they were."""
    before = 0
    for cut in range(CUTS):
        with Machine(MachineConfig(counting_image)) as machine:
            machine.expect_exact(PROMPT)
            if cut == 0:
                machine.command_at_prompt("mine = 0")
            for _ in range(rng.randrange(1, 20)):
                machine.command_at_prompt("mine += 1")
            generation = int(machine.command_at_prompt("import revenant; revenant.commit()"))
            assert generation > 0
            assert "stopped" not in machine.voice
        after = saved_count(counting_image)
        assert after > before, "the second program made no progress"
        before = after
