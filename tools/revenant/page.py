"""One HTML page with charts and tables, which needs nothing but a browser to be looked at.

Promise: the page names no other file or host (plotly's JavaScript is in it), and what it is given is escaped. Charts
are plain plotly figures: dictionaries of `data` and `layout`. Used by: report.py, bench/page.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from revenant.errors import RevenantError
from revenant.output import in_units, say

Figure = dict[str, Any]


@dataclass
class Section:
    """A heading, what is to be said of it, charts and a table."""

    title: str
    notes: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)


def layout(title: str, x: str, y: str, height_px: int = 340, **more: Any) -> Figure:
    """What all charts have in common; `more` goes over it."""
    return {
        "title": {"text": title, "font": {"size": 14}},
        "xaxis": {"title": {"text": x}},
        "yaxis": {"title": {"text": y}},
        "height": height_px,
        "margin": {"l": 90, "r": 30, "t": 40, "b": 50},
        **more,
    }


def page_of(title: str, origin: str, sections: Sequence[Section]) -> str:
    """The HTML; `origin` says below the title what made it."""
    import jinja2  # these two take a moment, which other commands need not wait for
    from plotly.offline import get_plotlyjs

    figures = [figure for section in sections for figure in section.figures]
    for number, figure in enumerate(figures):
        figure["number"] = number
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(files("revenant").joinpath("page.html").read_text())
    return template.render(title=title, origin=origin, sections=sections, figures=figures, plotly_js=get_plotlyjs())


def require_writable(out: Path) -> None:
    """RevenantError if the file cannot be made."""
    try:
        out.open("a").close()
    except OSError as error:
        raise RevenantError(out, f"cannot be written: {error.strerror}") from None


def write_page(out: Path, title: str, origin: str, sections: Sequence[Section]) -> None:
    """Make the file; RevenantError if that cannot be."""
    require_writable(out)
    out.write_text(page_of(title, origin, sections))
    say(f"revenant: {out}: {in_units(out.stat().st_size)}")
