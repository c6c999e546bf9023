"""Names and lines for the addresses in a panic or in a stopped program's registers, from the build's ELF files.

Promise: never a wrong name: the image's code must be the build's, byte for byte, else the reason is said.
Nothing is opened before the first address asks for it; whatever is damaged, a text comes out.
Used by: machine.py, for `Machine.report` and for errors that tell of a panic; running.py and script.py, where a
program is stopped.
"""

from __future__ import annotations

import io
import os.path
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any, Self

import capstone
from elftools.common.exceptions import DWARFError, ELFError
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from revenant.errors import RevenantError, StoreError
from revenant.format import BLOCK_SIZE, SPACE_RECORDS, ZERO_PAGE
from revenant.genesis import BuildFiles, build_folder, load_program
from revenant.record import ThreadRegisters
from revenant.store import Store, of_newest
from revenant.unwind import Unwinder

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL_START = 0xFFFFFFFF80000000
# kernel/lib/log.c prints the backtrace, kernel/arch/x86_64/trap.c the registers, kernel/proc/stack.c the stack
BACKTRACE = re.compile(r"^backtrace:((?: [0-9a-f]+)*)", re.MULTILINE)
REGISTER = re.compile(r"\b(r(?:[a-d]x|[ds]i|[bs]p|ip|[89]|1[0-5])) +([0-9a-f]{16})\b")
LAST_REGISTER = "r15"
STACK = re.compile(r"^  stack((?: [0-9a-f]+:[0-9a-f]+)+)$", re.MULTILINE)

INSTRUCTION_SIZE_MAX = 15
INSTRUCTIONS_SHOWN = 4

CALLERS = "called from, innermost first:"

Row = tuple[int, str]
"""Where a row of a line table begins; "file:line", or "" behind the end of a sequence."""


def code_of(elf: bytes) -> list[tuple[int, bytes]]:
    """(address, contents) of an ELF file's executable segments; stripping leaves them alone."""
    segments: Any = ELFFile(io.BytesIO(elf)).iter_segments("PT_LOAD")
    return [(int(s["p_vaddr"]), bytes(s.data())) for s in segments if s["p_flags"] & P_FLAGS.PF_X]


class Symbols:
    """One ELF file's code, symbol table and DWARF lines."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.path = path
        self.code = code_of(data)
        self._elf: Any = ELFFile(io.BytesIO(data))

    @cached_property
    def functions(self) -> list[tuple[int, str]]:
        """(address, name), ascending."""
        table = self._elf.get_section_by_name(".symtab")
        return sorted(
            (int(symbol["st_value"]), str(symbol.name))
            for symbol in (table.iter_symbols() if table else ())
            if symbol["st_info"]["type"] in ("STT_FUNC", "STT_NOTYPE")  # NASM's labels have no type
            and symbol["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS")
        )

    @cached_property
    def _dwarf(self) -> Any:
        return self._elf.get_dwarf_info()

    @cached_property
    def _units(self) -> Any:
        return self._dwarf.get_aranges()

    @cache  # noqa: B019 (a Symbols lives no longer than the report)
    def _rows(self, unit_offset: int) -> list[Row]:
        rows = line_table(self._dwarf, self._dwarf.get_CU_at(unit_offset))
        return sorted(rows, key=lambda row: (row[0], row[1] != ""))  # of rows with one address the last counts

    def function(self, address: int) -> tuple[str, int]:
        """The function that an address lies in, and where it starts."""
        index = bisect_right(self.functions, address, key=lambda function: function[0]) - 1
        if index < 0:
            return "?", 0
        start, name = self.functions[index]
        return name, start

    def line(self, address: int) -> str:
        """file:line of the instruction, or an empty string."""
        unit = self._units.cu_offset_at_addr(address) if self._units else None
        rows = self._rows(unit) if unit is not None else []
        index = bisect_right(rows, address, key=lambda row: row[0]) - 1
        return rows[index][1] if index >= 0 else ""

    def instructions(self, address: int) -> list[tuple[int, str]]:
        """(address, text) of the instruction at an address and of those before it in its function."""
        _, start = self.function(address)
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        for segment, contents in self.code:
            if segment <= start <= address < segment + len(contents):
                code = contents[start - segment : address - segment + INSTRUCTION_SIZE_MAX]
                found = [(i.address, f"{i.mnemonic} {i.op_str}".rstrip()) for i in engine.disasm(code, start)]
                return [(place, text) for place, text in found if place <= address]
        return []

    def describe(self, address: int, is_return: bool = False) -> str:
        """Function, offset, file:line; for a return address those of the call, which may end its function."""
        inside = address - is_return
        if not any(start <= inside < start + len(contents) for start, contents in self.code):
            return f"? (no code of {self.path.name})"
        name, start = self.function(inside)
        try:
            return f"{name}+{address - start:#x}  {self.line(inside)}".rstrip()
        except (ELFError, DWARFError) as error:
            return f"{name}+{address - start:#x}  (no line: {error})"


def line_table(dwarf: Any, unit: Any) -> Iterator[Row]:
    """The rows of a unit's line program."""
    program = dwarf.line_program_for_CU(unit)
    names: dict[int, str] = {}
    for entry in program.get_entries() if program else ():
        state = entry.state
        if state is None:
            continue
        if state.file not in names:
            names[state.file] = file_name(program, unit, state.file)
        yield int(state.address), "" if state.end_sequence else f"{names[state.file]}:{state.line}"


