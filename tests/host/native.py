"""Builds the programs of tests/host/native and runs them; their own heads say what they do.

Used by: test_native.py, store_host.py (the harness is built in the same way).
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "host"
SOURCES = ROOT / "tests" / "host" / "native"
CORPUS = ROOT / "tests" / "corpus" / "store"


def build(name: str) -> Path:
    """Makes one program, or what of it is out of date; returns its path."""
    BUILD.mkdir(parents=True, exist_ok=True)
    target = Path(os.path.relpath(BUILD / name, SOURCES))
    with (BUILD / "lock").open("w") as lock:  # of several workers one compiles, the others wait
        fcntl.flock(lock, fcntl.LOCK_EX)
        words = ["make", "--silent", f"--jobs={os.cpu_count()}", "-C", str(SOURCES), str(target)]
        subprocess.run(words, check=True)
    return BUILD / name


def run(program: Path, *words: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Runs a program without leak detection (a power cut frees nothing); output and status as they are."""
    return subprocess.run(
        [str(program), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
