"""What the documents call a command is one and has such options. They are run by tests/qemu/test_commands.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import COMMANDS, DOCUMENTS, OPTION, ROOT, blocks, inline, snippets

MAKE = re.compile(r"(?:^|\$ )make ([a-z][a-z-]*)\b")


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


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in [*blocks(path.read_text()), *inline(path.read_text())] for target in MAKE.findall(code)}
    assert named <= targets
