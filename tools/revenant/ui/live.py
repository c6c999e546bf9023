"""Looks into a running machine: its memory is a file that we share with QEMU, and its kernel says what lies where.

Promise: looking costs the guest nothing and never stops it: no QEMU command, no lock, no signal, only reads of memory.
What is read is of about one moment, not exactly of one: what makes no sense is left out, and is there at the next look.
Used by: app.py (a few times a second). Reads what kernel/abi/live.h names.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from revenant.events import Kind
from revenant.record import (
    RECORD_MACHINE_PAGE,
    RECORD_PROCESS_PAGE,
    RECORDS_PER_PAGE,
    MachineRecord,
    ProcessRecord,
    ProcessState,
    TraceEvent,
)
from revenant.symbols import KERNEL_START
from revenant.ui.layout import (
    FRAME_EPOCH,
    FRAME_KIND,
    FRAME_PAGE,
    FRAME_SIZE,
    FRAME_SPACE,
    FRAME_STATE_SIZE,
    LIVE_NOTE_TYPE,
    LIVE_NOTES_PLACE,
    LIVE_VERSION,
    FrameKind,
    LiveNote,
    LiveRecord,
    MachineStats,
)

NOTES_SIZE_MAX = 4096
TRACE_SIZE_MAX = 1 << 16  # events; what a guest says is not believed
SNAPSHOT_COUNT_MAX = 1000
"""More than any screen has columns."""
NOTE_HEAD = struct.Struct("<III12s")
NOTE_OWNER = b"Revenant\0\0\0\0"
GIB = 1 << 30

FREE, KERNEL, TABLE, NODE, CLEAN, FROZEN, DIRTY = range(7)
"""States of frames as the memory map shows them, the later ones worth more attention."""
STATE_OF_KIND = bytes([FREE, KERNEL, TABLE, NODE, CLEAN, CLEAN])


class Memory:
    """The RAM of a machine of QEMU's type q35, as an anonymous file."""

    def __init__(self, memory_mib: int) -> None:
        self.size = memory_mib << 20
        self.fd = os.memfd_create("revenant-memory")
        os.ftruncate(self.fd, self.size)
        # q35 puts what does not fit below its devices at 4 GiB
        self.low_size = min(self.size, 2 * GIB if self.size >= 0xB0000000 else self.size)

    @property
    def end(self) -> int:
        """The physical address behind the last byte."""
        return self.size if self.low_size == self.size else 4 * GIB + self.size - self.low_size

    @property
    def path(self) -> Path:
        """A name that QEMU can open while we live."""
        return Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def read(self, physical: int, size: int) -> bytes:
        """`size` bytes; fewer, or none, where no memory is."""
        at = physical if physical < 4 * GIB else physical - 4 * GIB + self.low_size
        return os.pread(self.fd, size, at)

    def close(self) -> None:
        """QEMU's own mapping stays until it ends."""
        os.close(self.fd)


