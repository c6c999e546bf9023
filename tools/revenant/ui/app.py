"""`revenant run --ui`: the console of a machine, and around it what the machine does, at this moment.

Promise: the machine is looked at, never asked and never stopped (live.py), so it runs as without; what the console
shows is saved, as everywhere, figures are not. However it ends, no QEMU and no changed terminal is left.
Called by: running.py. Context: Textual's event loop; all that blocks has ended before it starts or begins after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from dataclasses import replace

from rich.text import Text
from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.widget import Widget
from textual.widgets import Static

from revenant.machine import Machine, explain_exit, local_images
from revenant.qemu import MachineConfig
from revenant.relay import Relay, growing
from revenant.start_line import last_screen
from revenant.symbols import explain
from revenant.ui import panes
from revenant.ui.layout import FRAME_SIZE
from revenant.ui.live import Live, Memory, Moment
from revenant.ui.terminal import Terminal

LOOK_INTERVAL_S = 0.25
LOOK_SHARE_MAX = 0.1
"""Of our time: a machine with very much memory is looked at less often."""
PIECE_SIZE = 4096
EXIT_TIMEOUT_S = 5
SAID_LINE_COUNT = 50
RAW_REPORT = re.compile(rb"  \[|  stack |last \d+ events|\[ *\d+\.\d+\]   ")
"""Lines of a stopped program's report that its explanation says better, or `revenant trace`."""
KEYS = "Ctrl-A X leaves · Ctrl-A Z alone · Ctrl-A H help"
HELP = (
    "Ctrl-A, then  X leave · Z console alone · K more or less of what the kernel says · H help · Ctrl-A itself."
    "  Shift-PgUp/PgDn or the wheel: older lines."
)
OLD_KERNEL = "this machine's kernel does not say what it does:\n`revenant upgrade` installs one that does"


class Pane(Static):
    """A frame with a title; what is in it is computed for its size."""

    def fill(self, text: Text, title: str | None = None) -> None:
        """Show."""
        if title is not None:
            self.border_title = title
        self.update(text)


