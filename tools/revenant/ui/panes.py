"""What the panes show, as text of rich: a moment of the machine in, lines of a given width out.

Promise: pure functions; every figure is of the moment that is given, or of the snapshots seen since the start.
Used by: app.py. README.md beside this says what each pane means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style
from rich.text import Text

from revenant.output import in_units
from revenant.ui.layout import FRAME_SIZE, MachineStats
from revenant.ui.live import CLEAN, DIRTY, FREE, FROZEN, KERNEL, NODE, TABLE, Moment, Process, Snapshot

Rgb = tuple[int, int, int]

DIM, PLAIN, BRIGHT = "#6b7a90", "#b8c4d6", "#eef3fa"
GREEN, AMBER, ICE, VIOLET, RED = "#3fc28a", "#ffb454", "#5cc8ff", "#a58bf2", "#ff6b7a"
STATES: dict[int, tuple[str, Rgb]] = {
    DIRTY: ("dirty", (255, 180, 84)),
    FROZEN: ("frozen", (92, 200, 255)),
    CLEAN: ("clean", (47, 146, 104)),
    NODE: ("nodes", (165, 139, 242)),
    TABLE: ("tables", (110, 128, 190)),
    KERNEL: ("kernel", (52, 62, 82)),
    FREE: ("free", (27, 34, 46)),
}
"""Name and colour of a frame's state, in the order of the legend."""
HALF_BLOCK = "▀"
EIGHTHS = " ▁▂▃▄▅▆▇█"
SPAN_MIN = 1024


def count(number: int) -> str:
    """With thin separators."""
    return f"{number:,}".replace(",", " ")


def microseconds(value: float) -> str:
    """For people."""
    if value < 1000:
        return f"{value:.0f} µs"
    return f"{value / 1000:.1f} ms" if value < 1e6 else f"{value / 1e6:.1f} s"


def clock(ns: int) -> str:
    """Machine time as hours, minutes, seconds."""
    seconds = ns // 10**9
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


# --- the machine, in a line ---


def headline(moment: Moment, width: int) -> Text:
    """What one wants to know first, as much as there is room for."""
    stats = moment.stats
    text = Text(" ● ", GREEN if stats.generation else AMBER)
    for name, value, colour in (
        ("generation", count(stats.generation), f"bold {BRIGHT}"),
        ("busy", f"{moment.busy:4.0%}", BRIGHT if moment.busy < 0.9 else AMBER),
        ("life", count(stats.resume_count), BRIGHT),
        ("machine time", clock(stats.mono_ns), BRIGHT),
    ):
        fact = Text().append(f"{name} ", DIM).append(f"{value}   ", colour)
        if len(text) + len(fact) <= width:
            text.append(fact)
    return text


# --- memory ---


def map_span(frame_end: int, total: int) -> int:
    """How many frames the map shows: the ones in use and some more, so that it need not change often."""
    span = SPAN_MIN
    while span < frame_end:
        span *= 2
    return min(span, total)


def cell_colour(states: bytes, frame_count: int) -> Rgb:
    """Of one cell: what needs attention, else what most of its frames that are used are, weaker where few are."""
    counts = Counter(states)
    del counts[FREE]
    if not counts:
        return STATES[FREE][1]
    hot = max((state for state in counts if state >= FROZEN), default=None)
    state = hot if hot is not None else counts.most_common(1)[0][0]
    share = 1.0 if hot is not None else 0.35 + 0.65 * counts.total() / max(frame_count, 1)
    return blend(STATES[FREE][1], STATES[state][1], min(share, 1.0))


def blend(below: Rgb, above: Rgb, share: float) -> Rgb:
    """`share` of the second colour."""
    return (
        round(below[0] + (above[0] - below[0]) * share),
        round(below[1] + (above[1] - below[1]) * share),
        round(below[2] + (above[2] - below[2]) * share),
    )


def memory_map(states: bytes, total: int, width: int, height: int) -> Text:
    """Frames from the lowest on, two rows of cells to a line."""
    span = map_span(len(states), total)
    per_cell = max(math.ceil(span / max(width * height * 2, 1)), 1)
    cells = [cell_colour(states[at : at + per_cell], per_cell) for at in range(0, span, per_cell)]
    cells += [STATES[FREE][1]] * (width * height * 2 - len(cells))
    text = Text(no_wrap=True)
    for line in range(height):
        upper = cells[line * 2 * width : (line * 2 + 1) * width]
        lower = cells[(line * 2 + 1) * width : (line * 2 + 2) * width]
        for above, below in zip(upper, lower, strict=True):
            text.append(HALF_BLOCK, Style(color=solid(above), bgcolor=solid(below)))
        text.append("\n")
    return text


def solid(rgb: Rgb) -> Color:
    """As rich has it."""
    return Color.from_triplet(ColorTriplet(*rgb))


