"""The stack of a saved or stopped thread: return addresses by the program's own call frame information (DWARF).

Promise: whatever memory and registers hold, it ends: each frame must lie above the one before, and there are at most
FRAME_COUNT_MAX. Code without such information (assembly) ends it, too. Used by: inspection.py (all of
its memory), symbols.py (what a report printed of it).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from elftools.common.exceptions import DWARFError, ELFError
from elftools.dwarf.callframe import FDE
from elftools.elf.elffile import ELFFile

from revenant.record import ThreadRegisters

FRAME_COUNT_MAX = 64
RSP, RETURN_ADDRESS = 7, 16
# The numbers of the x86-64 ABI.
NAMES = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)), "rip")

ReadWord = Callable[[int], int | None]
"""A 64-bit word of the program's memory, or None where there is none."""


class Unwinder:
    """Call frame information of one ELF file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _entries(self) -> list[tuple[int, int, Any]]:
        """(first address, end, entry), ascending; empty where there is no such information."""
        try:
            with self.path.open("rb") as file:
                dwarf: Any = ELFFile(file).get_dwarf_info()
                entries = [entry for entry in dwarf.CFI_entries() if isinstance(entry, FDE)] if dwarf.has_CFI() else []
        except (OSError, ELFError, DWARFError):
            return []
        ranges = ((int(e["initial_location"]), int(e["address_range"]), e) for e in entries)
        found = [(start, start + size, entry) for start, size, entry in ranges if start and size]
        return sorted(found, key=lambda entry: entry[0])

    def _row(self, address: int) -> Any:
        """The rules that hold at an address, or None."""
        index = bisect_right(self._entries, address, key=lambda entry: entry[0]) - 1
        if index < 0 or address >= self._entries[index][1]:
            return None
        rows = [row for row in self._rows(index) if row["pc"] <= address]
        return rows[-1] if rows else None

    @cache  # noqa: B019 (as long as the entries)
    def _rows(self, index: int) -> list[dict[Any, Any]]:
        return list(self._entries[index][2].get_decoded().table)

    def _caller(self, registers: dict[int, int], address: int, read: ReadWord) -> dict[int, int] | None:
        """The registers of the caller, or None where it cannot be known."""
        row = self._row(address)
        if row is None or row["cfa"].reg not in registers:
            return None
        frame = registers[row["cfa"].reg] + row["cfa"].offset
        caller = dict(registers)
        for number, rule in row.items():
            if number in ("pc", "cfa"):
                continue
            word = read(frame + rule.arg) if rule.type == "OFFSET" else None
            if word is not None:
                caller[number] = word
            elif rule.type != "SAME_VALUE":
                caller.pop(number, None)
        caller[RSP] = frame
        return caller if frame > registers[RSP] and row.get(RETURN_ADDRESS) else None

    def frames(self, registers: ThreadRegisters, read: ReadWord) -> Iterator[int]:
        """Where the thread is, then its return addresses, innermost first."""
        now = {number: int(getattr(registers, name)) for number, name in enumerate(NAMES)}
        yield now[RETURN_ADDRESS]
        address = now[RETURN_ADDRESS]
        for _ in range(FRAME_COUNT_MAX - 1):
            caller = self._caller(now, address, read)
            if caller is None or not caller.get(RETURN_ADDRESS):
                return
            now = caller
            yield now[RETURN_ADDRESS]
            address = now[RETURN_ADDRESS] - 1  # within the call, which may end its function
