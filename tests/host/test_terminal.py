"""The kernel's terminal (kernel/drivers/terminal.c) shows what pyte, a terminal emulator, shows of the same bytes."""

from __future__ import annotations

import pathlib
import random
import subprocess
from dataclasses import dataclass

import pyte
import pytest
from store_host import compile_program

ROW_COUNT, COLUMN_COUNT = 25, 80
COLOURS = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")
TEXTS = ("a", "word ", ">>> ", "grün ", "┼─║", "€", "x" * 79, "0123456789" * 9)
SEQUENCES = ("A", "B", "C", "D", "G", "H", "J", "K", "1J", "2J", "1K", "2K", "?25l", "?25h", ">c", "4l", "7 q")


@dataclass
class Shown:
    """A screen: characters, colours of each, where the cursor is and whether it can be seen."""

    text: list[str]
    colours: list[list[int]]
    cursor: tuple[int, int]
    cursor_visible: bool


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("terminal", tmp_path_factory.mktemp("terminal"))


def ours(terminal: pathlib.Path, data: bytes) -> Shown:
    """What the kernel shows."""
    result = subprocess.run([terminal], input=data, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr.decode()
    *rows, last = result.stdout.decode().splitlines()
    cells = [bytes.fromhex(row) for row in rows]
    position, visible = map(int, last.split())
    cursor = divmod(position, COLUMN_COUNT)
    return Shown([row[::2].decode("cp437") for row in cells], [list(row[1::2]) for row in cells], cursor, bool(visible))


def attribute(cell: pyte.screens.Char) -> int:
    """Its colours as a VGA has them."""

    def number(name: str, default: int) -> int:
        ansi = default if name == "default" else COLOURS.index(name.removeprefix("bright"))
        return (ansi & 1) << 2 | (ansi & 2) | ansi >> 2 | (8 if name.startswith("bright") else 0)

    front, back = number(cell.fg, 7) | (8 if cell.bold else 0), number(cell.bg, 0) & 7
    return back | (front & 7) << 4 if cell.reverse else front | back << 4


def theirs(screen: pyte.Screen) -> Shown:
    """What pyte shows, in the characters that a VGA has."""
    text = ["".join(char if char.encode("cp437", "ignore") else "?" for char in row) for row in screen.display]
    cells = [[screen.buffer[row][column] for column in range(COLUMN_COUNT)] for row in range(ROW_COUNT)]
    cursor = (screen.cursor.y, min(screen.cursor.x, COLUMN_COUNT - 1))
    return Shown(text, [[attribute(cell) for cell in row] for row in cells], cursor, not screen.cursor.hidden)


def random_piece(rng: random.Random) -> str:
    """Text, a control character, or a sequence."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1:
        return rng.choice(("\r\n", "\r\n", "\b", "\t", "\r", "\a"))
    if kind == 2:
        codes = (0, 1, 22, 7, 27, 39, 49, *range(30, 38), *range(40, 48), *range(90, 98), *range(100, 105))
        return f"\x1b[{';'.join(str(rng.choice(codes)) for _ in range(rng.randrange(4)))}m"
    final = rng.choice(SEQUENCES)
    if len(final) > 1:
        return f"\x1b[{final}"
    if final in "JK":
        return f"\x1b[{final}"
    if final == "H":
        return f"\x1b[{rng.randrange(30)};{rng.randrange(100)}H"
    return f"\x1b[{rng.choice(('', rng.randrange(1, 100)))}{final}"


def test_as_pyte_shows_it(terminal: pathlib.Path, rng: random.Random) -> None:
    for _ in range(30):
        screen = pyte.Screen(COLUMN_COUNT, ROW_COUNT)
        stream = pyte.Stream(screen)
        text = ""
        for _ in range(rng.randrange(1, 200)):
            piece = random_piece(rng)
            if screen.cursor.x == COLUMN_COUNT and piece[-1] not in "\r\n\bm" and piece not in TEXTS:
                piece = "\r" + piece  # behind the last column, terminals differ in what moves and erases
            stream.feed(piece)
            text += piece
        mine, other = ours(terminal, text.encode()), theirs(screen)
        assert (mine.text, mine.cursor, mine.cursor_visible) == (other.text, other.cursor, other.cursor_visible), text
        for row, line in enumerate(other.text):  # of what is blank, terminals differ in the colours
            seen = [column for column in range(COLUMN_COUNT) if line[column] != " "]
            assert [mine.colours[row][c] for c in seen] == [other.colours[row][c] for c in seen], text


def test_what_is_erased_has_the_background_of_the_moment(terminal: pathlib.Path) -> None:
    shown = ours(terminal, b"one\x1b[44m\x1b[K\x1b[0m" + b"\r\n" * (ROW_COUNT - 1) + b"\x1b[41m\n")
    assert shown.text[0].strip() == "" and shown.colours[-1] == [0x47] * COLUMN_COUNT
    shown = ours(terminal, b"one\x1b[44m\x1b[K")
    assert shown.colours[0] == [0x07] * 3 + [0x17] * (COLUMN_COUNT - 3)


def test_titles_and_broken_characters(terminal: pathlib.Path) -> None:
    shown = ours(terminal, b"\x1b]0;a title\x07\x1b(B\x1b[38;5;100mA\xc3(\x80\xff\xc3\xbc\xe2\x82")
    assert shown.text[0].rstrip() == "A?(??ü" and shown.cursor == (0, 6)


def test_any_bytes_are_safe(terminal: pathlib.Path, rng: random.Random) -> None:
    likely = b"\x1b[;?0123456789ABCDGHJKmhl\r\n\b\t\xc3\xbc"
    data = bytes(rng.choice(likely) if rng.random() < 0.8 else rng.randrange(256) for _ in range(200_000))
    ours(terminal, data)
