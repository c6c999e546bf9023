"""A client of `run --console pty --keep` does not notice that QEMU is killed again and again; who reads stderr does."""

from __future__ import annotations

import random
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revenant.machine import PROMPT

CUTS = 12
STEPS_PER_CUT = 40
FAULT = b"import revenant; revenant.spawn('import uctypes; uctypes.bytearray_at(8, 1)[0]', name='bad')\r"


def test_each_byte_once(keep: Callable[..., Any], image: Path, rng: random.Random) -> None:
    """A dialogue with numbers, the power cut between and in the middle of them: both sides see every number once."""
    kept = keep(image, "--interval", "20")
    client = kept.client
    client.send(b"\x03\x02heard = []\r")
    client.expect_exact(b"heard = []\r\n" + PROMPT)
    number = 0
    for _ in range(CUTS):
        for _ in range(rng.randrange(STEPS_PER_CUT)):
            client.send(b"heard.append(%d)\r" % number)
            number += 1
        select.select([], [], [], rng.uniform(0, 0.3))
        kept.cut()
    for seen in range(number):
        client.expect_exact(PROMPT)
        assert client.before == b"heard.append(%d)\r\n" % seen
    client.send(b"heard == list(range(%d))\r" % number)
    client.expect_exact(b"True\r\n" + PROMPT)
    assert kept.process.poll() is None
    assert kept.cut_count() > CUTS / 2
    client.send(FAULT)
    said = ""
    while "_start+0x" not in said:  # the whole stack, with names
        assert kept.process.poll() is None
        said = kept.stderr.read_text()
    assert "(bad) stopped: it touched memory" in said and said.count(" goes on after ") > 1
    assert "goes on at byte" not in said
