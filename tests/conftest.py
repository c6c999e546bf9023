"""Fixtures for all tests, besides those of the package's own plugin (tools/revenant/PYTEST.md): seeds."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from revenant import genesis

ROOT = Path(__file__).resolve().parents[1]
SEED = os.environ.get("REVENANT_SEED") or str(random.SystemRandom().randrange(1 << 32))


def pytest_report_header() -> str:
    """Printed once; REVENANT_SEED repeats a run."""
    return f"seed: REVENANT_SEED={SEED}"


def pytest_configure(config: pytest.Config) -> None:
    """Workers of xdist take the seed from the one that started them.

    In the background of a shell SIGINT is ignored, and programs that the tests start would inherit that.
    """
    os.environ["REVENANT_SEED"] = SEED
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
