"""The port's memory and string functions against plain ones, as the object file that MicroPython is linked with."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("libc.c")


def test_libc(build: Path, tmp_path: Path) -> None:
    compiled = build / "userland/micropython/libc.o"
    renamed, program = tmp_path / "libc.o", tmp_path / "libc"
    subprocess.run(["objcopy", "--prefix-symbols=port_", "-R", ".eh_frame", compiled, renamed], check=True)
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-no-pie", "-fno-builtin", "-Wl,--gc-sections", "-z", "noexecstack"]
    subprocess.run(["gcc", *flags, "-o", program, SOURCE, renamed], check=True)
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout or result
