"""All figures as one HTML page: charts, then what repeats (instructions, counts) apart from what moves with the host.

Used by: command.py. How rows name their figures: common.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from revenant.bench.common import Row, is_wall_time, kind
from revenant.output import in_words
from revenant.page import Figure, Section, layout, write_page

Series = dict[str, list[tuple[float, float]]]  # name -> points
TITLE = ("benchmark", "figure", "measure")
SUBJECT = (
    *TITLE, "program", "boot", "image", "link", "engine", "pages", "page_count", "image_mib", "heap_mib", "memory_mib",
    "dirty_pages", "delay_ms", "delays_ms", "runs",
)  # fmt: skip
"""Columns that say what was measured, where there are times."""


def chart(title: str, x: str, y: str, series: Series, logarithmic: Sequence[str] = ()) -> Figure:
    """Points joined by lines, a line for each name; `logarithmic` are axes, of which x is labelled at the points."""
    traces: list[Figure] = []
    for name, points in series.items():
        at = sorted(points)
        xs, ys = [p[0] for p in at], [p[1] for p in at]
        traces.append({"type": "scatter", "mode": "lines+markers", "name": name, "x": xs, "y": ys})
    axes: Figure = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    for axis in logarithmic:
        axes[axis] |= {"type": "log", "dtick": 1}
    if "xaxis" in logarithmic:
        axes["xaxis"] |= {"tickvals": sorted({p[0] for points in series.values() for p in points}), "tickformat": "d"}
    return {"data": traces, "layout": layout(title, x, y) | axes}


def pause(rows: Sequence[Row]) -> Figure | None:
    """The pause against memory touched."""
    wanted = [r for r in rows if r["benchmark"] == "freeze" and (r["dirty_pages"], r["spaces"]) == (10, 1)]
    points = [(row["touched_mib"], row["freeze_instructions"]) for row in wanted]
    title = "The pause of a snapshot against memory"
    return chart(title, "MiB touched", "guest instructions", {"pause": points}, ["xaxis"]) if points else None


def commit_time(rows: Sequence[Row]) -> Figure | None:
    """Until a snapshot is durable, against its pages."""
    points = [(row["dirty_pages"], row["commit_median_ms"]) for row in rows if row["benchmark"] == "commit"]
    title = "Until a snapshot is durable, against its pages"
    return chart(title, "pages", "ms", {"commit": points}, ["xaxis", "yaxis"]) if points else None


def start_time(rows: Sequence[Row]) -> Figure | None:
    """From blank to an answer, against the far store's delay."""
    series = {
        row["engine"]: list(zip(row["delays_ms"], row["answered_median_s"], strict=True))
        for row in rows if row.get("figure") == "2 round trips"
    }  # fmt: skip
    title = "Start from blank to an answer, against the far store's delay"
    return chart(title, "ms", "s", series) if series else None


def kills(rows: Sequence[Row]) -> Figure | None:
    """Kills survived; answers that were contradicted."""
    wanted = [row for row in rows if row.get("figure") == "kills survived"]
    ways = [f"output {row['way']}" for row in wanted]
    traces = [
        {"type": "bar", "name": name, "x": ways, "y": counts, "text": counts, "textposition": "outside"}
        for name, column in (("kills", "kills"), ("answers contradicted", "contradicted_answers"))
        for counts in [[row[column] for row in wanted]]
    ]
    return {"data": traces, "layout": layout("Kills survived", "", "count")} if wanted else None


def group(row: Row) -> tuple[str, ...]:
    """Rows of one table; it is also what the table is called."""
    return *kind(row), row.get("measure", "")


def is_wall(row: Row, column: str) -> bool:
    """Whether a figure moves with the host; Python's rows have one measure for all of them."""
    measure = row.get("measure")
    return measure == "us" if measure and column not in SUBJECT else is_wall_time(column)


def tables(rows: Sequence[Row], wall: bool) -> Iterator[Section]:
    """A table for each group that has such figures; the columns that say what was measured are in both."""
    for wanted in dict.fromkeys(map(group, rows)):
        same = [row for row in rows if group(row) == wanted]
        columns = [column for column in same[0] if column in SUBJECT or is_wall(same[0], column) == wall]
        columns = [column for column in columns if column not in TITLE]
        if set(columns) - set(SUBJECT):
            title = " ".join(filter(None, wanted)) + (", times" if wall else "")
            yield Section(title, rows=[{name: cell(row[name]) for name in columns} for row in same])


def cell(value: Any) -> Any:
    """Numbers stay numbers: the page aligns them."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else in_words(value)


def write_bench_page(out: Path, host: Row, rows: Sequence[Row]) -> None:
    """The file; RevenantError if it cannot be written."""
    figures = [figure for make in (pause, commit_time, start_time, kills) if (figure := make(rows)) is not None]
    notes = ["Instructions are of the guest under -icount and repeat; so do counts. Times move with the host."]
    sections = [
        Section("Measured on", rows=[{"": name.replace("_", " "), " ": str(value)} for name, value in host.items()]),
        Section("At a glance", notes, figures),
        *tables(rows, wall=False),
        *tables(rows, wall=True),
    ]
    write_page(out, "What Revenant costs", "Made by revenant bench.", sections)
