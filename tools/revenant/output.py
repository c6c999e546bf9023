"""How commands speak: facts on stdout (tables, or JSON when asked), progress on stderr.

Used by: the command modules. Facts are dictionaries of plain values: --json and the table say the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

OUT = Console(highlight=False, soft_wrap=True, markup=False, width=None if sys.stdout.isatty() else 400)
ERR = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


def in_words(value: Any) -> str:
    """A fact's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(in_words, value)) or "none"
    return str(value)


def print_facts(facts: Mapping[str, Any], as_json: bool) -> None:
    """One set of named facts."""
    if as_json:
        print(json.dumps(facts))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), in_words(value))
    OUT.print(table)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Many sets of the same facts."""
    if as_json:
        print(json.dumps(rows))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*map(in_words, row.values()))
    OUT.print(table)


def say(text: str) -> None:
    """Progress, or anything that is not a fact."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def working(text: str) -> Iterator[None]:
    """A spinner while something takes its time; nothing where stderr is no terminal."""
    if ERR.is_terminal:
        with ERR.status(text):
            yield
    else:
        yield


def in_units(size: int) -> str:
    """Bytes for people."""
    value = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
