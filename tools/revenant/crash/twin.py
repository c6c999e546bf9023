"""The twin oracle: a program that is cut off again and again is, byte for byte, the one that never was.

The same program with the same inputs runs under `-icount` twice, in machines made of one image: undisturbed, and cut
off (kill -9) at freezes, in the middle of commits, and when a generation is durable. Shown for every crash:
  - memory: the pages that the resumed generation has, brought in by the faults of a machine that is started only to be
    looked at, are those that were in RAM when that generation was frozen. Both are read from outside, through the page
    tables (watched.py); the frozen ones never come from a disk. A page that was not in RAM at a freeze counts as it was
    when last there: at an earlier freeze, for all are looked at, or at the resume before.
  - registers: the first instruction of the program after the resume finds the general ones and those of the
    floating point unit as they were at the freeze, in the CPU; and at each freeze the record of the thread has them.
  - output: all lines of all lives, those that came twice once, are the undisturbed twin's. They hold not only the
    program's results but how much its allocator has given out, too.
Not shown: what a power cut does to the disk (states.py), several programs, pages that no start brings in.
Used by: tests/qemu/test_twin.py.
"""

from __future__ import annotations

import random
import select
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

from revenant import genesis
from revenant.check import check_store
from revenant.crash.watched import MEMORY_MIB, TIMEOUT_S, KernelMap, Watched
from revenant.crash.workload import FOLDER, LINE, MIB
from revenant.errors import MachineError
from revenant.format import BLOCK_SIZE, SPACE_RECORDS, PageKey
from revenant.images import copy_image
from revenant.machine import Machine
from revenant.qemu import ICOUNT, Boot, MachineConfig
from revenant.record import (
    RECORD_THREAD_PAGE,
    RECORDS_PER_PAGE,
    MachineRecord,
    ThreadRecord,
    ThreadRegisters,
)
from revenant.script import output_of, wait_for_prompt
from revenant.store import Store
from revenant.travel import MACHINE_PAGE

DRIVER = """\
import gc
def drive():
    input('go? ')
    number = 0
    for digest in steps():
        number += 1
        print('step', number, digest, gc.mem_alloc())
"""
IMAGE_SIZE = 64 * MIB
INTERVAL_MS = 7  # so that most freezes come while the program computes
FREEZES_MAX = 12  # of a life
LINES_AFTER = 3  # the last cut
WRITES_MAX = 30
PLACES = ("frozen", "writing", "durable")
RUN, FREEZE, DURABLE, WRITTEN, PROGRAM = "proc_run", "store_commit_start", "proc_durable", "frozen_next", "program"
"""Stops: functions of the kernel that are called then; and the program's first instruction after a resume."""
GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip", "rsp",
)  # fmt: skip
FLOATING = (
    *(f"st{n}" for n in range(8)), "fctrl", "fstat", "ftag", *(f"xmm{n}" for n in range(16)), "mxcsr",
)  # fmt: skip
SHOWN_MAX = 5

Pages = dict[PageKey, bytes]
Break = Callable[[Watched, str, Mapping[str, int]], None]
"""Makes the kernel worse, for the oracle's own tests: called before programs go on, and at stops that are its own."""


@dataclass(frozen=True)
class Frozen:
    """What a generation was when it was frozen."""

    pages: Pages
    registers: Mapping[str, int]  # of the loaded thread, in the CPU; empty: none had run

    @property
    def hash(self) -> str:
        """Of all pages with their places."""
        digest = blake2b(digest_size=16)
        for key in sorted(self.pages, key=lambda key: key.key):
            digest.update(b"%d %d " % key.key + self.pages[key])
        return digest.hexdigest()


@dataclass(frozen=True)
class Cut:
    """When a life ends: at its n-th freeze, after so many of the generation's writes, or when that is durable."""

    freezes: int
    place: str
    writes: int

    @classmethod
    def draw(cls, rng: random.Random) -> Cut:
        """Any."""
        return cls(rng.randint(1, FREEZES_MAX), rng.choice(PLACES), rng.randint(1, WRITES_MAX))


@dataclass
class Report:
    """What was compared."""

    freezes: int = 0
    pages: int = 0
    registers: int = 0
    steps: int = 0
    hashes: dict[int, str] = field(default_factory=dict)  # of the generations that were resumed


# --- the undisturbed twin ---


def prepare(image: Path, program: str) -> None:
    """An image in which the program waits for Enter."""
    genesis.create_image(image, genesis.BuildFiles.locate(), IMAGE_SIZE)
    with Machine(MachineConfig(image, memory_mib=MEMORY_MIB), TIMEOUT_S) as machine:
        wait_for_prompt(machine)
        source = (FOLDER / f"{program}.py").read_text()
        output_of(machine, source + DRIVER, TIMEOUT_S, f"the program {program}")
        machine.send(b"drive()\r")
        machine.expect_exact(b"go? ")


