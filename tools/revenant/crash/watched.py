"""A machine under a debugger, its RAM a file that we map: what its programs' memory is, at any stop, seen from outside.

Promise: pages are read as the CPU would: from the top table of each space down; nothing of the store is asked. Which
tables there are, the kernel's own variables say, by the names and offsets in the build's symbols and DWARF: the machine
must run the build's kernel, unchanged. Used by: crash/twin.py.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from elftools.elf.elffile import ELFFile

from revenant.children import temporary_folder
from revenant.crash.debugger import Debugger
from revenant.errors import BuildError
from revenant.format import BLOCK_SIZE, SPACE_RECORDS, ZERO_PAGE, PageKey
from revenant.genesis import build_folder
from revenant.machine import Machine
from revenant.qemu import ICOUNT, Boot, MachineConfig
from revenant.record import RECORD_TRACE_PAGE, RECORD_TRACE_PAGE_COUNT, ThreadRegisters
from revenant.symbols import KERNEL_START

MEMORY_MIB = 64
TIMEOUT_S = 120.0
PRESENT = 1
ADDRESS = 0x000F_FFFF_FFFF_F000
TABLE = struct.Struct("<512Q")
USER_ENTRIES = 256  # of the top table
STRUCTURES_OF = ("kernel/pager/snapshot.c", "kernel/proc/schedule.c")  # they see all structures that are needed
TRACE_PAGES = frozenset(PageKey(SPACE_RECORDS, RECORD_TRACE_PAGE + i) for i in range(RECORD_TRACE_PAGE_COUNT))


def name_of(die: Any) -> str:
    """As the source has it; empty: none."""
    return str(die.attributes["DW_AT_name"].value.decode()) if "DW_AT_name" in die.attributes else ""


def is_structure(die: Any) -> bool:
    """Whether it is one with a size."""
    return die.tag == "DW_TAG_structure_type" and "DW_AT_byte_size" in die.attributes


def members_of(die: Any) -> dict[str, int]:
    """Name to offset; under the empty name the size."""
    members = {"": int(die.attributes["DW_AT_byte_size"].value)}
    for child in die.iter_children():
        if {"DW_AT_name", "DW_AT_data_member_location"} <= child.attributes.keys():
            members[name_of(child)] = int(child.attributes["DW_AT_data_member_location"].value)
    return members


class KernelMap:
    """Where the build's kernel has what: symbols, members, calls."""

    def __init__(self) -> None:
        path = build_folder() / "kernel.elf"
        if not path.is_file():
            raise BuildError(path, "missing", "run `make build`")
        self._elf: Any = ELFFile(path.open("rb"))

    @cached_property
    def _symbols(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(source file or "" for global ones, name) to (address, size)."""
        found, file = {}, ""
        for symbol in self._elf.get_section_by_name(".symtab").iter_symbols():
            if symbol["st_info"]["type"] == "STT_FILE":
                file = symbol.name
            local = symbol["st_info"]["bind"] == "STB_LOCAL"
            found[file if local else "", symbol.name] = (symbol["st_value"], symbol["st_size"])
        return found

    def symbol(self, name: str, file: str = "") -> int:
        """The address of a global symbol, or of a file's own."""
        return self._symbols[file, name][0]

    @cached_property
    def _members(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for unit in self._elf.get_dwarf_info().iter_CUs():
            top = unit.get_top_DIE()
            if name_of(top).endswith(STRUCTURES_OF):
                found |= {name_of(die): members_of(die) for die in top.iter_children() if is_structure(die)}
        return found

    def offset(self, structure: str, member: str = "") -> int:
        """Of a member, in bytes; of none: the structure's size."""
        return self._members[structure][member]

    def size(self, name: str, file: str = "") -> int:
        """Bytes of a symbol."""
        return self._symbols[file, name][1]


class Watched:
    """A machine that is stopped except inside `until`; leaving the context kills it."""

    def __init__(self, kernel: KernelMap, image: Path, **fields: Any) -> None:
        self.kernel = kernel
        self.image = image
        self.fields = fields
        self.names: dict[int, str] = {}  # breakpoints

    def __enter__(self) -> Self:
        self._folder = temporary_folder()
        folder = self._folder.__enter__()
        memory, gdb = folder / "ram", folder / "gdb"
        words = ("-S", "-gdb", f"unix:{gdb},server=on,wait=off", "-machine", "memory-backend=ram", "-object")
        backend = f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={memory},share=on"
        config = MachineConfig(
            self.image, memory_mib=MEMORY_MIB, boot=Boot.PVH, extra=(*ICOUNT, *words, backend), **self.fields
        )
        self.machine = Machine(config, TIMEOUT_S)
        self.machine.__enter__()
        self.debugger = Debugger(gdb, TIMEOUT_S)
        with memory.open("rb") as file:
            self.ram = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.machine.__exit__(kind, error, trace)
        self.debugger.close()
        self.ram.close()
        self._folder.__exit__(None, None, None)

    # --- running ---

    def watch(self, name: str, file: str = "") -> None:
        """Stop where a function begins."""
        self.watch_at(self.kernel.symbol(name, file), name)

    def watch_at(self, address: int, name: str) -> None:
        """Stop before an instruction."""
        self.names[address] = name
        self.debugger.break_at(address)

    def unwatch_at(self, address: int) -> None:
        """Do so no more."""
        del self.names[address]
        self.debugger.unbreak(address)

    def go(self) -> tuple[str, dict[str, int]]:
        """Run to the next stop: the function that begins there, or the address; and the registers."""
        self.debugger.go()
        registers = self.debugger.registers()
        return self.names.get(registers["rip"], f"{registers['rip']:#x}"), registers

    # --- looking ---

    def read(self, address: int, size: int) -> bytes:
        """Of the kernel's image."""
        return self.ram[address - KERNEL_START : address - KERNEL_START + size]

    def number(self, address: int) -> int:
        """Eight bytes of the kernel's image."""
        return int.from_bytes(self.read(address, 8), "little")

    def loaded_slot(self) -> int | None:
        """Of the thread whose registers the CPU has; None: no program has run yet."""
        thread = self.number(self.kernel.symbol("loaded", "schedule.c"))
        if not thread:
            return None
        return int.from_bytes(self.read(thread + self.kernel.offset("thread", "slot"), 4), "little")

    def user_registers(self) -> ThreadRegisters:
        """Those of that thread, while the kernel runs."""
        return ThreadRegisters.unpack(self.read(self.kernel.symbol("boot_cpu"), ThreadRegisters.SIZE))

    def pages(self) -> Iterator[tuple[PageKey, bytes]]:
        """All pages that are in RAM and mapped, and the kernel's records."""
        yield from self._records()
        spaces, size = self.kernel.symbol("spaces", "process.c"), self.kernel.size("spaces", "process.c")
        for space in range(spaces, spaces + size, self.kernel.offset("space")):
            root = self.number(space + self.kernel.offset("space", "root"))
            number = self.number(space + self.kernel.offset("space", "id"))
            if root:
                for page, place in self._leaves(root, 3, 0):
                    yield PageKey(number, page), self.ram[place : place + BLOCK_SIZE]

    def _leaves(self, table: int, level: int, prefix: int) -> Iterator[tuple[int, int]]:
        """(page index, physical address) of what a table maps."""
        count = USER_ENTRIES if level == 3 else 512
        for index, entry in enumerate(TABLE.unpack_from(self.ram, table)[:count]):
            if entry & PRESENT:
                if level:
                    yield from self._leaves(entry & ADDRESS, level - 1, (prefix + index) * 512)
                else:
                    yield prefix + index, entry & ADDRESS

    def _records(self) -> Iterator[tuple[PageKey, bytes]]:
        """Space 0: the kernel reaches it by a table of its own."""
        table, frames = self.kernel.symbol("record_frame", "record.c"), self.number(self.kernel.symbol("frame_array"))
        count = self.kernel.size("record_frame", "record.c") // 8
        for page, frame in enumerate(struct.unpack(f"<{count}Q", self.read(table, count * 8))):
            if frame:
                place = (frame - frames) // self.kernel.offset("frame") * BLOCK_SIZE
                yield PageKey(SPACE_RECORDS, page), self.ram[place : place + BLOCK_SIZE]

    def take_over(self, pages: dict[PageKey, bytes]) -> None:
        """Bring what is known of all pages up to date; zero pages are none, and no start reads the trace."""
        for key, data in self.pages():
            if key in TRACE_PAGES or data == ZERO_PAGE:
                pages.pop(key, None)
            else:
                pages[key] = data
