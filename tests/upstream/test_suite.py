"""MicroPython's own tests against the running machine, through a pty.

Folders `basics` and `float` always, the others are slow. What is left out, and why, is in skips.toml.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run import FOLDERS, run_suite

ALWAYS = ("basics", "float")

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize(
    "folder",
    [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in FOLDERS],
)
def test_folder(folder: str, image: Path, build: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "revenant", "run", "--near", str(image), "--console", "pty"]
    script = tmp_path / "machine"
    script.write_text(f"#!/bin/sh\nexec {shlex.join(words)} 2>{tmp_path}/stderr.txt\n")
    script.chmod(0o755)
    source, target = build / "src/micropython", f"execpty:{script.resolve()}"
    outcome = run_suite(source, target, tmp_path / "results", (folder,), timeout_s=240)
    print(f"{folder}: {len(outcome.passed)} passed, {len(outcome.skipped_by_themselves)} skipped themselves")
    for name, reason in outcome.skipped_by_us.items():
        print(f"left out: {name}: {reason}")
    assert not outcome.failed, f"see {outcome.results}"
    assert outcome.passed
