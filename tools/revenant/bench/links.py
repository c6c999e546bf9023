"""Far stores behind links, as the benchmarks see them: nbdkit with its delay and rate filters, and what its log counts.

Promise: a server lives as long as its block; every way of reading (ours, QEMU's copy-on-read, a plain copy) goes
through the same filters. Used by: stream.py, misses.py, fill.py; `revenant fleet` serves a file so.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from revenant import nbd
from revenant.qemu import MachineConfig

NEAR_SIZE = 1 << 30


@dataclass(frozen=True)
class Link:
    """A network: the delay of each answer, and bits per second of all answers together (None: unlimited)."""

    name: str
    delay_ms: int
    rate: str | None = None


LINK_A = Link("A", 1, "1000M")
LINK_B = Link("B", 20, "100M")
LINK_C = Link("C", 100, "10M")


@dataclass(frozen=True)
class Traffic:
    """What a far store was asked for since it serves."""

    request_count: int
    byte_count: int

    @classmethod
    def of(cls, server: nbd.Server) -> Traffic:
        """All reads in its log."""
        sizes = [size for _, size in server.reads()]
        return cls(len(sizes), sum(sizes))


@contextmanager
def serving(image: Path, link: Link) -> Iterator[nbd.Server]:
    """nbdkit, up until the end of the block; its socket and log are beside the image until then."""
    socket, log = (image.with_suffix(f".{what}") for what in ("socket", "log"))
    config = nbd.ServerConfig(image, unix=socket, delay_ms=link.delay_ms, rate=link.rate, log=log)
    try:
        with nbd.Server(config) as server:
            yield server
    finally:
        for path in (socket, log):
            path.unlink(missing_ok=True)


def plain_copy_s(server: nbd.Server, to: Path) -> float:
    """Seconds that a copy of the whole image takes, by QEMU's own copier: 8 reads of 2 MiB at a time, no flush."""
    start_s = time.monotonic()
    subprocess.run(["qemu-img", "convert", "-O", "raw", server.uri, to], check=True)
    seconds = time.monotonic() - start_s
    to.unlink()
    return seconds


def blank_near(path: Path) -> Path:
    """A near file with nothing in it."""
    with path.open("wb") as file:
        file.truncate(NEAR_SIZE)
    return path


def overlay(path: Path, size: int, server: nbd.Server, kernel: Path) -> MachineConfig:
    """A machine on QEMU's copy-on-read: a fresh qcow2 overlay over what is served, a store of `size` bytes."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    return MachineConfig(path, kernel=kernel, copied_from=server.uri)
