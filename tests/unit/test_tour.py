"""The walks through the code in kernel/TOUR.md: each function that they name is in the file that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEP = re.compile(r"`(\w+)`\s+\(`([\w/.]+)`\)")
DEFINED = {
    ".c": r"^(?:[\w *]+[ *])?{name}\([^;]*(?:$|{{)",
    ".py": r"^def {name}\(",
    ".asm": r"^{name}:",
    ".inc": r"^{name}:",
}


def steps() -> list[tuple[str, str]]:
    """(function, file) in the order of the walk."""
    return STEP.findall((ROOT / "kernel/TOUR.md").read_text())


def test_there_are_steps() -> None:
    assert len(steps()) > 40


@pytest.mark.parametrize(("name", "file"), sorted(set(steps())))
def test_step(name: str, file: str) -> None:
    path = ROOT / file
    pattern = DEFINED[path.suffix].format(name=name)
    assert re.search(pattern, path.read_text(), re.MULTILINE), f"kernel/TOUR.md: {file} has no {name}"
