"""The simulation of many starts agrees with what can be reckoned by hand."""

from __future__ import annotations

import pytest
from revenant.scale import GBIT, MACHINE_RATE, RACK_SIZE, ROUND_TRIP_S, Start, Way, simulate

START = Start((4096, 160_000, 700_000), 70_000_000)
COUNT = 3 * RACK_SIZE


def test_all_share_the_origin() -> None:
    outcome = simulate(START, COUNT, GBIT, Way.DIRECT)
    expected_s = COUNT * START.size * 8 / GBIT + len(START.requests) * ROUND_TRIP_S
    assert outcome.done_s == pytest.approx([expected_s] * COUNT)
    assert outcome.origin_bytes == COUNT * START.size


def test_one_machine_is_as_fast_as_its_own_line() -> None:
    outcome = simulate(START, 1, 100 * GBIT, Way.DIRECT, fill=True)
    assert outcome.done_s == pytest.approx([START.image_size * 8 / MACHINE_RATE + 4 * ROUND_TRIP_S])


def test_a_rack_asks_once() -> None:
    outcome = simulate(START, COUNT, GBIT, Way.RACKS)
    assert outcome.origin_bytes == COUNT // RACK_SIZE * START.size
    assert len(outcome.done_s) == COUNT


def test_peers_double() -> None:
    """With one place at the origin, those who serve double with each turn."""
    outcome = simulate(START, 7, MACHINE_RATE, Way.PEERS)
    turn_s = START.size * 8 / MACHINE_RATE
    turns = [round((each - 3 * ROUND_TRIP_S) / turn_s, 3) for each in outcome.done_s]
    assert turns == [1, 2, 2, 3, 3, 3, 3]
    assert outcome.origin_bytes == pytest.approx(3 * START.size, rel=1e-6)
