"""Who may include whom: the table of kernel/README.md, read from there and held against every #include; short lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

INCLUDE = re.compile(r'^\s*#include\s+"([^"]+)"', re.MULTILINE)


def rules(root: Path) -> dict[str, set[str]]:
    """Room to the rooms that it may include, itself among them."""
    text = (root / "kernel/README.md").read_text().partition("Never upwards")[0]
    rows = re.findall(r"^\| `([\w/.]+)` \|.*\| ([\w/, ]+) \|$", text, re.MULTILINE)
    table = {room_of(name): {room_of(word.strip()) for word in allowed.split(",")} for name, allowed in rows}
    return {room: allowed | {room} for room, allowed in table.items()}


def room_of(path: str) -> str:
    """First part of a path below kernel/."""
    return path.rstrip("/").split("/")[0]


def sources(root: Path) -> list[Path]:
    """All C files and headers of the kernel."""
    return sorted(path for path in (root / "kernel").rglob("*.[ch]"))


def test_the_table_is_read(root: Path) -> None:
    assert rules(root).keys() == {"abi", "lib", "arch", "drivers", "store", "mm", "pager", "proc", "main.c"}


def test_includes(root: Path) -> None:
    table = rules(root)
    wrong = []
    for path in sources(root):
        room = room_of(str(path.relative_to(root / "kernel")))
        for included in INCLUDE.findall(path.read_text()):
            if "all" not in table[room] and room_of(included) not in table[room]:
                wrong.append(f"{path.relative_to(root)} includes {included}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["store", "lib"])
def test_no_system_headers(root: Path, room: str) -> None:
    allowed = {"stddef.h", "stdint.h", "stdarg.h", "stdbool.h", "limits.h"}
    fetched = re.compile(r"monocypher\.h|(common|decompress)/\w+\.c")  # third parties', made for this
    for path in (root / "kernel" / room).rglob("*.[ch]"):
        found = set(re.findall(r"^\s*#include\s+<([^>]+)>", path.read_text(), re.MULTILINE))
        assert {name for name in found if not (room == "lib" and fetched.fullmatch(name))} <= allowed, path


def test_internal_headers_stay_at_home(root: Path) -> None:
    for path in sources(root):
        room = room_of(str(path.relative_to(root / "kernel")))
        for included in INCLUDE.findall(path.read_text()):
            if included.endswith("/internal.h"):
                assert room_of(included) == room, f"{path} includes {included}"


def test_lines_are_short(root: Path) -> None:
    """As ruff has it for Python."""
    paths = [path for room in ("boot", "kernel", "userland") for path in (root / room).rglob("*")]
    sources = [path for path in paths if path.suffix in {".c", ".h", ".asm", ".inc", ".ld"}]
    long = [f"{p}:{n + 1}" for p in sources for n, line in enumerate(p.read_text().splitlines()) if len(line) > 120]
    assert sources and not long, "\n".join(long)
