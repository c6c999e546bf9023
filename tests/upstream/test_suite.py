"""MicroPython's own tests against the running machine, through a pty, undisturbed and with the power cut.

A third of folder `basics`, and `float`, always; all others are slow. What is left out, and why, is in skips.toml.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from others import benchmarks, build_modules, limit_heap, native_modules
from run import FOLDERS, TIMED, Outcome, kept_machine, run_suite, unknown_folders

ALWAYS = ("float",)
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
    with kept_machine(image, killable=False, guest_clock=folder in TIMED) as target:
        source = build / "src/micropython"
        require_all(run_suite(source, target, tmp_path / "results", (folder,), timeout_s=240))


def test_some_of_the_basics(image: Path, build: Path, tmp_path: Path) -> None:
    with kept_machine(image, killable=False) as target:
        source = build / "src/micropython"
        require_all(run_suite(source, target, tmp_path / "results", ("basics",), timeout_s=240, step=3))


def test_all_folders_are_run_or_listed(build: Path) -> None:
    assert not unknown_folders(build / "src/micropython/tests")


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted({*FOLDERS} - {"io", "import", "thread"}))
def test_folder_as_machine_code(folder: str, image: Path, build: Path, tmp_path: Path) -> None:
    """Every test compiled by the native emitter."""
    with kept_machine(image, killable=False, guest_clock=folder in TIMED) as target:
        source, mpy_cross = build / "src/micropython", build / "userland/mpy-cross/mpy-cross"
        require_all(
            run_suite(source, target, tmp_path / "results", (folder,), mpy_cross=mpy_cross, timeout_s=500)
        )


@pytest.mark.slow
def test_other_runners(image: Path, build: Path, tmp_path: Path) -> None:
    """Modules of machine code made outside; the benchmarks' results."""
    source = (build / "src/micropython").resolve()
    build_modules(source, build / "userland/mpy-cross/mpy-cross", tmp_path)
    limit_heap(image)
    for runner in (native_modules, benchmarks):
        with kept_machine(image, killable=False) as target:
            report = runner(source, target, tmp_path)
        print(report.verdicts)
        assert not report.failed


def test_killed_after_every_test(image: Path, build: Path, tmp_path: Path, rng: random.Random) -> None:
    """Two small folders; `make conformance` does it with all."""
    with kept_machine(image) as target:
        source, results = build / "src/micropython", tmp_path / "results"
        outcome = run_suite(source, target, results, KILLED, timeout_s=240, seed=str(rng.random()))
    require_all(outcome)
    assert outcome.kill_count > len(outcome.passed) / 2
