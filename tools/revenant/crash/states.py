"""The states that a power cut could leave, enumerated from a recording, and each one built in memory.

A window is what a disk was given between two flushes. At a cut in it, all windows before are on the disk, and
of its own writes any subset, whole or torn at 512-byte borders, in any order. A state's id says which:
  w12:s3f       window 12, the writes whose bits are set in 3f (hexadecimal, bit 0 the first), in their order
  w12:s3fo      the same in opposite order: where they overlap, the older one stays
  w12:s3ft2.1f  besides, of write 2 the sectors 1f
  w12:r99       each sector of each write by a coin, writes in a shuffled order, both from seed 99
Promise: for one recording an id is always the same image. Used by: crash/judge.py, crash/command.py.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from revenant.crash.log import Entry
from revenant.errors import RevenantError
from revenant.format import BLOCK_SIZE, SECTOR_SIZE, SECTORS_PER_BLOCK

ALL_SUBSETS_MAX = 6
"""A window of so many writes has all its subsets tried, a larger one a sample."""


@dataclass
class Window:
    """The writes between two flushes; `start` entries of the log come before them."""

    start: int
    writes: list[Entry]


def windows_of(entries: Sequence[Entry]) -> list[Window]:
    """Cut a log at its flushes, each of which covers all before it; the last window has none behind it."""
    windows = [Window(0, [])]
    for index, entry in enumerate(entries):
        if entry.flush:
            windows.append(Window(index + 1, []))
        if entry.data:
            windows[-1].writes.append(entry)
    return windows


# --- images ---


class Image:
    """A file's blocks with others laid over them; nothing is ever written to the file.

    It grows by writes behind its end, as a file does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self._base: dict[int, bytes] = {}
        self.changed: dict[int, bytes] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, block: int) -> bytes:
        """A block's bytes, fewer at the end of the file; the same object as long as nothing changed."""
        data = self.changed.get(block)
        if data is None:
            data = self._base.get(block)
        if data is None:
            self._file.seek(block * BLOCK_SIZE)
            data = self._base[block] = self._file.read(BLOCK_SIZE)
        return data

    def write(self, entry: Entry, sectors: int | None = None) -> None:
        """Lay a write over it; `sectors` has a bit for each sector that arrives, None: all."""
        done = 0
        self.size = max(self.size, (entry.sector + entry.sector_count) * SECTOR_SIZE)
        while done < entry.sector_count:
            block, first = divmod(entry.sector + done, SECTORS_PER_BLOCK)
            count = min(SECTORS_PER_BLOCK - first, entry.sector_count - done)
            wanted = (1 << count) - 1 if sectors is None else sectors >> done & (1 << count) - 1
            data = entry.data[done * SECTOR_SIZE : (done + count) * SECTOR_SIZE]
            self._write_block(block, first, data, wanted)
            done += count

    def _write_block(self, block: int, first: int, data: bytes, wanted: int) -> None:
        if len(data) == BLOCK_SIZE and wanted == (1 << SECTORS_PER_BLOCK) - 1:
            self.changed[block] = data
        elif wanted:
            old = bytearray(self.read(block).ljust(BLOCK_SIZE, b"\0"))
            for index in range(len(data) // SECTOR_SIZE):
                if wanted >> index & 1:
                    at = (first + index) * SECTOR_SIZE
                    old[at : at + SECTOR_SIZE] = data[index * SECTOR_SIZE : (index + 1) * SECTOR_SIZE]
            self.changed[block] = bytes(old)

    def with_state(self, state: State, window: Window) -> Image:
        """This image (all windows before are in it) after a cut in its window. Shares the file."""
        image = object.__new__(Image)
        image.__dict__.update(self.__dict__)
        image.changed = dict(self.changed)
        for entry, sectors in state.arrived(window.writes):
            image.write(entry, sectors)
        return image

    def save(self, path: Path) -> None:
        """Lay the changed blocks over a copy of the file."""
        with path.open("r+b") as file:
            file.truncate(self.size)
            for block, data in self.changed.items():
                file.seek(block * BLOCK_SIZE)
                file.write(data)


# --- states ---

ID = re.compile(r"w(\d+):(?:s([0-9a-f]+)(o?)(?:t(\d+)\.([0-9a-f]+))?|r(\d+))")


@dataclass(frozen=True)
class State:
    """What arrived of one window."""

    window: int
    mask: int = 0
    opposite: bool = False
    torn: tuple[int, int] | None = None  # index of a write, bits of its sectors
    seed: int | None = None

    def __str__(self) -> str:
        if self.seed is not None:
            return f"w{self.window}:r{self.seed}"
        torn = f"t{self.torn[0]}.{self.torn[1]:x}" if self.torn else ""
        return f"w{self.window}:s{self.mask:x}{'o' * self.opposite}{torn}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The state of an id; RevenantError if it is none."""
        match = ID.fullmatch(text)
        if match is None:
            raise RevenantError(text, "not a state's id", "one looks like w12:s3f")
        window, mask, opposite, index, sectors, seed = match.groups()
        if seed is not None:
            return cls(int(window), seed=int(seed))
        torn = (int(index), int(sectors, 16)) if index is not None else None
        return cls(int(window), int(mask, 16), bool(opposite), torn)

    def arrived(self, window: Sequence[Entry]) -> Iterator[tuple[Entry, int | None]]:
        """(write, its sectors that arrived; None: all), in the order in which they did."""
        if self.seed is not None:
            rng = random.Random(self.seed)
            for entry in rng.sample(window, len(window)):
                yield entry, rng.getrandbits(entry.sector_count)
            return
        order = range(len(window) - 1, -1, -1) if self.opposite else range(len(window))
        for index in order:
            if self.torn and self.torn[0] == index:
                yield window[index], self.torn[1]
            elif self.mask >> index & 1:
                yield window[index], None


def overlaps(window: Sequence[Entry]) -> bool:
    """Whether two of its writes go to the same sector."""
    ends = sorted((entry.sector, entry.sector + entry.sector_count) for entry in window)
    return any(before[1] > after[0] for before, after in itertools.pairwise(ends))


def masks(count: int, rng: random.Random, sample_count: int) -> list[int]:
    """Subsets of so many writes, but the full one: all, or each prefix, each one left out, and a sample."""
    full = (1 << count) - 1
    if count <= ALL_SUBSETS_MAX:
        return list(range(full))
    chosen = [(1 << index) - 1 for index in range(count)]
    chosen += [full & ~(1 << index) for index in range(count)]
    chosen += [rng.getrandbits(count) for _ in range(sample_count)]
    return [mask for mask in dict.fromkeys(chosen) if mask != full]


def torn_states(number: int, window: Sequence[Entry], rng: random.Random, sample_count: int) -> Iterator[State]:
    """One write of a subset torn: half of them after some sector, half anyhow."""
    for turn in range(sample_count):
        index = rng.randrange(len(window))
        count = window[index].sector_count
        if count > 1:
            sectors = rng.randrange(1, (1 << count) - 1) if turn % 2 else (1 << rng.randrange(1, count)) - 1
            mask = rng.getrandbits(len(window)) & ~(1 << index)
            yield State(number, mask, torn=(index, sectors))


def enumerate_states(windows: Sequence[Window], seed: int, sample_count: int) -> Iterator[State]:
    """Every state to try. A window that arrived whole is the next one's first state, which must do more."""
    for number, window in enumerate(windows):
        writes = window.writes
        rng = random.Random(f"{seed} {number}")
        subsets = masks(len(writes), rng, sample_count) or [0]
        yield from (State(number, mask) for mask in subsets)
        if not writes:
            continue
        if overlaps(writes):
            yield from (State(number, mask, opposite=True) for mask in [*subsets, (1 << len(writes)) - 1])
        yield from dict.fromkeys(torn_states(number, writes, rng, sample_count))
        yield from (State(number, seed=rng.getrandbits(32)) for _ in range(sample_count))
    if windows[-1].writes:
        yield State(len(windows) - 1, (1 << len(windows[-1].writes)) - 1)
