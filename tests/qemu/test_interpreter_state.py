"""What a program computes does not depend on when the machine was frozen: its flags and vectors survive every fault.

Each first write after a freeze is a page fault. QEMU's TCG gives such a fault the wrong RFLAGS when a SETcc makes it
(userland/toolchain/as): before the port's assembler went round that, a thirty-thousandth of these strings was wrong.
Called by: pytest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

PROGRAM = """
wrong = set()
for i in range(250000):
    text = "%.8f" % 1.5
    if text != "1.50000000":
        wrong.add(text)
x = [0.1 * i for i in range(400)]
y = sum(x)
for i in range(1000):
    if sum(x) != y:
        wrong.add(i)
print(wrong)
"""


def test_arithmetic_under_frequent_freezes(
    image: Path, tmp_path: Path, run_revenant: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    result = run_revenant("run", "--near", image, "--interval", 10, "--", script)
    assert (result.returncode, result.stdout) == (0, "set()\n"), result.stderr
