"""The reader of logs of writes, on crafted logs: the format is dm-log-writes (QEMU's blklogwrites)."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from revenant.crash.log import DISCARD, FLUSH, MAGIC, Entry, logged_count, read_log
from revenant.errors import RevenantError

FUA = 2
SECTOR = 512


def superblock(entry_count: int, magic: int = MAGIC, version: int = 1, sector_size: int = SECTOR) -> bytes:
    return struct.pack("<QQQI", magic, version, entry_count, sector_size).ljust(SECTOR, b"\0")


def entry(sector: int, data: bytes = b"", flags: int = 0, sector_count: int | None = None) -> bytes:
    count = len(data) // SECTOR if sector_count is None else sector_count
    return struct.pack("<QQQQ", sector, count, flags, 0).ljust(SECTOR, b"\0") + data


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "writes.log"


def test_writes_flushes_and_discards(log: Path) -> None:
    one, two = b"1" * SECTOR, b"2" * SECTOR * 8
    entries = entry(7, one) + entry(0, flags=FLUSH) + entry(8, two) + entry(9, flags=DISCARD, sector_count=3)
    log.write_bytes(superblock(4) + entries)
    assert logged_count(log) == 4
    assert read_log(log) == [
        Entry(7, one), Entry(0, b"", flush=True), Entry(8, two), Entry(9, bytes(3 * SECTOR)),
    ]  # fmt: skip


def test_what_the_superblock_does_not_count_is_not_read(log: Path) -> None:
    log.write_bytes(superblock(1) + entry(0, flags=FLUSH) + entry(7, b"1" * SECTOR))
    assert read_log(log) == [Entry(0, b"", flush=True)]


def test_a_growing_log_has_no_entries_yet(log: Path) -> None:
    log.write_bytes(b"")
    assert logged_count(log) == 0


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "shorter than a sector"),
        (bytes(SECTOR), "no log of writes"),
        (superblock(0, magic=MAGIC + 1), "no log of writes"),
        (superblock(0, version=2), "no log of writes"),
        (superblock(0, sector_size=4096), "4096 bytes"),
        (superblock(1), "ends before entry 0"),
        (superblock(1) + entry(0, b"1" * SECTOR, sector_count=2), "ends inside entry 0"),
        (superblock(1) + entry(0, b"1" * SECTOR, FUA), "flags 0x2"),
    ],
)
def test_a_file_that_is_no_such_log(log: Path, contents: bytes, reason: str) -> None:
    log.write_bytes(contents)
    with pytest.raises(RevenantError, match=reason) as caught:
        read_log(log)
    assert str(log) in str(caught.value)
