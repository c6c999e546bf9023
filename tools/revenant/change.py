"""Changes to an image while no machine runs on it: the lock, and the orders to the store's editor.

One change is one durable root made by the kernel's own store code (tools/editor/README.md says why); whatever
interrupts it, the image is as before or as after. Used by: travel.py, upkeep.py.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from revenant.errors import BuildError, StoreError
from revenant.format import ZERO_PAGE, PageKey, StartFailures
from revenant.genesis import build_folder, build_remedy
from revenant.store import Store

LOCK_FIRST_BYTE = 100  # QEMU's locks on a file lie on bytes 100 to 299 (block/file-posix.c)
LOCK_BYTE_COUNT = 200
EDITOR_ERRORS = {
    4: ("", "a damaged map of free blocks is made anew by the next start of the machine"),
    5: ("the store is full", "enlarge it with `revenant grow`"),
}


@dataclass(frozen=True)
class Commit:
    """One root: a new generation (`new`), or the same one with other tags or boot objects."""

    new: bool = False
    record_version: int = 1
    flags: int = 0
    origin: int = 0
    tag_generation: int = 0
    untag_generation: int = 0
    tag: str = ""
    pages: Sequence[PageKey] = ()
    load: Callable[[PageKey], bytes] = lambda _: ZERO_PAGE
    failures: StartFailures | None = None

    def orders(self) -> Iterator[bytes]:
        """What the editor reads: a line or two, then the pages."""
        if self.failures is not None:
            note = self.failures
            yield b"failures %d %d %d %d\n" % (note.start_count, note.heal_count, note.generation, note.mono_ns)
        numbers = (
            int(self.new), self.record_version, self.flags, self.origin, self.tag_generation,
            self.untag_generation, len(self.pages),
        )  # fmt: skip
        yield f"commit {' '.join(map(str, numbers))} {self.tag}".rstrip().encode() + b"\n"
        for key in self.pages:
            yield struct.pack("<QQ", key.space, key.page) + self.load(key)


@contextlib.contextmanager
def locked(image: Path) -> Iterator[int]:
    """The image, open for writing; StoreError while a machine or another change has it.

    The lock is of the open file, so it lasts until the last process that inherited it has ended.
    """
    try:
        fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(image, error.strerror or "cannot be opened") from None
    try:
        take_lock(image, fd)
        yield fd
    finally:
        os.close(fd)


def take_lock(image: Path, fd: int) -> None:
    """A write lock on all bytes where QEMU has its read locks, so that neither gets its lock beside the other."""
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, LOCK_FIRST_BYTE, LOCK_BYTE_COUNT, 0)
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise StoreError(image, f"cannot be locked: {error.strerror}") from None
        raise StoreError(image, "in use by a machine", "end it first; nothing is lost by that") from None


def editor_path() -> Path:
    """The editor that the build made."""
    path = build_folder() / "host" / "store_editor"
    if not path.is_file():
        raise BuildError(path, "missing", build_remedy())
    return path


def edit(store: Store, fd: int, orders: Iterable[bytes]) -> tuple[int, int]:
    """Carry out orders on the locked image: its new (generation, sequence), or StoreError and no change."""
    fars = [far.fileno() for far in store.fars.values()]
    command = [str(editor_path()), str(fd), *map(str, fars)]
    with (
        tempfile.TemporaryFile() as voice,
        subprocess.Popen(
            command, pass_fds=[fd, *fars], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=voice
        ) as editor,
    ):
        assert editor.stdin is not None and editor.stdout is not None
        try:
            editor.stdin.write(b"root %d\n" % store.root.sequence)
            for order in orders:
                editor.stdin.write(order)
        except BrokenPipeError:
            pass  # it has ended: its answer says why
        except BaseException:
            editor.kill()
            with contextlib.suppress(BrokenPipeError):
                editor.stdin.close()
            raise
        answer, _ = editor.communicate()
        voice.seek(0)
        said = voice.read()
    words = answer.split()
    if len(words) == 3 and words[0] == b"ok":
        return int(words[1]), int(words[2])
    raise edit_error(store.path, words, said.decode(errors="replace"))


def edit_error(image: Path | str, words: list[bytes], said: str) -> StoreError:
    """Why an edit failed, for people."""
    code = int(words[1]) if len(words) == 2 else 0
    reason, remedy = EDITOR_ERRORS.get(code, ("", ""))
    lines = [line for line in said.splitlines() if line.strip()]
    said_last = lines[-1] if lines else f"the store's editor failed ({code})"
    return StoreError(image, reason or said_last, remedy)
