"""Figures 3 and 4 of `bench stream`: scattered misses with and without the resume list, and what the list is worth.

Used by: command.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from revenant import nbd
from revenant.bench.common import Row, ask, median
from revenant.bench.links import Link, serving
from revenant.bench.studio import SCATTERED_COUNT, Published, Studio, scattered_pages
from revenant.format import SPACE_SHARES
from revenant.machine import PROMPT, Machine
from revenant.publish import RECORD_ANSWER, RECORD_INPUT
from revenant.qemu import MachineConfig
from revenant.resume_list import touched

LINK = Link("20 ms", 20)
TOUCH_PROGRAM = """\
import time
touch([])
start = time.ticks_us()
touch(%s)
print(time.ticks_diff(time.ticks_us(), start))
"""


def touch_s(studio: Studio, config: MachineConfig) -> float:
    """Seconds that a program takes to read the scattered pages, one after the other, right after a start."""
    with Machine(config) as machine:
        machine.expect_exact(PROMPT)
        return float(ask(machine, TOUCH_PROGRAM % scattered_pages(studio.size))) / 1e6


def scattered_misses(studio: Studio) -> list[Row]:
    """The same pages with the list of a start that touched them; with that of one that did not; by copy-on-read."""
    ways: dict[tuple[str, str], tuple[Published, Callable[[nbd.Server], MachineConfig]]] = {
        ("revenant", "in the list"): (studio.scattered, lambda server: studio.ours(studio.scattered, server)),
        ("revenant", "not in it"): (studio.recorded, lambda server: studio.ours(studio.recorded, server, fill=True)),
        ("revenant", "not in it, no fill"): (studio.recorded, lambda server: studio.ours(studio.recorded, server)),
        ("copy-on-read", ""): (studio.roomy, studio.copied),
    }
    rows = []
    for (engine, pages), (image, machine) in ways.items():
        seconds = []
        for _ in range(studio.shop.run_count):
            with serving(image.path, LINK) as server:
                seconds.append(touch_s(studio, machine(server)))
        rows.append({
            "figure": "3 scattered misses", "engine": engine, "pages": pages, "delay_ms": LINK.delay_ms,
            "page_count": SCATTERED_COUNT, "runs": len(seconds), "median_s": median(seconds),
            "worst_s": round(max(seconds), 4),
        })  # fmt: skip
    return rows


def list_worth(studio: Studio) -> list[Row]:
    """Of the pages that a start asks for, how many the list had; of the list, how many were not asked for. Counts."""
    image = studio.recorded
    with serving(image.path, LINK) as server, Machine(replace(studio.ours(image, server), record=True)) as machine:
        machine.send(RECORD_INPUT)
        machine.expect_exact(RECORD_ANSWER)
        asked = {key for key in touched(machine.voice) if key.space != SPACE_SHARES}
    listed = {key for key in image.resume if key.space != SPACE_SHARES}
    return [{
        "figure": "4 resume list", "asked": len(asked), "listed": len(listed), "missed": len(asked - listed),
        "misses_removed_percent": round(100 * len(asked & listed) / len(asked), 1),
        "unused_percent": round(100 * len(listed - asked) / len(listed), 1),
    }]  # fmt: skip
