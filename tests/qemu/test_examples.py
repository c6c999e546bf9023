"""Every program of userland/examples, by the command in its first lines, with the power cut in between."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Example = Callable[[str], Any]


@pytest.fixture
def example(keep: Callable[..., Any], root: Path, tmp_path: Path) -> Example:
    """Starts one; returns what keeps it."""

    def start(name: str) -> Any:
        return keep(tmp_path / "example.img", "--interval", "20", "--add", f"{root}/userland/examples/{name}:main.py")

    return start


def ask(kept: Any, line: str, prompt: bytes) -> str:
    """Type a line and cut the power; the answer up to the next prompt, without the echo."""
    kept.client.send(line.encode() + b"\r")
    kept.cut()
    kept.client.expect_exact(line.encode() + b"\r\n")
    kept.client.expect_exact(prompt)
    return str(kept.client.before.decode().replace("\r\n", "\n").strip())


def first_numbers(kept: Any, pattern: bytes, count: int) -> list[int]:
    """The first group of so many matches on the console."""
    found = []
    for _ in range(count):
        kept.client.expect(pattern)
        found.append(int(kept.client.match[1]))
    return found


def test_counter(example: Example) -> None:
    kept = example("counter.py")
    for cut in range(4):
        assert first_numbers(kept, rb"(\d+)\r\n", 5) == [5 * cut + step for step in range(1, 6)]
        kept.cut()


def test_adventure(example: Example) -> None:
    kept = example("adventure.py")
    kept.client.expect_exact(b"? ")
    for line in ("north", "east", "take lamp", "west", "north", "west", "take treasure", "east", "south", "south"):
        ask(kept, line, b"? ")
    assert ask(kept, "carry", b"? ") == "lamp, treasure"
    assert ask(kept, "drop treasure", b"? ") == "The gate opens wide. You have won in 12 turns."


def test_notes(example: Example) -> None:
    kept = example("notes.py")
    kept.client.expect_exact(b"note> ")
    dialogue = {
        "milk and bread #shop": "noted as 1",
        "a lamp #shop #cellar": "noted as 2",
        "?": "#cellar (1), #shop (2)",
        "-1": "forgotten",
        "?#shop": "2: a lamp #shop #cellar",
    }
    for line, answer in dialogue.items():
        assert ask(kept, line, b"note> ") == answer
    assert ask(kept, "!", b">>> ").startswith("MicroPython")


def test_montecarlo(example: Example) -> None:
    kept = example("montecarlo.py")
    for cut in range(3):
        points = first_numbers(kept, rb"(\d+) \d+ 3\.[01]\d+ \+- 0\.\d+\r\n", 2)
        assert points == [20_000 * (2 * cut + 1), 20_000 * (2 * cut + 2)]
        kept.cut()


def test_life(example: Example) -> None:
    kept = example("life.py")
    world = {(1, 0), (2, 1), (0, 2), (1, 2), (2, 2), (31, 15), (32, 15), (30, 16), (31, 16), (31, 17)}
    for age in range(9):
        kept.client.expect(rb"generation (\d+)\r\n((?:[.#]{64}\r\n){32})")
        assert int(kept.client.match[1]) == age
        rows = kept.client.match[2].split()
        assert world == {(x, y) for y, row in enumerate(rows) for x, cell in enumerate(row) if cell == ord("#")}
        world = next_world(world)
        if age % 3 == 2:
            kept.cut()


def next_world(alive: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The rule, said once more, on the same torus."""
    near = [way for way in itertools.product((-1, 0, 1), repeat=2) if way != (0, 0)]
    counts: dict[tuple[int, int], int] = {}
    for (x, y), (dx, dy) in itertools.product(alive, near):
        place = ((x + dx) % 64, (y + dy) % 32)
        counts[place] = counts.get(place, 0) + 1
    return {place for place, count in counts.items() if count == 3 or (count == 2 and place in alive)}


def test_jobs(example: Example) -> None:
    """Each job is done once, whatever is under way between the processes when the power goes."""
    kept = example("jobs.py")
    workers: set[int] = set()
    done: set[int] = set()
    while not done >= set(range(1, 46)):
        kept.client.expect(rb"job (\d+) by process (\d+): (\d+) = ([\d *]+)\r\n")
        job, worker, number = (int(kept.client.match[group]) for group in (1, 2, 3))
        factors = [int(factor) for factor in kept.client.match[4].split(b" * ")]
        assert job not in done and len(done) < 70
        assert number == 1_000_000_000 + job == math.prod(factors)
        workers.add(worker)
        done.add(job)
        if len(done) % 9 == 0:
            kept.cut()
    assert len(workers) == 3 and kept.cuts >= 5


def test_all_are_here(root: Path) -> None:
    """Each has a test above, its command in its first lines, and a line in README.md."""
    folder = root / "userland/examples"
    readme = (folder / "README.md").read_text()
    for path in folder.glob("*.py"):
        assert f"`{path.name}`" in readme
        assert re.search(rf"revenant run .*--add userland/examples/{path.name}:main\.py", path.read_text()[:400])
        assert f"test_{path.stem}" in globals()