def file_name(program: Any, unit: Any, number: int) -> str:
    """A source file's path as DWARF has it: relative to the checkout where it lies in it."""
    first = 0 if program["version"] >= 5 else 1  # DWARF 5 counts files from 0, and its folder 0 is the compiler's own
    entry = program["file_entry"][number - first]
    folders = [name.decode(errors="replace") for name in program["include_directory"]]
    if first:
        top = unit.get_top_DIE().attributes.get("DW_AT_comp_dir")
        folders.insert(0, top.value.decode(errors="replace") if top else "")
    name = entry.name.decode(errors="replace")
    base = folders[0].rstrip("/").removesuffix(os.path.dirname(name))  # NASM says the folder twice
    if entry.dir_index:
        name = os.path.join(folders[entry.dir_index], name)
        base = base if os.path.isabs(base) else ""  # -ffile-prefix-map has made all folders relative
    path = Path(os.path.normpath(os.path.join(base, name)))
    return str(path.relative_to(CHECKOUT) if path.is_relative_to(CHECKOUT) else path)


def source_text(line: str) -> str:
    """`file:line` with what is there; empty where the checkout has no such line."""
    name, _, number = line.rpartition(":")
    try:
        return f"{line}: {(CHECKOUT / name).read_text(errors='replace').splitlines()[int(number) - 1].strip()}"
    except (OSError, ValueError, IndexError):
        return ""


@dataclass(frozen=True)
class Stop:
    """Where a program or the kernel was, as the report of its end says."""

    registers: ThreadRegisters
    stack: dict[int, int]
    """The words of it that were printed, by address."""

    @classmethod
    def parse(cls, report: str) -> Self:
        """The text up to its registers, which are the last of what it needs."""
        values: dict[str, int] = {}
        for name, text in REGISTER.findall(report):
            values.setdefault(name, int(text, 16))
        registers = ThreadRegisters(**values)
        pairs = (pair.split(":") for line in STACK.findall(report) for pair in line.split())
        return cls(registers, {registers.rsp + int(offset, 16): int(word, 16) for offset, word in pairs})


def stops_in(voice: str) -> list[Stop]:
    """Those that are told."""
    ends = [match.end() for match in REGISTER.finditer(voice) if match[1] == LAST_REGISTER]
    return [Stop.parse(voice[start:end]) for start, end in pairwise([0, *ends])]


