"""All figures as one HTML page: charts, then what repeats (instructions, counts) apart from what moves with the host.

Used by: command.py. How rows name their figures: common.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from revenant.bench.common import Row, is_wall_time, kind
from revenant.output import in_words
from revenant.page import Figure, Section, layout, write_page

Series = dict[str, list[tuple[float, float]]]  # name -> points


def chart(title: str, x: str, y: str, series: Series, logarithmic: bool = False) -> Figure:
    """Points joined by lines, a line for each name."""
    traces = [
        {"type": "scatter", "mode": "lines+markers", "name": name, "x": [p[0] for p in at], "y": [p[1] for p in at]}
        for name, at in series.items()
    ]
    axes: Figure = {
        "xaxis": {"title": {"text": x}, "type": "log" if logarithmic else "linear"},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
    }
    return {"data": traces, "layout": layout(title, x, y) | axes}


def pause(rows: Sequence[Row]) -> Figure | None:
    """The pause against memory touched."""
    wanted = [r for r in rows if r["benchmark"] == "freeze" and (r["dirty_pages"], r["spaces"]) == (10, 1)]
    points = [(row["touched_mib"], row["freeze_instructions"]) for row in wanted]
    title = "The pause of a snapshot against memory"
    return chart(title, "MiB touched", "guest instructions", {"pause": points}, True) if points else None


def commit_time(rows: Sequence[Row]) -> Figure | None:
    """Until a snapshot is durable, against its pages."""
    points = [(row["dirty_pages"], row["commit_median_ms"]) for row in rows if row["benchmark"] == "commit"]
    return chart("Until a snapshot is durable", "pages", "ms", {"commit": points}, True) if points else None


def start_time(rows: Sequence[Row]) -> Figure | None:
    """From blank to an answer, against the far store's delay."""
    series = {
        row["engine"]: list(zip(row["delays_ms"], row["answered_median_s"], strict=True))
        for row in rows if row.get("figure") == "2 round trips"
    }  # fmt: skip
    return chart("Start from blank to an answer", "delay of the far store, ms", "s", series) if series else None


def kills(rows: Sequence[Row]) -> Figure | None:
    """Kills survived; answers that were contradicted."""
    wanted = [row for row in rows if row.get("figure") == "kills survived"]
    traces = [
        {"type": "bar", "name": name, "x": [row["way"] for row in wanted], "y": [row[column] for row in wanted]}
        for name, column in (("kills", "kills"), ("answers contradicted", "contradicted_answers"))
    ]
    return {"data": traces, "layout": layout("Kills survived", "", "count")} if wanted else None


def tables(rows: Sequence[Row], wall: bool) -> Iterator[Section]:
    """A table for each kind that has such figures; the columns that say what was measured are in both."""
    for wanted in dict.fromkeys(map(kind, rows)):
        same = [row for row in rows if kind(row) == wanted]
        if any(is_wall_time(name) for name in same[0]) or not wall:
            left_out = [name for name in same[0] if is_wall_time(name) and not wall]
            title = " ".join(filter(None, wanted)) + (", times" if wall else "")
            yield Section(title, rows=[{n: in_words(v) for n, v in row.items() if n not in left_out} for row in same])


def write_bench_page(out: Path, host: Row, rows: Sequence[Row]) -> None:
    """The file; RevenantError if it cannot be written."""
    figures = [figure for make in (pause, commit_time, start_time, kills) if (figure := make(rows)) is not None]
    notes = ["Instructions are of the guest under -icount and repeat; so do counts. Times move with the host."]
    sections = [
        Section("Measured on", rows=[{"": name, " ": str(value)} for name, value in host.items()]),
        Section("At a glance", notes, figures),
        *tables(rows, wall=False),
        *tables(rows, wall=True),
    ]
    write_page(out, "What Revenant costs", "Made by revenant bench.", sections)
