"""What all benchmarks share: a workshop with a fresh image, a program's answer as JSON, the time to an answer.

Two kinds of figures, kept apart by their names: `…_s` are wall seconds of this host and move with its load;
`…_instructions` are guest instructions under `-icount shift=0` and repeat. Used by: the modules beside it.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revenant import genesis
from revenant.images import copy_image
from revenant.machine import PROMPT, Machine
from revenant.output import say
from revenant.qemu import MachineConfig
from revenant.script import output_of

TIMEOUT_S = 600.0
MIB = 1 << 20
PAGE_SIZE = 4096
GIVEN = ("delay_ms", "delays_ms", "interval_ms")
RATIOS = ("percent_of_plain_copy", "round_trips", "round_trips_of_fastest")
WALL_UNITS = ("_s", "_ms", "_us")
NOT_MEASURED = "not measured"
"""A figure: `what` could not be, for that `reason`."""

numbers = itertools.count(1000)

Row = dict[str, Any]


def kind(row: Row) -> tuple[str, str]:
    """Rows of one kind have the same columns."""
    return row["benchmark"], row.get("figure", "")


def is_wall_time(column: str) -> bool:
    """Whether a figure moves with the host; what was given to the benchmark does not."""
    ratio = column in RATIOS or column.startswith("times_")
    return column not in GIVEN and (ratio or column.endswith(WALL_UNITS))


@dataclass(frozen=True)
class Workshop:
    """A temporary folder and the fresh image that all benchmarks start from."""

    folder: Path
    genesis: Path
    run_count: int

    def copy(self, name: str, source: Path | None = None) -> Path:
        """A private copy of an image (sparse where the file system can)."""
        path = self.folder / name
        copy_image(source or self.genesis, path)
        return path


@contextmanager
def workshop(run_count: int) -> Iterator[Workshop]:
    """Everything in it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="revenant-bench-") as name:
        folder = Path(name)
        genesis.create_image(folder / "genesis.img", genesis.BuildFiles.locate(), size=4 << 30)
        yield Workshop(folder, folder / "genesis.img", run_count)


def measured(what: str, measure: Callable[[], list[Row]]) -> list[Row]:
    """The rows of a figure; where it cannot be measured, a row with the reason: the others come all the same."""
    say(f"revenant: measuring {what}")
    try:
        return measure()
    except Exception as error:  # whatever a machine, a server or the host has done
        say(traceback.format_exc())
        reason = next(iter(str(error).splitlines()), "")
        return [{"figure": NOT_MEASURED, "what": what, "reason": f"{type(error).__name__}: {reason}"}]


def ask(machine: Machine, source: str) -> Any:
    """Run source in the raw REPL; it prints one line of JSON, which is returned."""
    return json.loads(output_of(machine, source, TIMEOUT_S, "the benchmark's program"))


def median(values: list[float]) -> float:
    """To the digits that mean something."""
    return round(statistics.median(values), 4)


def answered_s(config: MachineConfig) -> float:
    """Seconds from QEMU's start to the answer of a question typed at the prompt.

    Each time another one: a machine that was killed repeats what may not have been seen, the last answer with it.
    """
    number = next(numbers)
    with Machine(config) as machine:
        machine.expect_exact(PROMPT)
        machine.send(b"%d*7\r" % number)
        machine.expect_exact(b"%d\r\n" % (number * 7))
        return time.monotonic() - machine.started_s
