"""`revenant bench`: the figures, measured on real machines in one run. Nothing here asserts.

Promise: what was measured is told, whatever else fails, and also when Ctrl-C ends the run. Each family of figures has
its module beside this one. Used by: cli.py, `make bench`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from revenant.bench.common import NOT_MEASURED, Row, Workshop, kind, measured, workshop
from revenant.bench.crash import bench_crash
from revenant.bench.host import host_facts
from revenant.bench.page import write_bench_page
from revenant.bench.python import bench_python
from revenant.bench.snapshot import bench_snapshot
from revenant.bench.start import bench_resume, bench_start
from revenant.bench.stream import bench_stream
from revenant.bench.studio import QUICK
from revenant.errors import RevenantError
from revenant.output import print_facts, print_rows, say, working
from revenant.page import require_writable

RUN_COUNT = 10
ALL = "all"

BENCHMARKS: Mapping[str, Any] = {
    "start": bench_start, "resume": bench_resume, "snapshot": bench_snapshot, "stream": bench_stream,
    "python": bench_python, "crash": bench_crash,
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds `bench` to the command."""
    app.command()(bench)


def bench(
    names: Annotated[list[str] | None, typer.Argument(help=f"{', '.join(BENCHMARKS)}, or {ALL} (if none).")] = None,
    runs: Annotated[int, typer.Option(help="How often a start is timed.", min=1)] = RUN_COUNT,
    quick: Annotated[bool, typer.Option("--quick", help="Once each; stream: a small image over one link.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The host's facts, and one list of rows.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with charts, too.")] = None,
) -> None:
    """Measure: seconds from QEMU's start, guest instructions, bytes and requests, kills survived."""
    chosen = wanted(names or [ALL])
    host = host_facts()
    rows: list[Row] = []
    if html is not None:
        require_writable(html)  # before hours of work
    try:
        with workshop(1 if quick else runs) as shop:
            for name in chosen:
                found = family(name, shop, quick)
                rows += found
                if not as_json:
                    say_groups(found)
    finally:
        if as_json:
            print_facts({"host": host, "rows": rows}, as_json=True)
        if html is not None:
            write_bench_page(html, host, rows)
    if missing := [row["what"] for row in rows if row.get("figure") == NOT_MEASURED]:
        raise RevenantError("bench", f"not measured: {', '.join(missing)}", "the reasons are above")


def family(name: str, shop: Workshop, quick: bool) -> list[Row]:
    """The rows of one benchmark."""
    measure = partial(bench_stream, shop, QUICK) if quick and name == "stream" else partial(BENCHMARKS[name], shop)
    with working(f"measuring {name}"):
        return [{"benchmark": name, **row} for row in measured(name, measure)]


def wanted(names: Sequence[str]) -> list[str]:
    """Those that were asked for; RevenantError for one that is not there."""
    for name in names:
        if name not in (*BENCHMARKS, ALL):
            raise RevenantError(name, "no such benchmark", f"use {', '.join(BENCHMARKS)}, {ALL}")
    return list(BENCHMARKS) if ALL in names else list(names)


def say_groups(rows: Sequence[Row]) -> None:
    """A table for each kind of rows."""
    for group in dict.fromkeys(map(kind, rows)):
        say("")
        print_rows([row for row in rows if kind(row) == group], as_json=False)
