"""The files region of a machine that is made: a littlefs with files of this host (littlefs-python).

Promise: the file system that userland/files.c would have formatted there: blocks are pages, disk version 2.1.
Used by: `revenant create --add`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from littlefs import LittleFS, LittleFSError
from littlefs.context import UserContext
from littlefs.lfs import LFSConfig

from revenant.errors import RevenantError
from revenant.format import BLOCK_SIZE, ZERO_PAGE

ACCESS_SIZE = 32  # bytes: MicroPython's VfsLfs2 reads and writes such pieces
DISK_VERSION = 0x00020001


class Memory(UserContext):
    """Pages, zero at first; memory needs no erasing."""

    def erase(self, cfg: LFSConfig, block: int) -> int:
        """Nothing to do."""
        return 0


@dataclass(frozen=True)
class Addition:
    """A file or a folder of this host, and its place in the machine."""

    source: Path
    target: PurePosixPath

    @classmethod
    def parse(cls, text: str) -> Addition:
        """FILE[:TARGET]; without TARGET it goes to the machine's root under its own name."""
        path, _, target = text.rpartition(":")
        if not path or Path(text).exists():
            path, target = text, Path(text).resolve().name
        return cls(Path(path), PurePosixPath("/") / target)

    def files(self) -> Iterator[tuple[Path, PurePosixPath]]:
        """Every file, a folder's in order of their names."""
        if not self.source.is_dir():
            yield self.source, self.target
            return
        for path in sorted(self.source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path, self.target / path.relative_to(self.source).as_posix()


def files_pages(additions: Iterable[Addition], size: int) -> dict[int, bytes]:
    """The pages of a region of `size` bytes, those that are not zero; RevenantError names what cannot be put there."""
    memory = Memory(buffer=bytearray(size))
    system = LittleFS(
        memory,
        block_size=BLOCK_SIZE,
        block_count=size // BLOCK_SIZE,
        read_size=ACCESS_SIZE,
        prog_size=ACCESS_SIZE,
        cache_size=BLOCK_SIZE,
        lookahead_size=size // BLOCK_SIZE // 8,
        disk_version=DISK_VERSION,
    )
    for addition in additions:
        for source, target in addition.files():
            put(system, source, target)
    system.unmount()
    pages = (bytes(memory.buffer[at : at + BLOCK_SIZE]) for at in range(0, size, BLOCK_SIZE))
    return {number: page for number, page in enumerate(pages) if page != ZERO_PAGE}


def put(system: LittleFS, source: Path, target: PurePosixPath) -> None:
    """Copy one file."""
    try:
        data = source.read_bytes()
        system.makedirs(str(target.parent), exist_ok=True)
        with system.open(str(target), "wb") as file:
            file.write(data)
    except (OSError, LittleFSError) as error:
        raise RevenantError(source, f"cannot be put into the machine as {target}: {error}") from None
