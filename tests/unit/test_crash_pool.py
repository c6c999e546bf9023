"""Ctrl-C ends a pool of workers: what runs cleans up after itself, what waits is not begun."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from revenant.crash.pool import workers

TASK_COUNT = 5


def wait_for_ever(folder: Path, number: int) -> None:
    """As a recording does: something is left to be cleaned up."""
    begun = folder / f"begun-{number}"
    try:
        begun.touch()  # who sees it may interrupt at once
        while begun.exists():
            time.sleep(0.01)
    finally:
        (folder / f"cleaned-{number}").touch()


def test_an_interrupt_ends_it(tmp_path: Path) -> None:
    """Here only the parent gets it; from a terminal all do."""
    with pytest.raises(KeyboardInterrupt), workers(2) as pool:
        for number in range(TASK_COUNT):
            pool.submit(wait_for_ever, tmp_path, number)
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
    begun = {path.name for path in tmp_path.iterdir()}
    assert begun == {"begun-0", "begun-1", "cleaned-0", "cleaned-1"}


def test_results_come_back() -> None:
    with workers(2) as pool:
        turns = [pool.submit(pow, 2, number) for number in range(TASK_COUNT)]
        assert [turn.result() for turn in turns] == [1, 2, 4, 8, 16]
