"""What QEMU and the kernel say, for a person: whole lines, events of reports in words, progress renewed in place.

Promise: where a console has the same terminal, a line goes above the one that the cursor is in: the prompt, and what is
being typed there, stay as they are, wherever on the screen that is. A line is one write, which terminals do not divide.
Used by: running.py; ui/app.py and machine.py read the same voice from a file.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from typing import IO

from revenant.events import readable

CLEARED_LINE = b"\r\x1b[K"
RENEWED_LINE = (CLEARED_LINE, b"")
WINDOW_TITLE = (b"\x1b]2;", b"\a")
"""Where progress is shown: what comes before and after it. In the title where a console has the terminal's lines."""
REPORT_END = re.compile(rb"^\[ *\d+\.\d+\]   r13 .* r15 [0-9a-f]{16}\n", re.MULTILINE)
"""kernel/proc/syscall.c, program_stopped; a panic has no times before its registers."""
PROGRESS = re.compile(rb"\[ *\d+\.\d+\] store: progress: (.*)\n")

INDEX, SAVE_CURSOR, RESTORE_CURSOR = b"\x1bD", b"\x1b7", b"\x1b8"  # ECMA-48, and as DEC's VT100 has them


def above_cursor(line: bytes, column_count: int) -> bytes:
    """A line for a terminal, put above the cursor's line; the screen scrolls where it has no room for it."""
    row_count = max(-(-len(line.decode(errors="replace")) // column_count), 1)
    room = INDEX * row_count + b"\x1b[%dA" % row_count
    return room + SAVE_CURSOR + b"\r\x1b[%dL" % row_count + line + RESTORE_CURSOR + b"\x1b[%dB" % row_count


class Relay(threading.Thread):
    """Copies a pipe to a stream in whole lines and remembers how it began and ended.

    Lines of progress become one that is renewed, or the window's title, as `progress` says; else nobody sees them.
    Behind the report of a stopped program comes what `explain` makes of it.
    """

    HEAD_SIZE = 1 << 20
    TAIL_SIZE = 16384
    """A report of a panic or a stopped program has half of that."""

    def __init__(
        self,
        fd: int,
        to: IO[bytes],
        progress: tuple[bytes, bytes] | None = None,
        explain: Callable[[str], str] = lambda _report: "",
    ) -> None:
        super().__init__(daemon=True)
        self.fd = fd
        self.to = to
        self.progress = progress
        self.explain = explain
        self.far: dict[bytes, bytes] = {}
        self.head = self.tail = b""
        self.unexplained = b""

    def run(self) -> None:
        """Until all writers are gone."""
        begun = b""
        while data := os.read(self.fd, 65536):
            self.head += data[: self.HEAD_SIZE - len(self.head)]
            self.tail = (self.tail + data)[-self.TAIL_SIZE :]
            self.unexplained = (self.unexplained + data)[-self.TAIL_SIZE :]
            lines, end, begun = (begun + data).rpartition(b"\n")
            self._show(lines + end)
            self._explain()
        self._show(begun)

    def _show(self, data: bytes) -> None:
        self._write_lines(readable(PROGRESS.sub(b"", data)))
        told = PROGRESS.findall(data)
        if told and self.progress:
            self.far |= {line.split()[0]: line for line in told}
            before, after = self.progress
            self.to.write(before + b" | ".join(self.far.values()) + after)
            self.to.flush()

    def _explain(self) -> None:
        """The reports that are whole."""
        end = max((match.end() for match in REPORT_END.finditer(self.unexplained)), default=0)
        if end:
            text = self.explain(self.unexplained[:end].decode(errors="replace"))
            self.unexplained = self.unexplained[end:]
            self._write_lines(text.encode() + b"\n" if text else b"")

    def _write_lines(self, text: bytes) -> None:
        for line in text.splitlines(keepends=True):
            self.to.write(self._placed(line))
            self.to.flush()

    def _placed(self, line: bytes) -> bytes:
        if self.progress == WINDOW_TITLE:
            return above_cursor(line.rstrip(b"\r\n"), shutil.get_terminal_size().columns)
        return CLEARED_LINE + line if self.progress == RENEWED_LINE else line
