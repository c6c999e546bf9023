"""Failed starts: what is noted of them, when it counts, and how far back healing goes. No machine is started.

Called by: pytest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from revenant import genesis, heal
from revenant.change import Commit, edit, locked
from revenant.errors import MachineError, RefusedError
from revenant.format import SPACE_RECORDS, PageKey, Root, StartFailures
from revenant.record import RECORD_PROCESS_PAGE, ProcessRecord, ProcessState
from revenant.store import Store

SECOND = 10**9
PROCESSES = PageKey(SPACE_RECORDS, RECORD_PROCESS_PAGE)


@pytest.fixture
def image(build_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """Generation 1, which lives."""
    path = tmp_path / "near.img"
    genesis.create_image(path, build_files, 16 << 20)
    return path


def generation(image: Path, exit_status: int | None = None) -> int:
    """Make one in which the program lives, or ended with a status."""
    with locked(image) as fd, Store(image) as store:
        page = store.page(store.tree_at(1), *PROCESSES.key)
        record = ProcessRecord.unpack(page)
        if exit_status is not None:
            record = replace(record, state=ProcessState.ENDED, exit_status=exit_status)
        page = record.pack() + page[ProcessRecord.SIZE :]
        return edit(store, fd, Commit(new=True, pages=[PROCESSES], load=lambda _: page).orders())[0]


def root_of(image: Path) -> Root:
    """The newest root record."""
    with Store(image) as store:
        return store.root


def target_of(image: Path) -> int | None:
    """The generation that healing would go back to."""
    with Store(image) as store:
        found = heal.target(store)
    return found.generation if found else None


def panics() -> int:
    """A machine that panics at once."""
    raise MachineError("near.img", "panic: test", "", 3, blames_state=True)


def start(image: Path, run: Callable[[], int], healing: bool = False) -> MachineError | None:
    """One start; its error."""
    try:
        heal.watched(image, [], healing, run)
    except MachineError as error:
        return error
    return None


def fail(image: Path, count: int = 1) -> MachineError:
    """Failed starts; the last one's error."""
    errors = [start(image, panics) for _ in range(count)]
    assert all(errors) and errors[-1] is not None
    return errors[-1]


def root(generation: int = 5, mono_s: float = 100, failures: StartFailures | None = None) -> Root:
    """A root record as far as notes look at it."""
    return Root(generation=generation, mono_ns=int(mono_s * SECOND), failures=failures or StartFailures())


OLD = StartFailures(2, 0, 4, 95 * SECOND)


@pytest.mark.parametrize(
    ("failures", "failed", "clean", "seconds", "expected"),
    [
        (StartFailures(), True, False, 1, StartFailures(1, 0, 5, 101 * SECOND)),
        (OLD, True, False, 1, StartFailures(3, 0, 4, 101 * SECOND)),
        (replace(OLD, mono_ns=90 * SECOND), True, False, 1, StartFailures(1, 0, 5, 101 * SECOND)),  # it ran since
        (StartFailures(0, 2, 4, 99 * SECOND), True, False, 1, StartFailures(1, 2, 4, 101 * SECOND)),
        (OLD, True, False, 11, StartFailures()),  # not right after the start
        (OLD, False, False, 1, OLD),  # a cut says nothing
        (OLD, False, False, 11, StartFailures()),
        (OLD, False, True, 1, StartFailures()),
    ],
)
def test_note(failures: StartFailures, failed: bool, clean: bool, seconds: float, expected: StartFailures) -> None:
    assert heal.note_of(root(failures=failures), root(6, 101), failed, clean, seconds) == expected


def test_the_third_failure_offers_an_older_generation(image: Path) -> None:
    newest = [generation(image) for _ in range(3)][-1]
    for _ in range(2):
        assert "--heal" not in str(fail(image))
    error = fail(image)
    assert f"generation {newest} has failed 3 times right after its start" in error.reason
    assert f"generation {newest - 1}, 0.0 s older" in error.remedy and error.exit_status == 3
    assert root_of(image).failures == StartFailures(3, 0, newest, 0)


def test_a_cut_is_no_failure_and_writes_nothing(image: Path) -> None:
    def cut() -> int:
        raise MachineError("qemu", "ended by SIGKILL", "", 137)

    before = image.read_bytes()
    for _ in range(4):
        error = start(image, cut)
        assert error is not None and error.exit_status == 137
    assert start(image, lambda: 0) is None
    assert image.read_bytes() == before


def test_a_start_that_lives_ends_the_row(image: Path) -> None:
    fail(image, 2)
    assert start(image, lambda: 0) is None
    assert root_of(image).failures == StartFailures()
    assert "--heal" not in str(fail(image, 2))


def test_whoever_commits_carries_the_note(image: Path) -> None:
    fail(image, 2)
    generation(image)
    assert root_of(image).failures.start_count == 2
    assert fail(image).reason.endswith("has failed 3 times right after its start")


def test_healing_goes_further_back_each_time(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = [generation(image) for _ in range(9)][-1]  # 1 to 10
    starts = []

    def fails_five_times() -> int:
        starts.append(root_of(image).generation)
        return panics() if len(starts) <= 5 else 0

    assert start(image, fails_five_times, healing=True) is None
    assert starts == [10, 10, 10, 11, 12, 13]
    with Store(image) as store:
        records = {record.generation: record for record in store.generations()}
    assert [records[number].origin for number in (11, 12, 13)] == [newest - 1, newest - 2, newest - 4]
    assert records[newest].tag_text == f"failed-{newest}"
    assert root_of(image).failures == StartFailures()
    assert "generation 10 has failed 3 times right after its start: going on from" in capsys.readouterr().err


def test_healing_ends(image: Path) -> None:
    generation(image)
    error = start(image, panics, healing=True)
    assert error is not None and "no older one that could go on is retained" in error.reason
    assert error.exit_status == 4


def test_only_living_generations_count(image: Path) -> None:
    generation(image)
    generation(image, -1)
    generation(image, -1)
    assert target_of(image) == 2
    error = fail(image)  # a dead state needs no second start
    assert "goes on from generation 2" in error.remedy
    runs = []
    assert start(image, lambda: len(runs), healing=True) is None
    assert root_of(image).generation == 5


def test_what_ended_well_is_not_healed(image: Path) -> None:
    newest = generation(image, 0)
    before = image.read_bytes()
    assert start(image, lambda: 0, healing=True) is None
    assert root_of(image).generation == newest and image.read_bytes() == before


def test_refused_as_damaged(image: Path) -> None:
    generation(image)

    def refuses() -> int:
        if root_of(image).generation == 2:
            raise RefusedError(image, "damaged", "the machine did not start", blames_state=True)
        return 0

    before = image.read_bytes()
    error = start(image, refuses)
    assert isinstance(error, RefusedError) and "goes on from generation 1" in error.remedy
    assert image.read_bytes() == before
    assert start(image, refuses, healing=True) is None
    assert root_of(image).generation == 3


def test_another_refusal_is_not_healed(image: Path) -> None:
    def refuses() -> int:
        raise RefusedError(image, "a record layout that this kernel does not know", "the machine did not start")

    before = image.read_bytes()
    assert start(image, refuses, healing=True) is not None
    assert image.read_bytes() == before
