"""The console pane: what the machine sends through a terminal emulation (pyte), what is typed as a terminal sends it.

Promise: every key belongs to the machine, but Ctrl-A: with the next key it is the pane's own (as QEMU has it), and
Ctrl-A twice sends one. Bytes are taken as fast as they can be drawn: a machine that prints more waits.
Used by: app.py. Context: Textual's event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import cache
from itertools import groupby
from typing import Any

import pyte
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

HISTORY_LINE_COUNT = 5000
WHEEL_ROW_COUNT = 3
REDRAW_DELAY_S = 0.02
"""What comes meanwhile is drawn together."""
Line = Mapping[int, Any]
PREFIX = "ctrl+a"
SEQUENCES = {
    "enter": "\r", "tab": "\t", "escape": "\x1b", "backspace": "\x7f", "space": " ", "shift+tab": "\x1b[Z",
    "up": "\x1b[A", "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F",
    "insert": "\x1b[2~", "delete": "\x1b[3~", "pageup": "\x1b[5~", "pagedown": "\x1b[6~",
    "ctrl+right": "\x1b[1;5C", "ctrl+left": "\x1b[1;5D", "shift+enter": "\r", "shift+backspace": "\x7f",
    "ctrl+at": "\0", "ctrl+space": "\0", "ctrl+backslash": "\x1c", "ctrl+right_square_bracket": "\x1d",
    "ctrl+circumflex_accent": "\x1e", "ctrl+underscore": "\x1f",
}  # fmt: skip
COLOURS = {"brown": "yellow", "brightbrown": "bright_yellow", "default": ""}
"""pyte's names for ANSI colours that rich calls otherwise; the rest is mended by colour()."""


def key_bytes(key: str, character: str | None) -> bytes:
    """What a terminal sends for a key, by Textual's name for it; empty for a key that it has nothing for."""
    if key in SEQUENCES:
        return SEQUENCES[key].encode()
    if key.startswith("ctrl+") and len(key) == len("ctrl+") + 1:
        return bytes([ord(key[-1].lower()) & 0x1F])
    if key.startswith("alt+") and len(key) == len("alt+") + 1:
        return b"\x1b" + key[-1].encode()
    return character.encode() if character else b""


def colour(name: str) -> str | None:
    """A colour of pyte's as rich calls it."""
    if len(name) == 6 and all(digit in "0123456789abcdefABCDEF" for digit in name):
        return f"#{name}"
    name = COLOURS.get(name, name)
    return name.replace("bright", "bright_") if name.startswith("bright") and "_" not in name else name or None


@cache
def style_of(fg: str, bg: str, *flags: bool) -> Style:
    """How cells look: what pyte's Char has behind its character."""
    bold, italics, underscore, strikethrough, reverse, blink = flags
    return Style(
        color=colour(fg),
        bgcolor=colour(bg),
        bold=bold,
        italic=italics,
        underline=underscore,
        strike=strikethrough,
        reverse=reverse,
        blink=blink,
    )


