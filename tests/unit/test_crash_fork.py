"""What a power cut could leave of a fork: a file that is refused or whole, and under its name only when it is durable.

The same writer makes published images. No machine: `os` of writer.py is recorded.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from revenant import travel, writer
from revenant.check import check_store
from revenant.crash.judge import StateStore
from revenant.crash.log import Entry
from revenant.crash.states import Image, enumerate_states, windows_of
from revenant.errors import StoreError
from revenant.format import SECTOR_SIZE
from revenant.store import Store


class RecordedOs:
    """`os`, with what is done to files kept as entries of a log."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        whole = data.ljust(-len(data) % SECTOR_SIZE + len(data), b"\0")
        self.entries.append(Entry(offset // SECTOR_SIZE, whole))
        return os.pwrite(fd, data, offset)

    def ftruncate(self, fd: int, size: int) -> None:
        self.entries.append(Entry(0, bytes(size)))  # the file is new: all of it reads as zeros
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        self.entries.append(Entry(0, b"", flush=True))
        os.fdatasync(fd)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedOs:
    recorder = RecordedOs()
    monkeypatch.setattr(writer, "os", recorder)
    return recorder


def is_whole(image: Image, reads: dict[int, bytes]) -> bool:
    """Whether it is a sound store; else it is refused, by nothing but a StoreError."""
    try:
        check_store(StateStore(image, (), reads))
    except StoreError:
        return False
    return True


def test_every_state_of_a_fork(
    small_image: Path, tmp_path: Path, recorded: RecordedOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, out, empty = small_image.read_bytes(), tmp_path / "fork.img", tmp_path / "empty.img"

    def rename(path: Path, target: Path) -> None:
        assert recorded.entries[-1].flush, "it gets its name before it is durable"
        assert not target.exists()
        os.rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    travel.fork(small_image, out, None, None, False)
    assert small_image.read_bytes() == before
    windows = windows_of(recorded.entries)
    assert [len(window.writes) for window in windows[1:]] == [1, 0], "the root comes alone, and last"
    empty.touch()
    image, found = Image(empty), {True: 0, False: 0}
    for number, states in itertools.groupby(enumerate_states(windows, 1, 8), lambda state: state.window):
        for state in states:
            found[is_whole(image.with_state(state, windows[number]), {})] += 1
        for entry in windows[number].writes:
            image.write(entry)
    assert found[True] >= 1 and found[False] >= 100
    with Store(out) as store:
        assert is_whole(image, {}) and store.root.generation == 1


def test_a_fork_that_is_cut_short_leaves_no_image(
    small_image: Path, tmp_path: Path, recorded: RecordedOs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorded, "fdatasync", full)
    with pytest.raises(OSError, match="No space"):
        travel.fork(small_image, tmp_path / "fork.img", None, None, False)
    assert not list(tmp_path.glob("*fork*"))
