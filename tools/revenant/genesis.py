"""Generation 1: the userland ELF file laid out in a space, with the kernel's first records.

The kernel has no program loader; this is it (DESIGN.md, invariant 3). Regions are those of the memory map in
kernel/README.md and of userland/layout.h. Used by: `revenant create`, and `run` for a missing near image.
"""

from __future__ import annotations

import functools
import io
import itertools
import operator
import os
import secrets
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.constants import P_FLAGS
from elftools.elf.elffile import ELFFile

from revenant.errors import BuildError
from revenant.files import Addition, files_pages
from revenant.format import (
    BLOCK_SIZE,
    SPACE_FIRST_USER,
    SPACE_RECORDS,
    ZERO_PAGE,
    PageKey,
    Root,
)
from revenant.record import (
    RECORD_MACHINE_PAGE,
    RECORD_PROCESS_PAGE,
    RECORD_THREAD_PAGE,
    RECORD_VERSION,
    RECORDS_PER_PAGE,
    Access,
    MachineRecord,
    ProcessRecord,
    ProcessState,
    RegionRecord,
    ThreadRecord,
    ThreadRegisters,
    ThreadState,
)
from revenant.writer import BootObjects, Contents, StoreWriter

EXEC_START, EXEC_END = 0xA00000, 0xE00000
STACK_START, STACK_END = 0xE01000, 0x1000000
FILES_START, FILES_END = 0x1000000, 0x3000000
HEAP_START, HEAP_END = 0x3000000, 0x103000000

USER_RFLAGS = 0x202  # interrupts on; bit 1 is always set
FX_CONTROL_WORD = 0x37F  # x87 and SSE as after FNINIT: all exceptions masked
FX_MXCSR = 0x1F80

SIZE_DEFAULT = 1 << 30


@dataclass(frozen=True)
class BuildFiles:
    """What an image is made of."""

    kernel: Path
    userland: Path
    boot_record: Path
    loader: Path

    @classmethod
    def locate(
        cls, kernel: Path | None = None, userland: Path | None = None, boot: Path | None = None
    ) -> BuildFiles:
        """Given paths, else those in the build folder."""
        build = build_folder()
        boot = boot or build / "boot"
        return cls(
            kernel or build / "kernel.stripped.elf",
            userland or build / "userland/micropython.elf",
            boot / "mbr.bin",
            boot / "loader.bin",
        )

    def boot_objects(self) -> BootObjects:
        """The kernel and the boot code, read; BuildError if one is missing."""
        return BootObjects(read_built(self.kernel), read_built(self.boot_record), read_built(self.loader))


def build_folder() -> Path:
    """$REVENANT_BUILD, else the checkout's build folder."""
    given = os.environ.get("REVENANT_BUILD")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "build"


def build_remedy() -> str:
    """What brings a file of the build that is missing."""
    if "REVENANT_BUILD" in os.environ or (build_folder().parent / "Makefile").is_file():
        return "make build"
    return "make build in a checkout of Revenant, then export REVENANT_BUILD=CHECKOUT/build"


