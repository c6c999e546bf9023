"""Blocks that are anything at all, behind good hashes up to the root: the reader says StoreError or succeeds.

It never raises anything else and ends in bounded time, also when a few blocks stand for a tree without end.
"""

from __future__ import annotations

import contextlib
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from revenant.errors import StoreError
from revenant.format import BLOCK_SIZE, NODE_FANOUT, Pointer, Root, node_pack, node_pointers
from revenant.store import Store
from test_reader import read_everything

TIME_LIMIT_S = 60
POINTERS = ("tree", "meta", "kernel", "loader", "resume", "stores")


class SealedImage:
    """An image whose blocks can be changed so that the hashes above them are right again."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(path.read_bytes())
        self.parents: dict[int, set[tuple[int, int]]] = defaultdict(set)  # block: (block, offset) of pointers
        self.levels: dict[int, int] = {}
        with Store(path) as store:
            self.root_block = store.header.ring_block(store.root.sequence)
            heights = {"tree": store.root.tree_height, "meta": store.root.meta_height}
            for name in POINTERS:
                pointer: Pointer = getattr(store.root, name)
                self._learn(pointer, heights.get(name, 0), self.root_block, Root.PLACES[name].offset)

    def _learn(self, pointer: Pointer, directory: int, parent: int, offset: int) -> None:
        """`directory`: how many levels of it are left; its leaves carry their own level."""
        if not pointer.present or pointer.store:
            return
        self.parents[pointer.block].add((parent, offset))
        level = directory or pointer.level
        self.levels[pointer.block] = level
        for slot, child in node_pointers(self.block(pointer.block)) if level else ():
            self._learn(child, max(directory - 1, 0), pointer.block, slot * 32)

    def block(self, index: int) -> bytes:
        """The contents of a block."""
        return bytes(self.data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE])

    def set(self, index: int, contents: bytes) -> None:
        """Changes a block, and what has to follow."""
        self.data[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE] = contents
        if index == self.root_block:
            sealed = Root.unpack(contents).sealed()
            self.data[index * BLOCK_SIZE : index * BLOCK_SIZE + len(sealed)] = sealed
            return
        digest = Pointer.make(index, 0, 1, contents).hash
        for parent, offset in self.parents[index]:
            above = bytearray(self.block(parent))
            above[offset + 16 : offset + 32] = digest
            self.set(parent, bytes(above))


@contextlib.contextmanager
def time_limit() -> Iterator[None]:
    """Fails what never ends."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(TIME_LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refuse(image: SealedImage, path: Path) -> None:
    """Reads all of it."""
    path.write_bytes(image.data)
    with time_limit(), contextlib.suppress(StoreError):
        read_everything(path)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_block_behind_good_hashes(small_image: Path, data: st.DataObject) -> None:
    image = SealedImage(small_image)
    blocks = [image.root_block, *sorted(image.levels)]
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.sampled_from(blocks))
        contents = bytearray(image.block(block))
        if data.draw(st.booleans()):
            offset = data.draw(st.integers(0, BLOCK_SIZE - 1))
            junk = data.draw(st.binary(min_size=1, max_size=40))[: BLOCK_SIZE - offset]
            contents[offset : offset + len(junk)] = junk
        else:
            slot = data.draw(st.integers(0, NODE_FANOUT - 1))
            target = data.draw(st.sampled_from(blocks))
            pointer = Pointer.make(target, data.draw(st.integers(0, 7)), 1, image.block(target))
            contents[slot * 32 : slot * 32 + 32] = pointer.pack()
        image.set(block, bytes(contents))
    read_or_refuse(image, small_image.with_name("sealed.img"))


@pytest.mark.parametrize("name", ["tree", "meta", "resume"])
def test_a_tree_without_end(small_image: Path, name: str) -> None:
    """Five nodes, each of which leads 128 times to the next: 34 thousand million pages."""
    image = SealedImage(small_image)
    free = [block for block in range(1000, 1400) if block not in image.levels and not any(image.block(block))]
    contents = b"\1" * BLOCK_SIZE
    for level, block in enumerate(free[:6]):
        image.set(block, contents)
        pointer = Pointer.make(block, level, 1, contents)
        contents = node_pack(dict.fromkeys(range(NODE_FANOUT), pointer))
    place = Root.PLACES[name].offset
    above, offset = image.root_block, place
    if name != "resume":  # space 0, or the bitmap
        tops = (block for block, parents in image.parents.items() if (above, place) in parents)
        above, offset = next(tops), 0
    edited = bytearray(image.block(above))
    edited[offset : offset + 32] = pointer.pack()
    image.set(above, bytes(edited))
    path = small_image.with_name("endless.img")
    path.write_bytes(image.data)
    with time_limit(), pytest.raises(StoreError):
        read_everything(path)