@dataclass(frozen=True)
class Frames:
    """The states of all frames that were ever given out."""

    kinds: bytes
    spaces: list[int]
    pages: list[int]
    epochs: list[int]
    durable: int
    running: int

    @classmethod
    def of(cls, data: bytes, durable: int, running: int) -> Frames:
        """From the kernel's array. A frame of zeros is not free but never was anybody else's than the kernel's."""
        words = memoryview(data).cast("Q")
        step = FRAME_STATE_SIZE // 8
        spaces, pages, epochs = (words[place // 8 :: step].tolist() for place in (FRAME_SPACE, FRAME_PAGE, FRAME_EPOCH))
        kinds = zip(data[FRAME_KIND::FRAME_STATE_SIZE], words[::step], strict=True)
        own = bytes(kind if kind or link else FrameKind.KERNEL for kind, link in kinds)
        return cls(own, spaces, pages, epochs, durable, running)

    @cached_property
    def states(self) -> bytes:
        """One of FREE to DIRTY for each. A page's epoch says what it is (kernel/pager/pager.h)."""
        states = bytearray(self.kinds.translate(STATE_OF_KIND.ljust(256, b"\0")))
        durable, running = self.durable, self.running
        for number, epoch in enumerate(self.epochs):
            if epoch > durable and states[number] == CLEAN:
                states[number] = DIRTY if epoch >= running else FROZEN
        return bytes(states)

    def resident(self) -> Counter[int]:
        """Pages in memory by space."""
        return self._by_space(CLEAN)

    def dirty(self) -> Counter[int]:
        """Pages by space that no durable generation has."""
        return self._by_space(FROZEN)

    def _by_space(self, least: int) -> Counter[int]:
        page = FrameKind.PAGE
        together = zip(self.spaces, self.kinds, self.states, strict=True)
        return Counter(space for space, kind, state in together if kind == page and state >= least)

    def records(self) -> dict[int, int]:
        """Pages of space 0 in memory: page index to frame; of two copies the newer."""
        found: dict[int, int] = {}
        at = self.kinds.find(FrameKind.RECORD)
        while at >= 0:
            page = self.pages[at]
            if self.spaces[at] == 0 and (page not in found or self.epochs[found[page]] <= self.epochs[at]):
                found[page] = at
            at = self.kinds.find(FrameKind.RECORD, at + 1)
        return found


@dataclass(frozen=True)
class Process:
    """A program of the machine."""

    id: int
    parent: int
    name: str
    state: str
    page_count: int
    dirty_count: int
    inbox_size: int


@dataclass
class Snapshot:
    """A generation on its way, as far as the trace has it; times in microseconds."""

    generation: int
    time_ns: int
    page_count: int
    pause_us: float | None = None
    commit_us: int | None = None
    """From the freeze until it was durable; None: not yet."""


@dataclass(frozen=True)
class Moment:
    """All that one look gives."""

    taken_count: int
    stats: MachineStats
    frames: Frames
    processes: list[Process]
    busy: float
    """Of the time since the look before: the CPU had something to do, 0 to 1."""


def find_note(data: bytes) -> LiveNote | None:
    """The kernel's note among those at the beginning of its image; None: it has none, or is not in memory yet."""
    at = 0
    while at + NOTE_HEAD.size <= len(data):
        name_size, size, kind, name = NOTE_HEAD.unpack_from(data, at)
        if name_size == 0 or size > NOTES_SIZE_MAX:
            return None
        start = at + 12 + (name_size + 3 & ~3)
        if name == NOTE_OWNER and kind == LIVE_NOTE_TYPE and size >= LiveNote.SIZE:
            return LiveNote.unpack(data, start)
        at = start + (size + 3 & ~3)
    return None


class Live:
    """The machine in `memory`, looked at again and again."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.snapshots: dict[int, Snapshot] = {}
        self._events_seen = 0
        self._before: tuple[int, int] = (0, 0)

    def _record_place(self) -> int | None:
        note = find_note(self.memory.read(LIVE_NOTES_PLACE, NOTES_SIZE_MAX))
        if note is None or note.version != LIVE_VERSION or note.address < KERNEL_START:
            return None
        return note.address - KERNEL_START

    def look(self) -> Moment | None:
        """The machine now; None while there is nothing to see. Adds to `snapshots`."""
        place = self._record_place()
        data = self.memory.read(place, LiveRecord.SIZE) if place is not None else b""
        if len(data) < LiveRecord.SIZE:
            return None
        record = LiveRecord.unpack(data)
        if record.taken_count == 0 or record.frame_end * FRAME_SIZE > self.memory.end:
            return None
        self._follow(record)
        array = self.memory.read(record.frame_array, record.frame_end * FRAME_STATE_SIZE)
        if len(array) != record.frame_end * FRAME_STATE_SIZE:
            return None
        frames = Frames.of(array, record.stats.generation, record.stats.epoch)
        return Moment(record.taken_count, record.stats, frames, self._processes(frames), self._busy(record))

    def _busy(self, record: LiveRecord) -> float:
        idle_ns, now_ns = record.stats.idle_cycles * record.ns_per_cycle >> 32, record.stats.mono_ns
        idle_before_ns, before_ns = self._before
        self._before = idle_ns, now_ns
        passed_ns = now_ns - before_ns
        return min(max(1 - (idle_ns - idle_before_ns) / passed_ns, 0), 1) if passed_ns > 0 else 0

    # --- processes ---

    def _processes(self, frames: Frames) -> list[Process]:
        """Those whose records are in memory, by id."""
        place = frames.records()
        resident, dirty = frames.resident(), frames.dirty()
        found = []
        for record in self._process_records(place):
            running = record.state == ProcessState.RUNNING
            found.append(
                Process(
                    record.id,
                    record.parent,
                    record.name.split(b"\0")[0].decode(errors="replace"),
                    "runs" if running else f"ended {record.exit_status}",
                    resident[record.space] if running else 0,
                    dirty[record.space] if running else 0,
                    record.inbox_head - record.inbox_tail,
                )
            )
        return sorted(found, key=lambda process: process.id)

    def _process_records(self, place: dict[int, int]) -> Iterator[ProcessRecord]:
        if RECORD_MACHINE_PAGE not in place:
            return
        machine = MachineRecord.unpack(self._page(place[RECORD_MACHINE_PAGE]))
        for page in (page for page in place if 0 <= page - RECORD_PROCESS_PAGE < machine.process_slots):
            data = self._page(place[page])
            for i in range(RECORDS_PER_PAGE):
                record = ProcessRecord.unpack(data, i * ProcessRecord.SIZE)
                if record.state in (ProcessState.RUNNING, ProcessState.ENDED, ProcessState.ENDING):
                    yield record

    def _page(self, frame: int) -> bytes:
        return self.memory.read(frame * FRAME_SIZE, FRAME_SIZE).ljust(FRAME_SIZE, b"\0")

    # --- the trace ---

    def _follow(self, record: LiveRecord) -> None:
        """Snapshots from the events that came since the look before, those that the ring still has."""
        if not 0 < record.trace_size <= TRACE_SIZE_MAX:
            return
        count = int.from_bytes(self.memory.read(record.trace_count, 8), "little")
        ring = self.memory.read(record.trace_ring, record.trace_size * TraceEvent.SIZE)
        if len(ring) != record.trace_size * TraceEvent.SIZE:
            return
        for number in range(max(self._events_seen, count - record.trace_size), count):
            event = TraceEvent.unpack(ring, number % record.trace_size * TraceEvent.SIZE)
            self._note(event, record.ns_per_cycle)
        self._events_seen = count

    def _note(self, event: TraceEvent, ns_per_cycle: int) -> None:
        if event.kind == Kind.FREEZE:
            self.snapshots[event.a] = Snapshot(event.a, event.time_ns, event.b)
            if len(self.snapshots) > SNAPSHOT_COUNT_MAX:
                del self.snapshots[next(iter(self.snapshots))]
        elif event.kind == Kind.COMMIT and (snapshot := self.snapshots.get(event.a)):
            snapshot.page_count = event.b
            snapshot.pause_us = (event.small * ns_per_cycle >> 32) / 1000
        elif event.kind == Kind.DURABLE and (snapshot := self.snapshots.get(event.a)):
            snapshot.commit_us = event.small