class MachineScreen(pyte.Screen):
    """Keeps lines that go away above, and answers programs that ask the terminal what it is."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self.history: deque[Line] = deque(maxlen=HISTORY_LINE_COUNT)
        self.send = send
        super().__init__(80, 24)

    def index(self) -> None:
        """As pyte calls it at the end of a line. What scrolls within a part of the screen does not leave it above."""
        last = self.lines - 1
        if self.cursor.y == last and (self.margins or (0, last)) == (0, last):
            self.history.append(self.buffer[0])
        super().index()

    def write_process_input(self, data: str) -> None:
        """As pyte calls it."""
        self.send(data.encode())


class Terminal(Widget, can_focus=True):
    """A screen of the pane's size; `send` gets the bytes that are typed."""

    class Command(Message):
        """Ctrl-A and this key were pressed."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self.send = send
        self.screen_of_machine = MachineScreen(send)
        self.stream = pyte.ByteStream(self.screen_of_machine)
        self.is_prefixed = False
        self.rows_back = 0
        self._cursor_row = 0
        self._is_redraw_due = False

    # --- what comes from the machine ---

    def feed(self, data: bytes) -> None:
        """Bytes of the console; who looks at older lines goes on doing so."""
        before = len(self.screen_of_machine.history)
        self.stream.feed(data)
        if self.rows_back:
            self.scroll_history(len(self.screen_of_machine.history) - before)
        if not self._is_redraw_due:
            self._is_redraw_due = True
            self.set_timer(REDRAW_DELAY_S, self._redraw)

    def _redraw(self) -> None:
        screen = self.screen_of_machine
        rows = screen.dirty | {self._cursor_row, screen.cursor.y}
        self._cursor_row, self._is_redraw_due = screen.cursor.y, False
        screen.dirty.clear()
        if self.rows_back == 0:
            self.refresh(*(Region(0, row, self.size.width, 1) for row in rows))

    def text(self) -> str:
        """What the pane shows."""
        rows = (self._row(y) for y in range(self.screen_of_machine.lines))
        blank = self.screen_of_machine.default_char
        columns = range(self.screen_of_machine.columns)
        return "\n".join("".join(row.get(x, blank).data for x in columns).rstrip() for row in rows)

    def on_resize(self, event: events.Resize) -> None:
        """The machine's screen becomes as large as the pane; rows leave it above only where the cursor would be cut."""
        size, screen = event.size, self.screen_of_machine
        if size.width < 1 or size.height < 1:
            return
        cursor_y = screen.cursor.y
        screen.set_margins()
        while cursor_y >= size.height:
            screen.cursor.y = screen.lines - 1
            screen.index()
            cursor_y -= 1
        for row in range(size.height, screen.lines):
            screen.buffer.pop(row, None)
        screen.lines = min(screen.lines, size.height)  # done: pyte would take them from above, room or not
        screen.resize(size.height, size.width)
        screen.cursor.y, screen.cursor.x = cursor_y, min(screen.cursor.x, size.width - 1)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A row of the screen, or of what has left it."""
        screen = self.screen_of_machine
        row, back, blank = self._row(y), self.rows_back, screen.default_char
        cells = [row.get(x, blank) for x in range(screen.columns)]
        if y == screen.cursor.y and back == 0 and not screen.cursor.hidden and screen.cursor.x < screen.columns:
            cell = cells[screen.cursor.x]
            cells[screen.cursor.x] = cell._replace(reverse=not cell.reverse)
        alike = groupby(cells, key=lambda cell: cell[1:])
        segments = [Segment("".join(cell.data for cell in run), style_of(*look)) for look, run in alike]
        return Strip(segments, screen.columns).apply_style(self.rich_style)

    def _row(self, y: int) -> Line:
        history = self.screen_of_machine.history
        if y < self.rows_back:
            return history[len(history) - self.rows_back + y]
        return self.screen_of_machine.buffer[y - self.rows_back]

    # --- what goes to the machine ---

    def on_key(self, event: events.Key) -> None:
        """Nobody else sees it."""
        event.stop()
        event.prevent_default()
        if self.is_prefixed and event.key != PREFIX:
            self.post_message(self.Command(event.key))
        elif event.key == PREFIX and not self.is_prefixed:
            self.is_prefixed = True
            return
        elif event.key in ("shift+pageup", "shift+pagedown"):
            page = max(self.size.height - 1, 1)
            self.scroll_history(page if event.key == "shift+pageup" else -page)
        else:
            self.typed(key_bytes(event.key, event.character))
        self.is_prefixed = False

    def typed(self, data: bytes) -> None:
        """Send; the newest lines are shown again."""
        self.scroll_history(-self.rows_back)
        if data:
            self.send(data)

    def on_paste(self, event: events.Paste) -> None:
        """Line ends as the enter key sends them."""
        event.stop()
        self.typed(event.text.replace("\r\n", "\r").replace("\n", "\r").encode())

    def scroll_history(self, row_count: int) -> None:
        """So many rows back, or forth where it is negative."""
        before = self.rows_back
        self.rows_back = min(max(before + row_count, 0), len(self.screen_of_machine.history))
        if self.rows_back != before:
            self.refresh()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Older lines."""
        event.stop()
        self.scroll_history(WHEEL_ROW_COUNT)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Newer lines."""
        event.stop()
        self.scroll_history(-WHEEL_ROW_COUNT)
