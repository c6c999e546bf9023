"""The documents of the repository, and the commands that are in them, in blocks and in lines.

Used by: unit/test_documents.py (names and options), qemu/test_commands.py (runs them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import typer
from revenant.cli import build_app

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *(p for room in ("boot", "kernel", "userland", "tools", "tests") for p in (ROOT / room).rglob("*.md")),
]
COMMANDS = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]
OPTION = re.compile(r"(--[a-z][a-z-]*)")


def blocks(text: str) -> list[str]:
    """The lines of its blocks, fenced or indented by four columns; without comments."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.splitlines()] + re.findall(r"^    (\S.*)", text, re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


def inline(text: str) -> list[str]:
    """What is marked as code within lines."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def snippets(text: str) -> Iterator[list[str]]:
    """Words of each mention of a command: `revenant NAME …` anywhere in code, or `NAME … --option …` in a line."""
    for code in [*blocks(text), *inline(text)]:
        named = re.search(r"(?:^|[ /])revenant ([a-z]+\b(?!:).*)", code)
        words = (named[1] if named else code).split()
        if named or (len(words) > 1 and words[0] in COMMANDS and OPTION.search(code)):
            yield words
