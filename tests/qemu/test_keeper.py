"""A client of `run --console pty --keep` does not notice that QEMU is killed again and again."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pexpect.fdpexpect
import pytest
from revenant.machine import PROMPT

CUTS = 12
STEPS_PER_CUT = 40


@pytest.fixture
def keeper(image: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The command, its first line not read yet; stderr goes to a file."""
    words = ["run", "--near", image, "--console", "pty", "--keep", "--interval", "20"]
    command = [sys.executable, "-m", "revenant", *map(str, words)]
    with (
        (tmp_path / "stderr").open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        yield process
        process.terminate()


def cut(keeper: subprocess.Popen[str]) -> None:
    """kill -9 of the QEMU of this moment; there may be none just now."""
    children = Path(f"/proc/{keeper.pid}/task/{keeper.pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def test_each_byte_once(keeper: subprocess.Popen[str], tmp_path: Path, rng: random.Random) -> None:
    """A dialogue with numbers, the power cut between and in the middle of them: both sides see every number once."""
    assert keeper.stdout is not None
    terminal = os.open(keeper.stdout.readline().strip(), os.O_RDWR | os.O_NOCTTY)
    client = pexpect.fdpexpect.fdspawn(terminal, timeout=60)
    client.send(b"\x03\x02heard = []\r")
    client.expect_exact(b"heard = []\r\n" + PROMPT)
    number = 0
    for _ in range(CUTS):
        for _ in range(rng.randrange(STEPS_PER_CUT)):
            client.send(b"heard.append(%d)\r" % number)
            number += 1
        select.select([], [], [], rng.uniform(0, 0.3))
        cut(keeper)
    for seen in range(number):
        client.expect_exact(PROMPT)
        assert client.before == b"heard.append(%d)\r\n" % seen
    client.send(b"heard == list(range(%d))\r" % number)
    client.expect_exact(b"True\r\n" + PROMPT)
    assert keeper.poll() is None
    assert (tmp_path / "stderr").read_text().count("QEMU was ended") > CUTS / 2
