"""`revenant run --ui`: the screen of a real machine that streams, and what is left of it on a real terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from revenant.crash.watched import MEMORY_MIB, KernelMap, Watched
from revenant.pytest_plugin import FarStore, MachineUnderTest
from revenant.qemu import MEMORY_MIB_DEFAULT
from revenant.ui import app
from revenant.ui.app import Pane, Ui
from revenant.ui.layout import FRAME_SIZE
from revenant.ui.live import CLEAN, KERNEL, NODE, TABLE, Live, Memory, Snapshot
from textual.pilot import Pilot

TIMEOUT_S = 60
SIZE = (150, 44)
FRAME_WIDTH = 3
FAULT = b"revenant.spawn('import uctypes; uctypes.bytearray_at(8, 1)[0]', name='bad')\r"


class Screen:
    """A screen under test: keys in, text out."""

    def __init__(self, ui: Ui, pilot: Pilot[Any]) -> None:
        self.ui, self.pilot = ui, pilot

    async def until(self, holds: Callable[[], object], what: str) -> None:
        """Let the screen live until something is so."""
        end_s = time.monotonic() + TIMEOUT_S
        while not holds():
            assert time.monotonic() < end_s, f"{what}: {self.ui.terminal.text()}\n{self.ui.moment}"
            await self.pilot.pause(0.02)

    def text(self, pane: str) -> str:
        """What a pane shows, and its title."""
        found = self.ui.query_one(f"#{pane}", Pane)
        return f"{found.border_title}\n{found.content}"


def on_screen(machine: MachineUnderTest, check: Callable[[Screen], Any], memory_mib: int = MEMORY_MIB_DEFAULT) -> None:
    """Start the machine and do something with its screen."""

    async def run() -> None:
        memory = Memory(memory_mib)
        ui = Ui(machine(memory_mib=memory_mib, memory_file=memory.path), Live(memory))
        async with ui.run_test(size=SIZE) as pilot:
            await check(Screen(ui, pilot))
        memory.close()

    asyncio.run(run())


def test_panes_of_a_machine_that_streams(far_store: FarStore, machine: MachineUnderTest) -> None:
    async def check(screen: Screen) -> None:
        ui = screen.ui
        await screen.until(lambda: ">>>" in ui.terminal.text(), "prompt")
        await screen.pilot.press(*"6*7", "enter")
        await screen.until(lambda: "\n42\n" in ui.terminal.text(), "answer")
        ui.send(b"import revenant; id = revenant.spawn('revenant.receive()', name='listener'); revenant.commit()\r")
        await screen.until(lambda: "listener" in screen.text("processes"), "process")
        assert "python" in screen.text("processes")
        await screen.until(lambda: "durable after" in screen.text("snapshots"), "generation")
        assert ui.moment is not None
        states = ui.moment.frames.states
        assert {KERNEL, TABLE, NODE, CLEAN} <= set(states)
        ui.send(b"big = bytearray(3 << 20)\r")
        await screen.until(lambda: grown(ui) and "dirty" in screen.text("memory"), "memory")
        await screen.until(lambda: newest_snapshot(ui).pause_us is not None, "the newest snapshot's pause")
        assert newest_snapshot(ui).generation >= ui.moment.stats.generation
        await screen.until(lambda: "all of it is here" in screen.text("stores"), "the fill")
        fetched = ui.moment.stats.far[0].fetched
        assert fetched > 0 and ui.moment.stats.far[0].verified > 0
        ui.send(b"\rrevenant.stats()['far']\r")
        await screen.until(lambda: f"{{1: ({fetched}, " in ui.terminal.text(), "the machine's own figures")
        ui.send(FAULT)
        report = ("(bad) stopped: it touched memory", "py/binary.c:", "_start+0x")  # its beginning, once there is room
        await screen.until(lambda: all(text in screen.text("said") for text in report), "a stopped program's stack")
        assert "rsp" not in screen.text("said")
        await screen.pilot.press("ctrl+a", "k")
        await screen.until(lambda: "(bad) stopped" not in screen.text("said"), "the pane is small again")
        await screen.pilot.press("ctrl+a", "z")
        await screen.until(lambda: ui.terminal.size.width == SIZE[0] - FRAME_WIDTH, "the console alone")
        ui.send(b"revenant.power_off()\r")
        await screen.until(lambda: not ui.is_running, "the end")

    def newest_snapshot(ui: Ui) -> Snapshot:
        return max(ui.live.snapshots.values(), key=lambda snapshot: snapshot.generation)

    def grown(ui: Ui) -> bool:
        assert ui.moment is not None
        python = next(process for process in ui.moment.processes if process.id == 1)
        counted = sum(ui.moment.frames.resident().values())
        return python.page_count > (3 << 20) // FRAME_SIZE and counted >= python.page_count

    on_screen(machine, check)


def test_much_memory(machine: MachineUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it lies at 4 GiB and above. Looked at all the time, also while the screen is taken down."""
    monkeypatch.setattr(app, "LOOK_INTERVAL_S", 0.0005)
    monkeypatch.setattr(app, "LOOK_SHARE_MAX", 50)

    async def check(screen: Screen) -> None:
        await screen.until(lambda: screen.ui.moment and screen.ui.moment.processes, "process")
        assert screen.ui.moment is not None
        assert screen.ui.moment.stats.frames_total * FRAME_SIZE > 4000 << 20
        assert "of 4 GiB" in screen.text("memory")

    on_screen(machine, check, 4096)


def test_nothing_is_shown_before_its_figures(image: Path) -> None:
    """The kernel stops where it takes the first, and where it takes the second."""
    with Watched(KernelMap(), image) as watched:
        memory = Memory(MEMORY_MIB)
        live = Live(memory)
        watched.watch("stats_take")
        seen = []
        for _ in range(2):
            watched.go()
            os.pwrite(memory.fd, watched.ram, 0)
            seen.append(live.look())
        memory.close()
    assert seen[0] is None
    assert seen[1] is not None and seen[1].stats.frames_total > 0


def test_terminal_is_as_before(image: Path, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    words = ["-m", "revenant", "run", "--near", str(image), "--ui", "--pidfile", str(pidfile)]
    environment = {**os.environ, "TERM": "xterm-256color"}
    child = pexpect.spawn(sys.executable, words, timeout=TIMEOUT_S, dimensions=SIZE[::-1], env=environment)
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact(b">>> ")
    child.expect_exact(b"generation")
    assert termios.tcgetattr(child.child_fd) != before
    pid = int(pidfile.read_text())
    child.send(b"\x01x")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0, child.before
    assert b"\x1b[?1049l" in child.before and b"\x1b[?25h" in child.before  # the first screen, and its cursor
    assert termios.tcgetattr(child.child_fd) == before
    assert not Path(f"/proc/{pid}").exists()
