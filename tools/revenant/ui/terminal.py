"""The console pane: what the machine sends through a terminal emulation (pyte), what is typed as a terminal sends it.

Promise: every key belongs to the machine, but Ctrl-A: with the next key it is the pane's own (as QEMU has it), and
Ctrl-A twice sends one. Bytes are taken as fast as they can be drawn: a machine that prints more waits.
Used by: app.py. Context: Textual's event loop.
"""

from __future__ import annotations

from collections.abc import Callable

import pyte
import pyte.screens
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

HISTORY_LINE_COUNT = 5000
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


def style_of(cell: pyte.screens.Char, is_cursor: bool) -> Style:
    """How a cell looks."""
    return Style(
        color=colour(cell.fg),
        bgcolor=colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        strike=cell.strikethrough,
        reverse=cell.reverse != is_cursor,
    )


class AnsweringScreen(pyte.HistoryScreen):
    """Keeps old lines, and answers programs that ask the terminal what it is."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        super().__init__(80, 24, history=HISTORY_LINE_COUNT)
        self.send = send

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
        self.screen_of_machine = AnsweringScreen(send)
        self.stream = pyte.ByteStream(self.screen_of_machine)
        self.is_prefixed = False
        self._cursor_row = 0

    # --- what comes from the machine ---

    def feed(self, data: bytes) -> None:
        """Bytes of the console."""
        self.stream.feed(data)
        self._redraw()

    def _redraw(self) -> None:
        screen = self.screen_of_machine
        rows = screen.dirty | {self._cursor_row, screen.cursor.y}
        self._cursor_row = screen.cursor.y
        screen.dirty.clear()
        self.refresh(*(Region(0, row, self.size.width, 1) for row in rows))

    def text(self) -> str:
        """What the pane shows."""
        return "\n".join(line.rstrip() for line in self.screen_of_machine.display)

    def on_resize(self, event: events.Resize) -> None:
        """The machine's screen becomes as large as the pane; rows leave it above only where the cursor would be cut."""
        size, screen = event.size, self.screen_of_machine
        if size.width < 1 or size.height < 1:
            return
        cursor_y = screen.cursor.y
        while cursor_y >= size.height:
            screen.cursor.y = screen.lines - 1
            screen.index()
            cursor_y -= 1
        for row in range(size.height, screen.lines):
            screen.buffer.pop(row, None)
        screen.lines = min(screen.lines, size.height)  # done: pyte would take them from above, room or not
        screen.resize(size.height, size.width)
        screen.set_margins()
        screen.cursor.y, screen.cursor.x = cursor_y, min(screen.cursor.x, size.width - 1)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """A row of the screen."""
        screen = self.screen_of_machine
        if y >= screen.lines:
            return Strip.blank(self.size.width)
        row = screen.buffer[y]
        at_end = screen.history.position == screen.history.size
        cursor_x = screen.cursor.x if y == screen.cursor.y and at_end and not screen.cursor.hidden else -1
        cells = (row[x] for x in range(screen.columns))
        segments = (Segment(cell.data, style_of(cell, x == cursor_x)) for x, cell in enumerate(cells))
        return Strip(Segment.simplify(segments), screen.columns).apply_style(self.rich_style)

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
            self.scroll_history(-1 if event.key == "shift+pageup" else 1)
        else:
            self.typed(key_bytes(event.key, event.character))
        self.is_prefixed = False

    def typed(self, data: bytes) -> None:
        """Send; the newest lines are shown again."""
        screen = self.screen_of_machine
        while screen.history.position < screen.history.size:
            screen.next_page()
        self._redraw()
        if data:
            self.send(data)

    def on_paste(self, event: events.Paste) -> None:
        """Line ends as the enter key sends them."""
        event.stop()
        self.typed(event.text.replace("\r\n", "\r").replace("\n", "\r").encode())

    def scroll_history(self, direction: int) -> None:
        """Half a page back (-1) or forth."""
        screen = self.screen_of_machine
        screen.prev_page() if direction < 0 else screen.next_page()
        self._redraw()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Older lines."""
        event.stop()
        self.scroll_history(-1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Newer lines."""
        event.stop()
        self.scroll_history(1)
