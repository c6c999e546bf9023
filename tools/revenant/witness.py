"""`revenant witness`: a client of a running machine writes down every answer it sees, and cuts the power at random.

Promise checked: the machine never contradicts an answer that was seen, and never repeats an effect. The judge is a
model: the set of all states that the objects can be in, given the history. An operation with an answer keeps the states
that give this answer; one whose answer was never seen may have happened or not; an empty set is a contradiction.
With --relaxed, answers may be lost: the machine must then be exactly where it was after some earlier operation, and
the age of the oldest lost answer is measured. Used by: cli.py, tests/qemu/test_witness.py.
"""

from __future__ import annotations

import ast
import random
import re
import select
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pexpect
import typer

from revenant import genesis
from revenant.check import check_store
from revenant.errors import RevenantError
from revenant.machine import Machine
from revenant.output import print_facts, say
from revenant.qemu import MachineConfig
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

# What the machine runs: three objects, and the number of the operation that came last.
SERVICE = """\
register, counter, queue, last = 0, 0, [], 0
def do(number, name, value):
    global register, counter, last
    last = number
    if name == 'set':
        answer, register = register, value
    elif name == 'add':
        counter += value
        answer = counter
    elif name == 'put':
        queue.append(value)
        answer = len(queue)
    elif name == 'take':
        answer = queue.pop(0) if queue else None
    else:
        answer = (register, counter, sum(queue))
    print('answer', number, repr(answer))
"""
NAMES = ("set", "add", "put", "put", "take", "look")
ANSWER = re.compile(rb"answer (\d+) ([^\r\n]+)\r\n")
DELAY_MAX_S = 0.12
IN_FLIGHT_COUNT = 3
CHECK_EACH = 10
"""Cuts between two runs of the checker over the image."""

Answer = int | None | tuple[int, int, int]


class Contradiction(RevenantError):
    """The machine did what no history allows."""


@dataclass(frozen=True)
class Operation:
    """One call of do()."""

    number: int
    name: str
    value: int

    def line(self) -> bytes:
        """As it is typed."""
        return b"do(%d,'%s',%d)\r" % (self.number, self.name.encode(), self.value)


@dataclass(frozen=True)
class State:
    """The objects, as the model has them."""

    register: int = 0
    counter: int = 0
    queue: tuple[int, ...] = ()

    def after(self, operation: Operation) -> tuple[State, Answer]:
        """The next state, and the answer that it gives."""
        value = operation.value
        match operation.name:
            case "set":
                return State(value, self.counter, self.queue), self.register
            case "add":
                return State(self.register, self.counter + value, self.queue), self.counter + value
            case "put":
                return State(self.register, self.counter, (*self.queue, value)), len(self.queue) + 1
            case "take":
                return State(self.register, self.counter, self.queue[1:]), self.queue[0] if self.queue else None
        return self, (self.register, self.counter, sum(self.queue))


@dataclass
class History:
    """All that was seen, and the states that it allows."""

    possible: set[State] = field(default_factory=lambda: {State()})
    pending: dict[int, Operation] = field(default_factory=dict)
    answers: dict[int, Answer] = field(default_factory=dict)
    was_cut: bool = False
    """What is pending was sent before a cut: its line may be gone."""

    def begin(self, operation: Operation) -> None:
        """It was sent."""
        self.pending[operation.number] = operation

    def see(self, number: int, answer: Answer) -> bool:
        """An answer was seen; False if it is one that is shown again."""
        if number in self.answers:
            if self.answers[number] != answer:
                raise Contradiction(f"operation {number}", f"answered {self.answers[number]}, then {answer}")
            return False
        while self.pending:
            operation = self.pending.pop(next(iter(self.pending)))
            if operation.number == number:
                break
            if not self.was_cut:
                raise Contradiction(str(operation), f"no answer was seen, but one of operation {number}")
            self._perhaps(operation)
        else:
            raise Contradiction(f"operation {number}", "answered after the machine had forgotten it")
        nexts = [state.after(operation) for state in self.possible]
        self.possible = {state for state, given in nexts if given == answer}
        self.answers[number] = answer
        if not self.possible:
            wanted = sorted({str(given) for _, given in nexts})
            raise Contradiction(str(operation), f"answered {answer}, history allows {' or '.join(wanted)}")
        return True

    def settle(self) -> None:
        """What has no answer by now will never have one: each may have happened."""
        for operation in self.pending.values():
            self._perhaps(operation)
        self.pending.clear()
        self.was_cut = False

    def _perhaps(self, operation: Operation) -> None:
        self.possible |= {state.after(operation)[0] for state in self.possible}


@dataclass
class Tally:
    """What a run comes to. Losses are those of --relaxed."""

    kills: int = 0
    answers: int = 0
    shown_again: int = 0
    without_answer: int = 0
    kills_with_loss: int = 0
    lost_answers: int = 0
    loss_max_ms: int = 0