class Names:
    """Addresses of an image's machine as text. `reasons` says why some have no name."""

    def __init__(self, images: Sequence[Path]) -> None:
        self.images = images
        self.reasons: dict[str, None] = {}  # each once, in order

    @cached_property
    def _kernel(self) -> Symbols:
        return Symbols(build_folder() / "kernel.elf")

    @cached_property
    def _userland(self) -> Symbols:
        return Symbols(BuildFiles.locate().userland)

    @cached_property
    def _unwinder(self) -> Unwinder:
        return Unwinder(self._userland.path)

    def _image(self) -> Path:
        """The first that is a store: near, or the one that near is to adopt."""
        for path in self.images[:-1]:
            with suppress(StoreError), Store(path):
                return path
        return self.images[-1]

    def _same_kernel(self, store: Store) -> bool:
        return code_of(store.kernel()) == self._kernel.code

    @cached_property
    def _pages(self) -> dict[int, bytes]:
        return load_program(self._userland.path, "").pages

    def _same_program(self, store: Store, page: int) -> bool:
        """Whether every program with anything at the page has the build's code there, if the build has any."""
        if page not in self._pages:
            return True
        spaces = [space for space, _ in store.spaces(store.tree) if space != SPACE_RECORDS]
        return {store.page(store.tree, space, page) for space in spaces} <= {self._pages[page], ZERO_PAGE}

    @cache  # noqa: B019 (as Symbols._rows)
    def _symbols(self, page: int) -> Symbols | None:
        """Of the build's file that the image runs at a page of addresses."""
        in_kernel = page >= KERNEL_START // BLOCK_SIZE
        try:
            symbols, image = self._kernel if in_kernel else self._userland, self._image()
            if of_newest(image, self._same_kernel if in_kernel else lambda store: self._same_program(store, page)):
                return symbols
            self.reasons[f"no names: {image} runs other code than {symbols.path}"] = None
        except (RevenantError, OSError, ELFError) as error:
            self.reasons[f"no names: {error}"] = None
        return None

    def callers(self, stop: Stop) -> Iterator[int]:
        """Return addresses from where a program stopped, as far as its stack was printed and code is the build's."""
        asked: list[int] = []

        def read(address: int) -> int | None:
            asked.append(address)
            return stop.stack.get(address)

        try:
            frames = self._unwinder.frames(stop.registers, read)
            yield from islice(takewhile(lambda address: self._symbols(address // BLOCK_SIZE), frames), 1, None)
        except (RevenantError, OSError, ELFError, DWARFError) as error:
            self.reasons[f"no callers: {error}"] = None
        if max(asked, default=0) > max(stop.stack):
            self.reasons["there are more callers: the kernel printed only this much of the stack"] = None

    def of(self, address: int, is_return: bool) -> str:
        """One address with its name and line, as far as they are known."""
        symbols = self._symbols(address // BLOCK_SIZE)
        return f"  {address:016x}  {symbols.describe(address, is_return) if symbols else '?'}"

    def code(self, address: int) -> list[str]:
        """The source line of an address, where the checkout has it, and its last instructions."""
        symbols = self._symbols(address // BLOCK_SIZE)
        if symbols is None:
            return []
        found = symbols.instructions(address)[-INSTRUCTIONS_SHOWN:]
        lines = [f"  {'->' if place == address else '  '} {place:016x}  {text}" for place, text in found]
        text = source_text(symbols.line(address))
        return [f"code of {address:x}:", *([f"  {text}"] if text else []), *lines] if lines else []


def explain(voice: str, images: Sequence[Path]) -> str:
    """What the kernel said of a panic or of stopped programs, as names and lines; empty if it said nothing."""
    names = Names(images)
    lines = []
    stops = stops_in(voice)
    places = dict.fromkeys(stop.registers.rip for stop in stops)
    for stop in stops:
        lines += ["at:", names.of(stop.registers.rip, is_return=False)]
        callers = [names.of(address, is_return=True) for address in names.callers(stop)] if stop.stack else []
        lines += [CALLERS, *callers] if callers else []
    for found in BACKTRACE.findall(voice):
        addresses = [int(text, 16) for text in found.split()]
        lines += [CALLERS, *(names.of(address, is_return=address not in places) for address in addresses)]
    for address in places:
        lines += names.code(address)
    return "\n".join([*lines, *names.reasons])
