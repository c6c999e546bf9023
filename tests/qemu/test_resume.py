"""kill -9 at random moments of a running program: it goes on, with exact state and no lost output.

The program keeps a chain of hashes, a deque and a growing dictionary, and prints a line for every step; a
model of it runs here. After a cut some last lines may come again, none may be missing, each must be right.
"""

from __future__ import annotations

import random
import re
import select
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant.check import check_store
from revenant.machine import Machine
from revenant.qemu import WriteLog
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]

CUTS_PER_TEST = 10
LINE = re.compile(rb"step (\d+) (\d+) (\d+)\r\n")

PROGRAM = """\
import revenant
from collections import deque
def work():
    revenant.commit()
    chain, recent, table, junk = 1, deque((), 50), {}, []
    step = 0
    while True:
        step += 1
        chain = (chain * 6364136223846793005 + step) % 2 ** 64
        recent.append(chain)
        table[chain % 997] = step
        junk = [bytearray(chain % 3000) for _ in range(3)] if step % 7 == 0 else junk
        print('step', step, chain, (sum(recent) + sum(table.values())) % 1000003)
"""


class Model:
    """What the program must print."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, int]] = []
        self.chain, self.recent, self.table = 1, [0] * 0, dict[int, int]()

    def line(self, step: int) -> tuple[int, int]:
        """(chain, sum) of a step, from 1 on."""
        while len(self.lines) < step:
            now = len(self.lines) + 1
            self.chain = (self.chain * 6364136223846793005 + now) % 2**64
            self.recent = [*self.recent, self.chain][-50:]
            self.table[self.chain % 997] = now
            self.lines.append((self.chain, (sum(self.recent) + sum(self.table.values())) % 1000003))
        return self.lines[step - 1]


class Watcher:
    """Reads the program's lines and holds each against the model."""

    def __init__(self) -> None:
        self.model = Model()
        self.last = 0

    def see(self, machine: Machine) -> int:
        """One more line."""
        machine.console.expect(LINE)
        match = machine.console.match
        assert isinstance(match, re.Match)
        step, chain, total = (int(text) for text in match.groups())
        assert (chain, total) == self.model.line(step), f"step {step} differs"
        return step

    def watch(self, machine: Machine, line_count: int) -> None:
        """At least one new line, and `line_count` in all; none is left out."""
        previous: int | None = None
        seen = 0
        first_new = self.last + 1
        while seen < line_count or self.last < first_new:
            step = self.see(machine)
            assert step <= self.last + 1, f"lines {self.last + 1} to {step - 1} are lost"
            assert previous is None or step == previous + 1
            previous = step
            self.last = max(self.last, step)
            seen += 1


def start_program(machine: Machine, source: str, call: str) -> None:
    """Type a program in paste mode and call it."""
    wait_for_prompt(machine)
    paste(machine, source)
    machine.send(call.encode() + b"\r")


def wait_a_moment(rng: random.Random, most_s: float = 0.15) -> None:
    """Let it run; a state to wait for would make the moment less random."""
    select.select([], [], [], rng.uniform(0, most_s))


@pytest.mark.parametrize("part", range(5))
@pytest.mark.parametrize("interval_ms", [10])
def test_killed_at_random_moments(
    machine: Start, image: Path, rng: random.Random, part: int, interval_ms: int
) -> None:
    watcher = Watcher()
    now = machine(interval_ms=interval_ms)
    start_program(now, PROGRAM, "work()")
    for _ in range(CUTS_PER_TEST):
        watcher.watch(now, rng.randrange(1, 30))
        wait_a_moment(rng)
        cut(now, watcher)
        with Store(image) as store:
            check_store(store)
        now = machine(interval_ms=rng.choice([1, interval_ms, 100]))
    watcher.watch(now, 30)


def cut(machine: Machine, watcher: Watcher) -> None:
    """kill -9. What was shown and not yet read counts as seen."""
    machine.kill()
    for match in LINE.finditer(machine.rest):
        step = int(match.group(1))
        assert step <= watcher.last + 1
        watcher.last = max(watcher.last, step)


def test_killed_while_it_starts(machine: Start, image: Path, rng: random.Random) -> None:
    watcher = Watcher()
    now = machine()
    start_program(now, PROGRAM, "work()")
    watcher.watch(now, 20)
    cut(now, watcher)
    for _ in range(10):
        cut_short = machine()
        wait_a_moment(rng, 0.12)
        cut(cut_short, watcher)
        with Store(image) as store:
            check_store(store)
    watcher.watch(machine(), 20)


def test_relaxed_output_may_be_ahead_but_state_is_exact(machine: Start, rng: random.Random) -> None:
    watcher = Watcher()
    now = machine(relaxed=True, interval_ms=500)
    start_program(now, PROGRAM, "work()")
    watcher.watch(now, 30)
    for _ in range(3):
        wait_a_moment(rng, 0.7)
        now.kill()
        now = machine(relaxed=True, interval_ms=500)
        watcher.last = watcher.see(now)  # may be earlier than what was seen: that is what relaxed means
        watcher.watch(now, 30)


