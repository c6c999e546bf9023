"""MicroPython's own tests against the running machine, through a pty, undisturbed and with the power cut.

Folders `basics` and `float` always, the others are slow. What is left out, and why, is in skips.toml.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run import FOLDERS, Outcome, kept_machine, run_suite

ALWAYS = ("basics", "float")
KILLED = ("misc", "unicode")

pytestmark = pytest.mark.qemu


def require_all(outcome: Outcome) -> None:
    """No failure; what was left out is shown with its reason."""
    print(outcome.table())
    for name, reason in outcome.skipped_by_us.items():
        print(f"left out: {name}: {reason}")
    assert not outcome.failed, f"see {outcome.results}"
    assert outcome.passed


@pytest.mark.parametrize(
    "folder",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in FOLDERS],
)
def test_folder(folder: str, image: Path, build: Path, tmp_path: Path) -> None:
    with kept_machine(image, killable=False) as target:
        source = build / "src/micropython"
        require_all(run_suite(source, target, tmp_path / "results", (folder,), timeout_s=240))


def test_killed_after_every_test(image: Path, build: Path, tmp_path: Path, rng: random.Random) -> None:
    """Two small folders; `make conformance` does it with all."""
    with kept_machine(image) as target:
        source, results = build / "src/micropython", tmp_path / "results"
        outcome = run_suite(source, target, results, KILLED, timeout_s=240, seed=str(rng.random()))
    require_all(outcome)
    assert outcome.kill_count > len(outcome.passed) / 2