def memory_legend(moment: Moment, total: int, width: int) -> Text:
    """How many frames are in each state."""
    counts = Counter(moment.frames.states)
    counts[FREE] += total - counts.total()
    text = Text(style=DIM, no_wrap=True)
    for number, (state, (name, rgb)) in enumerate(STATES.items()):
        entry = Text().append("■ ", Style(color=solid(rgb))).append(f"{name} ", DIM)
        entry.append(in_units(counts[state] * FRAME_SIZE), PLAIN)
        entry.truncate(width // 2, pad=True)
        text.append(entry).append("\n" if number % 2 else "")
    return text


def memory_title(moment: Moment, total: int) -> str:
    """How much of memory the map shows."""
    span = map_span(len(moment.frames.kinds), total)
    if span == total:
        return f"memory: {in_units(total * FRAME_SIZE)}"
    return f"memory: the first {in_units(span * FRAME_SIZE)} of {in_units(total * FRAME_SIZE)}"


# --- processes ---


def process_rows(processes: Sequence[Process], width: int, height: int) -> Text:
    """Those that run first; where there are too many the last line says so."""
    rows = sorted(processes, key=lambda process: (process.state != "runs", process.id))
    name_width = max(width - 33, 6)
    text = Text(no_wrap=True)
    text.append(f"{'id':>5} {'name':{name_width}} {'state':9}{'memory':>9}{'dirty':>8}\n", DIM)
    shown = rows if len(rows) < height else rows[: max(height - 2, 0)]
    for row in shown:
        runs = row.state == "runs"
        text.append(f"{row.id:>5} ", PLAIN if runs else DIM)
        text.append(f"{row.name[:name_width]:{name_width}} ", BRIGHT if runs else DIM)
        text.append(f"{row.state:9}"[:9], GREEN if runs else DIM if row.state == "ended 0" else RED)
        text.append(f"{in_units(row.page_count * FRAME_SIZE) if runs else '':>9}", PLAIN)
        text.append(f"{row.dirty_count or '':>8}\n", AMBER)
    if len(shown) < len(rows):
        text.append(f"      and {len(rows) - len(shown)} more\n", DIM)
    return text


# --- snapshots ---


def bars(values: Sequence[float], top: float, height: int) -> list[str]:
    """A column for each value, as lines from above; a value above 0 is always seen."""
    units = [max(round(value / top * height * 8), 1) if value > 0 else 0 for value in values] if top > 0 else []
    return ["".join(EIGHTHS[min(max(unit - line * 8, 0), 8)] for unit in units) for line in reversed(range(height))]


def timeline(snapshots: Sequence[Snapshot], width: int, height: int) -> Text:
    """Pages of each generation as columns, the newest last, above the time that each took to be durable."""
    label_width = 10
    shown = snapshots[-max(width - label_width, 1) :]
    if not shown:
        return Text("no snapshot yet: nothing has changed", DIM)
    commit_height = max((height - 1) // 3, 1)
    page_height = max(height - 1 - commit_height, 1)
    text = Text(no_wrap=True)
    most = max(snapshot.page_count for snapshot in shown)
    chart(text, bars([s.page_count for s in shown], most, page_height), shown, "pages", count(most), GREEN)
    slowest = max((s.commit_us or 0 for s in shown), default=0)
    times = bars([s.commit_us or 0 for s in shown], slowest, commit_height)
    chart(text, times, shown, "commit", microseconds(slowest), ICE)
    return text.append(newest_line(shown))


def chart(text: Text, lines: Sequence[str], shown: Sequence[Snapshot], name: str, most: str, colour: str) -> None:
    """Lines of bars behind their name and the greatest value; what is not durable yet in another colour."""
    labels = [name, most, *[""] * len(lines)]
    for label, line in zip(labels, lines or [""], strict=False):
        text.append(f"{label:>9} ", DIM)
        for snapshot, mark in zip(shown, line, strict=False):
            text.append(mark, AMBER if snapshot.commit_us is None else colour)
        text.append("\n")


def newest_line(shown: Sequence[Snapshot]) -> Text:
    """The newest durable generation in words."""
    text = Text(style=DIM)
    newest = next((s for s in reversed(shown) if s.commit_us is not None), None)
    if newest is None:
        return text
    text.append("newest".rjust(9) + " ").append(f"{count(newest.generation)}", f"bold {BRIGHT}")
    text.append(f"  {count(newest.page_count)} pages", PLAIN)
    if newest.pause_us is not None:
        text.append("  paused ").append(microseconds(newest.pause_us), PLAIN)
    return text.append("  durable after ").append(microseconds(newest.commit_us or 0), PLAIN)


# --- stores ---


def streaming(stats: MachineStats, fars: Sequence[str], width: int) -> Text:
    """How full near is; how much of far is still to come, and what each store gave in this start."""
    text = Text(no_wrap=True)
    used = stats.near_blocks_total - stats.near_blocks_free
    text.append("near  ", DIM).append(gauge(used, stats.near_blocks_total, width - 30, GREEN))
    text.append(f" {in_units(used * FRAME_SIZE)} of {in_units(stats.near_blocks_total * FRAME_SIZE)}\n", PLAIN)
    if stats.complete:
        return text.append("all of it is here: no far store is needed", GREEN if fars else DIM)
    came = sum(far.fetched for far in stats.far)
    text.append("far   ", DIM).append(gauge(came, came + stats.far_remaining, width - 30, ICE))
    text.append(f" {count(stats.far_remaining)} blocks to come\n", PLAIN)
    text.append(f"{'':6}{'fetched':>9}{'verified':>10}{'unused':>8}  store\n", DIM)
    for number, (uri, far) in enumerate(zip(fars, stats.far, strict=False), start=1):
        text.append(f"far{number:<3}{count(far.fetched):>9}", PLAIN)
        text.append(f"{count(far.verified):>10}", GREEN).append(f"{count(far.unused):>8}", PLAIN)
        room = max(width - 35, 8)
        text.append(f"  {uri if len(uri) <= room else '…' + uri[1 - room :]}\n", DIM)
    return text


def gauge(part: int, whole: int, width: int, colour: str) -> Text:
    """A bar."""
    width = max(width, 4)
    filled = round(part / whole * width) if whole else 0
    return Text().append("━" * filled, colour).append("━" * (width - filled), "#232c3b")
