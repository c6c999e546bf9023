"""`check` finds every kind of damage and names its place; sound stores pass."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant.check import Checker, check_store
from revenant.errors import StoreError
from revenant.format import (
    BLOCK_SIZE,
    MISSING,
    PageKey,
    Pointer,
    Root,
    node_pack,
    node_pointers,
)
from revenant.store import Store
from revenant.writer import StoreWriter

Run = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., tuple[Path, Root]]
PAGES = {PageKey(16, page): bytes([page % 255 + 1]) * BLOCK_SIZE for page in (0, 1, 127, 128, 5000, 1 << 34)}


def check(path: Path) -> None:
    """The structure of a store, whatever its pages contain."""
    with Store(path) as store:
        Checker(store).check_structure()


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))


def allocated_blocks(path: Path) -> list[int]:
    """Blocks that something owns."""
    with Store(path) as store:
        checker = Checker(store)
        checker.check_structure()
        return sorted(checker.owner)


def test_every_allocated_block_counts(small_image: Path) -> None:
    rng = random.Random(5)
    for block in allocated_blocks(small_image):
        offset = block * BLOCK_SIZE + rng.randrange(BLOCK_SIZE)
        flip(small_image, offset, bit := rng.randrange(8))
        with pytest.raises(StoreError):
            check(small_image)
        flip(small_image, offset, bit)
    check(small_image)


@pytest.mark.parametrize("block", [0, 2, 3, 17])
def test_boot_blocks(small_image: Path, block: int) -> None:
    flip(small_image, block * BLOCK_SIZE + 100)
    with pytest.raises(StoreError, match=f"block {block}"):
        check(small_image)


def test_headers(small_image: Path) -> None:
    flip(small_image, BLOCK_SIZE + 40)
    check(small_image)  # the second copy is enough
    flip(small_image, 18 * BLOCK_SIZE + 40)
    with pytest.raises(StoreError, match="hash"):
        check(small_image)


def test_root(small_image: Path) -> None:
    with Store(small_image) as store:
        block = store.header.ring_block(store.root.sequence)
        other = store.header.ring_block(store.root.sequence + 9)
    flip(small_image, other * BLOCK_SIZE)
    with pytest.raises(StoreError, match=f"block {other}"):
        check(small_image)
    flip(small_image, other * BLOCK_SIZE)
    flip(small_image, block * BLOCK_SIZE + 24)
    with pytest.raises(StoreError, match="no valid root"):
        check(small_image)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("free_count", 7, "free blocks"),
        ("generation", 0, "born in generation 1"),
        ("tree_height", 9, "no valid root|heights"),
        ("version", 3, "no valid root|version"),
        ("kernel_size", 0, "no kernel"),
        ("kernel", MISSING, "taken, but nothing"),
    ],
)
def test_root_that_lies(small_image: Path, field: str, value: object, reason: str) -> None:
    with Store(small_image) as store:
        places = {name: getattr(store.root, name) for name in Root.PLACES}
        block = store.header.ring_block(store.root.sequence)
    with small_image.open("r+b") as file:
        file.seek(block * BLOCK_SIZE)
        file.write(Root(**{**places, field: value}).sealed())
    with pytest.raises(StoreError, match=reason):
        check(small_image)


class ForgetsABlock(StoreWriter):
    """The bitmap lacks one block that is used."""

    def _bitmap_page(self, index: int) -> bytes:
        data = bytearray(super()._bitmap_page(index))
        data[self.taken[3] // 8] &= ~(1 << self.taken[3] % 8)
        return bytes(data)


class LeaksABlock(StoreWriter):
    """The bitmap has one block that nothing uses."""

    def _bitmap_page(self, index: int) -> bytes:
        data = bytearray(super()._bitmap_page(index))
        data[2000 // 8] |= 1 << 2000 % 8
        return bytes(data)


class TakesAFixedBlock(StoreWriter):
    """A data page lies in a reserved block."""

    def _put_page(self, block: int, data: bytes) -> Pointer:
        pointer = super()._put_page(block, data)
        if data != PAGES[PageKey(16, 1)]:
            return pointer
        return super()._put_page(20, data)


class SharesWithoutCount(StoreWriter):
    """Two pages are one block, and no share count says so."""

    first: Pointer | None = None

    def _put_page(self, block: int, data: bytes) -> Pointer:
        pointer = super()._put_page(block, data)
        if data in (PAGES[PageKey(16, 0)], PAGES[PageKey(16, 1)]):
            self.first = self.first or pointer
            return self.first
        return pointer


class WrongLevel(StoreWriter):
    """A pointer to a page says that it is a node."""

    def _put_page(self, block: int, data: bytes) -> Pointer:
        pointer = super()._put_page(block, data)
        if data == PAGES[PageKey(16, 1)]:
            return Pointer.make(block, 2, self.generation, data)
        return pointer


class BornTooLate(StoreWriter):
    """A pointer from the future."""

    def _put_page(self, block: int, data: bytes) -> Pointer:
        super()._put_page(block, data)
        return Pointer.make(block, 0, self.generation + (data == PAGES[PageKey(16, 1)]), data)


@pytest.mark.parametrize(
    ("writer", "reason"),
    [
        (ForgetsABlock, "marked free"),
        (LeaksABlock, "block 2000: is marked taken"),
        (TakesAFixedBlock, "no block can have"),
        (SharesWithoutCount, "share count"),
        (WrongLevel, "level 2"),
        (BornTooLate, "born in generation 2"),
    ],
)
def test_writers_that_lie(write_store: Write, writer: type[StoreWriter], reason: str) -> None:
    path, _ = write_store(PAGES, writer)
    with pytest.raises(StoreError, match=reason):
        check(path)


def test_sound_store(write_store: Write) -> None:
    path, _ = write_store(PAGES)
    check(path)
    with Store(path) as store:
        assert {key: store.read(pointer, 0) for key, pointer in store.pages(store.tree)} == PAGES
        assert store.page(store.tree, 16, 1 << 34) == PAGES[PageKey(16, 1 << 34)]
        with pytest.raises(StoreError, match="machine record"):
            check_store(store)


@pytest.mark.parametrize("kind", ["truncated", "foreign", "empty", "blank", "older", "missing", "folder"])
def test_bad_files(small_image: Path, run_revenant: Run, kind: str) -> None:
    if kind == "truncated":
        os.truncate(small_image, 5 << 20)
    elif kind == "foreign":
        small_image.write_bytes(random.Random(1).randbytes(8 << 20))
    elif kind == "empty":
        small_image.write_bytes(b"")
    elif kind == "blank":
        small_image.write_bytes(bytes(8 << 20))
    elif kind == "older":
        make_version(small_image, 0)
    elif kind == "missing":
        small_image.unlink()
    else:
        small_image.unlink()
        small_image.mkdir()
    before = small_image.read_bytes() if small_image.is_file() else None
    for command in ("check", "info", "log"):
        result = run_revenant(command, small_image)
        assert result.returncode == 1
        assert str(small_image) in result.stderr and len(result.stderr.splitlines()) == 1
    assert before is None or small_image.read_bytes() == before


def make_version(path: Path, version: int) -> None:
    """Both headers say another format version, with a right hash."""
    from revenant.format import Header

    with Store(path) as store:
        places = {name: getattr(store.header, name) for name in Header.PLACES}
    with path.open("r+b") as file:
        for block in (1, 18):
            file.seek(block * BLOCK_SIZE)
            file.write(Header(**{**places, "version": version}).sealed())


def test_command(small_image: Path, run_revenant: Run) -> None:
    result = run_revenant("check", small_image, "--json")
    assert result.returncode == 0 and json.loads(result.stdout)["result"] == "sound"
    with Store(small_image) as store:
        block = dict(store.pages(store.tree))[PageKey(16, 0x403)].block
    flip(small_image, block * BLOCK_SIZE + 7)
    result = run_revenant("check", small_image)
    assert result.returncode == 1 and f"block {block}" in result.stderr and "space 16" in result.stderr


def test_node_codec() -> None:
    pointers = {3: Pointer.make(77, 0, 5, b"x"), 127: Pointer.make(78, 2, 6, b"y")}
    data = node_pack(pointers)
    assert dict(node_pointers(data)) == pointers and len(data) == BLOCK_SIZE
    assert struct.unpack_from("<Q", data, 0) == (0,)
    assert pointers[3].translated(2).store == 2 and pointers[3].translated(0) == pointers[3]
    assert MISSING.translated(9) is MISSING
