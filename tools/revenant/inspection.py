"""The command inspect: what is in a machine, of any retained generation, while it is off. Writes nothing.

Promise: all that is shown was verified against the hashes above it; whatever the image holds, a StoreError or an
answer comes out. Names and lines are given only where the program's code is the build's, byte for byte.
Used by: cli.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any

import capstone
import typer
from elftools.common.exceptions import DWARFError, ELFError

from revenant.errors import BuildError
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE, SPACE_FIRST_USER, SPACE_RECORDS, SPACE_SHARES, ZERO_PAGE, Generation
from revenant.genesis import BuildFiles
from revenant.images import Far, Image, Json, when
from revenant.output import OUT, in_units, print_facts, print_rows, say
from revenant.python_heap import Heap, Variable, layouts_of, printable
from revenant.python_threads import waiting_threads
from revenant.record import (
    Access,
    ProcessRecord,
    ProcessState,
    RegionRecord,
    ResumeReason,
    ThreadRecord,
    ThreadRegisters,
    ThreadState,
)
from revenant.state import NEWEST, State, named, read_state
from revenant.store import AbsentError, Store, Tree
from revenant.symbols import Symbols
from revenant.unwind import NAMES, Unwinder

REGISTERS = ("rip", "rsp", "rbp", *(name for name in NAMES if name not in ("rip", "rsp", "rbp")))
"""In the order in which they are looked at."""
INSTRUCTION_SIZE_MAX = 15
INSTRUCTION_COUNT_DEFAULT = 16
FUNCTION_NAME = re.compile(r"[A-Za-z_][\w.]*")


def name_of(kind: type[Any], number: int) -> str:
    """An enumerator's name, or the number that no kernel writes."""
    try:
        return str(kind(number).name).lower()
    except ValueError:
        return str(number)


@cache
def names_in(path: Path) -> tuple[Symbols, Unwinder]:
    """What an ELF file says of its code; read once."""
    return Symbols(path), Unwinder(path)


@dataclass
class Program:
    """A process' memory in one generation, read page by page."""

    store: Store
    tree: Tree
    space: int
    pages: dict[int, bytes] = field(default_factory=dict)

    def page(self, address: int) -> bytes:
        """The page that an address lies in; zeros where nothing was written."""
        index = address // BLOCK_SIZE
        if index not in self.pages:
            self.pages[index] = self.store.page(self.tree, self.space, index)
        return self.pages[index]

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory."""
        data = b""
        while len(data) < size:
            place = address + len(data)
            offset = place % BLOCK_SIZE
            data += self.page(place)[offset : offset + size - len(data)]
        return data

    def word(self, address: int) -> int | None:
        """64 bits, or None where no program has memory."""
        if not 0 < address < 1 << 47:
            return None
        return int.from_bytes(self.read(address, 8), "little")

    def runs(self, symbols: Symbols) -> bool:
        """Whether its code is that ELF file's, byte for byte."""
        return bool(symbols.code) and all(self.read(start, len(code)) == code for start, code in symbols.code)


