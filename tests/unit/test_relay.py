"""What people see of what QEMU and the kernel say: lines as they are, progress renewed in place or not at all."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pyte
import pytest
from revenant.relay import RENEWED_LINE, WINDOW_TITLE, Relay, above_cursor, growing, piped

SAID = [
    b"[    0.1] generation 2 goes on\n",
    b"[    0.5] store: progress: far1 10 fetched; 90 remain\n[    0.5] store: progress: far2 1 fetched; 90 remain\n",
    b"  [   0.612345] page in 0 400000 10\n  [   0.612350] said: near is complete\n",
    b"[    0.9] store: near is complete\n",
]
COLUMN_COUNT, LINE_COUNT = 80, 24


@pytest.mark.parametrize("progress", [None, RENEWED_LINE, WINDOW_TITLE])
def test_progress(progress: tuple[bytes, bytes] | None) -> None:
    shown = io.BytesIO()
    reading, writing = os.pipe()
    relay = Relay(piped(reading), shown.write, progress)
    os.write(writing, b"".join(SAID))
    os.close(writing)
    relay.run()
    os.close(reading)
    before, after = progress or (b"", b"")
    line = before + b"far1 10 fetched; 90 remain | far2 1 fetched; 90 remain" + after
    assert shown.getvalue().count(line) == (progress is not None)
    assert b"store: progress" not in shown.getvalue() and b"store: progress" in relay.tail
    assert SAID[0].strip() in shown.getvalue() and SAID[3].strip() in shown.getvalue()
    assert b"] page in       0x400000 of space 16 from near" in shown.getvalue(), "as `revenant trace` has it"
    assert b"] notice        near is complete" in shown.getvalue()


def test_a_report_is_explained_where_it_ends() -> None:
    shown = io.BytesIO()
    reading, writing = os.pipe()
    explained: list[str] = []

    def explain(report: str) -> str:
        explained.append(report)
        return f"explanation {len(explained)}"

    relay = Relay(piped(reading), shown.write, None, explain)
    registers = "[    1.500000]   r13 0000000000000001  r14 0000000000000002  r15 0000000000000003\n"
    os.write(writing, f"process 3 stopped\n{registers}[    1.6] goes on\n".encode())
    relay.start()
    while len(explained) < 1:
        assert relay.is_alive()
    os.write(writing, f"process 1 stopped\n{registers}[    1.7] the end\n".encode())
    os.close(writing)
    relay.join()
    os.close(reading)
    assert explained == [f"process 3 stopped\n{registers}", f"[    1.6] goes on\nprocess 1 stopped\n{registers}"]
    assert shown.getvalue().decode().splitlines()[3::4] == ["explanation 1", "explanation 2"]
    assert relay.unexplained == b"[    1.7] the end\n"


@pytest.mark.parametrize(("progress", "is_twice"), [(RENEWED_LINE, True), (WINDOW_TITLE, False)])
def test_a_panic_is_said_once(progress: tuple[bytes, bytes], is_twice: bool) -> None:
    """A console in the same terminal has said it, but for the events."""
    shown = io.BytesIO()
    said = [b"[    1.0] before\n\npanic: NMI\n  rax 1\nbacktrace: 1\n", b"last 1 events (words):\n  [   0.6] said: x\n"]
    Relay(iter(said), shown.write, progress).run()
    assert all(text in shown.getvalue() for text in (b"before", b"last 1 events", b"said: x"))
    assert [text in shown.getvalue() for text in (b"panic", b"rax", b"backtrace")] == [is_twice] * 3


def test_a_file_that_grows(tmp_path: Path) -> None:
    """All of it, also what is written between the last look and the end."""
    path, ended = tmp_path / "voice", threading.Event()
    with path.open("wb", buffering=0) as written, path.open("rb") as file:
        written.write(b"one")
        pieces = growing(file, ended)
        assert next(pieces) == b"one"
        written.write(b"two")
        ended.set()
        assert b"".join(pieces) == b"two"


@pytest.mark.parametrize("row", [0, 5, LINE_COUNT - 2, LINE_COUNT - 1])
@pytest.mark.parametrize("line_size", [0, 30, COLUMN_COUNT, 2 * COLUMN_COUNT + 1])
def test_a_line_goes_above_what_is_being_typed(row: int, line_size: int) -> None:
    screen = pyte.Screen(COLUMN_COUNT, LINE_COUNT)
    stream = pyte.ByteStream(screen)
    stream.feed(b"\r\n".join(b"row %d" % number for number in range(row)) + b"\r\n" * (row > 0) + b">>> print(6*")
    stream.feed(above_cursor(b"x" * line_size, COLUMN_COUNT))
    stream.feed(b"7)")
    shown = [line.rstrip() for line in screen.display]
    prompt, above = shown.index(">>> print(6*7)"), max(-(-line_size // COLUMN_COUNT), 1)
    assert "".join(shown[prompt - above : prompt]) == "x" * line_size and not any(shown[prompt + 1 :])
    assert shown[: prompt - above] == [f"row {number}" for number in range(row)][-(prompt - above) :]
