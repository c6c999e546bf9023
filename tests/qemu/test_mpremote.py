"""mpremote, as it comes, on the machine's pty; `revenant mpremote` finds it and throws no state away."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mpremote(image: Path, keep: Callable[..., Any], run_revenant: Run) -> Run:
    """`revenant mpremote` on a machine that runs; asserts that it succeeds."""
    keep(image)

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        result = run_revenant("mpremote", "--near", image, *words)
        assert result.returncode == 0
        return result

    return run


def test_commands(mpremote: Run, tmp_path: Path) -> None:
    mpremote("exec", "kept = 40")
    assert mpremote("eval", "kept + 2").stdout.strip() == "42"
    script = tmp_path / "script.py"
    script.write_text("print('from the host', kept)")
    assert mpremote("run", script).stdout.strip() == "from the host 40"


def test_repl(mpremote: Run, image: Path) -> None:
    """What a person has who types `revenant mpremote repl`: the prompt, and Ctrl-] leaves it."""
    mpremote("resume", "exec", "kept = 40")
    client = pexpect.spawn(sys.executable, ["-m", "revenant", "mpremote", "--near", str(image), "repl"], timeout=60)
    client.expect_exact(b"Use Ctrl-] or Ctrl-x to exit this shell")
    client.send(b"kept + 2\r")
    client.expect_exact(b"42\r\n>>> ")
    client.send(b"\x1d")
    client.expect(pexpect.EOF)
    client.wait()
    assert client.exitstatus == 0


def test_files(mpremote: Run, tmp_path: Path) -> None:
    there, back = tmp_path / "there.bin", tmp_path / "back.bin"
    there.write_bytes(bytes(range(256)) * 40)
    mpremote("fs", "mkdir", ":folder")
    mpremote("fs", "cp", there, ":folder/there.bin")
    assert "10240 there.bin" in mpremote("fs", "ls", ":folder").stdout
    mpremote("fs", "cp", ":folder/there.bin", back)
    assert back.read_bytes() == there.read_bytes()
    mpremote("fs", "rm", ":folder/there.bin")
    assert "there.bin" not in mpremote("fs", "ls", ":folder").stdout
    mpremote("fs", "rmdir", ":folder")
    assert "folder" not in mpremote("fs", "ls").stdout
    (tmp_path / "text").write_text("a line\n")
    mpremote("fs", "cp", tmp_path / "text", ":text")
    assert mpremote("fs", "cat", ":text").stdout == "a line\n"


def test_a_host_folder_mounted(mpremote: Run, tmp_path: Path) -> None:
    (tmp_path / "answer.py").write_text("VALUE = 42\n")
    assert mpremote("mount", tmp_path, "exec", "import answer; print(answer.VALUE)").stdout.split()[-1] == "42"


def test_mip_from_a_package_on_this_host(mpremote: Run, tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("def two():\n    return 2\n")
    (tmp_path / "package.json").write_text(json.dumps({"urls": [["small.py", "small.py"]], "version": "1"}))
    mpremote("mip", "install", "--no-mpy", tmp_path / "package.json")
    assert mpremote("eval", "__import__('small').two()").stdout.strip() == "2"


def test_no_machine(image: Path, run_revenant: Run) -> None:
    result = run_revenant("mpremote", "--near", image, "eval", "1")
    assert result.returncode == 1
    assert f"{image}: no machine runs there on a pty" in result.stderr