class Inspection:
    """One generation of an image."""

    def __init__(self, store: Store, record: Generation) -> None:
        self.store = store
        self.record = record
        self.tree = store.tree_at(record.generation)
        self.reasons: dict[str, None] = {}  # why something has no name; each once, in order

    @cached_property
    def state(self) -> State:
        """The records."""
        return read_state(self.store, self.record.generation)

    # --- names ---

    @cached_property
    def _build(self) -> tuple[Symbols, Unwinder] | None:
        try:
            return names_in(BuildFiles.locate().userland)
        except (OSError, ELFError, BuildError) as error:
            self.reasons[f"no names: {error}"] = None
            return None

    def program(self, process: ProcessRecord) -> Program:
        """A process' memory."""
        return Program(self.store, self.tree, process.space)

    def has_memory(self, process: ProcessRecord) -> bool:
        """Whether it can be looked into; notes where not."""
        if process.state != ProcessState.ENDED:
            return True
        why = "it has ended, and its memory is given back; an older generation (--at) has it"
        self.reasons[f"no stack and no variables of process {process.id}: {why}"] = None
        return False

    def build_of(self, program: Program) -> tuple[Symbols, Unwinder] | None:
        """The build's names, if the program is of this build."""
        if self._build is None:
            return None
        if not program.runs(self._build[0]):
            self.reasons[f"no names for space {program.space}: it runs other code than {self._build[0].path}"] = None
            return None
        return self._build

    # --- the parts ---

    def machine(self) -> dict[str, Any]:
        """The generation and the machine's own record."""
        machine, record = self.state.machine, self.record
        return {
            "image": str(self.store.path),
            "generation": record.generation,
            "tag": record.tag_text or "-",
            "time": when(record.wall_ns),
            "mono_ns": record.mono_ns,
            "machine_id": machine.machine_id.hex(),
            "resume_count": machine.resume_count,
            "resume_reason": name_of(ResumeReason, machine.resume_reason),
            "alive": self.state.alive,
        }

    def spaces(self) -> Iterator[dict[str, Any]]:
        """How many pages each space has, where they are, and which generations wrote them."""
        names = {SPACE_RECORDS: "records", SPACE_SHARES: "share counts"}
        owners = {process.space: process for process in self.state.processes.values()}
        for space, root in self.store.spaces(self.tree):
            counts = {"near": 0, "copied": 0, "far": 0}
            births = []
            for _, pointer in self.store.leaves(root, root.level):
                place = "near" if pointer.store == 0 else "copied" if self.store.copy_of(pointer) else "far"
                counts[place] += 1
                births.append(pointer.birth)
            owner = owners.get(space)
            mapped = sum(pages_of(region) for region in regions_of(owner)) if owner else 0
            yield {
                "space": space,
                "what": text_of(owner.name) if owner else names.get(space, "-"),
                "pages": len(births),
                **counts,
                "zero": max(mapped - len(births), 0),
                "size": in_units(len(births) * BLOCK_SIZE),
                "oldest": min(births, default=0),
                "newest": max(births, default=0),
            }

    def processes(self) -> Iterator[dict[str, Any]]:
        """The process records."""
        for slot, process in self.state.processes.items():
            yield {
                "slot": slot,
                "id": process.id,
                "name": text_of(process.name),
                "state": name_of(ProcessState, process.state),
                "exit_status": process.exit_status,
                "space": process.space,
                "page_limit": process.page_limit,
            }

    def regions(self) -> Iterator[dict[str, Any]]:
        """What each process may touch, and how much of it is there."""
        for process in self.state.processes.values():
            root = self.store.space_root(self.tree, process.space)
            present = [page for page, _ in self.store.leaves(root, root.level)] if root.present else []
            for region in regions_of(process):
                first, end = region.start // BLOCK_SIZE, region.end // BLOCK_SIZE
                yield {
                    "process": process.id,
                    "start": f"{region.start:#x}",
                    "end": f"{region.end:#x}",
                    "access": "".join(flag.name[0].lower() for flag in Access if flag.name and region.access & flag),
                    "size": in_units(region.end - region.start),
                    "present": sum(1 for page in present if first <= page < end),
                }

    def threads(self) -> Iterator[dict[str, Any]]:
        """Registers and stack of each thread."""
        for slot, thread in self.state.threads.items():
            registers = {name: f"{getattr(thread.registers, name):016x}" for name in REGISTERS}
            yield {
                "slot": slot,
                "id": thread.id,
                "process": thread.process,
                "state": name_of(ThreadState, thread.state),
                "wait_deadline_ns": thread.wait_deadline_ns,
                "registers": registers,
                **self.stacks(thread),
            }

    def stacks(self, thread: ThreadRecord) -> dict[str, Any]:
        """Its own, and those of Python's threads that wait until it is their turn in it."""
        found: dict[str, Any] = {"stack": [], "waiting": []}
        process = self.state.processes.get(thread.process)
        if process is None or not self.has_memory(process):
            return found
        program = self.program(process)
        try:
            build = self.build_of(program)
            found["stack"] = self.frames(program, build, thread.registers)
            if build:
                for number, registers in waiting_threads(build[0].path, program.read):
                    found["waiting"].append({"python_thread": number, "stack": self.frames(program, build, registers)})
        except AbsentError as error:
            self.reasons[f"no stack: {error.reason}"] = None
        except (KeyError, ELFError, DWARFError) as error:
            self.reasons[f"no stack: {error}"] = None
        return found

    @staticmethod
    def frames(
        program: Program, build: tuple[Symbols, Unwinder] | None, registers: ThreadRegisters
    ) -> list[dict[str, str]]:
        """Addresses, innermost first, with their places in the source where these are known."""
        addresses = build[1].frames(registers, program.word) if build else iter([registers.rip])
        return [
            {"address": f"{address:x}", "place": build[0].describe(address, number > 0) if build else "?"}
            for number, address in enumerate(addresses)
        ]

    def variables(self) -> Iterator[tuple[ProcessRecord, Variable]]:
        """The globals of each process that runs the build's MicroPython."""
        for process in filter(self.has_memory, self.state.processes.values()):
            program = self.program(process)
            build = self.build_of(program)
            if build is None:
                continue
            try:
                for variable in Heap(layouts_of(build[0].path), program.read).variables():
                    yield process, variable
            except (KeyError, ELFError, DWARFError) as error:
                self.reasons[f"no variables of space {process.space}: the build does not describe {error}"] = None

    # --- memory ---

    def owner(self, space: int) -> ProcessRecord | None:
        """The process that a space is the memory of."""
        return next((process for process in self.state.processes.values() if process.space == space), None)

    def space_to_show(self, asked: int | None) -> int:
        """That which was asked for, or the first process'; StoreError if there is none."""
        if asked is None:
            has_memory = (p for p in self.state.processes.values() if p.state != ProcessState.ENDED)
            process = min(has_memory, key=lambda p: p.state == ProcessState.TEMPLATE, default=None)
            asked = process.space if process else SPACE_FIRST_USER
        if not self.store.space_root(self.tree, asked).present:
            raise self.store.fault(f"generation {self.record.generation} has no space {asked}")
        return asked

    def function(self, space: int, name: str) -> int:
        """Where a function of a program begins; StoreError if none has the name, or several have."""
        build = self.build_of(Program(self.store, self.tree, space)) if self.owner(space) else None
        if build is None:
            raise self.store.fault(f"{name}: no names of space {space} are known", "give an address")
        starts = [f"{address:#x}" for address, found in build[0].functions if found == name]
        if len(starts) > 1:
            raise self.store.fault(f"{name} is the name of {len(starts)} functions", f"give one of {', '.join(starts)}")
        if not starts:
            near = get_close_matches(name, {found for _, found in build[0].functions})
            raise self.store.fault(f"space {space} has no function {name}", f"it has {', '.join(near)}" if near else "")
        return int(starts[0], 0)

    def disassembly(self, space: int, address: int, count: int) -> Iterator[dict[str, str]]:
        """Instructions from an address on, with the place of each in the source."""
        program = Program(self.store, self.tree, space)
        build = self.build_of(program) if self.owner(space) else None
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        code = program.read(address, min(count * INSTRUCTION_SIZE_MAX, (1 << 47) - address))
        for instruction in engine.disasm(code, address, count):
            yield {
                "address": f"{instruction.address:x}",
                "bytes": instruction.bytes.hex(),
                "instruction": f"{instruction.mnemonic} {instruction.op_str}".rstrip(),
                "place": build[0].describe(instruction.address) if build else "",
            }


