"""Firmware's memory maps: every whole page of RAM is given out exactly once, however ranges overlap.

The model is a set of pages: those inside a RAM range, less those that anything else touches.
"""

from __future__ import annotations

import pathlib
import random
import subprocess

import pytest
from store_host import compile_program

PAGE_SIZE = 4096
KERNEL_END = 0x10000
MAP_END = 0x100000
RAM, RESERVED = 1, 2

Range = tuple[int, int, int]
"""Start, size, type."""


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("frames", tmp_path_factory.mktemp("frames"))


def given_out(frames: pathlib.Path, ranges: list[Range]) -> tuple[int, list[int]]:
    """(free count, every page that is given out, in order)."""
    text = "".join(f"{start:x} {size:x} {kind}\n" for start, size, kind in ranges)
    result = subprocess.run([frames], input=text, capture_output=True, text=True, check=True)
    free_count, *pages = (int(line, 16) for line in result.stdout.split())
    return free_count, pages


def expected(ranges: list[Range]) -> list[int]:
    """The model."""
    found: set[int] = set()
    for start, size, kind in ranges:
        if kind == RAM:
            found.update(range(-(-start // PAGE_SIZE), (start + size) // PAGE_SIZE))
    for start, size, kind in [*ranges, (0, KERNEL_END, RESERVED)]:
        if kind != RAM:
            found.difference_update(range(start // PAGE_SIZE, -(-(start + size) // PAGE_SIZE)))
    return [page * PAGE_SIZE for page in sorted(found)]


@pytest.mark.parametrize(
    "ranges",
    [
        [(0, 0x80000, RAM)],
        [(0, 0x80000, RAM), (0x20000, 0x1000, RAM), (0x30000, 0x1000, RAM)],  # two inside of one
        [(0, 0x80000, RAM), (0x20000, 0x1000, RAM), (0x70000, 0x20000, RAM)],
        [(0x20000, 0x8000, RAM), (0x20000, 0x8000, RAM), (0x20000, 0x4000, RAM)],
        [(0, 0x80000, RAM), (0x20800, 0x100, RESERVED), (0x7F000, 0x8000, RESERVED)],
    ],
)
def test_maps(frames: pathlib.Path, ranges: list[Range]) -> None:
    pages = expected(ranges)
    assert given_out(frames, ranges) == (len(pages), pages)


def test_random_maps(frames: pathlib.Path, rng: random.Random) -> None:
    for _ in range(100):
        ranges = [(0x20000, 0x10000, RAM)]
        for _ in range(rng.randrange(8)):
            start, size = rng.randrange(MAP_END), rng.randrange(1, MAP_END // 4)
            if rng.random() < 0.7:
                start, size = start & -PAGE_SIZE, size & -PAGE_SIZE or PAGE_SIZE
            ranges.append((start, size, rng.choice([RAM, RAM, RESERVED])))
        rng.shuffle(ranges)
        pages = expected(ranges)
        if pages:
            assert given_out(frames, ranges) == (len(pages), pages), ranges
