"""The command report: what an image holds as one HTML page, which needs nothing but a browser to be looked at.

Promise: all that is shown was verified, and comes from the image alone. The page itself is page.py's. Used by: cli.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from revenant.difference import differing_pages
from revenant.events import Kind
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE, COUNTS_PER_PAGE, META_PRESENCE, SPACE_RECORDS, SPACE_SHARES, Generation
from revenant.images import Far, Image, flag_names, store_facts, when
from revenant.inspection import Inspection, regions_of, text_of
from revenant.output import in_units, in_words, working
from revenant.page import Figure, Section, layout, write_page
from revenant.record import ProcessRecord, ProcessState
from revenant.state import NEWEST, named, retained
from revenant.store import Store
from revenant.trace import Event, events_of, untraced

COLUMN_COUNT = 128  # as many pages as a node of the tree has
ROW_COUNT_MAX = 256
EVENT_COUNT_MAX = 300
VARIABLE_COUNT_MAX = 25
PLACES = ("zero", "near", "copied", "far")
PLACE_COLOURS = ("#e8ebf0", "#2f7fc1", "#3fa66b", "#d9822b")


# --- snapshots ---


@dataclass
class Snapshot:
    """One generation, as far as the image knows it."""

    generation: int
    life: int
    mono_s: float
    pages: int = 0
    pause_cycles: int | None = None
    commit_ms: float | None = None


def snapshots_of(events: list[Event]) -> list[Snapshot]:
    """From the trace: a generation that a lost power took away and that was made again counts twice."""
    found: dict[tuple[int, int], Snapshot] = {}
    for event in events:
        small, generation, pages = event.words
        key = (event.life, generation)
        if event.kind == Kind.FREEZE:
            found[key] = Snapshot(generation, event.life, event.mono_ns / 1e9, pages)
        elif key in found and event.kind == Kind.COMMIT:
            found[key].pages, found[key].pause_cycles = pages, small
        elif key in found and event.kind == Kind.DURABLE:
            found[key].commit_ms = small / 1000
    return list(found.values())


def span_of(times: list[float]) -> list[float]:
    """From the first to the last, with some room."""
    margin = 0.02 * (max(times) - min(times)) or 1
    return [min(times) - margin, max(times) + margin]


def snapshot_section(events: list[Event], records: list[Generation], untraced: str) -> Section:
    """Pages, pause and commit time of each snapshot over machine time; where the machine was started."""
    snapshots = snapshots_of(events)
    starts = [event.mono_ns / 1e9 for event in events if event.kind == Kind.RESUME]
    section = Section("Snapshots")
    dotted = {"type": "line", "y0": 0, "y1": 1, "yref": "paper", "line": {"dash": "dot", "width": 1}}
    shapes = [dotted | {"x0": start, "x1": start} for start in starts]
    x = [snapshot.mono_s for snapshot in snapshots]
    hover = [f"generation {snapshot.generation}, life {snapshot.life}" for snapshot in snapshots]
    charts = {
        "pages written": ("pages", [snapshot.pages for snapshot in snapshots], "bar"),
        "from the freeze until it is durable": ("ms", [snapshot.commit_ms for snapshot in snapshots], "scatter"),
        "pause": ("cycles", [snapshot.pause_cycles for snapshot in snapshots], "scatter"),
    }
    for title, (unit, y, kind) in charts.items() if snapshots else ():
        trace = {"type": kind, "x": x, "y": y, "text": hover, "mode": "markers"}
        placed = layout(title, "machine time, s", unit, 260, shapes=shapes)
        placed["xaxis"]["range"] = span_of([*x, *starts])  # the same in all
        section.figures.append({"data": [trace], "layout": placed})
    total = sum(snapshot.pages for snapshot in snapshots)
    section.notes.append(
        f"{len(snapshots)} snapshots are in the trace, {total} pages, {in_units(total * BLOCK_SIZE)}; dotted lines are "
        "starts. The table has the retained generations."
        if snapshots
        else f"This generation {untraced}."
    )
    section.rows = [
        {
            "generation": record.generation,
            "time": when(record.wall_ns),
            "pages": record.dirty_pages,
            "bytes": in_units(record.dirty_pages * BLOCK_SIZE),
            "flags": flag_names(record.flags),
            "tag": record.tag_text or "-",
        }
        for record in reversed(records)
    ]
    return section


def growth_section(store: Store, records: list[Generation], names: dict[int, str]) -> Section:
    """How many pages each space had in each retained generation: the oldest is counted, then only what differs."""
    trees = [store.tree_at(record.generation) for record in records]
    counts: dict[int, int] = {}
    for space, root in store.spaces(trees[0]):
        counts[space] = sum(1 for _ in store.leaves(root, root.level))
    history = [dict(counts)]
    for before, after in pairwise(trees):
        for key, old, new in differing_pages(store, before, after):
            counts[key.space] = counts.get(key.space, 0) + int(new.present) - int(old.present)
        history.append(dict(counts))
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "stackgroup": "all",
            "name": names.get(space, f"space {space}"),
            "x": [when(record.wall_ns) for record in records],
            "y": [row.get(space, 0) * BLOCK_SIZE / 1024 for row in history],
            "text": [f"generation {record.generation}" for record in records],
        }
        for space in sorted(counts)
    ]
    figure = {"data": traces, "layout": layout("what is not zero", "time of the snapshot", "KiB")}
    return Section("Growth over the retained generations", figures=[figure])


# --- memory ---


@dataclass
class Cells:
    """Pages of a space as cells of rows; a cell stands for `scale` pages."""

    scale: int
    birth: dict[int, int] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)

    @property
    def rows(self) -> list[int]:
        """Those with anything in them."""
        return sorted({cell // COLUMN_COUNT for cell in self.birth})

    def matrix(self, cells: dict[int, Any]) -> list[list[Any]]:
        """Values row by row."""
        return [[cells.get(row * COLUMN_COUNT + column) for column in range(COLUMN_COUNT)] for row in self.rows]


def cells_of(inspection: Inspection, process: ProcessRecord) -> Cells:
    """The present pages of a process, and the zero ones beside them."""
    store = inspection.store
    root = store.space_root(inspection.tree, process.space)
    pages = dict(store.leaves(root, root.level)) if root.present else {}
    row_count = len({page // COLUMN_COUNT for page in pages})
    cells = Cells(max(-(-row_count // ROW_COUNT_MAX), 1))
    for page, pointer in pages.items():
        cell = page // cells.scale
        place = 1 if pointer.store == 0 else 2 if store.copy_of(pointer) else 3
        cells.birth[cell] = max(cells.birth.get(cell, 0), pointer.birth)
        cells.place[cell] = max(cells.place.get(cell, 0), place)
    for region in regions_of(process):
        for row in cells.rows:
            for cell in range(row * COLUMN_COUNT, (row + 1) * COLUMN_COUNT):
                if region.start <= cell * cells.scale * BLOCK_SIZE < region.end:
                    cells.place.setdefault(cell, 0)
    return cells


def heatmap(z: list[list[Any]], names: list[str], **more: Any) -> Figure:
    """Rows from the top down, one for each name."""
    return {"type": "heatmap", "z": z, "y": names, "xgap": 1, "ygap": 1, "hoverongaps": False, **more}


def shade(age: int) -> float:
    """Where a page's age in generations is on the scale: the last few can be told apart."""
    return math.cbrt(age + 1)