def text_of(name: bytes) -> str:
    """A name from a record."""
    return printable(name.split(b"\0")[0].decode(errors="replace"))


def regions_of(process: ProcessRecord) -> tuple[RegionRecord, ...]:
    """The regions that count."""
    regions = process.region[: process.region_count]
    return tuple(region for region in regions if region.start <= region.end <= 1 << 47)


def pages_of(region: RegionRecord) -> int:
    """How many pages a region has."""
    return (region.end - region.start) // BLOCK_SIZE


def hex_lines(data: bytes, address: int) -> Iterator[str]:
    """A dump of 16 bytes a line; lines of zeros are left out."""
    for offset in range(0, len(data), 16):
        line = data[offset : offset + 16]
        if line.strip(b"\0"):
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
            yield f"{address + offset:012x}  {line[:8].hex(' ')}  {line[8:].hex(' ')}  |{text}|"


# --- the command ---


def parse_address(text: str | None, option: str) -> int | None:
    """A number as in C; typer.BadParameter if it is none, or no program has memory there."""
    if text is None:
        return None
    try:
        address = int(text, 0)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number", param_hint=option) from None
    if not 0 <= address < 1 << 47:
        raise typer.BadParameter(f"{text} is not below 1 << 47", param_hint=option)
    return address


def parse_place(text: str | None, option: str) -> int | str | None:
    """An address, or the name of a function; typer.BadParameter if it is neither."""
    return text if text and FUNCTION_NAME.fullmatch(text) else parse_address(text, option)


