"""An outside client and its model: 50 power cuts, and no answer that was seen is ever contradicted.

Called by: pytest; `revenant witness` is the same without end.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from revenant import witness
from revenant.qemu import MachineConfig
from revenant.witness import Contradiction, History, Operation, State


@pytest.mark.parametrize("part", range(2))
def test_no_answer_is_contradicted(image: Path, rng: random.Random, part: int) -> None:
    tally = witness.run_witness(MachineConfig(image, interval_ms=10), 25, str(rng.random()))
    assert tally.kills == 25 and tally.answers > 0
    assert (tally.kills_with_loss, tally.lost_answers) == (0, 0)


def test_relaxed_is_behind_but_never_mixed(image: Path, rng: random.Random) -> None:
    tally = witness.run_witness(MachineConfig(image, interval_ms=50, relaxed=True), 15, str(rng.random()))
    assert tally.answers > 0


def history(*operations: tuple[str, int]) -> History:
    """Operations 1, 2, … were sent."""
    made = History()
    for number, (name, value) in enumerate(operations, start=1):
        made.begin(Operation(number, name, value))
    return made


def test_model_finds_a_lost_effect() -> None:
    made = history(("add", 5), ("add", 1))
    assert made.see(1, 5)
    with pytest.raises(Contradiction, match="answered 1, history allows 6"):
        made.see(2, 1)


def test_model_finds_a_repeated_effect() -> None:
    made = history(("put", 7), ("take", 0), ("take", 0))
    made.see(1, 1)
    made.see(2, 7)
    with pytest.raises(Contradiction):
        made.see(3, 7)


def test_model_finds_a_lost_answer() -> None:
    made = history(("add", 5), ("add", 1))
    with pytest.raises(Contradiction, match="no answer was seen"):
        made.see(2, 6)


def test_model_allows_what_a_cut_may_do() -> None:
    made = history(("add", 5), ("add", 1))
    made.was_cut = True
    made.settle()
    assert {state.counter for state in made.possible} == {0, 1, 5, 6}
    made.begin(Operation(3, "look", 0))
    made.see(3, (0, 6, 0))
    assert made.possible == {State(counter=6)}
    assert not made.see(3, (0, 6, 0))
