"""The workloads of `crashtest`: which program runs, in what machine; its twin says what it must print.

A program yields one number for each step, and never ends; the machine prints them. The same source runs here
in CPython. Used by: crash/record.py, crash/judge.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

FOLDER = Path(__file__).parent / "workloads"
MIB = 1 << 20
LINE = re.compile(rb"step (\d+) (\d+) (\d+)\r\n")

# Runs behind the program, on the machine; waits for Enter where the recording begins. A line says its step, the
# step's digest, and the generation that will hold it, or one before: it must not be seen while that can be lost.
DRIVER = """\
import revenant, time
def drive(warm_steps, commit_each):
    number = 0
    for digest in steps():
        number += 1
        print('step', number, digest, revenant.stats()['epoch'])
        if commit_each:
            revenant.commit()
            time.sleep_ms(20)
        if number == warm_steps:
            input()
"""


@dataclass(frozen=True)
class Workload:
    """A program and the machine it runs in; it is recorded after `warm_steps` (0: when the disk is full)."""

    name: str
    program: str
    about: str
    warm_steps: int = 5
    entry_count: int = 60  # writes and flushes of a short recording; a full one has many times that
    image_size: int = 64 * MIB
    memory_mib: int = 256
    commit_each: bool = False  # each step ends with revenant.commit() and a moment's rest
    far: bool = False  # recorded on a blank near disk, from a far store in which it already runs
    writes_per_s: int | None = None  # that the disk takes while it is recorded
    fills: bool = False  # it runs until the disk is full
    change: str | None = None  # not the machine is recorded, but this command after it (crash/changes.py)

    @property
    def source(self) -> str:
        """The program's text, as the machine gets it."""
        return (FOLDER / f"{self.program}.py").read_text()

    @property
    def call(self) -> str:
        """What starts it, behind source and driver."""
        return f"drive({self.warm_steps}, {self.commit_each})"


class Twin:
    """The undisturbed run, in CPython: step number to digest."""

    def __init__(self, workload: Workload) -> None:
        scope: dict[str, Any] = {"__name__": workload.program}
        exec(compile(workload.source, f"{workload.program}.py", "exec"), scope)
        self._steps = cast(Callable[[], Iterator[int]], scope["steps"])()
        self._digests: list[int] = []

    def digest(self, step: int) -> int:
        """What the machine must print for a step, from 1 on."""
        while len(self._digests) < step:
            self._digests.append(next(self._steps))
        return self._digests[step - 1]


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("bank", "bank", "transfers; a snapshot when output asks for it"),
        Workload("commit", "bank", "transfers, each step ended by revenant.commit()", commit_each=True),
        Workload("slow", "bank", "transfers; the disk's flushes overtake writes", writes_per_s=30),
        Workload("btree", "btree", "a growing B-tree"),
        Workload("generators", "generators", "generators, closures, coroutines"),
        Workload("heap", "big_heap", "a heap twice the memory", 1, 40, 256 * MIB, 16),
        Workload("localise", "btree", "a blank near disk over a far store", entry_count=300, far=True),
        Workload("full", "filling", "the disk gets full", 52, 0, 12 * MIB, commit_each=True, fills=True),
        Workload("rollback", "btree", "a rollback to an early generation", 14, commit_each=True, change="rollback"),
        Workload("grow", "filling", "a full disk is enlarged", 0, 0, 12 * MIB, fills=True, change="grow"),
        Workload("upgrade", "generators", "another kernel and loader", change="upgrade"),
    )
}