def inspect(
    image: Image,
    at: Annotated[str, typer.Option(help="A retained generation or a tag.")] = NEWEST,
    space: Annotated[int | None, typer.Option(help="Of --page and --disassemble; else the first program's.")] = None,
    page: Annotated[str | None, typer.Option(help="Dump the page of this address.")] = None,
    disassemble: Annotated[str | None, typer.Option(help="Instructions from this address or function on.")] = None,
    count: Annotated[int, typer.Option(help="How many instructions.", min=1, max=4096)] = INSTRUCTION_COUNT_DEFAULT,
    python: Annotated[bool, typer.Option("--python", help="The Python variables of each process.")] = False,
    far: Far = None,
    as_json: Json = False,
) -> None:
    """Look into a machine that is off: spaces, processes, threads and stacks, pages, instructions, variables."""
    page_address, code = parse_address(page, "--page"), parse_place(disassemble, "--disassemble")
    with Store(image, open_fars(far or [])) as store:
        inspection = Inspection(store, named(store, at))
        if python:
            show_variables(inspection, as_json)
            return
        if page_address is None and code is None:
            show_all(inspection, as_json)
            return
        space = inspection.space_to_show(space)
        if page_address is not None:
            show_page(inspection, space, page_address, as_json)
        if code is not None:
            address = inspection.function(space, code) if isinstance(code, str) else code
            show_code(list(inspection.disassembly(space, address, count)), as_json)


def show_page(inspection: Inspection, space: int, address: int, as_json: bool) -> None:
    """One page as bytes."""
    start = address // BLOCK_SIZE * BLOCK_SIZE
    data = Program(inspection.store, inspection.tree, space).page(start)
    if as_json:
        print(json.dumps({"space": space, "address": f"{start:#x}", "bytes": data.hex()}))
    elif data == ZERO_PAGE:
        print(f"{start:012x}  all zero")
    else:
        print("\n".join(hex_lines(data, start)))


def show_code(rows: list[dict[str, str]], as_json: bool) -> None:
    """Instructions; the place where it changes."""
    if as_json:
        print(json.dumps(rows))
        return
    before = ""
    for row in rows:
        place = row["place"].partition("  ")[2] or row["place"]
        shown = f"  ; {place}" if place != before else ""
        print(f"{row['address']:>16}  {row['bytes']:<30}  {row['instruction']}{shown}")
        before = place


def show_variables(inspection: Inspection, as_json: bool) -> None:
    """The globals of all processes."""
    rows = [
        {"process": process.id, "name": v.name, "type": v.type, "value": v.value, "bytes": v.size, "whole": v.complete}
        for process, v in inspection.variables()
    ]
    if not as_json:
        for row in rows:
            row["bytes"] = f"{row['bytes']}{'' if row.pop('whole') else ' or more'}"
    print_rows(rows, as_json)
    for reason in inspection.reasons:
        say(reason)


def changed_variables(store: Store, before: Generation, after: Generation) -> list[dict[str, Any]]:
    """The globals that are not the same in two generations."""
    inspections = [Inspection(store, record) for record in (before, after)]
    found = [{(process.id, v.name): v for process, v in inspection.variables()} for inspection in inspections]
    for reason in dict.fromkeys(reason for inspection in inspections for reason in inspection.reasons):
        say(reason)
    rows = []
    for process, name in sorted(found[0].keys() | found[1].keys()):
        old, new = (variables.get((process, name)) for variables in found)
        if old and new and old.digest == new.digest:
            if not old.complete:
                say(f"{name}: only its first part was compared, which has not changed")
            continue
        kind = "added" if old is None else "removed" if new is None else "changed"
        values = {"before": old.value if old else "-", "after": new.value if new else "-"}
        rows.append({"process": process, "name": name, "kind": kind, **values})
    return rows


def show_stack(frames: list[dict[str, str]]) -> None:
    """A line for each call, innermost first."""
    for frame in frames:
        OUT.print(f"  {frame['address']:>16}  {frame['place']}")


def show_all(inspection: Inspection, as_json: bool) -> None:
    """Everything but memory."""
    parts: dict[str, list[dict[str, Any]]] = {
        "spaces": list(inspection.spaces()),
        "processes": list(inspection.processes()),
        "regions": list(inspection.regions()),
        "threads": list(inspection.threads()),
    }
    if as_json:
        print(json.dumps({**inspection.machine(), **parts, "remarks": list(inspection.reasons)}))
        return
    print_facts(inspection.machine(), False)
    for name in ("spaces", "processes", "regions"):
        OUT.print(f"\n{name}")
        print_rows(parts[name], False)
    for thread in parts["threads"]:
        OUT.print(f"\nthread {thread['id']} of process slot {thread['process']}, {thread['state']}")
        values = [f"{name:>3} {value}" for name, value in thread["registers"].items()]
        for first in range(0, len(values), 4):
            OUT.print("  " + "  ".join(values[first : first + 4]))
        show_stack(thread["stack"])
        for waiting in thread["waiting"]:
            OUT.print(f"  Python's thread {waiting['python_thread']} waits for its turn in it")
            show_stack(waiting["stack"])
    for reason in inspection.reasons:
        OUT.print(f"\n{reason}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(inspect)
