"""Files of this host in a machine that is made; boot.py and main.py at genesis."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant.machine import Machine
from revenant.script import wait_for_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Machine]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package, a large file of all bytes, boot.py and main.py."""
    folder = tmp_path / "host"
    (folder / "package/deep").mkdir(parents=True)
    (folder / "package/__init__.py").write_text("VALUE = 42\n")
    (folder / "package/deep/data.bin").write_bytes(bytes(range(256)) * 2000)
    (folder / "boot.py").write_text("print('boot first')\n")
    (folder / "main.py").write_text("count = 1000\nprint('main then')\n")
    return folder


def test_added_files(machine: Start, run_revenant: Run, tmp_path: Path, folder: Path) -> None:
    image = tmp_path / "made.img"
    words = ["--add", folder / "package", "--add", folder / "boot.py", "--add", f"{folder}/main.py:/main.py"]
    assert run_revenant("create", image, *words).returncode == 0
    assert run_revenant("check", image).returncode == 0
    now = machine(image)
    now.expect_exact(b"boot first\r\nmain then\r\n")
    wait_for_prompt(now)
    assert now.command_at_prompt("import package; package.VALUE, count") == "(42, 1000)"
    now.command_at_prompt("data = open('/package/deep/data.bin', 'rb').read()")
    assert now.command_at_prompt("data == bytes(range(256)) * 2000") == "True"
    assert now.command_at_prompt("import os; os.statvfs('/')[2]") == "8192"
    assert now.command_at_prompt("open('/package/new', 'w').write('kept')") == "4"


def test_what_is_not_there(run_revenant: Run, tmp_path: Path) -> None:
    result = run_revenant("create", tmp_path / "made.img", "--add", tmp_path / "missing.py")
    assert result.returncode == 1
    assert "missing.py: cannot be put into the machine" in result.stderr


def test_more_than_fits(run_revenant: Run, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.write(b"\1" * (33 << 20))
    result = run_revenant("create", tmp_path / "made.img", "--add", tmp_path / "large")
    assert result.returncode == 1
    assert "large: cannot be put into the machine as /large" in result.stderr
    assert not (tmp_path / "made.img").exists()
