"""`bench crash`: states of power cuts tried, and kills that a client outside saw survived. Counts, with their seeds.

The small runs of `crashtest` and `witness`; those commands alone go on as long as is wanted. Used by: command.py.
"""

from __future__ import annotations

import random
from dataclasses import asdict

from revenant.bench.common import Row, Workshop
from revenant.crash.command import SMALL, try_workload
from revenant.crash.pool import workers
from revenant.crash.workload import WORKLOADS
from revenant.qemu import MachineConfig
from revenant.witness import run_witness

KILLS_PER_RUN = 10
WAYS = {"strict": False, "relaxed": True}
INTERVAL_MS = 10
JOB_COUNT = 2


def states(shop: Workshop, seed: int) -> list[Row]:
    """Each workload's recording, and what a power cut could leave of it."""
    folder = shop.folder / "recordings"
    folder.mkdir()
    with workers(JOB_COUNT) as pool:
        turns = [pool.submit(try_workload, name, seed, SMALL, folder / name, False) for name in WORKLOADS]
        return [{"figure": "states of power cuts", "seed": seed, **turn.result().facts()} for turn in turns]


def kills(shop: Workshop, seed: int) -> list[Row]:
    """A client that notes every answer. A contradicted one ends the benchmark."""
    rows = []
    for way, relaxed in WAYS.items():
        config = MachineConfig(shop.copy(f"{way}.img"), relaxed=relaxed, interval_ms=INTERVAL_MS)
        tally = run_witness(config, KILLS_PER_RUN * shop.run_count, str(seed))
        rows.append({
            "figure": "kills survived", "seed": seed, "way": way, "interval_ms": INTERVAL_MS, **asdict(tally),
            "contradicted_answers": 0,
        })  # fmt: skip
    return rows


def bench_crash(shop: Workshop) -> list[Row]:
    """Both."""
    seed = random.SystemRandom().randrange(1 << 32)
    return [{"benchmark": "crash", **row} for row in (*states(shop, seed), *kills(shop, seed))]
