"""`revenant demo`: programs run, the power goes, the programs go on; every claim is checked.

Used by: running.py. The guest's side is plain MicroPython that knows nothing of this.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pexpect

from revenant import genesis
from revenant.errors import MachineError
from revenant.machine import Machine
from revenant.output import say
from revenant.qemu import Boot, MachineConfig
from revenant.script import paste, wait_for_prompt

CUTS = 3
COUNT_TO = 60
STEP_MS = 50

# Typed at the prompt through paste mode, one state of every kind.
PREPARE = f"""\
import asyncio, time
answer = {{'meaning': 42}}
def squares():
    n = 0
    while True:
        yield n * n
        n += 1
generator = squares()
started = [next(generator) for _ in range(5)]
journal = open('journal.txt', 'w')
journal.write('written before the power went\\n')
class Guard:
    def __enter__(self):
        print('guard: entered')
    def __exit__(self, *what):
        print('guard: left')
def count():
    with Guard():
        for number in range(1, {COUNT_TO + 1}):
            print('number', number)
            time.sleep_ms({STEP_MS})
    return 'counted'
async def later():
    await asyncio.sleep_ms({COUNT_TO * STEP_MS // 2})
    return 'slept'
async def main():
    task = asyncio.create_task(later())
    await asyncio.sleep_ms(10)
    return count(), await task
"""

AFTER: tuple[tuple[str, str, str], ...] = (
    ("a variable", "answer", "{'meaning': 42}"),
    ("the function's value and the task's", "result", "('counted', 'slept')"),
    ("a generator, from where it was", "next(generator)", "25"),
    ("an open file", "journal.write('and after')", "9"),
    ("its contents", "journal.close(); open('journal.txt').read()",
     "'written before the power went\\nand after'"),
)  # fmt: skip


def show(keep: Path | None, boot: Boot) -> None:
    """All of it; MachineError at the first state that did not come back."""
    with tempfile.TemporaryDirectory(prefix="revenant-demo-") as folder:
        image = keep or Path(folder, "machine.img")
        if not image.exists():
            genesis.create_image(image, genesis.BuildFiles.locate())
        config = MachineConfig(image, boot=boot)
        numbers = Numbers(image)
        prepare(config, numbers)
        for cut in range(1, CUTS):
            go_on(config, numbers, cut, last=False)
        go_on(config, numbers, CUTS, last=True)
    say("Everything came back.")


class Numbers:
    """The counting loop as the outside sees it: no number may be missing."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.last = 0

    def see(self, machine: Machine, stop: Callable[[int], bool]) -> None:
        """Watch until stop(number). After a cut the last lines may be shown again, but none is left out."""
        while not stop(self.last):
            try:
                machine.expect([rb"number (\d+)\r\n"])
            except (pexpect.TIMEOUT, pexpect.EOF) as error:
                raise MachineError(self.image, f"no number after {self.last}: {type(error)}") from None
            match = machine.console.match
            number = int(match.group(1)) if isinstance(match, re.Match) else 0
            if number > self.last + 1:
                raise MachineError(self.image, f"number {number} came after {self.last}")
            self.last = max(self.last, number)


def prepare(config: MachineConfig, numbers: Numbers) -> None:
    """First start: make the state, begin to count, cut the power in the middle."""
    with Machine(config) as machine:
        wait_for_prompt(machine)
        paste(machine, PREPARE)
        machine.send(b"result = asyncio.run(main())\r")
        numbers.see(machine, lambda number: number >= COUNT_TO // (CUTS + 1))
        say(f"counting, at {numbers.last}; kill -9 of QEMU's process {machine.process.pid}")


def go_on(config: MachineConfig, numbers: Numbers, cut: int, last: bool) -> None:
    """A start after a cut: counting goes on; after the last one, everything is looked at."""
    with Machine(config) as machine:
        before = numbers.last
        target = COUNT_TO if last else COUNT_TO * (cut + 1) // (CUTS + 1)
        numbers.see(machine, lambda number: number > before)
        say(f"started again: it goes on with {numbers.last}")
        numbers.see(machine, lambda number: number >= target)
        if not last:
            say(f"counting, at {numbers.last}; kill -9 of QEMU's process {machine.process.pid}")
            return
        machine.expect_exact(b"guard: left")
        machine.expect_exact(b">>> ")
        say("the loop ended, its `with` block was left")
        for what, expression, expected in AFTER:
            look(machine, config, what, expression, expected)


def look(machine: Machine, config: MachineConfig, what: str, expression: str, expected: str) -> None:
    """Evaluate at the prompt and compare."""
    *statements, expression = expression.split("; ")
    for statement in statements:
        machine.command_at_prompt(statement)
    found = machine.command_at_prompt(expression)
    if found != expected:
        raise MachineError(config.near, f"{what}: {expression} is {found!r}, not {expected!r}")
    say(f"{what}: {found}")