def undisturbed(image: Path, step_count: int) -> list[bytes]:
    """The first lines of a machine that nobody cuts off."""
    config = MachineConfig(
        image, memory_mib=MEMORY_MIB, interval_ms=INTERVAL_MS, boot=Boot.PVH, extra=ICOUNT
    )
    with Machine(config, TIMEOUT_S) as machine:
        machine.expect_voice("goes on")
        machine.send(b"\r")
        for _ in range(step_count):
            machine.expect([LINE.pattern])
        return [match[0] for match in LINE.finditer(machine.transcript.getvalue())][:step_count]


# --- comparing ---


def place_of(key: PageKey) -> str:
    """A page for people."""
    return f"page {key.page:#x} of space {key.space}"


def compare_pages(image: Path, generation: int, frozen: Pages, resumed: Pages) -> None:
    """MachineError that names pages that are not the same."""
    wrong = [key for key in sorted({*frozen, *resumed}, key=lambda key: key.key) if frozen.get(key) != resumed.get(key)]
    if wrong:
        reasons = []
        for key in wrong[:SHOWN_MAX]:
            a, b = (pages.get(key, bytes(BLOCK_SIZE)) for pages in (frozen, resumed))
            first = next(at for at in range(len(a)) if a[at] != b[at])
            reasons.append(f"{place_of(key)} from byte {first} on")
        raise MachineError(
            image, f"generation {generation} is not as it was frozen: {len(wrong)} pages: {', '.join(reasons)}"
        )


def in_cpu(registers: Mapping[str, int], user: ThreadRegisters | None) -> dict[str, int]:
    """A thread's registers by gdb's names; the general ones as the kernel has put them aside, if it runs."""
    general = {name: getattr(user, name) if user else registers[name] for name in GENERAL}
    return general | {name: registers[name] for name in FLOATING}


def compare_registers(image: Path, frozen: Mapping[str, int], resumed: Mapping[str, int]) -> None:
    """MachineError that names registers that are not the same."""
    wrong = [f"{name} {resumed[name]:#x}, not {frozen[name]:#x}" for name in frozen if frozen[name] != resumed[name]]
    if wrong:
        raise MachineError(image, f"the program goes on with other registers: {', '.join(wrong[:SHOWN_MAX])}")


# --- the twin that is cut off ---


class Twin:
    """Its image, what is known of it, and its lives."""

    def __init__(self, image: Path, breaking: Break | None = None) -> None:
        self.image = image
        self.breaking = breaking
        self.kernel = KernelMap()
        self.lines: list[bytes] = []
        self.durable = 0
        self.report = Report()
        with Store(image) as store:
            generation = store.root.generation
        self.frozen = {generation: Frozen(self.resumed_pages(generation), {})}

    def resumed_pages(self, generation: int) -> Pages:
        """All pages of a copy that is started, and stopped before any program goes on."""
        copy = self.image.with_suffix(".copy")
        copy_image(self.image, copy)
        pages: Pages = {}
        with Store(copy) as store:
            page_count = max(key.page for key, _ in store.pages(store.tree) if key.space > 1) + 1
        with Watched(self.kernel, copy, test_resident=page_count) as watched:
            watched.watch(RUN)
            watched.go()
            watched.take_over(pages)
            if f"generation {generation} goes on" not in watched.machine.voice:
                raise MachineError(copy, f"it does not go on with generation {generation}, which the reader finds")
        copy.unlink()
        record = MachineRecord.unpack(pages[MACHINE_PAGE])  # the start has counted itself
        pages[MACHINE_PAGE] = replace(record, resume_count=record.resume_count - 1).page
        return pages

    def look(self) -> int:
        """After a cut: the generation that is resumed, which must be as it was frozen."""
        with Store(self.image) as store:
            check_store(store)
            generation = store.root.generation
        if generation not in self.frozen or generation < self.durable:
            raise MachineError(self.image, f"it resumes {generation}; {self.durable} was durable")
        frozen = self.frozen[generation]
        compare_pages(self.image, generation, frozen.pages, self.resumed_pages(generation))
        self.report.pages += len(frozen.pages)
        self.report.hashes[generation] = frozen.hash
        return generation

    def note(self, generation: int, frozen: Frozen) -> None:
        """A generation that may be resumed; those before the durable one cannot be any more."""
        self.frozen[generation] = frozen
        for old in [old for old in self.frozen if old < self.durable]:
            del self.frozen[old]
        self.report.freezes += 1

    def live(self, generation: int, cut: Cut | None) -> None:
        """Go on from a generation until the cut, or until some more lines have been seen."""
        start = self.frozen[generation]
        self.frozen = {generation: start}
        with Watched(self.kernel, self.image, interval_ms=INTERVAL_MS) as watched:
            watched.watch(RUN)
            name, registers = watched.go()
            if self.breaking:
                self.breaking(watched, name, registers)
            for name in (FREEZE, DURABLE):
                watched.watch(name)
            if start.registers:
                watched.watch_at(start.registers["rip"], PROGRAM)
            else:
                watched.machine.send(b"\r")
            Life(self, watched, start, cut).run()
        self.add_lines(watched.machine.transcript.getvalue())

    # --- output ---

    def add_lines(self, seen: bytes) -> None:
        """Those of a life behind those before; MachineError where one is missing or is not the one that it was."""
        for match in LINE.finditer(seen):
            index = int(match[1]) - 1
            if index > len(self.lines):
                raise MachineError(self.image, f"after line {len(self.lines)} came {index + 1}: one was lost")
            if index < len(self.lines) and self.lines[index] != match[0]:
                raise MachineError(self.image, f"line {index + 1} came again as {match[0]!r}")
            if index == len(self.lines):
                self.lines.append(match[0])


