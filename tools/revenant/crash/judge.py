"""Says of each state whether a power cut may leave it: the independent reader, asked the right question.

The newest root must be the one whose second flush was passed, or one that was written after it and arrived;
no line may have been seen that it does not hold; all that it reaches must be sound (check_store). As a root
names its contents by hash, it then is exactly the generation that the machine froze. A verdict depends on
nothing but the blocks that were read for it: a state with the same in all of them gets the same at once.
Used by: crash/command.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from revenant.check import check_store
from revenant.crash.log import Entry
from revenant.crash.record import Sighting
from revenant.crash.states import Image, State, Window
from revenant.errors import StoreError
from revenant.format import (
    BLOCK_SIZE,
    HEADER_BLOCK,
    HEADER_COPY_BLOCK,
    ROOT_MAGIC,
    SECTORS_PER_BLOCK,
    Pointer,
    Root,
    block_hash,
    root_hash,
)
from revenant.store import Store

VERDICTS_KEPT = 4
ROOT_START = ROOT_MAGIC.to_bytes(8, "little")
BLANK_BLOCKS = (0, HEADER_BLOCK, HEADER_COPY_BLOCK)

known_hash = lru_cache(1 << 17)(block_hash)


class StateStore(Store):
    """A store in an Image instead of a file; `reads` gets every block that is looked at."""

    def __init__(self, image: Image, fars: Sequence[Store], reads: dict[int, bytes]) -> None:
        self.image = image
        self.reads = reads
        super().__init__(image.path, fars)

    def _open(self) -> int:
        self.file_size = self.image.size
        return -1

    def close(self) -> None:
        """The image is not ours."""

    def _pread(self, block: int, size: int) -> bytes:
        data = self.reads[block] = self.image.read(block)
        return data[:size]

    def _verified(self, pointer: Pointer) -> bytes:
        data = self.read_block(pointer.block)
        if known_hash(data) != pointer.hash:
            raise self.fault(f"block {pointer.block} does not have the hash that its pointer says")
        return data


@dataclass(frozen=True)
class Verdict:
    """What a state holds: a sound root, a fault, or neither (a blank disk); and the blocks that say so."""

    root: Root | None
    fault: str
    reads: dict[int, bytes]

    def holds_for(self, image: Image) -> bool:
        """Whether a look at that image would see the same."""
        return all(image.read(block) == data for block, data in self.reads.items())


class Expected:
    """What a cut in the present window may leave: from the writes to ring and headers, and what was seen."""

    def __init__(self, durable: Root | None, sightings: Sequence[Sighting]) -> None:
        self.durable = durable
        self.header_durable = durable is not None
        self.sightings = sightings
        self.pending: dict[bytes, Root] = {}  # roots of this window, by their hash
        self.seen = 0  # newest generation of which a line was seen before the window's end

    def enter(self, window: Window) -> None:
        """Its writes begin."""
        self.pending = {root.hash: root for entry in window.writes for root in roots_in(entry)}
        seen = (s.generation for s in self.sightings if s.entry_count <= window.start)
        self.seen = max(seen, default=0)

    def leave(self, window: Window) -> None:
        """Its flush was passed."""
        newest = [*self.pending.values(), *([self.durable] if self.durable else [])]
        self.durable = max(newest, key=lambda root: root.sequence, default=None)
        headers = (HEADER_BLOCK, HEADER_COPY_BLOCK)
        self.header_durable |= any(block_in(entry, b) for entry in window.writes for b in headers)

    def contradiction(self, root: Root | None) -> str:
        """Why a sound state with that root (None: a blank disk) is not one of those, or an empty string."""
        if root is None and self.header_durable:
            return "the disk is blank, but its header was durable"
        if (root.generation if root else 0) < self.seen:
            found = f"generation {root.generation}" if root else "nothing"
            return f"it recovers to {found}, but a line of generation {self.seen} was seen"
        if root is None or root.hash in self.pending or (self.durable and root.hash == self.durable.hash):
            return ""
        durable = f"root {self.durable.sequence}" if self.durable else "none"
        return f"it recovers to root {root.sequence}; {durable} was durable"


def block_in(entry: Entry, block: int) -> bytes:
    """What a write brings for a block, or nothing."""
    at = (block * SECTORS_PER_BLOCK - entry.sector) * (BLOCK_SIZE // SECTORS_PER_BLOCK)
    return entry.data[at : at + BLOCK_SIZE] if at >= 0 else b""


def roots_in(entry: Entry) -> list[Root]:
    """The root records among a write's blocks. (No workload has a page that looks like one.)"""
    first, count = entry.sector // SECTORS_PER_BLOCK, entry.sector_count // SECTORS_PER_BLOCK
    blocks = [block_in(entry, block) for block in range(first, first + count)]
    roots = [(Root.unpack(data), data) for data in blocks if data.startswith(ROOT_START)]
    return [root for root, data in roots if root_hash(data[:416]) == root.hash]


class Judge:
    """Judges a recording's states, window by window. `image` has all windows before the present one."""

    def __init__(
        self, image: Image, windows: Sequence[Window], fars: Sequence[Store], sightings: Sequence[Sighting]
    ) -> None:
        self.image = image
        self.windows = windows
        self.fars = fars
        self.number = 0
        self.looks = 0  # states that were not like one looked at before
        self.verdicts: list[Verdict] = []
        self.expected = Expected(self._look(image).root, sightings)
        self.expected.enter(windows[0])

    def advance(self, number: int) -> None:
        """Go on to a later window."""
        while self.number < number:
            window = self.windows[self.number]
            for entry in window.writes:
                self.image.write(entry)
            self.expected.leave(window)
            self.number += 1
            self.expected.enter(self.windows[self.number])

    def judge(self, state: State) -> tuple[Verdict, str]:
        """The verdict on a state, and why it must not be (empty: it may)."""
        self.advance(state.window)
        verdict = self._verdict(self.image.with_state(state, self.windows[state.window]))
        return verdict, verdict.fault or self.expected.contradiction(verdict.root)

    def _verdict(self, image: Image) -> Verdict:
        for verdict in reversed(self.verdicts):
            if verdict.holds_for(image):
                return verdict
        verdict = self._look(image)
        self.verdicts = [*self.verdicts[1 - VERDICTS_KEPT :], verdict]
        return verdict

    def _look(self, image: Image) -> Verdict:
        self.looks += 1
        reads: dict[int, bytes] = {}
        try:
            store = StateStore(image, self.fars, reads)
            check_store(store)
            return Verdict(store.root, "", reads)
        except StoreError as error:
            blank = not any(image.read(block).strip(b"\0") for block in BLANK_BLOCKS)
            return Verdict(None, "" if blank else error.reason, reads)
