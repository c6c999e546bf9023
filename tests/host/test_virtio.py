"""Virtqueues with a device that lies: each lie breaks the queue for good, and does nothing else (virtio.c)."""

from __future__ import annotations

import pathlib
import random
import subprocess

import pytest
from store_host import compile_program


@pytest.fixture(scope="module")
def virtio(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("virtio", tmp_path_factory.mktemp("virtio"))


@pytest.mark.parametrize("lie", ["index", "id", "twice", "length"])
def test_a_lie_breaks_the_queue(virtio: pathlib.Path, rng: random.Random, lie: str) -> None:
    for _ in range(20):
        seed = rng.getrandbits(32)
        done = subprocess.run([virtio, str(seed), lie], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and int(done.stdout) > 500, f"seed {seed}: {done.stdout}{done.stderr}"
