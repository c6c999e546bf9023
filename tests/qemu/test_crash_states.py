"""What a power cut could leave of running machines and of commands: each state is exactly a generation, and goes on.

The small run of `revenant crashtest`, a workload for each test; `crashtest --full` tries many more. And proof
that it can fail: recordings from which a flush was taken out, or a root came before its data.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from revenant.crash import command
from revenant.crash.changes import check_log
from revenant.crash.command import SMALL, Trial
from revenant.crash.judge import roots_in
from revenant.crash.log import ENTRY, FLUSH, MAGIC, SUPERBLOCK, VERSION, Entry, read_log
from revenant.crash.record import Recording, Sighting, record
from revenant.crash.states import Image, State
from revenant.crash.workload import WORKLOADS
from revenant.errors import RevenantError
from revenant.format import HEADER_BLOCK, HEADER_COPY_BLOCK, SECTOR_SIZE, SECTORS_PER_BLOCK

SLOW = ("heap",)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in WORKLOADS])
def test_every_state_is_a_generation(
    name: str, run_revenant: Callable[..., Any], tmp_path: Path, rng: random.Random
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # pytest keeps a failure's recording
    words = ("crashtest", "--workload", name, "--jobs", 1, "--seed", rng.getrandbits(32), "--json")
    result = run_revenant(*words, env=environment, timeout=240)
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["failures"] == []
    if WORKLOADS[name].change:  # the state before it and the one after it, and no other
        assert facts["states"] >= 50 and facts["roots"] == 2 and facts["started"] > SMALL.starts
    else:
        assert facts["states"] >= 150 and facts["generations"] >= 5 and facts["started"] == SMALL.starts
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """An enlarged image's recording."""
    return record(WORKLOADS["grow"], 1, tmp_path_factory.mktemp("grow"), 0)


def test_an_image_grows_before_its_headers_say_so(grown: Recording) -> None:
    entries = read_log(grown.log)
    first = next(entry for entry in entries if entry.data)
    assert (first.sector * SECTOR_SIZE, len(first.data)) == (grown.base.stat().st_size,) * 2
    blocks = {i: entry.sector // SECTORS_PER_BLOCK for i, entry in enumerate(entries) if not entry.flush}
    copy, header = (next(i for i in blocks if blocks[i] == block) for block in (HEADER_COPY_BLOCK, HEADER_BLOCK))
    assert any(entry.flush for entry in entries[copy:header]), "both headers could be torn at once"


# --- it can fail ---


@pytest.mark.parametrize("lost", [1, 2, -2])
def test_what_a_command_does_behind_the_log_is_found(grown: Recording, lost: int, tmp_path: Path) -> None:
    entries = read_log(grown.log)
    made = Image(grown.base)
    for entry in entries:
        made.write(entry)
    shutil.copy(grown.base, tmp_path / "near.img")
    made.save(tmp_path / "near.img")
    check_log(grown.base, tmp_path / "near.img", grown.log)
    del entries[lost]
    rewrite_log(tmp_path / "writes.log", entries)
    with pytest.raises(RevenantError, match=r"without a word|makes an image of"):
        check_log(grown.base, tmp_path / "near.img", tmp_path / "writes.log")


def test_an_enlarged_image_that_is_still_full_is_found(grown: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "STEPS_AFTER_START", 100)
    before = dataclasses.replace(grown, workload=dataclasses.replace(grown.workload, image_size=8 << 20))
    assert "full, although it was enlarged" in Trial(before, SMALL).start(State(0))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A short one."""
    return record(WORKLOADS["bank"], 1, tmp_path_factory.mktemp("bank"), 40)


def rewrite_log(path: Path, entries: Iterable[Entry]) -> None:
    """The format of log.py, written."""
    packed = []
    for entry in entries:
        packed.append(ENTRY.pack(entry.sector, entry.sector_count, entry.flush * FLUSH, 0))
        packed[-1] = packed[-1].ljust(SECTOR_SIZE, b"\0") + entry.data
    head = SUPERBLOCK.pack(MAGIC, VERSION, len(packed), SECTOR_SIZE).ljust(SECTOR_SIZE, b"\0")
    path.write_bytes(head + b"".join(packed))


Spoil = Callable[[list[Entry]], list[int]]  # the order in which entries come instead, by index


def without_flush_before_roots(entries: list[Entry]) -> list[int]:
    last = len(entries) - 1
    return [i for i in range(last + 1) if not (entries[i].flush and i < last and roots_in(entries[i + 1]))]


def without_flush_after_roots(entries: list[Entry]) -> list[int]:
    return [i for i, entry in enumerate(entries) if not (entry.flush and i and roots_in(entries[i - 1]))]


def roots_before_their_data(entries: list[Entry]) -> list[int]:
    """Each root, and the flush behind it, before the writes and the flush that it came after."""
    order: list[int] = []
    start = 0
    for i, entry in enumerate(entries):
        if roots_in(entry):
            order += [i, i + 1, *range(start, i)]
            start = i + 2
    return order + list(range(start, len(entries)))


def spoiled(recording: Recording, spoil: Spoil, folder: Path) -> Recording:
    """A recording as a kernel would have made it that does so; what was seen then was seen as early."""
    entries = read_log(recording.log)
    order = spoil(entries)
    ends = [(position + 1, i) for position, i in enumerate(order) if entries[i].flush]
    sightings = [
        Sighting(generation, max((end for end, i in ends if i < count), default=0))
        for generation, count in recording.sightings
    ]
    shutil.copy(recording.base, folder)
    other = dataclasses.replace(recording, folder=folder, sightings=sightings)
    rewrite_log(other.log, [entries[i] for i in order])
    other.save()
    return other


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_flush_before_roots, "does not have the hash"),
        (without_flush_after_roots, "was seen"),
        (roots_before_their_data, "does not have the hash"),
    ],
)
def test_a_lost_order_is_found_and_replayed(
    spoil: Spoil, reason: str, recording: Recording, run_revenant: Callable[..., Any], tmp_path: Path
) -> None:
    trial = Trial(spoiled(recording, spoil, tmp_path), dataclasses.replace(SMALL, starts=0))
    failure = next(failure for failure in trial.run().failures if reason in failure.reason)
    replayed = run_revenant(*failure.replay.split()[1:])
    assert replayed.returncode == 1
    assert failure.reason in replayed.stderr


def test_a_state_that_may_be_is_replayed(recording: Recording, run_revenant: Callable[..., Any]) -> None:
    replayed = run_revenant("crashtest", "--replay", recording.folder, "w2:s1")
    assert replayed.returncode == 0, replayed.stderr
    assert (recording.folder / "w2-s1.img").is_file()
    assert run_revenant("crashtest", "--replay", recording.folder, "w9999:s1").returncode == 1
    assert run_revenant("crashtest", "--replay", recording.folder).returncode == 2