class Ui(App[bool], inherit_bindings=False):
    """The screen. Ends when the machine does, with the result True, or when Ctrl-A X is pressed."""

    TITLE = "Revenant"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "narrow"), (118, "wide")]  # noqa: RUF012 (as Textual declares it)
    VERTICAL_BREAKPOINTS = [(0, "low"), (38, "high")]  # noqa: RUF012
    CSS = """
    Screen { background: #0b0f16; color: #b8c4d6; }
    #head { height: 1; background: #141b27; }
    #name { width: auto; background: #5cc8ff; color: #0b0f16; text-style: bold; padding: 0 1; }
    #facts { width: 1fr; }
    #left { width: 1fr; min-width: 60; }
    #right { width: 54; }
    #frame, Pane { border: round #2a3547; border-title-color: #8fa3bf; background: #0b0f16; padding: 0 1; }
    #frame { height: 1fr; border: round #5cc8ff; border-title-color: #5cc8ff; padding: 0 0 0 1;
             border-subtitle-color: #6b7a90; }
    #snapshots { height: 10; }
    #said { height: 5; color: #6b7a90; text-wrap: nowrap; text-overflow: ellipsis; }
    #memory { height: 1fr; min-height: 9; }
    #processes { height: 1fr; min-height: 5; max-height: 14; }
    #stores { height: 7; }
    Screen.narrow #right, Screen.narrow #snapshots, Screen.narrow #said { display: none; }
    Screen.alone #right, Screen.alone #snapshots, Screen.alone #said { display: none; }
    Screen.low #said { display: none; }
    Screen.low #snapshots { height: 8; }
    Screen.report #said { display: block; height: 19; max-height: 50%; color: #d6dfeb; }
    Terminal { background: #0b0f16; color: #d6dfeb; }
    """

    def __init__(self, machine: Machine, live: Live, before: bytes = b"") -> None:
        super().__init__()
        self.machine, self.live, self.before = machine, live, before
        self.moment: Moment | None = None
        self.said: deque[str] = deque(maxlen=SAID_LINE_COUNT)
        self._reported = False
        self._ended = threading.Event()
        self.terminal = Terminal(self.send)

    def compose(self) -> ComposeResult:
        """Console and snapshots at the left, the rest at the right."""
        with Horizontal(id="head"):
            yield Static("REVENANT", id="name")
            yield Static(id="facts")
        with Horizontal():
            with Vertical(id="left"):
                with Widget(id="frame") as frame:
                    frame.border_title = str(self.machine.config.near)
                    frame.border_subtitle = KEYS
                    yield self.terminal
                yield self._pane("snapshots", "snapshots")
                yield self._pane("said", "the kernel says")
            with Vertical(id="right"):
                yield self._pane("memory", "memory")
                yield self._pane("processes", "processes")
                yield self._pane("stores", "stores")

    @staticmethod
    def _pane(name: str, title: str) -> Pane:
        pane = Pane(id=name)
        pane.border_title = title
        return pane

    async def on_mount(self) -> None:
        """Connect; from now on the machine's bytes come."""
        self.terminal.focus()
        if not self.is_headless:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                loop.add_signal_handler(number, self.exit)
        self._reader, self._writer = await asyncio.open_connection(sock=self.machine.console_socket)
        self.run_worker(self._show_console(), exclusive=False)
        Relay(growing(self.machine.voice_path.open("rb"), self._ended), self._say, explain=self._explain).start()
        self.look()

    def on_unmount(self) -> None:
        """Nobody shows any more what the kernel says."""
        self._ended.set()

    # --- the console ---

    def send(self, data: bytes) -> None:
        """To the machine; what its serial port has no room for yet waits here."""
        self._writer.write(data)

    async def _show_console(self) -> None:
        """Until the machine ends, and we with it."""
        await asyncio.sleep(0)  # the pane has its size then
        self.terminal.feed(self.before)
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(PIECE_SIZE):
                self.terminal.feed(data)
                await asyncio.sleep(0)
        self.exit(True)

    def on_terminal_command(self, event: Terminal.Command) -> None:
        """Ctrl-A and a key."""
        if event.key in ("x", "X"):
            self.exit()
        elif event.key in ("z", "Z"):
            self.screen.toggle_class("alone")
        elif event.key in ("k", "K"):
            self.screen.toggle_class("report")
        elif event.key in ("h", "H", "question_mark"):
            self.notify(HELP, title="Keys")

    # --- the machine's state ---

    def look(self) -> None:
        """Read the machine's memory and show it, again and again."""
        began_s = time.perf_counter()
        self.moment = self.live.look() or self.moment
        try:
            self._show_said()
            if self.moment is not None:
                self._show(self.moment)
            elif self.terminal.text().strip():
                self.query_one("#memory", Pane).fill(Text(OLD_KERNEL, panes.DIM))
        except NoMatches:
            return  # the screen is being taken down
        took_s = time.perf_counter() - began_s
        self.set_timer(max(LOOK_INTERVAL_S, took_s / LOOK_SHARE_MAX), self.look)

    def _show(self, moment: Moment) -> None:
        total = self.live.memory.size // FRAME_SIZE
        facts = self.query_one("#facts", Static)
        facts.update(panes.headline(moment, facts.size.width))
        pane, width, height = self._room("memory")
        legend = panes.memory_legend(moment, total, width)
        map_height = max(height - 4, 1)
        pane.fill(
            panes.memory_map(moment.frames.states, total, width, map_height).append(legend),
            panes.memory_title(moment, total),
        )
        pane, width, height = self._room("processes")
        pane.fill(panes.process_rows(moment.processes, width, height))
        pane, width, height = self._room("snapshots")
        pane.fill(panes.timeline(list(self.live.snapshots.values()), width, height))
        pane, width, height = self._room("stores")
        pane.fill(panes.streaming(moment.stats, self.machine.config.fars, width))

    def _room(self, name: str) -> tuple[Pane, int, int]:
        """A pane, its width and height."""
        pane = self.query_one(f"#{name}", Pane)
        return pane, pane.content_size.width, pane.content_size.height

    # --- what the kernel says ---

    def _say(self, line: bytes) -> None:
        """From the relay's thread: a line for the pane."""
        if line.strip() and not RAW_REPORT.match(line):
            self.said.append(line.decode(errors="replace").rstrip())

    def _explain(self, report: str) -> str:
        """From the relay's thread: a program was stopped; where, with names."""
        self._reported = True
        return explain(report, local_images(self.machine.config))

    def _show_said(self) -> None:
        """The newest lines; a report gets the room that it needs."""
        if self._reported:
            self._reported = False
            self.screen.add_class("report")
        pane, _, height = self._room("said")
        pane.fill(Text("\n".join(list(self.said)[-max(height, 1) :])))


def run_ui(config: MachineConfig) -> int:
    """Run the machine on a screen until it ends or is left; the exit status, errors raised."""
    before = last_screen(config.near, config.fars, shutil.get_terminal_size().lines)
    with (
        contextlib.closing(Memory(config.memory_mib)) as memory,
        Machine(replace(config, memory_file=memory.path)) as machine,
    ):
        ui = Ui(machine, Live(memory), before)
        has_ended = ui.run()
        if not has_ended:
            machine.process.terminate()  # nothing is lost by that
            with contextlib.suppress(subprocess.TimeoutExpired):
                machine.process.wait(EXIT_TIMEOUT_S)
            return ui.return_code or 0
        status = machine.process.wait()
    error = explain_exit(config, status, machine.voice)
    if error is not None:
        raise error
    return 0
