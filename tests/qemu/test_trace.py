"""The trace outlives the power: what happened before a cut is in the image, in order, with the life that it is of."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from revenant.events import Kind
from revenant.machine import Machine
from revenant.record import TRACE_EVENTS_PER_PAGE
from revenant.script import wait_for_prompt
from revenant.state import named
from revenant.store import Store
from revenant.trace import Event, events_of

Start = Callable[..., Machine]


def events_in(image: Path) -> list[Event]:
    """All that its newest generation knows."""
    with Store(image) as store:
        return list(events_of(store, named(store, "newest").generation))


def kinds(events: list[Event], *wanted: Kind) -> list[Event]:
    """Those of some kinds."""
    return [event for event in events if event.kind in wanted]


def test_lives_before_a_cut(
    machine: Start, image: Path, run_revenant: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    first = machine(interval_ms=0)
    wait_for_prompt(first)
    first.command_at_prompt("import revenant")
    assert int(first.command_at_prompt("[revenant.commit() for i in range(60)][-1]")) >= 61
    first.kill()
    events = events_in(image)
    with Store(image) as store:
        newest = store.root.generation
    assert {event.life for event in events} == {1} and len(events) > TRACE_EVENTS_PER_PAGE
    assert [event.mono_ns for event in events] == sorted(event.mono_ns for event in events)
    assert events[-1].kind == Kind.FREEZE, "it ends with the freeze of the generation that holds it"
    freezes = [event.words[1] for event in kinds(events, Kind.FREEZE)]
    assert freezes == list(range(freezes[0], newest + 1))
    assert [event.words[1] for event in kinds(events, Kind.DURABLE)] == freezes[:-1]

    second = machine(interval_ms=0)
    wait_for_prompt(second)
    second.command_at_prompt("revenant.spawn('import uctypes; uctypes.bytearray_at(8, 1)[0]')")
    second.expect_voice("last ")
    second.command_at_prompt("revenant.commit()")
    assert re.search(r"last 64 events.*\n(?:  .*\n){62}  .*\] fault 14 \w+ 8\n  .*\] said: .* stopped: ", second.voice)
    second.kill()
    later = events_in(image)
    assert later[: len(events)] == events, "the next life adds to what was there"
    added = later[len(events) :]
    assert {event.life for event in added} == {2}
    resume, freeze = kinds(added, Kind.RESUME)[0], kinds(added, Kind.FREEZE)[0]
    assert resume.mono_ns <= events[-1].mono_ns < freeze.mono_ns, "the machine's time stands still while it starts"
    assert [event.kind for event in kinds(added, Kind.RESUME, Kind.SPAWN, Kind.FAULT, Kind.EXIT)] == [
        Kind.RESUME, Kind.SPAWN, Kind.FAULT, Kind.EXIT,
    ]  # fmt: skip
    told = [event.text for event in kinds(added, Kind.NOTICE)]
    assert "process … (…) stopped: …" in told, "a text of the image's kernel"
    assert not any(text.startswith(" ") for text in told), "a report's registers are not events"

    rows = json.loads(run_revenant("trace", image, "--last", "5", "--json").stdout)
    assert [row["words"] for row in rows] == [list(event.words) for event in later[-5:]]
    older = run_revenant("trace", image, "--at", newest, "--last", "1").stdout
    assert f"generation {newest}," in older.splitlines()[-1]
    assert f"generation {newest + 1}," not in older
