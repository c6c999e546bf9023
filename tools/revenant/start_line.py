"""What a person sees when a machine goes on: a line of what was found, and the last screen of its console.

Promise: an image that cannot be read to the end costs the screen, never the start. The screen ends where the kernel's
own output begins (kernel/proc/console.c sends again the line in which the certain output ends): nothing comes twice.
Used by: running.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE
from revenant.record import (
    RECORD_CONSOLE_OUT_PAGE,
    RECORD_CONSOLE_OUT_PAGE_COUNT,
    RECORD_CONSOLE_PAGE,
    ConsoleRecord,
)
from revenant.store import Store

OUT_SIZE = RECORD_CONSOLE_OUT_PAGE_COUNT * BLOCK_SIZE
LINE_SIZE_MAX = 256  # of kernel/proc/console.c
UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def age_text(age_s: float) -> str:
    """How long ago, in one unit."""
    for size, name in UNITS:
        count = int(age_s // size)
        if count > 0:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now" if age_s >= 0 else "in the future, by this clock"


def found_line(near: Path, fars: Sequence[str], blank: bool) -> str:
    """Which generation goes on, how old it is, and what far stores are for."""
    if blank:
        return f"{near}: blank, starts from {fars[0]}"
    with Store(near) as store:
        age = age_text(time.time() - store.root.wall_ns / 1e9)
        text = f"{near}: found generation {store.root.generation}, saved {age}"
        if not store.table:
            return text
        if store.root.flags & 1:
            return f"{text}; all of it is here"
        return f"{text}; what is not here yet comes from {', '.join(fars) or 'nowhere: no --far was given'}"


def ring_of(store: Store) -> tuple[ConsoleRecord, bytes]:
    """The console's counters and its output ring."""
    record = ConsoleRecord.unpack(store.record_page(RECORD_CONSOLE_PAGE))
    pages = (store.record_page(RECORD_CONSOLE_OUT_PAGE + i) for i in range(RECORD_CONSOLE_OUT_PAGE_COUNT))
    return record, b"".join(pages)


def shown_before(record: ConsoleRecord, ring: bytes) -> bytes:
    """What is left of the output up to where the kernel will begin."""

    def piece(start: int, end: int) -> bytes:
        return bytes(ring[at % OUT_SIZE] for at in range(start, end))

    first = max(record.out_head - OUT_SIZE, 0)
    line = piece(max(record.out_tail - LINE_SIZE_MAX, first), record.out_tail).rpartition(b"\n")[2]
    return piece(first, max(record.out_tail - len(line), first))


def last_screen(near: Path, fars: Sequence[str], row_count: int) -> bytes:
    """Its last rows, without what the kernel sends again by itself; empty where they cannot be had."""
    files = [Path(uri) for uri in fars if "://" not in uri]
    with suppress(StoreError), Store(near, open_fars(files)) as store:
        lines = shown_before(*ring_of(store)).split(b"\n")
        return b"\n".join(lines[-row_count:])
    return b""
