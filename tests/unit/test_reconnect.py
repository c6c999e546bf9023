"""When a connection that owes answers is ended: seen by a clock that runs as the test wants.

That it is replaced, and that a machine goes on by it, is tested in tests/qemu/test_far_failures.py.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from qemu.qmp import QMPClient
from revenant import reconnect
from revenant.reconnect import LOOK_INTERVAL_S, SILENCE_S, Disk


class EndOfTestError(Exception):
    """The clock has run as far as the test looks."""


class Link:
    """A machine's link to a server that answers one request at each of these times, and owes others for ever."""

    def __init__(self, answers_s: list[float], until_s: float) -> None:
        self.answers_s = answers_s
        self.until_s = until_s
        self.now_s = 0.0
        self.ended_s: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > self.until_s:
            raise EndOfTestError

    async def execute(self, command: str, arguments: object) -> object:
        if command == "yank":
            self.ended_s.append(self.now_s)
        return {"inuse": 1, "used-idx": sum(answer_s <= self.now_s for answer_s in self.answers_s)}


def ended_s(monkeypatch: pytest.MonkeyPatch, answers_s: list[float], until_s: float) -> list[float]:
    """When a connection over such a link is ended."""
    link = Link(answers_s, until_s)

    async def found(uri: str) -> None:
        """Who asks it otherwise gets what he wants."""

    monkeypatch.setattr(reconnect, "asyncio", SimpleNamespace(sleep=link.sleep))
    monkeypatch.setattr(reconnect, "time", SimpleNamespace(monotonic=lambda: link.now_s))
    monkeypatch.setattr(reconnect, "found", found)
    with pytest.raises(EndOfTestError):
        asyncio.run(reconnect.end_silence(cast(QMPClient, link), Disk("far1", "nbd://server")))
    return link.ended_s


def test_each_end_gives_the_next_connection_twice_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is slower than one request in SILENCE_S gets its answer at last."""
    times_s = ended_s(monkeypatch, [], 200)
    gaps_s = [after - before for before, after in zip([0.0, *times_s], times_s, strict=False)]
    assert len(gaps_s) >= 5
    for number, gap_s in enumerate(gaps_s):
        assert SILENCE_S * 2**number < gap_s <= SILENCE_S * 2**number + 3 * LOOK_INTERVAL_S


def test_an_answer_makes_the_time_short_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """That link is as quick as others; where nothing comes afterwards, something else is wrong."""
    silent_s = ended_s(monkeypatch, [], 60)
    again_s = silent_s[-1] + 3
    assert ended_s(monkeypatch, [again_s], 100)[len(silent_s)] <= again_s + SILENCE_S + 3 * LOOK_INTERVAL_S


def test_a_slow_link_that_answers_is_never_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended_s(monkeypatch, [1.5 * number for number in range(100)], 140) == []
