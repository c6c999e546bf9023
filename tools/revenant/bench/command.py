"""`revenant bench`: the figures, measured on real machines in one run. Nothing here asserts.

Each family of figures has its module beside this one. Used by: cli.py, `make bench`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from revenant.bench.common import Row, workshop
from revenant.bench.python import bench_python
from revenant.bench.snapshot import bench_snapshot
from revenant.bench.start import bench_resume, bench_start
from revenant.bench.stream import bench_stream
from revenant.bench.studio import QUICK
from revenant.errors import RevenantError
from revenant.output import print_rows, say, working

RUN_COUNT = 10

BENCHMARKS: Mapping[str, Any] = {
    "start": bench_start, "resume": bench_resume, "snapshot": bench_snapshot, "stream": bench_stream,
    "python": bench_python,
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds `bench` to the command."""

    @app.command()
    def bench(
        names: list[str] = typer.Argument(None, help="start, resume, snapshot, stream, python; all when none is given"),
        runs: int = typer.Option(RUN_COUNT, help="how often a start is timed"),
        quick: bool = typer.Option(False, "--quick", help="stream: a small image over one link, once"),
        as_json: bool = typer.Option(False, "--json", help="one list of rows"),
    ) -> None:
        """Measure: seconds from QEMU's start, guest instructions, bytes and requests."""
        wanted = names or list(BENCHMARKS)
        unknown = [name for name in wanted if name not in BENCHMARKS]
        if unknown:
            raise RevenantError(unknown[0], "no such benchmark", f"use {', '.join(BENCHMARKS)}")
        every: list[Row] = []
        with workshop(1 if quick else runs) as shop:
            for name in wanted:
                with working(f"measuring: {name}"):
                    rows = bench_stream(shop, QUICK) if quick and name == "stream" else BENCHMARKS[name](shop)
                every += rows
                if not as_json:
                    say_groups(rows)
        if as_json:
            print_rows(every, as_json=True)


def kind(row: Row) -> tuple[str, str]:
    """Rows of one kind have the same columns."""
    return row["benchmark"], row.get("figure", "")


def say_groups(rows: list[Row]) -> None:
    """A table for each kind of rows."""
    for wanted in dict.fromkeys(map(kind, rows)):
        say("")
        print_rows([row for row in rows if kind(row) == wanted], as_json=False)
