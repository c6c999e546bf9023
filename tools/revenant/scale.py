"""What thousands of machines cost that start from one far store: a small simulation (kernel/store/SCALE.md).

`python -m revenant.scale IMAGE`: the sizes are those of a published image. A start is a chain of requests; a link
is shared evenly by all that want something from it. Waits are round trips and links only: no CPU, no loss.
Times are seconds, sizes bytes, rates bits per second. Used by: people, tests/unit/test_scale.py.
"""

from __future__ import annotations

import heapq
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from revenant.format import BLOCK_SIZE
from revenant.images import Json
from revenant.output import print_rows
from revenant.store import Store

GBIT = 1_000_000_000
RACK_SIZE = 40
RACK_RATE = 25 * GBIT  # of a rack's cache to the machines of its rack, together
MACHINE_RATE = 1 * GBIT  # of one machine, in and out
ROUND_TRIP_S = 0.001

Action = Callable[[], None]


class Way(StrEnum):
    """How the machines are served."""

    DIRECT = "direct"
    RACKS = "cache per rack"
    PEERS = "peers share"


@dataclass(frozen=True)
class Start:
    """What one machine asks for: requests one after the other until its first answer, then, if it fills, the rest."""

    requests: Sequence[int]
    image_size: int

    @classmethod
    def of(cls, image: Path) -> Start:
        """Of a published image, over HTTP: root; kernel with its node; headers and what a start touches."""
        with Store(image) as store:
            root = store.root
        kernel = BLOCK_SIZE + -(-root.kernel_size // BLOCK_SIZE) * BLOCK_SIZE
        requests = (BLOCK_SIZE, kernel, (4 + root.packed_count) * BLOCK_SIZE)
        return cls(requests, root.block_count * BLOCK_SIZE)

    @property
    def size(self) -> int:
        """Bytes until the first answer."""
        return sum(self.requests)


class Clock:
    """What happens when."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._count = 0
        self._events: list[tuple[float, int, Action]] = []

    def after(self, seconds: float, action: Action) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._events, (self.now_s + seconds, self._count, action))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now_s, _, action = heapq.heappop(self._events)
            action()


class Link:
    """A line whose transfers go on at the same speed, none faster than MACHINE_RATE.

    `in_turn`: as many at a time as have that speed; the others wait for a place. `_progress` is what a transfer that
    never ended would have got so far, so each is over at a progress that is known when it begins.
    """

    def __init__(self, clock: Clock, rate: float, in_turn: bool = False) -> None:
        self.clock, self.rate, self.in_turn = clock, rate, in_turn
        self.own_rate = rate
        self.own_bytes = 0.0  # sent by whom the line belongs to, not by those who joined
        self._progress = self._since_s = 0.0
        self._count = 0
        self._transfers: list[tuple[float, int, Action]] = []
        self._queue: deque[tuple[int, Action]] = deque()
        self._turn = 0  # an event of an earlier turn is void: the speed has changed

    def _speed(self) -> float:
        return min(self.rate / max(len(self._transfers), 1), MACHINE_RATE) / 8

    def _settle(self) -> None:
        got = (self.clock.now_s - self._since_s) * self._speed()
        self.own_bytes += got * len(self._transfers) * self.own_rate / self.rate
        self._progress += got
        self._since_s = self.clock.now_s

    def _plan(self) -> None:
        """Admit who waits; be woken when the first of all is over."""
        while self._queue and (not self.in_turn or (len(self._transfers) + 1) * MACHINE_RATE <= self.rate):
            size, done = self._queue.popleft()
            self._count += 1
            heapq.heappush(self._transfers, (self._progress + size, self._count, done))
        self._turn += 1
        if self._transfers:
            turn, left = self._turn, max(self._transfers[0][0] - self._progress, 0)
            self.clock.after(left / self._speed(), lambda: self._end(turn))

    def _end(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._settle()
        self._progress = max(self._progress, self._transfers[0][0])  # what was aimed at, however sums are rounded
        done = []
        while self._transfers and self._transfers[0][0] <= self._progress:
            done.append(heapq.heappop(self._transfers)[2])
        self._plan()
        for action in done:
            action()

    def send(self, size: int, done: Action) -> None:
        """Begin a transfer."""
        self._settle()
        self._queue.append((size, done))
        self._plan()

    def join(self, rate: float) -> None:
        """Somebody else serves, too."""
        self._settle()
        self.rate += rate
        self._plan()


@dataclass
class Cache:
    """A rack's: what nobody in the rack has asked for comes from the origin, once."""

    origin: Link
    link: Link
    here: set[int] = field(default_factory=set)
    waiting: dict[int, list[Action]] = field(default_factory=dict)

    def fetch(self, number: int, size: int, done: Action) -> None:
        """Request `number` of a start, for one machine."""
        if number in self.here:
            self.link.send(size, done)
            return
        first = number not in self.waiting
        self.waiting.setdefault(number, []).append(lambda: self.link.send(size, done))
        if first:
            self.origin.send(size, lambda: self._came(number))

    def _came(self, number: int) -> None:
        self.here.add(number)
        for action in self.waiting.pop(number):
            action()


@dataclass(frozen=True)
class Outcome:
    """When the machines had what they wanted, in order, and what the origin sent."""

    done_s: Sequence[float]
    origin_bytes: int

    def row(self) -> dict[str, Any]:
        """As facts."""
        return {
            "median_s": round(statistics.median(self.done_s), 2),
            "worst_s": round(self.done_s[-1], 2),
            "origin_gb": round(self.origin_bytes / 1e9, 2),
        }


def simulate(start: Start, machine_count: int, rate: float, way: Way, fill: bool = False) -> Outcome:
    """All machines are switched on at once. `fill`: until each has the whole image, not only its first answer."""
    clock = Clock()
    done_s: list[float] = []
    origin = Link(clock, rate, in_turn=way is Way.PEERS)
    requests = [*start.requests, start.image_size - start.size] if fill else list(start.requests)
    wait_s = ROUND_TRIP_S
    if way is Way.PEERS:  # who has a place keeps it until it has all
        requests, wait_s = [sum(requests)], ROUND_TRIP_S * len(requests)
    racks = [Cache(origin, Link(clock, RACK_RATE)) for _ in range(-(-machine_count // RACK_SIZE))]

    def fetch(machine: int, number: int, done: Action) -> None:
        if way is Way.RACKS:
            racks[machine // RACK_SIZE].fetch(number, requests[number], done)
        else:
            origin.send(requests[number], done)

    def go_on(machine: int, number: int) -> None:
        if number < len(requests):
            clock.after(wait_s, lambda: fetch(machine, number, lambda: go_on(machine, number + 1)))
            return
        done_s.append(clock.now_s)
        if way is Way.PEERS:
            origin.join(MACHINE_RATE)  # it serves what it has; whom it serves verifies every block

    for machine in range(machine_count):
        go_on(machine, 0)
    clock.run()
    return Outcome(done_s, round(origin.own_bytes))


def table(start: Start, machine_count: int) -> list[dict[str, Any]]:
    """Every way, over lines of the origin from 1 to 100 Gbit/s: until the first answer, and until all is near."""
    return [
        {
            "until": "all is near" if fill else "first answer", "origin_gbit_s": gbit, "way": way.value,
            **simulate(start, machine_count, gbit * GBIT, way, fill).row(),
        } for fill in (False, True) for gbit in (1, 10, 100) for way in Way
    ]  # fmt: skip


def main(
    image: Annotated[Path, typer.Argument(help="A published image.")],
    machines: Annotated[int, typer.Option(help="How many start at once.", min=1)] = 10_000,
    as_json: Json = False,
) -> None:
    """Simulate that many machines start from one far store."""
    print_rows(table(Start.of(image), machines), as_json)


if __name__ == "__main__":
    typer.run(main)