class Witness:
    """One client of one image."""

    def __init__(self, config: MachineConfig, rng: random.Random) -> None:
        self.config = config
        self.rng = rng
        self.history = History()
        self.tally = Tally()
        self.next_number = 1
        self.cut_s = 0.0
        self.base = State()
        self.log: list[tuple[Operation, float]] = []
        """For --relaxed: operations since `base` that were answered, and when."""

    def prepare(self) -> None:
        """First start: the service is typed in and durable."""
        with Machine(self.config) as machine:
            wait_for_prompt(machine)
            paste(machine, SERVICE)
            machine.command_at_prompt("import revenant; revenant.commit()")

    def life(self) -> None:
        """A start, some operations, a power cut at a random moment: now and then while it is still starting."""
        with Machine(self.config) as machine:
            if self.rng.random() < 0.1:
                select.select([], [], [], self.rng.uniform(0, DELAY_MAX_S))
            else:
                self._work(machine)
            self.cut_s = time.monotonic()
            machine.kill()
        self.tally.kills += 1
        self._see_all(machine.rest)
        self.history.was_cut = True
        if self.tally.kills % CHECK_EACH == 0:
            with Store(self.config.near) as store:
                check_store(store)

    def _work(self, machine: Machine) -> None:
        self._synchronise(machine)
        for _ in range(self.rng.randrange(1, 12)):
            self._send(machine)
            while len(self.history.pending) >= IN_FLIGHT_COUNT:
                self._see_one(machine)
        end_s = time.monotonic() + self.rng.uniform(0, DELAY_MAX_S)
        while (left_s := end_s - time.monotonic()) > 0:
            if len(self.history.pending) < IN_FLIGHT_COUNT:
                self._send(machine)
            if select.select([machine.console_socket], [], [], left_s)[0]:
                self._see_one(machine)

    def _send(self, machine: Machine) -> None:
        operation = Operation(self.next_number, self.rng.choice(NAMES), self.rng.randrange(1, 1000))
        self.next_number += 1
        self.history.begin(operation)
        machine.send(operation.line())

    def _see_one(self, machine: Machine) -> None:
        machine.console.expect(ANSWER)
        match = machine.console.match
        assert isinstance(match, re.Match)
        self._see(match)

    def _see_all(self, data: bytes) -> None:
        for match in ANSWER.finditer(data):
            self._see(match)

    def _see(self, match: re.Match[bytes]) -> None:
        number, answer = int(match[1]), ast.literal_eval(match[2].decode())
        operation = self.history.pending.get(number)
        if not self.history.see(number, answer):
            self.tally.shown_again += 1
            return
        self.tally.answers += 1
        if operation is not None:
            self.log.append((operation, time.monotonic()))

    def _synchronise(self, machine: Machine) -> None:
        """Wait until all that was sent before the cut has been answered or is gone."""
        wait_for_prompt(machine)
        self._see_all(machine.transcript.getvalue())
        self.tally.without_answer += len(self.history.pending)
        if self.config.relaxed:
            self._take_loss(machine)
        self.history.settle()
        self.log.clear()

    def _take_loss(self, machine: Machine) -> None:
        """--relaxed: the machine says which operation was its last; its state must be the one after that."""
        last, *objects = ast.literal_eval(machine.command_at_prompt("last, register, counter, queue"))
        found = State(objects[0], objects[1], tuple(objects[2]))
        before = state = self.base
        for operation in [*(operation for operation, _ in self.log), *self.history.pending.values()]:
            if operation.number <= last:
                before, state = state, state.after(operation)[0]
        interrupted = last in self.history.pending  # by the Ctrl-C of who synchronises
        if found != state and not (interrupted and found == before):
            raise Contradiction(str(self.config.near), f"after operation {last} it has {found}, not {state}")
        lost = [seen_s for operation, seen_s in self.log if operation.number > last]
        if lost:
            self.tally.kills_with_loss += 1
            self.tally.lost_answers += len(lost)
            self.tally.loss_max_ms = max(self.tally.loss_max_ms, int(1000 * (self.cut_s - lost[0])))
        self.history.pending.clear()
        self.history.possible = {found}
        self.base = found


def run_witness(config: MachineConfig, kill_count: int, seed: str) -> Tally:
    """kill_count lives of a fresh image; Contradiction (with the seed) at the first that cannot be."""
    witness = Witness(config, random.Random(seed))
    try:
        witness.prepare()
        while witness.tally.kills < kill_count:
            witness.life()
            if witness.tally.kills % 100 == 0:
                say(f"revenant: {witness.tally.kills} of {kill_count} kills survived")
    except (Contradiction, pexpect.ExceptionPexpect) as error:
        error.add_note(f"seed {seed}, kill {witness.tally.kills}, last operation {witness.next_number - 1}")
        raise
    return witness.tally


@contextmanager
def image_for(keep: Path | None) -> Iterator[Path]:
    """A fresh image, in a temporary folder unless it is to be kept."""
    with tempfile.TemporaryDirectory(prefix="revenant-witness-") as folder:
        image = keep or Path(folder, "machine.img")
        genesis.create_image(image, genesis.BuildFiles.locate())
        yield image


def witness(
    kills: Annotated[int, typer.Option(help="How often the power is cut.", min=1)] = 1000,
    seed: Annotated[str | None, typer.Option(help="Repeats what the client does.")] = None,
    relaxed: Annotated[bool, typer.Option("--relaxed", help="Answers may be lost: measure how old ones.")] = False,
    interval: Annotated[int, typer.Option(help="Milliseconds between snapshots.", min=1)] = 10,
    image: Annotated[Path | None, typer.Option(help="Make the image here, and keep it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Facts as JSON.")] = False,
) -> None:
    """Talk to a machine, cut its power again and again, and hold it to every answer that was seen."""
    seed = seed or str(random.SystemRandom().randrange(1 << 32))
    with image_for(image) as path:
        tally = run_witness(MachineConfig(path, relaxed=relaxed, interval_ms=interval), kills, seed)
    print_facts({"seed": seed, "interval_ms": interval, **vars(tally), "contradicted_answers": 0}, as_json)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(witness)
