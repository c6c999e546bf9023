"""Fixtures for all tests: the build's files, images, machines; seeds that are printed; reports of failures.

A failed test with a machine shows its console, QEMU's command line and what the kernel said, addresses with names
and lines; pytest keeps the image in its temporary folder.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.machine import Machine
from revenant.qemu import MachineConfig

ROOT = Path(__file__).resolve().parents[1]
SEED = os.environ.get("REVENANT_SEED") or str(random.SystemRandom().randrange(1 << 32))


def pytest_report_header() -> str:
    """Printed once; REVENANT_SEED repeats a run."""
    return f"seed: REVENANT_SEED={SEED}"


def pytest_configure(config: pytest.Config) -> None:
    """Workers of xdist take the seed from the one that started them."""
    os.environ["REVENANT_SEED"] = SEED


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Randomness of one test: the session's seed and the test's name."""
    print(f"seed: REVENANT_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.nodeid}")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def build() -> Path:
    """The build folder."""
    return genesis.build_folder()


@pytest.fixture(scope="session")
def build_files() -> genesis.BuildFiles:
    """What `make build` made; a test that needs it fails without it."""
    files = genesis.BuildFiles.locate()
    for path in (files.kernel, files.userland, files.boot_record, files.loader):
        assert path.is_file(), f"{path} is missing: run `make build`"
    return files


@pytest.fixture
def run_revenant() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command, behind `prefix`; returns its result, status unchecked, shown if the test fails."""

    def run(*words: object, prefix: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-m", "revenant", *map(str, words)]
        options.setdefault("timeout", 120)
        print("$", shlex.join(command))
        result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        print(f"{result.stdout[-4000:]}\n{result.stderr[-8000:]}\nexit status {result.returncode}")
        return result

    return run


@pytest.fixture
def image(build_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """A fresh image of 64 MiB in generation 1."""
    path = tmp_path / "near.img"
    genesis.create_image(path, build_files, 64 << 20)
    return path


@pytest.fixture
def machine(image: Path) -> Iterator[Callable[..., Machine]]:
    """Starts machines (on the fresh image unless told otherwise) that end with the test."""
    machines: list[Machine] = []

    def start(near: Path | None = None, timeout_s: float = 60, **fields: Any) -> Machine:
        machine = Machine(MachineConfig(near or image, **fields), timeout_s)
        machine.start()
        machines.append(machine)
        return machine

    yield start
    for machine in machines:
        machine.kill()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the report of every machine that a failed test had."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    for machine in Machine.started:
        report.sections.append((f"machine {machine.config.near}", machine.report()))


@pytest.fixture(autouse=True)
def forget_machines() -> None:
    """Reports show the machines of their own test only."""
    Machine.started.clear()
