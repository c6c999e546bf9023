"""Every program of userland/examples, from its file at genesis on, with the power cut in between."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from revenant import genesis
from revenant.files import Addition
from revenant.machine import PROMPT, Machine

Start = Callable[..., Machine]
Example = Callable[[str], Start]


@pytest.fixture
def example(machine: Start, build_files: genesis.BuildFiles, root: Path, tmp_path: Path) -> Example:
    """Makes an image whose main.py is an example; returns what starts it."""

    def make(name: str) -> Start:
        image = tmp_path / "example.img"
        addition = Addition(root / "userland/examples" / name, PurePosixPath("/main.py"))
        genesis.create_image(image, build_files, 64 << 20, additions=[addition])
        return lambda: machine(image, interval_ms=20)

    return make


def ask(machine: Machine, prompt: bytes, line: str) -> str:
    """Type a line; the answer up to the next prompt, without the echo."""
    machine.send(line.encode() + b"\r")
    machine.expect_exact(line.encode() + b"\r\n")
    return machine.expect_exact(prompt).decode().replace("\r\n", "\n").strip()


def numbers(machine: Machine, pattern: bytes, count: int) -> list[int]:
    """The first group of so many matches on the console."""
    found = []
    for _ in range(count):
        machine.expect(pattern)
        match = machine.console.match
        assert isinstance(match, re.Match)
        found.append(int(match[1]))
    return found


def test_counter(example: Example) -> None:
    start = example("counter.py")
    highest = 0
    for _ in range(4):
        now = start()
        seen = numbers(now, rb"(\d+)\r\n", 5)
        assert seen == list(range(seen[0], seen[0] + 5))
        assert seen[0] <= highest + 1
        now.kill()
        highest = max([seen[-1], *(int(number) for number in re.findall(rb"(\d+)\r\n", now.rest))])


def test_adventure(example: Example) -> None:
    start = example("adventure.py")
    way = ["north", "east", "take lamp", "west", "north", "west", "take treasure", "east", "south", "south"]
    now = start()
    now.expect_exact(b"? ")
    for line in way:
        ask(now, b"? ", line)
        now.kill()
        now = start()
        now.expect_exact(b"? ")  # the line that waits for an answer is shown again
    assert ask(now, b"? ", "carry") == "lamp, treasure"
    assert ask(now, b"? ", "drop treasure") == "The gate opens wide. You have won in 12 turns."


def test_notes(example: Example) -> None:
    start = example("notes.py")
    now = start()
    now.expect_exact(b"note> ")
    assert ask(now, b"note> ", "milk and bread #shop") == "noted as 1"
    now.kill()
    now = start()
    now.expect_exact(b"note> ")
    assert ask(now, b"note> ", "a lamp #shop #cellar") == "noted as 2"
    assert ask(now, b"note> ", "?") == "#cellar (1), #shop (2)"
    assert ask(now, b"note> ", "-1") == "forgotten"
    now.kill()
    now = start()
    now.expect_exact(b"note> ")
    assert ask(now, b"note> ", "?#shop") == "2: a lamp #shop #cellar"
    assert ask(now, PROMPT, "!").startswith("MicroPython")


def test_montecarlo(example: Example) -> None:
    start = example("montecarlo.py")
    points: list[int] = []
    for _ in range(3):
        now = start()
        points += numbers(now, rb"(\d+) \d+ 3\.[01]\d+ \+- 0\.\d+\r\n", 2)
        now.kill()
    assert all(count % 20_000 == 0 for count in points)
    assert points[-1] >= 80_000
    assert all(after >= before - 20_000 for before, after in itertools.pairwise(points))  # one line may come again


def test_life(example: Example) -> None:
    start = example("life.py")
    model = {(1, 0), (2, 1), (0, 2), (1, 2), (2, 2), (31, 15), (32, 15), (30, 16), (31, 16), (31, 17)}
    worlds = [model]
    for _ in range(3):
        now = start()
        for _ in range(3):
            age = numbers(now, rb"generation (\d+)\r\n", 1)[0]
            now.expect(rb"(?:[.#]{64}\r\n){32}")
            rows = now.console.after
            assert isinstance(rows, bytes)
            cells = {(x, y) for y, row in enumerate(rows.split()) for x, cell in enumerate(row) if cell == ord("#")}
            while len(worlds) <= age:
                worlds.append(next_world(worlds[-1]))
            assert cells == worlds[age]
        now.kill()


def next_world(alive: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The rule, said once more, on the same torus."""
    near = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
    counts: dict[tuple[int, int], int] = {}
    for x, y in alive:
        for dx, dy in near:
            place = ((x + dx) % 64, (y + dy) % 32)
            counts[place] = counts.get(place, 0) + 1
    return {place for place, count in counts.items() if count == 3 or (count == 2 and place in alive)}


def test_all_are_here(root: Path) -> None:
    """Each has a test above, its command in its first lines, and a line in README.md."""
    folder = root / "userland/examples"
    readme = (folder / "README.md").read_text()
    for path in folder.glob("*.py"):
        assert f"`{path.name}`" in readme
        assert f"--add userland/examples/{path.name}:main.py" in "".join(path.read_text().splitlines()[:4])
        assert f"test_{path.stem}" in globals()
