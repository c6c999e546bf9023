"""The kernel's keyboard driver: scan codes of set 1 become the bytes of a terminal, and none is lost without room."""

from __future__ import annotations

import pathlib
import random
import subprocess

import pytest
from store_host import compile_program

ROWS = {0x02: "1234567890-=", 0x10: "qwertyuiop[]", 0x1E: "asdfghjkl;'`", 0x2B: "\\zxcvbnm,./"}
SHIFTED = {0x02: "!@#$%^&*()_+", 0x10: "QWERTYUIOP{}", 0x1E: 'ASDFGHJKL:"~', 0x2B: "|ZXCVBNM<>?"}
SHIFT, CTRL, ALT, CAPS, NUM = 0x2A, 0x1D, 0x38, 0x3A, 0x45
EXTENDED = 0xE0


@pytest.fixture(scope="module")
def keyboard(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("keyboard", tmp_path_factory.mktemp("keyboard"))


def typed(keyboard: pathlib.Path, codes: bytes, room: int = 1 << 16) -> bytes:
    """What the console gets."""
    result = subprocess.run([keyboard, str(room)], input=codes, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def key(code: int, *held: int) -> bytes:
    """Pressed and released, others held."""
    return bytes([*held, code, code | 0x80, *(one | 0x80 for one in held)])


def extended(code: int) -> bytes:
    """A key that old keyboards did not have."""
    return bytes([EXTENDED, code, EXTENDED, code | 0x80])


@pytest.mark.parametrize(("held", "rows"), [((), ROWS), ((SHIFT,), SHIFTED)])
def test_characters(keyboard: pathlib.Path, held: tuple[int, ...], rows: dict[int, str]) -> None:
    for first, row in rows.items():
        codes = b"".join(key(first + i, *held) for i in range(len(row)))
        assert typed(keyboard, codes).decode() == row
    assert typed(keyboard, key(0x39, *held)) == b" "


def test_keys_of_readline(keyboard: pathlib.Path) -> None:
    arrows = b"".join(map(extended, (0x48, 0x50, 0x4D, 0x4B, 0x47, 0x4F, 0x53)))
    assert typed(keyboard, arrows) == b"\x1b[A\x1b[B\x1b[C\x1b[D\x1b[H\x1b[F\x1b[3~"
    assert typed(keyboard, key(0x1C) + key(0x0E) + key(0x0F) + key(0x01)) == b"\r\x7f\t\x1b"
    assert typed(keyboard, key(0x2E, CTRL) + key(0x1E, CTRL) + key(0x30, ALT)) == b"\x03\x01\x1bb"


def test_states(keyboard: pathlib.Path) -> None:
    a, one, right_ctrl = key(0x1E), key(0x02), bytes([EXTENDED, CTRL])
    assert typed(keyboard, key(CAPS) + a + key(0x1E, SHIFT) + one + key(CAPS) + a) == b"Aa1a"
    pad = key(0x4F) + key(0x4A)
    assert typed(keyboard, pad + key(NUM) + pad + extended(0x4F)) == b"\x1b[F-1-\x1b[F"
    assert typed(keyboard, right_ctrl + key(0x2E)) == b"\x03"


def test_what_types_nothing(keyboard: pathlib.Path) -> None:
    pause, fake_shift, answer = bytes([0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5]), bytes([EXTENDED, SHIFT]), b"\xfa"
    multimedia, function_key = extended(0x10), key(0x3B)
    a = key(0x1E)
    assert typed(keyboard, answer + pause + a + fake_shift + a + multimedia + function_key + a) == b"aaa"


def test_nothing_is_lost_without_room(keyboard: pathlib.Path, rng: random.Random) -> None:
    keys = [key(0x1E), extended(0x53), key(0x30, ALT), key(0x02, SHIFT)]
    codes = b"".join(rng.choice(keys) for _ in range(500))
    assert typed(keyboard, codes, room=5) == typed(keyboard, codes)


def test_any_codes_are_safe(keyboard: pathlib.Path, rng: random.Random) -> None:
    typed(keyboard, rng.randbytes(20_000), room=1000)