def read_built(path: Path) -> bytes:
    """A file that the build makes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BuildError(path, error.strerror or "cannot be read", build_remedy()) from None


@dataclass(frozen=True)
class Program:
    """An ELF file as a space would hold it."""

    name: str
    entry: int
    regions: tuple[RegionRecord, ...]
    pages: dict[int, bytes]
    is_template: bool = False  # what spawn clones: it never runs itself


def load_program(path: Path, name: str) -> Program:
    """Pages and regions of the PT_LOAD segments; BuildError if it is no static x86-64 program."""
    data = read_built(path)
    try:
        elf = ELFFile(io.BytesIO(data))
        if elf["e_type"] != "ET_EXEC" or elf["e_machine"] != "EM_X86_64":
            raise BuildError(path, "not a static x86-64 program")
        segments = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_memsz"]]
        regions = tuple(segment_region(path, segment) for segment in segments)
        pages: dict[int, bytearray] = {}
        for segment in segments:
            place_bytes(pages, segment["p_vaddr"], segment.data())
        entry = int(elf["e_entry"])
    except ELFError as error:
        raise BuildError(path, f"not an ELF file that makes sense: {error}") from None
    check_regions(path, regions, entry)
    filled = {index: bytes(page) for index, page in pages.items() if page != ZERO_PAGE}
    return Program(name, entry, regions, filled)


def segment_region(path: Path, segment: Any) -> RegionRecord:
    """The pages of a segment and its access."""
    start, size, flags = segment["p_vaddr"], segment["p_memsz"], segment["p_flags"]
    bits = {P_FLAGS.PF_R: Access.READ, P_FLAGS.PF_W: Access.WRITE, P_FLAGS.PF_X: Access.EXEC}
    access = functools.reduce(operator.or_, (bits[bit] for bit in bits if flags & bit), Access(0))
    if access & Access.WRITE and access & Access.EXEC:
        raise BuildError(path, f"the segment at {start:#x} is writable and executable")
    return RegionRecord(start & -BLOCK_SIZE, -(-(start + size) // BLOCK_SIZE) * BLOCK_SIZE, int(access))


def check_regions(path: Path, regions: tuple[RegionRecord, ...], entry: int) -> None:
    """BuildError unless they lie apart, below the exec region, and the entry is executable."""
    ordered = sorted(regions, key=lambda region: region.start)
    for before, after in itertools.pairwise(ordered):
        if before.end > after.start:
            raise BuildError(path, f"two segments share the page at {after.start:#x}")
    if not ordered or ordered[0].start < BLOCK_SIZE or ordered[-1].end > EXEC_START:
        raise BuildError(path, f"its segments do not lie between one page and {EXEC_START:#x}")
    if not any(r.start <= entry < r.end and r.access & Access.EXEC for r in regions):
        raise BuildError(path, f"its entry {entry:#x} is not executable")


def place_bytes(pages: dict[int, bytearray], address: int, data: bytes) -> None:
    """Copy data to a virtual address."""
    while data:
        index, offset = divmod(address, BLOCK_SIZE)
        part = data[: BLOCK_SIZE - offset]
        page = pages.setdefault(index, bytearray(BLOCK_SIZE))
        page[offset : offset + len(part)] = part
        address += len(part)
        data = data[len(part) :]


def fixed_regions() -> tuple[RegionRecord, ...]:
    """Exec, stack, files, heap."""
    read_write = int(Access.READ | Access.WRITE)
    return (
        RegionRecord(EXEC_START, EXEC_END, int(Access.READ | Access.EXEC)),
        RegionRecord(STACK_START, STACK_END, read_write),
        RegionRecord(FILES_START, FILES_END, read_write),
        RegionRecord(HEAP_START, HEAP_END, read_write),
    )


def fx_image() -> bytes:
    """An FXSAVE image as after FNINIT."""
    image = bytearray(512)
    struct.pack_into("<H", image, 0, FX_CONTROL_WORD)
    struct.pack_into("<I", image, 24, FX_MXCSR)
    return bytes(image)


def process_record(program: Program, slot: int) -> ProcessRecord:
    """A running process, or a template, in the space of its slot."""
    regions = program.regions + fixed_regions()
    return ProcessRecord(
        state=ProcessState.TEMPLATE if program.is_template else ProcessState.RUNNING,
        id=slot + 1,
        space=SPACE_FIRST_USER + slot,
        region_count=len(regions),
        region=regions,
        name=program.name.encode(),
    )


def thread_record(program: Program, slot: int) -> ThreadRecord:
    """A ready thread at the entry of the process in the same slot."""
    return ThreadRecord(
        state=ThreadState.TEMPLATE if program.is_template else ThreadState.READY,
        id=slot + 1,
        process=slot,
        registers=ThreadRegisters(rip=program.entry, rflags=USER_RFLAGS, rsp=STACK_END),
        fx=fx_image(),
    )


def records(programs: Sequence[Program], store_id: bytes) -> Iterator[tuple[PageKey, bytes]]:
    """The pages of space 0: one process for each program, one thread for each process."""
    count = len(programs)
    machine = MachineRecord(
        machine_id=store_id,
        process_slots=count,
        thread_slots=count,
        next_space=SPACE_FIRST_USER + count,
    )
    yield PageKey(SPACE_RECORDS, RECORD_MACHINE_PAGE), machine.page
    for first_page, make in ((RECORD_PROCESS_PAGE, process_record), (RECORD_THREAD_PAGE, thread_record)):
        packed = [make(program, slot).pack() for slot, program in enumerate(programs)]
        for number in range(0, count, RECORDS_PER_PAGE):
            page = b"".join(packed[number : number + RECORDS_PER_PAGE]).ljust(BLOCK_SIZE, b"\0")
            yield PageKey(SPACE_RECORDS, first_page + number // RECORDS_PER_PAGE), page


def added_pages(additions: Sequence[Addition]) -> Iterator[tuple[int, bytes]]:
    """The files region with these in it."""
    for number, page in files_pages(additions, FILES_END - FILES_START).items():
        yield FILES_START // BLOCK_SIZE + number, page


def create_image(
    path: Path,
    files: BuildFiles,
    size: int = SIZE_DEFAULT,
    others: Sequence[Program] = (),
    additions: Sequence[Addition] = (),
) -> Root:
    """Write a new sparse image of `size` bytes with generation 1: Python, its files, other programs beside it, and the
    template of all Pythons that will be spawned, which shares the first one's pages.
    """
    python = load_program(files.userland, "python")
    if additions:
        python.pages.update(added_pages(additions))
    programs = (python, *others, replace(python, is_template=True))
    template_space = SPACE_FIRST_USER + len(programs) - 1
    store_id = secrets.token_bytes(16)
    pages = dict(records(programs, store_id))
    for slot, program in enumerate(programs[:-1]):
        space = SPACE_FIRST_USER + slot
        pages.update({PageKey(space, index): page for index, page in program.pages.items()})
    contents = Contents(
        generation=1,
        keys=sorted(pages),
        load=pages.__getitem__,
        boot=files.boot_objects(),
        wall_ns=time.time_ns(),
        record_version=RECORD_VERSION,
        clones={template_space: SPACE_FIRST_USER},
        store_id=store_id,
    )
    return StoreWriter(path, contents, size // BLOCK_SIZE).write()
