"""A life against a model: pages, clones, drops, commits, power cuts; each reopening is a generation.

After a cut in the middle of commit n + 1 the store opens with generation n or n + 1, whole, and the checker
finds nothing.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Callable

import checker
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from store_host import Host, build

Contents = dict[tuple[int, int], int]

SPACES = st.sampled_from([16, 17, 18, 200])
PAGES = st.sampled_from([0, 1, 2, 127, 128, 129, 300, 16383, 16384, 20000, 3_000_000, (1 << 35) - 1])


class Life(RuleBasedStateMachine):
    """The model is a dictionary for each durable generation, and what the next one would add."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.host = Host(build(), pathlib.Path(self.directory.name))

    @initialize(
        seed=st.integers(1, 1 << 30),
        blocks=st.sampled_from([4096, 4096, 5000, 4096, 40000]),
        ordered=st.booleans(),
    )
    def begin(self, seed: int, blocks: int, ordered: bool) -> None:
        self.host("set seed 0", seed)
        self.host("set ordered 0", int(ordered))
        self.host("set persistent 0", 1)
        self.host("disk 0", blocks)
        self.host("format 0")
        self.host("open")
        self.generation = 1
        self.durable: Contents = {}
        self.operations: list[tuple[str, int, int]] = []
        self.staged: Contents = {}
        self.next_value = 1

    def after_commit(self) -> Contents:
        """What the next generation would hold."""
        contents = dict(self.durable)
        for kind, origin, space in self.operations:
            copied = {(space, page): value for (owner, page), value in contents.items() if owner == origin}
            contents = {key: value for key, value in contents.items() if key[0] != space}
            if kind == "clone":
                contents.update(copied)
        contents.update(self.staged)
        return {key: value for key, value in contents.items() if value}

    @rule(space=st.one_of(SPACES, st.just(0)), page=PAGES, zero=st.booleans(), count=st.integers(1, 3))
    def write(self, space: int, page: int, zero: bool, count: int) -> None:
        for index in range(page, min(page + count, 1 << 35)):
            value = 0 if zero and count == 1 else self.next_value
            self.next_value += 1
            self.host("put", space, index, value)
            self.staged[space, index] = value

    @rule(kind=st.sampled_from(["writes", "flushes"]), count=st.integers(1, 40))
    def disk_fails(self, kind: str, count: int) -> None:
        """So many of the next ones: the commits that meet them are made anew, in full."""
        self.host(f"set fail_{kind} 0", count if kind == "writes" else count % 5)

    @rule(space=SPACES, start=st.sampled_from([0, 100, 16000]), count=st.integers(1, 260))
    def write_many(self, space: int, start: int, count: int) -> None:
        for index in range(start, start + count):
            self.host("put", space, index, self.next_value)
            self.staged[space, index] = self.next_value
            self.next_value += 1

    @precondition(lambda self: not self.staged)
    @rule(origin=SPACES, space=SPACES)
    def clone(self, origin: int, space: int) -> None:
        if origin != space:
            self.host("clone", origin, space)
            self.operations.append(("clone", origin, space))

    @precondition(lambda self: not self.staged)
    @rule(space=SPACES)
    def drop(self, space: int) -> None:
        self.host("drop", space)
        self.operations.append(("drop", 0, space))

    @rule()
    def commit(self) -> None:
        self.durable = self.after_commit()
        self.generation += 1
        self.staged, self.operations = {}, []
        assert int(self.host("commit 1 0").split()[0]) == self.generation

    @rule()
    def root_only(self) -> None:
        if not self.staged:
            assert int(self.host("commit 0 0").split()[0]) == self.generation

    @rule(seed=st.integers(1, 1 << 30), cut=st.integers(1, 60), new=st.booleans())
    def cut(self, seed: int, cut: int, new: bool) -> None:
        candidate = self.after_commit() if new else self.durable
        if not new and self.staged:
            return
        answer = self.host("commit", int(new), cut)
        self.host("set seed 0", seed)
        self.host("crash")
        generation = int(self.host("open"))
        assert generation in ({self.generation, self.generation + 1} if new else {self.generation})
        if generation > self.generation:
            self.durable = candidate
        else:
            assert answer == "cut" or not new
        self.generation = generation
        self.staged, self.operations = {}, []
        self.whole()

    @rule(count=st.integers(0, 50))
    def shrink(self, count: int) -> None:
        self.host("shrink", count)

    @rule()
    def whole(self) -> None:
        """Every page of the durable generation reads back, and the image is good."""
        if not self.staged and not self.operations:
            for (space, page), value in self.durable.items():
                assert self.host.holds(space, page, value), f"space {space} page {page}"
        assert checker.check(self.host.image()) == []

    def teardown(self) -> None:
        self.host.close()
        self.directory.cleanup()


