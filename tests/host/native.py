"""Builds and runs the native programs of tests/host/native; their own heads say what they do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from store_host import BUILD, ROOT

SOURCES = ROOT / "tests" / "host" / "native"
CORPUS = ROOT / "tests" / "corpus" / "store"


def build(name: str, out: Path = BUILD, kernel: Path = ROOT / "kernel", *settings: str) -> Path:
    """Makes one program into `out`, from that copy of kernel/, with make's settings; returns its path."""
    words = [f"OUT={out.resolve()}", f"KERNEL={kernel.resolve()}", *settings, str(out.resolve() / name)]
    subprocess.run(["make", "--silent", "-C", str(SOURCES), *words], check=True)
    return out / name


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
