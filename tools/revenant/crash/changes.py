"""Records a command that changes an image (rollback, grow, upgrade) as record.py records a machine.

The command is the real one, in a process of its own; the store's editor writes the log (tools/editor/README.md).
Promise: what is in the log is all that the command did to the image. Used by: crash/record.py.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from revenant.crash.log import read_log
from revenant.crash.states import Image
from revenant.errors import RevenantError
from revenant.format import BLOCK_SIZE
from revenant.genesis import BuildFiles
from revenant.state import retained
from revenant.store import Store

GROWTH = 2
KERNEL_TAIL_SIZE = 10_000
"""Bytes behind the last segment of a kernel file: another file, the same code."""

Words = list[object]


def rollback_words(near: Path, generation: int) -> Words:
    """As far back as the program goes and the image remembers."""
    with Store(near) as store:
        oldest = min(record.generation for record in retained(store) if record.generation >= generation)
    return ["rollback", near, "--to", oldest]


def grow_words(near: Path, _: int) -> Words:
    """To twice its size."""
    return ["grow", near, near.stat().st_size * GROWTH]


def upgrade_words(near: Path, _: int) -> Words:
    """Another kernel and another loader, which do the same."""
    files, folder, rng = BuildFiles.locate(), near.parent, random.Random(1)
    kernel = folder / "kernel.elf"
    kernel.write_bytes(files.kernel.read_bytes() + rng.randbytes(KERNEL_TAIL_SIZE))
    (folder / "mbr.bin").write_bytes(files.boot_record.read_bytes())
    (folder / "loader.bin").write_bytes(files.loader.read_bytes() + rng.randbytes(BLOCK_SIZE))
    return ["upgrade", near, "--kernel", kernel, "--boot", folder]


CHANGES: dict[str, Callable[[Path, int], Words]] = {
    "rollback": rollback_words,
    "grow": grow_words,
    "upgrade": upgrade_words,
}


def run_change(name: str, base: Path, near: Path, log: Path, generation: int) -> None:
    """Change `near`, a copy of base, with a log; `generation` is the program's first."""
    words = map(str, CHANGES[name](near, generation))
    environment = {**os.environ, "REVENANT_WRITE_LOG": str(log)}
    command = [sys.executable, "-m", "revenant", *words]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RevenantError(name, result.stderr.strip())
    check_log(base, near, log)


def check_log(base: Path, near: Path, log: Path) -> None:
    """RevenantError unless the log makes of base what the command has made of near."""
    made, found = Image(base), Image(near)
    for entry in read_log(log):
        made.write(entry)
    if made.size != found.size:
        raise RevenantError(log, f"it makes an image of {made.size} bytes, the command {found.size}")
    for block in range(made.size // BLOCK_SIZE):
        if made.read(block) != found.read(block):
            raise RevenantError(log, f"the command has changed block {block} without a word in it")
    made.close()
    found.close()
