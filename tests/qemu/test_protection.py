"""What the CPU has to refuse, as QEMU shows it: control registers, and every translation of a machine that runs.

A backstop is not seen in what programs do, since nothing reaches it while the rest is right; so it is looked at itself.
Called by: pytest.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from revenant.machine import Machine
from revenant.script import wait_for_prompt

Start = Callable[..., Machine]

CR0_WP = 1 << 16
CR4_UMIP, CR4_FSGSBASE, CR4_SMEP, CR4_SMAP = 1 << 11, 1 << 16, 1 << 20, 1 << 21
EFER_NXE = 1 << 11
DIRECT_MAP, KERNEL_HALF = 0xFFFF800000000000, 1 << 63


@dataclass(frozen=True)
class Mapping:
    """One translation, of a page of 4 KiB or a large one."""

    address: int
    physical: int
    flags: str  # of QEMU's `info tlb`: X no execution, G, P large, D, A, C, T, U, W


def ask(machine: Machine, question: str) -> str:
    """QEMU's monitor for people."""
    return str(machine.qmp("human-monitor-command", **{"command-line": question}))


@pytest.fixture
def running(machine: Start) -> Machine:
    """A machine whose program has compiled native code, and waits."""
    now = machine()
    wait_for_prompt(now)
    now.command_at_prompt("import revenant; f = bytearray(100000); revenant.commit() > 0")
    now.command_at_prompt("exec('@micropython.native\\ndef add(a, b): return a + b')")
    assert now.command_at_prompt("add(40, 2)") == "42"
    return now


def mappings(machine: Machine) -> list[Mapping]:
    """All translations under the address space that is loaded."""
    lines = re.findall(r"^([0-9a-f]{16}): ([0-9a-f]{16}) (\S{9})\s*$", ask(machine, "info tlb"), re.MULTILINE)
    return [Mapping(int(address, 16), int(physical, 16), flags) for address, physical, flags in lines]


def kernel_symbols(build: Path) -> dict[str, int]:
    """Names and addresses."""
    with (build / "kernel.elf").open("rb") as file:
        section = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in section.iter_symbols()}


def test_control_registers(running: Machine) -> None:
    registers = ask(running, "info registers")
    cr0, cr4, efer = (int(re.findall(rf"\b{name}=([0-9a-f]+)", registers)[0], 16) for name in ("CR0", "CR4", "EFER"))
    assert cr0 & CR0_WP and efer & EFER_NXE
    assert cr4 & (CR4_SMEP | CR4_SMAP | CR4_UMIP | CR4_FSGSBASE) == CR4_SMEP | CR4_SMAP | CR4_UMIP


def test_nothing_is_writable_and_executable(running: Machine, build: Path) -> None:
    """The kernel's text has no writable alias, its constants none either; programs reach none of it."""
    symbols = kernel_symbols(build)
    text, data = symbols["kernel_text_start"], symbols["kernel_data_start"]
    first, last = text & 0x7FFFFFFF, (data & 0x7FFFFFFF) - 1
    found = mappings(running)
    assert any(m.address == text for m in found) and any(m.address == DIRECT_MAP for m in found)
    for mapping in found:
        is_kernel, size = mapping.address >= KERNEL_HALF, (2 << 20) if "P" in mapping.flags else 4096
        assert "X" in mapping.flags or "W" not in mapping.flags, mapping
        assert is_kernel != ("U" in mapping.flags), mapping
        if is_kernel:
            is_text = text <= mapping.address < symbols["kernel_rodata_start"]
            assert is_text != ("X" in mapping.flags), mapping
        if is_kernel and mapping.physical <= last and mapping.physical + size > first:
            assert "W" not in mapping.flags, mapping


def test_guard_page_below_the_kernel_stack(running: Machine, build: Path) -> None:
    guard = kernel_symbols(build)["kernel_stack_guard"]
    pages = {mapping.address for mapping in mappings(running)}
    assert guard not in pages and {guard - 4096, guard + 4096} <= pages


def test_guard_pages_of_programs(running: Machine) -> None:
    """Page 0, and the one below the stack."""
    pages = {mapping.address for mapping in mappings(running)}
    assert not {0, 0xE00000} & pages
