"""What the documents call a command is one and has such options. The README's blocks are run by test_readme.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from revenant.cli import build_app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    *(p for room in ("boot", "kernel", "userland", "tools", "tests") for p in (ROOT / room).rglob("*.md")),
]
COMMANDS = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
OPTION = re.compile(r"(--[a-z][a-z-]*)")


def snippets(text: str) -> Iterator[list[str]]:
    """Words of each mention of a command: `revenant NAME …` anywhere in code, or `NAME … --option …` in a line."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    for code in [*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))]:
        named = re.search(r"(?:^|[ /])revenant ([a-z]+\b(?!:).*)", code)
        words = (named[1] if named else code).split("#")[0].split()
        if named or (len(words) > 1 and words[0] in COMMANDS and OPTION.search(code)):
            yield words


def test_there_are_some() -> None:
    found = [words for path in DOCUMENTS for words in snippets(path.read_text())]
    assert len(found) > 30 and {words[0] for words in found} >= {"run", "publish", "crashtest", "fork"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path: Path) -> None:
    for words in snippets(path.read_text()):
        assert words[0] in COMMANDS, f"{path}: revenant {' '.join(words)}: no such command"
        options = {
            name for parameter in COMMANDS[words[0]].params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        given = words[1 : words.index("--") if "--" in words else None]
        unknown = [option for word in given for option in OPTION.findall(word) if option not in options]
        assert not unknown, f"{path}: revenant {' '.join(words)}: no {unknown}"
