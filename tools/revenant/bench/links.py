"""Far stores behind links, as the benchmarks see them: nbdkit with its delay and rate filters, and what its log counts.

Promise: a server lives as long as its block; every way of reading (ours, QEMU's copy-on-read, a plain copy) goes
through the same filters. Used by: stream.py, misses.py, fill.py; `revenant fleet` serves a file so.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from revenant import nbd
from revenant.errors import RevenantError
from revenant.machine import die_with_parent
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
    """What a far store was asked for, from nbdkit's log filter (nbdkit-log-filter(1))."""

    request_count: int
    byte_count: int

    @classmethod
    def of(cls, log: Path) -> Traffic:
        """All reads in the log."""
        counts = [int(count, 16) for count in re.findall(r" Read .*?count=(0x[0-9a-f]+)", log.read_text())]
        return cls(len(counts), sum(counts))


@dataclass(frozen=True)
class Server:
    """An image that is being served, and the log of what was read from it."""

    uri: str
    log: Path

    @property
    def traffic(self) -> Traffic:
        """Since it serves."""
        return Traffic.of(self.log)


@contextmanager
def serving(image: Path, link: Link) -> Iterator[Server]:
    """nbdkit, up until the end of the block; its socket, log and pid file are beside the image until then."""
    socket, log, pidfile = (image.with_suffix(f".{what}") for what in ("socket", "log", "pid"))
    server = nbd.ServerConfig(
        image, unix=socket, delay_ms=link.delay_ms, rate=link.rate, log=log, pidfile=pidfile
    )
    log.write_text("")
    process = subprocess.Popen(
        nbd.command_line(server), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent
    )
    try:
        while not pidfile.exists():  # written when the socket accepts connections (nbdkit(1))
            if process.poll() is not None:
                raise RevenantError("nbdkit", "ended at once", "is it installed? apt-get install nbdkit")
            time.sleep(0.01)
        yield Server(server.uri, log)
    finally:
        process.terminate()
        process.wait()
        for path in (socket, log, pidfile):
            path.unlink(missing_ok=True)


def plain_copy_s(server: Server, to: Path) -> float:
    """Seconds that a copy of the whole image takes, by QEMU's own copier: 8 reads at a time."""
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


def overlay(path: Path, size: int, server: Server, kernel: Path) -> MachineConfig:
    """A machine on QEMU's copy-on-read: a fresh qcow2 overlay over what is served, a store of `size` bytes."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)], check=True)
    return MachineConfig(path, kernel=kernel, copied_from=server.uri)
