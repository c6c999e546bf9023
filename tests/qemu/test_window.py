"""QEMU's window: the screen shows what the serial port sends, its keyboard types, and a power cut changes neither.

A screen is compared with an image in screens/, pixel by pixel but for the cursor's lines: QEMU lets it blink by the
host's time.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from revenant.machine import PROMPT, Machine

CELL_WIDTH, CELL_HEIGHT, CURSOR_FIRST_LINE = 9, 16, 13
COLOURS = r"print('\x1b[1;33mbold', '\x1b[0;7mreversed', '\x1b[0;34;47mon white', '\x1b[0m\u2514\u2500 \xfc\u20ac')"


def press(machine: Machine, echo: bytes, *keys: str) -> None:
    """Type a key, with others held down, and wait until the program has answered: the keyboard's queue is short."""
    codes = [{"type": "qcode", "data": key} for key in keys]
    machine.qmp("send-key", keys=codes, **{"hold-time": 1})
    machine.expect_exact(echo)


def type_text(machine: Machine, text: str) -> None:
    """Type text that its keys have the names of, or shift and those keys."""
    shifted = {"(": "9", ")": "0", "*": "8", ":": "semicolon"}
    names = {" ": "spc"}
    for char in text:
        keys = ["shift", shifted[char]] if char in shifted else [names.get(char, char)]
        press(machine, char.encode(), *keys)


def without_cursor(path: Path, row: int, column: int) -> Image.Image:
    """The image with the cursor's lines of one cell made black."""
    image = Image.open(path).convert("RGB")
    left, top = column * CELL_WIDTH, row * CELL_HEIGHT + CURSOR_FIRST_LINE
    image.paste((0, 0, 0), (left, top, left + CELL_WIDTH, (row + 1) * CELL_HEIGHT))
    return image


@pytest.fixture
def shows(root: Path, tmp_path: Path) -> Callable[[Machine, str, int, int], None]:
    """Compares a machine's screen with an image, cursor at a row and column."""

    def check(machine: Machine, name: str, row: int, column: int) -> None:
        wanted, found = root / f"tests/qemu/screens/{name}.png", tmp_path / f"{name}.png"
        machine.qmp("screendump", filename=str(found), format="png")
        assert wanted.exists(), f"look at {found}; if it is right, copy it to {wanted}"
        same = without_cursor(found, row, column).tobytes() == without_cursor(wanted, row, column).tobytes()
        assert same, f"{found} is shown in place of {wanted}; if it is right, copy it there"

    return check


def test_window(machine: Callable[..., Machine], shows: Callable[[Machine, str, int, int], None]) -> None:
    running = machine(window="none")
    running.expect_exact(PROMPT)
    type_text(running, "print(6*7)")
    press(running, b"42\r\n" + PROMPT, "ret")
    shows(running, "prompt", 4, 4)
    running.kill()

    def go_on() -> Machine:
        machine_then = machine(window="none")
        machine_then.expect_exact(PROMPT)
        press(machine_then, b"z", "z")  # all that was there before has been sent now, and shown
        press(machine_then, b"\x1b[K", "backspace")
        return machine_then

    running = go_on()
    shows(running, "prompt", 4, 4)
    press(running, b"print(6*7)", "up")
    press(running, b"\b", "left")
    press(running, b")\b", "backspace")
    press(running, b"8)\b", "8")
    press(running, b"48\r\n" + PROMPT, "ret")
    type_text(running, "while 1: pass")
    press(running, b"... ", "ret")
    press(running, b"\r\n", "ret")
    press(running, b"KeyboardInterrupt: \r\n" + PROMPT, "ctrl", "c")
    running.qmp("send-key", keys=[{"type": "qcode", "data": "caps_lock"}])
    press(running, b"P", "p")
    press(running, b"p", "shift", "p")
    press(running, PROMPT, "ctrl", "c")
    running.command_at_prompt(r"print(*range(1000), sep='\r\n')")  # more rows than a VGA's memory has
    running.command_at_prompt(COLOURS)
    shows(running, "colours", 24, 4)
    running.kill()

    running = go_on()
    shows(running, "colours", 24, 4)


def test_without_a_desktop_the_window_is_served(
    socket_folder: Path, run_revenant: Callable[..., Any], start_revenant: Callable[..., Any]
) -> None:
    image, place = socket_folder / "m.img", socket_folder / "m.img.vnc"
    words = ("run", "--window", "--near", image, "--size", "64M")
    environment = {name: value for name, value in os.environ.items() if not name.endswith("DISPLAY")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start_revenant(*words, env=environment, **pipes)
    shown = b""
    while PROMPT not in shown:
        shown += (piece := process.stdout.read1())
        assert piece, process.stderr.read().decode()
    with socket.socket(socket.AF_UNIX) as viewer:
        viewer.connect(str(place))
        assert viewer.recv(4) == b"RFB "
    second = run_revenant("run", "--window", "--near", image, env=environment, stdin=subprocess.DEVNULL)
    assert "in use by another machine" in second.stderr
    assert place.exists(), "another's window is not ours to take away"
    process.stdin.write(b"import revenant; revenant.power_off()\r")
    process.stdin.close()
    said = process.stderr.read().decode()
    process.stdout.read()
    assert process.wait() == 0, said
    assert f"the window is a VNC server on {place}" in said and not place.exists()