def map_figures(cells: Cells, newest: int) -> Iterator[Figure]:
    """Where each page is, and in which generation it was written."""
    names = [f"{row * COLUMN_COUNT * cells.scale * BLOCK_SIZE:#x}" for row in cells.rows]
    height_px = 160 + 11 * len(names)
    unit = "page" if cells.scale == 1 else f"cell of {cells.scale} pages"
    rows = {"type": "category", "autorange": "reversed", "tickfont": {"family": "monospace", "size": 10}}
    axes = {"yaxis": rows, "xaxis": {"title": {"text": unit}, "range": [-0.5, COLUMN_COUNT - 0.5]}}
    ages = cells.matrix({cell: newest - birth for cell, birth in cells.birth.items()})
    births = cells.matrix(cells.birth)
    limit = max((age for row in ages for age in row if age is not None), default=0)
    figure = heatmap(
        [[None if age is None else shade(age) for age in row] for row in ages], names,
        customdata=births, colorscale="Viridis", reversescale=True, showscale=False, zmin=1, zmax=shade(newest),
        hovertemplate="row %{y}, " + unit + " %{x}: written by generation %{customdata}<extra></extra>",
    )  # fmt: skip
    title = f"age: dark is old, bright is new; the oldest was written {limit} generations ago"
    yield {"data": [figure], "layout": layout(title, "", "", height_px) | axes}
    steps = [(i / 4, colour) for index, colour in enumerate(PLACE_COLOURS) for i in (index, index + 1)]
    places = heatmap(
        cells.matrix(cells.place), names, zmin=-0.5, zmax=3.5, colorscale=steps,
        colorbar={"tickvals": [0, 1, 2, 3], "ticktext": PLACES},
        hovertemplate="row %{y}, " + unit + " %{x}<extra></extra>",
    )  # fmt: skip
    title = "place: zero, written here, copied from far, still far"
    yield {"data": [places], "layout": layout(title, "", "", height_px) | axes}


def title_of(process: ProcessRecord) -> str:
    """Its id and name; a template is no program, it is what new ones are copied from."""
    return f"{process.id}: {text_of(process.name)}" + ", template" * (process.state == ProcessState.TEMPLATE)


def memory_section(inspection: Inspection, process: ProcessRecord) -> Section:
    """The map of one process."""
    cells = cells_of(inspection, process)
    section = Section(f"Memory of process {title_of(process)}")
    section.notes.append("Rows without anything in them are left out.")
    section.figures += map_figures(cells, inspection.record.generation)
    return section


