"""What QEMU and the kernel say, for a person: whole lines, events of reports in words, progress renewed in place.

Promise: where a console has the same terminal, a line goes above the one that the cursor is in: the prompt, and what is
being typed there, stay as they are, wherever on the screen that is. A line is one write, which terminals do not divide.
Used by: running.py, of a pipe; keeper.py, script.py and ui/app.py, of the file that machine.py has it in.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO

from revenant.events import readable
from revenant.machine import Machine, local_images
from revenant.symbols import explain

CLEARED_LINE = b"\r\x1b[K"
RENEWED_LINE = (CLEARED_LINE, b"")
WINDOW_TITLE = (b"\x1b]2;", b"\a")
"""Where progress is shown: what comes before and after it. In the title where a console has the terminal's lines."""
REPORT_END = re.compile(rb"^\[ *\d+\.\d+\]   r13 .* r15 [0-9a-f]{16}\n", re.MULTILINE)
"""kernel/proc/syscall.c, program_stopped; a panic has no times before its registers."""
PROGRESS = re.compile(rb"\[ *\d+\.\d+\] store: progress: (.*)\n")
FOR_TOOLS = re.compile(rb"\[ *\d+\.\d+\] (?:store: progress:|console: goes on at byte) .*\n")
PANIC, EVENTS = b"panic: ", b"last "
"""kernel/lib/log.c, kernel/lib/trace.c"""
RELAY_TIMEOUT_S = 20
"""Names for a report's addresses take seconds."""
LOOK_INTERVAL_S = 0.1

INDEX, SAVE_CURSOR, RESTORE_CURSOR = b"\x1bD", b"\x1b7", b"\x1b8"  # ECMA-48, and as DEC's VT100 has them


def above_cursor(line: bytes, column_count: int) -> bytes:
    """A line for a terminal, put above the cursor's line; the screen scrolls where it has no room for it."""
    row_count = max(-(-len(line.decode(errors="replace")) // column_count), 1)
    room = INDEX * row_count + b"\x1b[%dA" % row_count
    return room + SAVE_CURSOR + b"\r\x1b[%dL" % row_count + line + RESTORE_CURSOR + b"\x1b[%dB" % row_count


def piped(fd: int) -> Iterator[bytes]:
    """What comes from a pipe, until all writers are gone."""
    while data := os.read(fd, 65536):
        yield data


def growing(file: IO[bytes], ended: threading.Event) -> Iterator[bytes]:
    """What is written to a file, until it has ended."""
    data = b""
    while not ended.wait(0 if data else LOOK_INTERVAL_S):
        if data := file.read():
            yield data
    yield file.read()


class Relay(threading.Thread):
    """Passes on what comes, in whole lines, and remembers how it began and ended.

    Lines of progress become one that is renewed, or the window's title, as `progress` says; else nobody sees them.
    Behind the report of a stopped program comes what `explain` makes of it.
    """

    HEAD_SIZE = 1 << 20
    TAIL_SIZE = 16384
    """A report of a panic or a stopped program has half of that."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        write: Callable[[bytes], None],
        progress: tuple[bytes, bytes] | None = None,
        explain: Callable[[str], str] = lambda _report: "",
    ) -> None:
        super().__init__(daemon=True)
        self.pieces = pieces
        self.write = write
        self.progress = progress
        self.explain = explain
        self.far: dict[bytes, bytes] = {}
        self.head = self.tail = b""
        self.unexplained = b""
        self.in_panic = False

    def run(self) -> None:
        """Until there are no more."""
        begun = b""
        for data in self.pieces:
            self.head += data[: self.HEAD_SIZE - len(self.head)]
            self.tail = (self.tail + data)[-self.TAIL_SIZE :]
            self.unexplained = (self.unexplained + data)[-self.TAIL_SIZE :]
            lines, end, begun = (begun + data).rpartition(b"\n")
            self._show(lines + end)
            self._explain()
        self._show(begun)

    def _show(self, data: bytes) -> None:
        self._write_lines(readable(FOR_TOOLS.sub(b"", data)))
        told = PROGRESS.findall(data)
        if told and self.progress:
            self.far |= {line.split()[0]: line for line in told}
            before, after = self.progress
            self.write(before + b" | ".join(self.far.values()) + after)

    def _explain(self) -> None:
        """The reports that are whole."""
        end = max((match.end() for match in REPORT_END.finditer(self.unexplained)), default=0)
        if end:
            text = self.explain(self.unexplained[:end].decode(errors="replace"))
            self.unexplained = self.unexplained[end:]
            self._write_lines(text.encode() + b"\n" if text else b"")

    def _write_lines(self, text: bytes) -> None:
        for line in text.splitlines(keepends=True):
            if not self._is_on_console(line):
                self.write(self._placed(line))

    def _is_on_console(self, line: bytes) -> bool:
        """Whether a console in the same terminal says a line, too: a panic's, up to the last events."""
        if line.startswith(PANIC):
            self.in_panic = True
        elif line.startswith(EVENTS):
            self.in_panic = False
        return self.in_panic and self.progress == WINDOW_TITLE

    def _placed(self, line: bytes) -> bytes:
        if self.progress == WINDOW_TITLE:
            return above_cursor(line.rstrip(b"\r\n"), shutil.get_terminal_size().columns)
        return CLEARED_LINE + line if self.progress == RENEWED_LINE else line


def to_stderr(data: bytes) -> None:
    """At once."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


@contextmanager
def told(machine: Machine, with_names: bool = True) -> Iterator[Relay]:
    """Show on stderr what a machine says, while the block runs; afterwards all of it is shown."""
    progress = RENEWED_LINE if sys.stderr.isatty() else None
    ended = threading.Event()
    with machine.voice_path.open("rb") as file:
        relay = Relay(growing(file, ended), to_stderr, progress)
        if with_names:
            relay.explain = lambda report: explain(report, local_images(machine.config))
        relay.start()
        try:
            yield relay
        finally:
            ended.set()
            relay.join(RELAY_TIMEOUT_S)
