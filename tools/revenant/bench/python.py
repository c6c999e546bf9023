"""`revenant bench python`: MicroPython's own benchmark programs here and on Linux, in the same QEMU, in the same run.

Four machines are up at the same time and take turns, program by program: Linux, and ours without snapshots, with one
every 100 ms, with one every 10 ms; all run the same server program. What is compared are ratios: of guest
instructions (one run under -icount, which repeats) and of the shortest times of several turns. Used by: command.py.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from revenant import genesis
from revenant.bench.common import Row, Workshop
from revenant.bench.linux import Linux
from revenant.errors import RevenantError
from revenant.files import Addition
from revenant.machine import Machine
from revenant.qemu import ICOUNT_WAITING, MachineConfig

TIMEOUT_S = 600.0
IMAGE_SIZE = 256 << 20
RAM_FOLDER = Path("/dev/shm")
"""Where the host keeps files in memory."""
PROGRAM_N, PROGRAM_M = 1000, 1000
"""Which parameters: those of a fast machine."""
LEFT_OUT = ("benchrun", "core_import_mpy_single")
"""What is no program, and what takes ten microseconds."""
INTERVALS_MS = {"off": 0, "every_100_ms": 100, "every_10_ms": 10}

SERVER = f"""\
import gc, random, sys, time, vfs
def run_once(scope, parameters):
    random.seed(1)  # one of them does more or less work by chance
    run, result = scope["bm_setup"](parameters)
    gc.collect()
    start = time.ticks_us()
    run()
    took = time.ticks_diff(time.ticks_us(), start)
    if "FS" in scope:  # it imports from a file system of its own, which must go before the next time
        scope["FS"].umount = lambda self: None
        vfs.umount("/__remote")
        sys.path.pop(0)
    return took
def measured(name):
    scope = {{"__name__": name}}
    with open("/" + name) as f:
        exec(f.read(), scope)
    all = scope["bm_params"]
    fits = [sizes for sizes in all if sizes[0] <= {PROGRAM_N} and sizes[1] <= {PROGRAM_M}]
    run_once(scope, all[min(fits)])  # brings in what it touches
    return run_once(scope, all[max(fits)])
print("READY")
while True:
    name = sys.stdin.readline().strip()
    print("TOOK", name, measured(name), "us")
"""


def programs() -> dict[str, bytes]:
    """tests/perf_bench, name -> text."""
    folder = genesis.build_folder() / "src/micropython/tests/perf_bench"
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.py")) if path.stem not in LEFT_OUT}


def bench_image(path: Path, files: Mapping[str, bytes]) -> None:
    """A fresh image that runs the server, with the programs in its files."""
    additions = []
    for name, data in files.items():
        source = path.with_name(f"added-{name}")
        source.write_bytes(data)
        additions.append(Addition(source, PurePosixPath("/") / name))
    genesis.create_image(path, genesis.BuildFiles.locate(), IMAGE_SIZE, additions=additions)


@contextmanager
def all_machines(scratch: Path, files: Mapping[str, bytes], extra: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Label -> console of a machine whose server is ready."""
    with ExitStack() as stack:
        consoles: dict[str, Any] = {"linux": stack.enter_context(Linux(scratch, files, "main.py", extra)).console}
        for label, interval_ms in INTERVALS_MS.items():
            image = scratch / f"{label}.img"
            bench_image(image, files)
            config = MachineConfig(image, interval_ms=interval_ms, extra=extra)
            consoles[label] = stack.enter_context(Machine(config, TIMEOUT_S)).console
        for console in consoles.values():
            console.expect_exact(b"READY\r\n", timeout=TIMEOUT_S)
        yield consoles


def took_us(console: Any, name: str) -> int:
    """Microseconds of the guest's clock that one run of a program takes."""
    console.send(name.encode() + b"\n")
    if console.expect([rb"TOOK %s (\d+) us\r\n" % name.encode(), b"Traceback"], timeout=TIMEOUT_S) == 1:
        console.expect(rb"\n(\w+(:.*)?)\r\n", timeout=TIMEOUT_S)
        raise RevenantError(name, f"failed: {console.match[1].decode()}")
    return int(console.match[1])


def measure(scratch: Path, extra: Sequence[str], turns: int) -> dict[str, dict[str, int]]:
    """Program -> machine -> the least of so many turns."""
    texts = programs()
    least: dict[str, dict[str, int]] = {}
    with all_machines(scratch, {**texts, "main.py": SERVER.encode()}, extra) as consoles:
        for name in texts:
            taken = [{label: took_us(console, name) for label, console in consoles.items()} for _ in range(turns)]
            least[name] = {label: min(turn[label] for turn in taken) for label in consoles}
    return least


def rows_of(figures: Mapping[str, Mapping[str, int]], measure_name: str, factor: int) -> Iterator[Row]:
    """A row for each program, and the geometric means: of ours to Linux, of snapshots to none."""
    ratios: list[tuple[float, ...]] = []
    for name, took in figures.items():
        off = took["off"]
        ratios.append((off / took["linux"], took["every_100_ms"] / off, took["every_10_ms"] / off))
        yield {
            "benchmark": "python", "program": name, "measure": measure_name,
            **{label: value * factor for label, value in took.items()}, **ratio_columns(ratios[-1]),
        }  # fmt: skip
    means = tuple(map(statistics.geometric_mean, zip(*ratios, strict=True)))
    empty = dict.fromkeys(("linux", *INTERVALS_MS), "")
    yield {
        "benchmark": "python", "program": "geometric mean", "measure": measure_name, **empty, **ratio_columns(means)
    }


def ratio_columns(ratios: Sequence[float]) -> Row:
    """What the figures mean."""
    names = ("off_to_linux", "100_ms_to_off", "10_ms_to_off")
    return {name: round(ratio, 3) for name, ratio in zip(names, ratios, strict=True)}


def counting_folder(shop: Workshop) -> Path:
    """In RAM if there is room: a snapshot comes when the one before is durable, so a slow disk would mean fewer."""
    has_room = RAM_FOLDER.is_dir() and shutil.disk_usage(RAM_FOLDER).free > 2 * len(INTERVALS_MS) * IMAGE_SIZE
    return RAM_FOLDER if has_room else shop.folder


def bench_python(shop: Workshop) -> list[Row]:
    """Both measures, each with images of its own."""
    with TemporaryDirectory(prefix="revenant-bench-", dir=counting_folder(shop)) as counted:
        instructions = list(rows_of(measure(Path(counted), ICOUNT_WAITING, 1), "instructions", 1000))
    timed = shop.folder / "timed"
    timed.mkdir()
    turns = max(1, shop.run_count // 3)
    return [*instructions, *rows_of(measure(timed, (), turns), "us", 1)]
