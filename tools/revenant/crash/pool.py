"""Processes for many recordings at a time, which Ctrl-C ends: what runs is interrupted and cleans up, no more is begun.

An executor alone does not end: for its workers an interrupt is their task's error, after which they take the next.
Used by: command.py, bench/crash.py.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

R = TypeVar("R")


@dataclass
class Worker:
    """A worker's own state."""

    is_running: bool = False
    is_stopped: bool = False

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """SIGINT, from the terminal or from our parent, or both: the cleaning up is not interrupted."""
        before, self.is_stopped = self.is_stopped, True
        if self.is_running and not before:
            raise KeyboardInterrupt


WORKER = Worker()


def prepare() -> None:
    """In a worker, once."""
    signal.signal(signal.SIGINT, WORKER.stop)


def turn(work: Callable[..., R], *args: Any) -> R:
    """In a worker: one piece of work."""
    if WORKER.is_stopped:
        raise KeyboardInterrupt
    WORKER.is_running = True
    try:
        return work(*args)
    finally:
        WORKER.is_running = False


class Pool:
    """So many workers."""

    def __init__(self, executor: ProcessPoolExecutor) -> None:
        self._executor = executor

    def submit(self, work: Callable[..., R], *args: Any) -> Future[R]:
        """For the next worker that is free."""
        return self._executor.submit(turn, work, *args)


@contextlib.contextmanager
def workers(count: int) -> Iterator[Pool]:
    """A pool; all of its work has ended afterwards."""
    executor = ProcessPoolExecutor(count, initializer=prepare)
    try:
        yield Pool(executor)
    except BaseException:
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGINT)
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()