def test_strict_output_is_saved_before_it_is_seen(machine: Start, rng: random.Random) -> None:
    """Only output asks for snapshots here (interval 0): whatever was seen must be there."""
    now = machine(interval_ms=0)
    wait_for_prompt(now)
    for turn in range(8):
        assert now.command_at_prompt(f"seen = {turn}; seen") == str(turn)
        now.kill()
        now = machine(interval_ms=0)
        wait_for_prompt(now)
        assert now.command_at_prompt("seen") == str(turn)


def test_output_waits_for_a_slow_disk(machine: Start, tmp_path: Path) -> None:
    """Each commit takes a tenth of a second and more: whoever is shown an answer before its end sees it lost."""
    for turn in range(4):
        (tmp_path / "log").write_bytes(b"")
        now = machine(interval_ms=0, write_log=WriteLog(tmp_path / "log", writes_per_s=300))
        wait_for_prompt(now)
        if turn:
            assert now.command_at_prompt("seen") == str(turn - 1)
        assert now.command_at_prompt(f"seen = {turn}; seen") == str(turn)
        now.kill()


def test_clocks_after_a_cut(machine: Start) -> None:
    """The machine's own time goes on where the generation left it; the wall clock is the host's."""
    first = machine()
    wait_for_prompt(first)
    first.command_at_prompt("import time, revenant; time.sleep_ms(2000)")  # more than the next start takes
    first.command_at_prompt("before = time.ticks_us(), time.time_ns()")
    first.command_at_prompt("revenant.commit() > 0")
    first.kill()
    second = machine()
    wait_for_prompt(second)
    assert second.command_at_prompt("time.ticks_diff(time.ticks_us(), before[0]) > 0") == "True"
    assert second.command_at_prompt("time.time_ns() > before[1]") == "True"


SLEEPER = """\
import aiorevenant, asyncio, revenant, time
spring, summer = (time.mktime((2033, month, 1, 0, 0, 0, 0, 0)) for month in (4, 7))
def year_at(t): return time.localtime()[0] if time.time() >= t else 'too early'

async def wait():
    await aiorevenant.sleep_until(spring)
    return year_at(spring)

async def wait_all():
    task = asyncio.create_task(wait())
    await asyncio.sleep_ms(100)
    print('asleep', revenant.commit() > 0)
    revenant.sleep_until(summer + 0.5)
    return year_at(summer), await task
"""


def test_sleeping_until_a_moment_takes_time_without_power_along(machine: Start) -> None:
    """Ten years go by while it is off; by the machine's own time there are still ten years to wait."""
    first = machine(extra=("-rtc", "base=2023-08-01T00:00:00"))
    wait_for_prompt(first)
    paste(first, SLEEPER)
    first.send(b"print('woke', asyncio.run(wait_all()))\r")
    first.expect_exact(b"asleep True\r\n")
    first.kill()
    second = machine(extra=("-rtc", "base=2033-08-01T00:00:00"))
    second.expect_exact(b"woke (2033, 2033)\r\n")


def test_randomness_is_fresh_at_each_start(machine: Start, tmp_path: Path) -> None:
    """The device is asked at every start: what a generation holds, two machines may have."""
    for life in range(2):
        log = tmp_path / f"trace{life}"
        now = machine(extra=("-d", "trace:virtio_rng_pushed", "-D", str(log)))
        wait_for_prompt(now)
        assert re.search(r"virtio_rng_pushed.* 64 bytes pushed", log.read_text())
        now.kill()


def test_many_kinds_of_state(run_revenant: Callable[..., object]) -> None:
    """`revenant demo`: generator, `with` block, open file, asyncio task."""
    result = run_revenant("demo", timeout=240)
    assert result.returncode == 0, result.stderr  # type: ignore[attr-defined]
    assert "Everything came back." in result.stderr  # type: ignore[attr-defined]


def test_answers_to_an_earlier_life_are_told_apart(
    machine: Start, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut while wait_for_prompt's own request was still in the keyboard's ring: it is answered in the next life."""
    first = machine()
    sent: list[bytes] = []
    with monkeypatch.context() as patch:
        patch.setattr(first, "send", lambda data: (sent.append(data), Machine.send(first, data)))
        wait_for_prompt(first)
    first.command_at_prompt("import revenant, time")
    request = sent[-1].lstrip(b"\x03\x02")
    first.send(b"print('typed'); time.sleep_ms(100); print(revenant.commit()); time.sleep(600)\r")
    first.expect_exact(b"typed\r\n")
    first.send(request)
    first.console.expect(rb"\d+\r\n")
    first.kill()
    second = machine()
    wait_for_prompt(second)
    assert second.command_at_prompt("1 + 1") == "2"