def streamed_section(store: Store, number: int) -> Section:
    """Which blocks of a far store are here."""
    entry = store.table[number - 1]
    scale = max(-(-entry.block_count // (COLUMN_COUNT * ROW_COUNT_MAX)), 1)
    counts = [0] * -(-entry.block_count // scale)
    root = store.space_root(store.meta, META_PRESENCE + number)
    for page, pointer in store.leaves(root, root.level) if root.present else ():
        data = memoryview(store.read(pointer, 0)).cast("I")
        for index, copy in enumerate(data):
            block = page * COUNTS_PER_PAGE + index
            if copy and block < entry.block_count:
                counts[block // scale] += 1
    rows = [counts[start : start + COLUMN_COUNT] for start in range(0, len(counts), COLUMN_COUNT)]
    names = [f"{row * COLUMN_COUNT * scale}" for row in range(len(rows))]
    chart = heatmap(
        rows, names, zmin=0, zmax=scale, colorscale=[(0, PLACE_COLOURS[0]), (1, PLACE_COLOURS[2])],
        showscale=scale > 1,
        hovertemplate="block %{y} + %{x}: %{z}<extra></extra>",
    )  # fmt: skip
    axis = {"yaxis": {"type": "category", "autorange": "reversed"}}
    unit = "block" if scale == 1 else f"cell of {scale} blocks"
    figure = {"data": [chart], "layout": layout("copied blocks", unit, "", 140 + 8 * len(rows)) | axis}
    note = f"{sum(counts)} of its {entry.block_count} blocks are here; it is store {entry.store_id.hex()}"
    return Section(f"Streamed from far store {number}", [note], [figure])


# --- programs ---


def variables_section(inspection: Inspection) -> Section:
    """The largest Python variables of all processes."""
    found = sorted(inspection.variables(), key=lambda pair: -pair[1].size)[:VARIABLE_COUNT_MAX]
    section = Section("Largest Python variables", list(inspection.reasons))
    section.rows = [
        {
            "process": process.id,
            "name": variable.name,
            "type": variable.type,
            "bytes": variable.size,
            "value": variable.value,
        }
        for process, variable in found
    ]
    if found:
        bars = {
            "type": "bar",
            "orientation": "h",
            "x": [variable.size for _, variable in found],
            "y": [f"{process.id}: {variable.name}" for process, variable in found],
        }
        axis = {"yaxis": {"type": "category", "autorange": "reversed", "automargin": True}}
        size_px = 110 + 18 * len(found)
        section.figures = [{"data": [bars], "layout": layout("kept in the heap", "bytes", "", size_px) | axis}]
    return section


def event_row(event: Event) -> dict[str, Any]:
    """A line of the last table."""
    return {
        "life": event.life,
        "time": when(event.wall_ns),
        "machine s": f"{event.mono_ns / 1e9:.6f}",
        "event": event.name,
        "what": event.text,
    }


def sections_of(inspection: Inspection) -> Iterator[Section]:
    """The page, from the top down."""
    store, records = inspection.store, retained(inspection.store)
    facts = {**store_facts(store), **inspection.machine()}
    yield Section("Machine", rows=[{"": name.replace("_", " "), " ": in_words(value)} for name, value in facts.items()])
    yield Section("Processes", rows=[row | {"space": str(row["space"])} for row in inspection.processes()])
    events = list(events_of(store, inspection.record.generation))
    yield snapshot_section(events, records, untraced(store, inspection.record.generation))
    names = {SPACE_RECORDS: "records", SPACE_SHARES: "share counts"}
    for process in inspection.state.processes.values():
        names[process.space] = title_of(process)
    yield growth_section(store, records, names)
    for process in inspection.state.processes.values():
        if store.space_root(inspection.tree, process.space).present:
            yield memory_section(inspection, process)
    for number in range(1, len(store.table) + 1):
        yield streamed_section(store, number)
    yield variables_section(inspection)
    notes = ["The newest first. What came after the newest snapshot went with the power."]
    yield Section("Last events", notes, rows=[event_row(event) for event in reversed(events[-EVENT_COUNT_MAX:])])


def report(
    image: Image,
    out: Annotated[Path, typer.Argument(help="The HTML file to write.")],
    at: Annotated[str, typer.Option(help="A retained generation or a tag.")] = NEWEST,
    far: Far = None,
) -> None:
    """An image as one page for a browser: history, memory map, snapshots, what was streamed, Python variables."""
    with working(f"reading {image}"), Store(image, open_fars(far or [])) as store:
        inspection = Inspection(store, named(store, at))
        sections = list(sections_of(inspection))
    title = f"{image.name}, generation {inspection.record.generation}"
    write_page(out, title, "Made by revenant report from the image alone; all that is shown was verified.", sections)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(report)
