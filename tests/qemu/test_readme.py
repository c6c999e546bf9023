"""The README's blocks of commands are run as they stand, in their order, by somebody who types them.

Filled in: a port that is free, HOST, the root hash that `publish` printed; `run` gets a script instead of a person.
"""

from __future__ import annotations

import contextlib
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from revenant import nbd
from revenant.children import die_with_parent

PORT = "10809"


def commands(document: Path) -> list[list[str]]:
    """The lines of its blocks that call revenant, without their comments; `# or: …` is one, too."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    found = (re.search(r"(?:^|: )revenant ([a-z][^#]*)", line) for line in lines)
    return [shlex.split(match[1]) for match in found if match]


@pytest.fixture
def serve(tmp_path: Path, free_port: int) -> Iterator[Callable[[list[str]], None]]:
    """Starts `serve …`, which lasts until the test ends, and waits until it answers."""
    with contextlib.ExitStack() as stack:

        def start(words: list[str]) -> None:
            command = [sys.executable, "-m", "revenant", *words]
            process = subprocess.Popen(command, cwd=tmp_path, preexec_fn=die_with_parent)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            while not nbd.answers(f"nbd://127.0.0.1:{free_port}"):
                assert process.poll() is None
                select.select([], [], [], 0.01)

        yield start


def test_readme(
    root: Path, tmp_path: Path, run_revenant: Callable[..., Any], serve: Callable[..., None], free_port: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import revenant\nrevenant.tag('tagged')\nnote = 6 * 7\nrevenant.commit()\nprint('answer', note)\n"
    )
    assert run_revenant("create", "machine.img", cwd=tmp_path).returncode == 0
    assert run_revenant("run", "--near", "machine.img", "--", script, cwd=tmp_path).stdout == "answer 42\n"
    script.write_text("print('answer', note)\n")
    root_hash, done = "", []
    for words in commands(root / "README.md"):
        known = {PORT: str(free_port), "nbd://HOST": f"nbd://127.0.0.1:{free_port}", "ROOTHASH": root_hash}
        words = [known.get(word, word) for word in words]
        done.append(words[0])
        if words[0] == "serve":
            serve(words)
            continue
        if words[0] == "run":
            words += ["--", str(script)]
        result = run_revenant(*words, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        if words[0] == "publish":
            root_hash = re.search(r"\b[0-9a-f]{64}\b", result.stdout)[0]  # type: ignore[index]
        if words[0] == "run":
            assert result.stdout == "answer 42\n"
    assert done == ["tag", "log", "rollback", "fork", "publish", "serve", "run"]
