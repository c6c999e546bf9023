"""`bench stream`: starts from far, beside QEMU's copy-on-read of the same image through the same filters.

Figures 1 (the first answer) and 2 (round trips) are here, 3 and 4 in misses.py, 5 and 9 in fill.py. Figures of one
kind are measured in one run, so that their ratios mean something. Used by: command.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from revenant import nbd
from revenant.bench import fill, misses
from revenant.bench.common import MIB, Row, Workshop, answered_s, measured, median
from revenant.bench.links import LINK_B, Link, Traffic, plain_copy_s, serving
from revenant.bench.studio import FULL, Published, Size, Studio
from revenant.qemu import MachineConfig


def traffic_facts(traffic: Traffic, image: Published) -> Row:
    """What was fetched, and of how much."""
    share = round(100 * traffic.byte_count / image.size, 2)
    return {"requests": traffic.request_count, "fetched_bytes": traffic.byte_count, "share_percent": share}


# --- 1: the first answer ---


def first_answers(studio: Studio, link: Link) -> list[Row]:
    """From QEMU's start to a question answered: ours and QEMU's streaming, against a copy of the whole image first."""
    with serving(studio.recorded.path, link) as server:
        download_s = plain_copy_s(server, studio.shop.folder / "copy.img")

    def row(engine: str, seconds: list[float], traffic: Traffic) -> Row:
        return {
            "figure": "1 first answer", "link": link.name, "engine": engine, "runs": len(seconds),
            "image_mib": round(studio.recorded.size / MIB, 1), "answered_median_s": median(seconds),
            **traffic_facts(traffic, studio.recorded),
            "percent_of_plain_copy": round(100 * median(seconds) / download_s, 1),
        }  # fmt: skip

    ours, ours_traffic = repeated(studio, studio.recorded, link, lambda s: studio.ours(studio.recorded, s))
    peer, peer_traffic = repeated(studio, studio.roomy, link, studio.copied)
    return [row("revenant", ours, ours_traffic), row("copy-on-read", peer, peer_traffic)]


def repeated(
    studio: Studio, image: Published, link: Link, machine: Callable[[nbd.Server], MachineConfig]
) -> tuple[list[float], Traffic]:
    """So many fresh starts over a link: seconds of each, and what the last one fetched."""
    seconds = []
    for _ in range(studio.shop.run_count):
        with serving(image.path, link) as server:
            seconds.append(answered_s(machine(server)))
            traffic = Traffic.of(server)
    return seconds, traffic


# --- 2: round trips ---


def round_trips(studio: Studio) -> list[Row]:
    """The slope of time against delay: how many answers of the far store a start waits for in turn."""
    engines: dict[str, tuple[Published, Callable[[nbd.Server], MachineConfig]]] = {
        "revenant": (studio.recorded, lambda server: studio.ours(studio.recorded, server)),
        "copy-on-read": (studio.roomy, studio.copied),
    }
    rows = []
    for engine, (image, machine) in engines.items():
        seconds = [
            repeated(studio, image, Link(f"{delay_ms} ms", delay_ms), machine)[0] for delay_ms in studio.size.delays_ms
        ]
        rows.append({
            "figure": "2 round trips", "engine": engine, "delays_ms": list(studio.size.delays_ms),
            "answered_median_s": [median(each) for each in seconds],
            "round_trips": slope(studio.size.delays_ms, [median(each) for each in seconds]),
            "round_trips_of_fastest": slope(studio.size.delays_ms, [min(each) for each in seconds]),
        })  # fmt: skip
    return rows


def slope(delays_ms: Sequence[int], seconds: Sequence[float]) -> float:
    """Of the line through the points by least squares, in delays."""
    return round(statistics.linear_regression(delays_ms, [each * 1000 for each in seconds]).slope, 1)


# --- all ---


def bench_stream(shop: Workshop, size: Size = FULL) -> list[Row]:
    """All figures of streaming."""
    studio = Studio.build(shop, size)
    figures: Mapping[str, Callable[[], list[Row]]] = {
        **{f"1 first answer, link {link.name}": partial(first_answers, studio, link) for link in size.links},
        "2 round trips": partial(round_trips, studio),
        "3 scattered misses": partial(misses.scattered_misses, studio),
        "4 resume list": partial(misses.list_worth, studio),
        **{
            f"5 fill, link {link.name}": partial(fill.fill_times, studio, link)
            for link in size.links if link.delay_ms <= LINK_B.delay_ms
        },
        "5 misses while filling": partial(fill.misses_while_filling, studio, LINK_B),
        "9 warm start": partial(fill.warm_starts, studio),
    }  # fmt: skip
    found = (row for name, measure in figures.items() for row in measured(f"stream, {name}", measure))
    return [{"benchmark": "stream", **row} for row in found]
