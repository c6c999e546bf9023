"""Figures 5 and 9 of `bench stream`: until all is near, what programs notice of that, and starts from what is near.

QEMU's copy-on-read is filled by its own block-stream job. Used by: command.py.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from dataclasses import replace

from revenant import nbd
from revenant.bench.common import TIMEOUT_S, Row, answered_s, ask, median
from revenant.bench.links import LINK_B, Link, Traffic, plain_copy_s, serving
from revenant.bench.studio import Studio
from revenant.machine import PROMPT, Machine
from revenant.qemu import MachineConfig

STREAM_JOB = "fill"
MISS_PROGRAM = """\
import json, time
def misses(count, least_us, page_count):
    at, times = 12345, []
    for _ in range(8 * count):
        at = (at * 1103515245 + 12345) & 0x7fffffff
        start = time.ticks_us()
        payload[(at >> 8) %% page_count << 12]
        took = time.ticks_diff(time.ticks_us(), start)
        if took >= least_us:
            times.append(took)
            if len(times) == count:
                break
        time.sleep_ms(5)
    return sorted(times)
print(json.dumps(misses(%d, %d, %d)))
"""


def begin_block_stream(machine: Machine) -> None:
    """QEMU's job that fetches all that the overlay has not."""
    machine.qmp("block-stream", **{"job-id": STREAM_JOB, "device": "near-overlay"})


def wait_block_stream(machine: Machine) -> None:
    """Until it has ended."""
    while machine.qmp("query-block-jobs"):
        select.select([], [], [], 0.02)


def wait_complete(machine: Machine) -> None:
    """Until our near needs no far store."""
    machine.expect_voice("near is complete", TIMEOUT_S)


def misses_ms(studio: Studio, machine: Machine, link: Link) -> list[float]:
    """How long a program waited for each page of the payload that was not here: from the shortest to the longest."""
    size = studio.size
    words = (size.miss_count, link.delay_ms * 500, size.payload_mib * 256)
    return [each / 1000 for each in ask(machine, MISS_PROGRAM % words)]


def ours(studio: Studio, server: nbd.Server, fill: bool) -> MachineConfig:
    """Our streaming; `fill`: what nobody touches comes, too."""
    return studio.ours(studio.recorded, server, fill)


# --- 5: filling ---


def fill_times(studio: Studio, link: Link) -> list[Row]:
    """Until all is here, from the start on, nobody touching anything; against a copy of the whole image."""
    with serving(studio.recorded.path, link) as server:
        copy_s = plain_copy_s(server, studio.shop.folder / "copy.img")
        plain_bytes = Traffic.of(server).byte_count

    def row(engine: str, seconds: float, fetched_bytes: int) -> Row:
        return {
            "figure": "5 fill", "link": link.name, "engine": engine, "complete_s": round(seconds, 2),
            "fetched_bytes": fetched_bytes, "times_plain_copy": round(seconds / copy_s, 2),
        }  # fmt: skip

    rows = [row("plain copy", copy_s, plain_bytes)]
    with serving(studio.recorded.path, link) as server, Machine(ours(studio, server, fill=True)) as machine:
        wait_complete(machine)
        rows.append(row("revenant", time.monotonic() - machine.started_s, Traffic.of(server).byte_count))
    with serving(studio.roomy.path, link) as server, Machine(studio.copied(server)) as machine:
        machine.expect_exact(PROMPT)
        begin_block_stream(machine)
        wait_block_stream(machine)
        rows.append(row("copy-on-read", time.monotonic() - machine.started_s, Traffic.of(server).byte_count))
    return rows


def misses_while_filling(studio: Studio, link: Link) -> list[Row]:
    """How long misses take while the rest streams in, against the same ones while it does not."""
    rows = []
    for engine in ("revenant", "copy-on-read"):
        p99 = {}
        for filling in (False, True):
            image = studio.recorded if engine == "revenant" else studio.roomy
            with serving(image.path, link) as server:
                config = ours(studio, server, filling) if engine == "revenant" else studio.copied(server)
                with Machine(config) as machine:
                    machine.expect_exact(PROMPT)
                    if filling and engine != "revenant":
                        begin_block_stream(machine)
                    p99[filling] = misses_ms(studio, machine, link)
        unloaded, loaded = percentile_99(p99[False]), percentile_99(p99[True])
        rows.append({
            "figure": "5 misses while filling", "link": link.name, "engine": engine, "misses": len(p99[True]),
            "unloaded_p99_ms": unloaded, "filling_p99_ms": loaded, "times_unloaded": round(loaded / unloaded, 2),
        })  # fmt: skip
    return rows


def percentile_99(sorted_values: Sequence[float]) -> float:
    """The value that one in a hundred exceeds."""
    return round(sorted_values[-1 - len(sorted_values) // 100], 1)


# --- 9: starts from near ---


def warm_starts(studio: Studio) -> list[Row]:
    """A near that was filled, its far store still given, and the image that was published: in turns."""
    link = LINK_B
    local = studio.shop.copy("local.img", studio.source)
    seconds: dict[str, list[float]] = {"near": [], "local": []}
    with serving(studio.recorded.path, Link("no delay", 0)) as server:
        config = ours(studio, server, fill=True)
        with Machine(config) as machine:
            wait_complete(machine)
    with serving(studio.recorded.path, link) as server:
        for _ in range(studio.shop.run_count):
            seconds["near"].append(answered_s(replace(config, fars=(server.uri,))))
            seconds["local"].append(answered_s(MachineConfig(local)))
        requests = Traffic.of(server).request_count
    return [{
        "figure": "9 warm start", "link": link.name, "runs": studio.shop.run_count, "requests": requests,
        "near_median_s": median(seconds["near"]), "local_median_s": median(seconds["local"]),
        "times_local": round(median(seconds["near"]) / median(seconds["local"]), 3),
    }]  # fmt: skip
