"""What people see of what QEMU and the kernel say: lines as they are, progress renewed in place or not at all."""

from __future__ import annotations

import io
import os

import pytest
from revenant.machine import RENEWED_LINE, WINDOW_TITLE, Relay

SAID = [
    b"[    0.1] generation 2 goes on\n",
    b"[    0.5] store: progress: far1 10 fetched; 90 remain\n[    0.5] store: progress: far2 1 fetched; 90 remain\n",
    b"[    0.9] store: near is complete\n",
]


@pytest.mark.parametrize("progress", [None, RENEWED_LINE, WINDOW_TITLE])
def test_progress(progress: tuple[bytes, bytes] | None) -> None:
    shown = io.BytesIO()
    reading, writing = os.pipe()
    relay = Relay(reading, shown, progress)
    os.write(writing, b"".join(SAID))
    os.close(writing)
    relay.run()
    os.close(reading)
    before, after = progress or (b"", b"")
    line = before + b"far1 10 fetched; 90 remain | far2 1 fetched; 90 remain" + after
    assert shown.getvalue().count(line) == (progress is not None)
    assert b"store: progress" not in shown.getvalue() and b"store: progress" in relay.tail
    assert SAID[0] in shown.getvalue() and SAID[2] in shown.getvalue()
