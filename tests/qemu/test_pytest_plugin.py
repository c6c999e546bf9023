"""The package's pytest plugin, as other projects use it: the example of its document, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE_FAILS = """

def test_that_fails(machine):
    machine.python("print('seen ' + 'on the console')")
    assert False


def test_that_never_ends(machine):
    machine.python("while True: pass", timeout_s=0.5)
"""


def test_the_documents_example(root: Path, build: Path, tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (root / "tools/revenant/PYTEST.md").read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "test_example.py").write_text(example[1] + EXAMPLE_FAILS)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", tmp_path, tmp_path]
    result = subprocess.run(
        [sys.executable, *map(str, words), "--basetemp", str(tmp_path / "own")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    said = result.stdout + result.stderr
    assert "2 failed, 2 passed" in said, said
    assert re.search(r"MachineError: .*: its console was silent for 0.5 s", said)
    assert "seen on the console" in said and "--- QEMU: qemu-system-x86_64" in said, "a failed test shows its machine"
