"""Reads a log of a disk's writes and flushes, as QEMU's blklogwrites keeps it (format: dm-log-writes).

Promise: the entries up to the last flush, in the order in which the device completed them; a file that is no
such log is a RevenantError. Used by: crash/states.py.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from revenant.errors import RevenantError
from revenant.format import SECTOR_SIZE

# Linux, Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c
MAGIC = 0x6A736677736872
VERSION = 1
FLUSH, DISCARD = 1, 4
SUPERBLOCK = struct.Struct("<QQQI")  # magic, version, entries, bytes of a sector
ENTRY = struct.Struct("<QQQQ")  # first sector, sectors, flags, bytes of a mark


@dataclass(frozen=True)
class Entry:
    """One request: `data` goes to the disk from `sector` on (none: a flush alone)."""

    sector: int
    data: bytes
    flush: bool = False

    @property
    def sector_count(self) -> int:
        """Of 512 bytes."""
        return len(self.data) // SECTOR_SIZE


def logged_count(path: Path) -> int:
    """Entries up to the last flush so far, of a log that grows; 0 while there is none."""
    with path.open("rb") as file:
        data = file.read(SUPERBLOCK.size)
    return int(SUPERBLOCK.unpack(data)[2]) if len(data) == SUPERBLOCK.size else 0


def read_log(path: Path) -> list[Entry]:
    """All entries that the superblock counts, which QEMU writes at each flush: none after the last one."""
    data = path.read_bytes()
    if len(data) < SECTOR_SIZE:
        raise RevenantError(path, "no log of writes: it is shorter than a sector")
    magic, version, entry_count, sector_size = SUPERBLOCK.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise RevenantError(path, "no log of writes", "was the recording ended before its first flush?")
    if sector_size != SECTOR_SIZE:
        raise RevenantError(path, f"its sectors have {sector_size} bytes, not {SECTOR_SIZE}")
    entries, offset = [], SECTOR_SIZE
    for index in range(entry_count):
        entry, offset = read_entry(path, data, offset, index)
        entries.append(entry)
    return entries


def read_entry(path: Path, data: bytes, offset: int, index: int) -> tuple[Entry, int]:
    """The entry at an offset, and where the next one is. What was discarded reads as zeros here."""
    start = offset + SECTOR_SIZE
    if start > len(data):
        raise RevenantError(path, f"it ends before entry {index}")
    sector, sector_count, flags, _ = ENTRY.unpack_from(data, offset)
    if flags & ~(FLUSH | DISCARD):
        raise RevenantError(path, f"entry {index} has flags {flags:#x}, which this reader does not know")
    size = sector_count * SECTOR_SIZE
    if flags & DISCARD:
        return Entry(sector, bytes(size), bool(flags & FLUSH)), start
    if start + size > len(data):
        raise RevenantError(path, f"it ends inside entry {index}")
    return Entry(sector, data[start : start + size], bool(flags & FLUSH)), start + size