@pytest.mark.parametrize("lives", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_life(lives: int) -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=lives,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def prepare(host: Host, leave_free: int) -> None:
    """A store with history: shared subtrees, more generations than are retained, and so many blocks free."""
    host("puts", 16, 0, 1, 300)
    host("commit 1 0")
    host("clone 16 17")
    host("commit 1 0")
    filler = host.facts()["free"] - leave_free
    if filler > 0:
        host("puts", 20, 0, 1 << 20, filler)
        host("commit 1 0")
    for turn in range(20):
        host("puts", 17, turn * 10 % 200, 1000 + turn * 10, 10)
        host("put 0 0", turn + 1)
        host("commit 1 0")


def stage(host: Host) -> None:
    """One commit with all kinds of changes."""
    host("clone 17 18")
    host("drop 16")
    host("puts 17 50 5000 30")
    host("put 18 70 7000")
    host("put 0 0 99")


def run_cut(host: Host, base: pathlib.Path, generation: int, seed: int, cut: int) -> int | None:
    """Cuts one commit and opens again: the generations gained; None if the commit had ended before."""
    host("crash")
    host("load 0", base)
    host("set seed 0", seed)
    assert host("open") == str(generation)
    stage(host)
    if host("commit 1", cut) != "cut":
        return None
    host("crash")
    gained = int(host("open")) - generation
    assert host.holds(17, 50, 5000 if gained else 1050) and host.holds(0, 0, 99 if gained else 20)
    assert host.holds(16, 299, 0 if gained else 300) and host.holds(18, 70, 7000 if gained else 0)
    assert host.holds(18, 299, 300 if gained else 0)
    assert checker.check(host.image()) == []
    host("put 0 1 5")
    host("commit 1 0")
    assert checker.check(host.image()) == []
    return gained


SLOW_CASES = [(100000, 0, 1), (720, 2, 0), (100000, 1, 0), (100000, 1, 1)]


@pytest.mark.parametrize(
    ("leave_free", "seed", "greedy"),
    [(100000, 0, 0), (720, 2, 1), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_CASES)],
)
def test_every_cut_of_a_commit(start: Callable[..., Host], leave_free: int, seed: int, greedy: int) -> None:
    host = start(blocks=3000, seed=seed + 10)
    host("set greedy 0", greedy)
    prepare(host, leave_free)
    base = host.directory / "base.img"
    base.write_bytes(host.image())
    generation = int(host.facts()["generation"])
    gained = [run_cut(host, base, generation, seed * 1000 + cut, cut) for cut in range(1, 200)]
    assert None in gained and 0 in gained


def test_what_is_freed_is_used_at_once(start: Callable[..., Host]) -> None:
    """Each commit takes the very blocks that it frees; each is cut, and the machine goes on."""
    host = start(blocks=2048, seed=5)
    host("set greedy 0 1")
    prepare(host, 100000)
    last = 20
    for turn in range(100):
        host("puts 17", turn * 3 % 100, 9000 + turn * 10, 4)
        host("put 0 0", 100 + turn)
        generation = host.facts()["generation"]
        if host("commit 1", 8 + turn % 12) == "cut":
            host("crash")
            host("set seed 0", turn)
            gained = int(host("open")) - generation
        else:
            gained = 1
        last = 100 + turn if gained else last
        assert host.holds(0, 0, last)
        assert checker.check(host.image()) == []