class Life:
    """What is done at the stops of one life."""

    def __init__(self, twin: Twin, watched: Watched, start: Frozen, cut: Cut | None) -> None:
        self.twin = twin
        self.watched = watched
        self.start = start
        self.cut = cut
        self.memory = dict(start.pages)
        self.freezes = self.writes = 0
        self.resumed = not start.registers  # the program has made its first step

    def run(self) -> None:
        """Until the cut, or until some more lines have been seen."""
        while True:
            name, registers = self.watched.go()
            if name == PROGRAM:
                self.resume(registers)
            elif name == FREEZE:
                self.freeze(registers)
            elif name == DURABLE:
                self.twin.durable = registers["rdi"]
            elif name == WRITTEN:
                self.writes += 1
            elif self.twin.breaking:
                self.twin.breaking(self.watched, name, registers)
            if self.is_cut(self.cut, name) if self.cut else self.last_line() >= len(self.twin.lines) + LINES_AFTER:
                break

    def is_cut(self, cut: Cut, name: str) -> bool:
        """Whether this stop is where the life ends. A generation may have fewer writes than are waited for."""
        if self.freezes < cut.freezes:
            return False
        if name == FREEZE and cut.place == "writing":
            self.watched.watch(WRITTEN, "snapshot.c")
        places = {"frozen": name == FREEZE, "writing": self.writes == cut.writes, "durable": False}
        return places[cut.place] or name == DURABLE

    def last_line(self) -> int:
        """The number of the newest line so far."""
        machine = self.watched.machine
        while select.select([machine.console_socket], [], [], 0)[0]:
            machine.console.read_nonblocking(1 << 16, 0)
        return max((int(match[1]) for match in LINE.finditer(machine.transcript.getvalue())), default=0)

    def resume(self, registers: Mapping[str, int]) -> None:
        """The first instruction of the program."""
        compare_registers(self.twin.image, self.start.registers, in_cpu(registers, None))
        self.watched.unwatch_at(registers["rip"])
        self.resumed = True
        self.twin.report.registers += len(self.start.registers)

    def freeze(self, registers: Mapping[str, int]) -> None:
        """Note a generation that is being frozen, once: it comes again if it found the disk full."""
        commit = registers["rdi"] + self.twin.kernel.offset("store_commit", "generation")
        generation = self.watched.number(commit)
        if generation in self.twin.frozen:
            return
        self.watched.take_over(self.memory)
        slot = self.watched.loaded_slot()
        found = self.start.registers if slot is None else self.thread(slot, registers)
        self.twin.note(generation, Frozen(dict(self.memory), found))
        self.freezes += 1

    def thread(self, slot: int, registers: Mapping[str, int]) -> dict[str, int]:
        """The registers of a thread that is being frozen; MachineError where its record has others."""
        user = self.watched.user_registers()
        page = self.memory[PageKey(SPACE_RECORDS, RECORD_THREAD_PAGE + slot // RECORDS_PER_PAGE)]
        record = ThreadRecord.unpack(page[slot % RECORDS_PER_PAGE * ThreadRecord.SIZE :][: ThreadRecord.SIZE])
        if record.registers != user:
            places = f"the program is at {user.rip:#x}, its record at {record.registers.rip:#x}"
            raise MachineError(self.twin.image, places)
        if not self.resumed and user.rip != self.start.registers["rip"]:
            raise MachineError(self.twin.image, f"the program went on at another place; now it is at {user.rip:#x}")
        return in_cpu(registers, user)


def run_twins(folder: Path, program: str, seed: int, crash_count: int, breaking: Break | None = None) -> Report:
    """Both twins; MachineError if they differ or a crash changes anything, StoreError if it leaves no sound image."""
    rng = random.Random(seed)
    image, other = folder / "twin.img", folder / "undisturbed.img"
    prepare(image, program)
    copy_image(image, other)
    twin = Twin(image, breaking)
    for cut in [*(Cut.draw(rng) for _ in range(crash_count)), None]:
        twin.live(twin.look(), cut)
    twin.look()
    for expected, line in zip(undisturbed(other, len(twin.lines)), twin.lines, strict=True):
        if expected != line:
            raise MachineError(image, f"it printed {line!r}, its undisturbed twin {expected!r}")
    twin.report.steps = len(twin.lines)
    return twin.report
