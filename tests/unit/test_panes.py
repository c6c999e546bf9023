"""The screen of `revenant run --ui` without a machine: keys, the terminal's size, memory's places, what panes show."""

from __future__ import annotations

import asyncio
import io

import pytest
import typer
from revenant.errors import MachineError
from revenant.events import Kind
from revenant.record import TraceEvent
from revenant.running import screen_console
from revenant.ui import panes
from revenant.ui.layout import LiveNote
from revenant.ui.live import (
    CLEAN,
    DIRTY,
    FREE,
    FROZEN,
    NOTE_HEAD,
    NOTE_OWNER,
    SNAPSHOT_COUNT_MAX,
    Live,
    Memory,
    Process,
    Snapshot,
    find_note,
)
from revenant.ui.terminal import Terminal, key_bytes
from textual.app import App, ComposeResult


@pytest.mark.parametrize(
    "key, character, sent",
    [
        ("a", "a", b"a"),
        ("ä", "ä", "ä".encode()),
        ("ctrl+c", None, b"\x03"),
        ("ctrl+d", "\x04", b"\x04"),
        ("enter", "\r", b"\r"),
        ("backspace", "\x7f", b"\x7f"),
        ("up", None, b"\x1b[A"),
        ("alt+b", None, b"\x1bb"),
        ("f5", None, b""),
    ],
)
def test_keys(key: str, character: str | None, sent: bytes) -> None:
    assert key_bytes(key, character) == sent


class OnlyTerminal(App[None]):
    """The console pane alone."""

    def compose(self) -> ComposeResult:
        """As large as the screen."""
        self.sent: list[bytes] = []
        self.terminal = Terminal(self.sent.append)
        yield self.terminal


def test_terminal() -> None:
    async def run() -> None:
        app = OnlyTerminal()
        async with app.run_test(size=(40, 10)) as pilot:
            terminal = app.terminal
            terminal.feed(b"".join(b"line %d\r\n" % number for number in range(30)) + b"\x1b[31mred\x1b[0m>>> ")
            assert terminal.text().splitlines()[-2:] == ["line 29", "red>>>"]
            for size in ((30, 5), (60, 20), (60, 8)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                lines = terminal.text().splitlines()
                assert lines[terminal.screen_of_machine.cursor.y].startswith("red>>>"), size
                assert (terminal.screen_of_machine.columns, terminal.screen_of_machine.lines) == size
            history = list(terminal.screen_of_machine.history)
            terminal.feed(b"\x1b[2;4r\x1b[4H" + b"within a region\r\n" * 9 + b"\x1b[r\x1b[8Hred>>> ")
            assert list(terminal.screen_of_machine.history) == history, "what scrolls in a part of the screen"
            terminal.scroll_history(4)
            assert "red" not in terminal.text() and "line 22" in terminal.text()
            await pilot.press("x", "ctrl+a", "ctrl+a", "ctrl+a", "q", "tab")
            assert "red>>>" in terminal.text()
            assert app.sent == [b"x", b"\x01", b"\t"]

    asyncio.run(run())


def test_memory_places() -> None:
    small, large = Memory(256), Memory(4096)
    try:
        assert (small.end, large.end) == (256 << 20, 6 << 30)
        with open(large.path, "r+b") as file:
            file.seek(2 << 30)
            file.write(b"above the hole")
        assert large.read(4 << 30, 5) == b"above"
        assert small.read(1 << 32, 8) == b""
    finally:
        small.close()
        large.close()


def test_notes() -> None:
    own = NOTE_HEAD.pack(9, LiveNote.SIZE, 2, NOTE_OWNER) + LiveNote(version=1, address=77).pack()
    other = NOTE_HEAD.pack(9, 8, 1, NOTE_OWNER) + bytes(8)
    assert find_note(bytes(4096)) is None
    assert find_note(other + bytes(64)) is None
    assert find_note(b"\xff" * 64) is None
    found = find_note(other + own)
    assert found is not None and found.address == 77


def test_map_shows_what_needs_attention() -> None:
    states = bytes([CLEAN] * 100 + [DIRTY] + [CLEAN] * 99 + [FROZEN] + [FREE] * 300)
    assert panes.cell_colour(states[:200], 200) == panes.STATES[DIRTY][1]
    assert panes.cell_colour(states[150:250], 100) == panes.STATES[FROZEN][1]
    assert panes.cell_colour(states[400:], 200) == panes.STATES[FREE][1]
    lines = panes.memory_map(states, 65536, 30, 4).plain.splitlines()
    assert lines == [panes.HALF_BLOCK * 30] * 4
    assert panes.map_span(1025, 65536) == 2048 and panes.map_span(5000, 6000) == 6000


def test_old_snapshots_are_forgotten() -> None:
    memory = Memory(32)
    try:
        live = Live(memory)
        for number in range(SNAPSHOT_COUNT_MAX + 9):
            live._note(TraceEvent(kind=Kind.FREEZE, a=number, b=1), 1 << 32)
        assert list(live.snapshots) == list(range(9, SNAPSHOT_COUNT_MAX + 9))
    finally:
        memory.close()


def test_timeline() -> None:
    snapshots = [Snapshot(number, 0, number, 5.0, 2000) for number in range(1, 9)] + [Snapshot(9, 0, 4)]
    text = panes.timeline(snapshots, 60, 7).plain
    assert "paused 5 µs" in text and "8  8 pages" in text and "durable after 2.0 ms" in text
    assert panes.bars([0, 1, 8], 8, 1) == [" ▁█"]
    assert panes.bars([4, 8], 8, 2) == [" █", "██"]


def test_too_many_processes() -> None:
    processes = [Process(number, 1, f"p{number}", "ended 0", 0, 0, 0) for number in range(20)]
    processes.append(Process(99, 1, "alive", "runs", 3, 1, 0))
    lines = panes.process_rows(processes, 50, 6).plain.splitlines()
    assert len(lines) == 6 and "alive" in lines[1] and lines[-1].strip() == "and 17 more"


def test_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any image is looked at, or made."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(MachineError, match="no terminal") as raised:
        screen_console("stdio", None, False)
    assert raised.value.exit_status == 2
    with pytest.raises(typer.BadParameter):
        screen_console("pty", None, False)
