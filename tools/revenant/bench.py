"""`revenant bench`: the figures, measured on real machines in one run. Nothing here asserts.

Two kinds, kept apart by their names: `…_s` are wall seconds of this host and move with its load;
`…_instructions` are guest instructions under `-icount shift=0` and repeat. Used by: cli.py, `make bench`.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from revenant import genesis, nbd, publish
from revenant.errors import RevenantError
from revenant.format import Root
from revenant.images import copy_image
from revenant.machine import PROMPT, Machine
from revenant.output import print_rows, say, working
from revenant.qemu import Boot, MachineConfig
from revenant.script import output_of, wait_for_prompt
from revenant.store import Store

ICOUNT = ("-icount", "shift=0,sleep=off")
"""One guest instruction is one virtual nanosecond; idle time is skipped."""
RUN_COUNT = 10
TIMEOUT_S = 600.0
MIB = 1 << 20
PAGE_SIZE = 4096

Row = dict[str, Any]


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


def ask(machine: Machine, source: str) -> Any:
    """Run source in the raw REPL; it prints one line of JSON, which is returned."""
    return json.loads(output_of(machine, source, TIMEOUT_S, "the benchmark's program"))


def median(values: list[float]) -> float:
    """To the digits that mean something."""
    return round(statistics.median(values), 4)


# --- start ---


def answered_s(config: MachineConfig) -> float:
    """Seconds from QEMU's start to the answer of a question typed at the prompt."""
    with Machine(config) as machine:
        machine.expect_exact(PROMPT)
        machine.send(b"6*7\r")
        machine.expect_exact(b"42\r\n")
        return time.monotonic() - machine.started_s


def boot_instructions(config: MachineConfig) -> int:
    """Guest instructions from the kernel's entry to the first time a program waits for input."""
    with Machine(replace(config, extra=ICOUNT), TIMEOUT_S) as machine:
        machine.expect_exact(PROMPT)
        return int(ask(machine, "import json, revenant; print(json.dumps(revenant.stats()['boot_cycles']))"))


def bench_start(shop: Workshop) -> list[Row]:
    """QEMU's start to an answered prompt: by PVH and MBR, from genesis and resumed."""
    resumed = shop.copy("resumed.img")
    with Machine(MachineConfig(resumed)) as machine:
        machine.expect_exact(PROMPT)
        ask(machine, "import revenant; print(revenant.commit())")
    rows = []
    for boot in (Boot.PVH, Boot.MBR):
        for state, image in (("genesis", shop.genesis), ("resumed", resumed)):
            seconds = [
                answered_s(MachineConfig(shop.copy("start.img", image), boot=boot))
                for _ in range(shop.run_count)
            ]
            count = boot_instructions(MachineConfig(shop.copy("start.img", image), boot=boot))
            rows.append({
                "benchmark": "start", "boot": boot.value, "image": state, "runs": len(seconds),
                "answered_median_s": median(seconds), "answered_min_s": round(min(seconds), 4),
                "answered_max_s": round(max(seconds), 4), "entry_to_prompt_instructions": count,
            })  # fmt: skip
    return rows


# --- resume ---

RESUME_CASES = (
    {"image_mib": 16, "heap_mib": 0, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 0, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 512, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 0, "memory_mib": 4096},
)


def crashed_image(path: Path, image_mib: int, heap_mib: int, memory_mib: int) -> None:
    """A machine with a history and so much more heap, cut off while it runs."""
    genesis.create_image(path, genesis.BuildFiles.locate(), image_mib * MIB)
    with Machine(MachineConfig(path, memory_mib=memory_mib), TIMEOUT_S) as machine:
        machine.expect_exact(PROMPT)
        ask(machine, f"import gc, revenant; gc.disable(); data = b'x' * ({heap_mib} << 20); print(0)")
        ask(machine, "for _ in range(20): last = revenant.commit()\nprint(last)")


def resume_instructions(config: MachineConfig) -> int:
    """Guest instructions from the kernel's entry to the first program, waiting for devices left out."""
    with Machine(replace(config, extra=ICOUNT), TIMEOUT_S) as machine:
        wait_for_prompt(machine)
        return int(ask(machine, "import json, revenant; print(json.dumps(revenant.stats()['resume_cycles']))"))


def bench_resume(shop: Workshop) -> list[Row]:
    """The start after a crash, against the size of image, heap and memory."""
    rows = []
    for case in RESUME_CASES:
        image = shop.folder / "crashed.img"
        image.unlink(missing_ok=True)
        crashed_image(image, **case)
        config = MachineConfig(image, memory_mib=case["memory_mib"])
        seconds = [answered_s(config) for _ in range(shop.run_count)]
        rows.append({
            "benchmark": "resume", **case, "resume_instructions": resume_instructions(config), "runs": len(seconds),
            "answered_median_s": median(seconds), "answered_min_s": round(min(seconds), 4),
        })  # fmt: skip
    return rows


# --- snapshot ---

FREEZE_PROGRAM = """\
import json, micropython, revenant, time
@micropython.viper
def write(data: ptr8, count: int):
    i = 0
    while i < count:
        data[i << 12] = data[i << 12] + 1
        i += 1
def seen_ns(data, dirty):
    start = time.time_ns()
    write(data, dirty)
    return time.time_ns() - start
def measure(data, dirty):
    for _ in range(2):  # all that is touched is durable and clean after it
        write(data, dirty)
        revenant.commit()
    a = revenant.stats()
    first, again = seen_ns(data, dirty), seen_ns(data, dirty)
    b = revenant.stats()
    revenant.commit()
    c = revenant.stats()
    count = max(b['write_fault_count'] - a['write_fault_count'], 1)
    return {
        'freeze_instructions': c['freeze_cycles_last'],
        'first_writes': count,
        'first_write_mean_instructions': (first - again) // count,
        'first_write_in_kernel_mean_instructions': (b['write_fault_cycles'] - a['write_fault_cycles']) // count,
        'first_write_in_kernel_max_instructions': c['write_fault_cycles_max'],
    }
data = bytearray(%(touched)d)
print(json.dumps(measure(data, %(dirty)d)))
"""

FREEZE_CASES = (
    *({"touched_mib": touched, "dirty": 10, "spaces": 0} for touched in (4, 32, 256, 1024)),
    *({"touched_mib": 64, "dirty": dirty, "spaces": 0} for dirty in (10, 100, 1000, 10000)),
    *({"touched_mib": 4, "dirty": 10, "spaces": spaces} for spaces in (0, 15, 63)),
)


def bench_freeze(shop: Workshop) -> list[Row]:
    """The pause and the first writes after it, against memory touched, pages dirty, and spaces."""
    rows = []
    for case in FREEZE_CASES:
        memory_mib = 2 * case["touched_mib"] + 256
        image = shop.copy("freeze.img")
        config = MachineConfig(image, memory_mib=memory_mib, interval_ms=0, extra=ICOUNT)
        config = replace(config, test_spaces=case["spaces"])
        program = FREEZE_PROGRAM % {**case, "touched": case["touched_mib"] * MIB}
        with Machine(config, TIMEOUT_S) as machine:
            machine.expect_exact(PROMPT)
            answer = ask(machine, program)
        rows.append({
            "benchmark": "freeze", "touched_mib": case["touched_mib"], "dirty_pages": case["dirty"],
            "spaces": case["spaces"] + 1, **answer,
        })  # fmt: skip
    return rows


PROGRAMS = (
    "bm_chaos", "bm_fannkuch", "bm_fft", "bm_float", "bm_hexiom", "bm_nqueens", "bm_pidigits", "bm_wordcount",
    "core_locals", "core_qstr", "core_str", "core_yield_from", "misc_aes", "misc_mandel", "misc_pystone",
    "misc_raytrace",
)  # fmt: skip
"""Of MicroPython's tests/perf_bench; all that need neither files nor native code."""
PROGRAM_N, PROGRAM_M = 1000, 1000

OVERHEAD_PROGRAM = """\
import json, time, revenant, gc
gc.collect()
scope = {}
exec(%(source)r, scope)
parameters = max((p for p in scope['bm_params'] if p[0] <= %(n)d and p[1] <= %(m)d), key=lambda p: p)
run, result = scope['bm_setup'](scope['bm_params'][parameters])
a = revenant.stats()
start = time.ticks_us()
run()
end = time.ticks_us()
b = revenant.stats()
writes = b['write_fault_count'] - a['write_fault_count']
print(json.dumps({'kinsn': time.ticks_diff(end, start), 'snapshots': b['commits'] - a['commits'],
                  'pages': b['commit_pages'] - a['commit_pages'], 'copied': b['pages_copied'] - a['pages_copied'],
                  'write_mean': (b['write_fault_cycles'] - a['write_fault_cycles']) // max(writes, 1)}))
"""


def bench_overhead(shop: Workshop, intervals_ms: tuple[int, ...] = (0, 100)) -> list[Row]:
    """MicroPython's own benchmark programs, without snapshots and with them, in guest instructions."""
    folder = genesis.build_folder() / "src/micropython/tests/perf_bench"
    answers: dict[int, dict[str, Row]] = {}
    for interval_ms in intervals_ms:
        image = shop.copy("overhead.img")
        config = MachineConfig(image, interval_ms=interval_ms, extra=ICOUNT)
        with Machine(config, TIMEOUT_S) as machine:
            machine.expect_exact(PROMPT)
            answers[interval_ms] = {
                name: ask(machine, OVERHEAD_PROGRAM % {
                    "source": (folder / f"{name}.py").read_text(), "n": PROGRAM_N, "m": PROGRAM_M,
                }) for name in PROGRAMS
            }  # fmt: skip
    rows = []
    for name in PROGRAMS:
        without, with_snapshots = answers[0][name], answers[intervals_ms[-1]][name]
        rows.append({
            "benchmark": "overhead", "program": name, "interval_ms": intervals_ms[-1],
            "without_instructions": without["kinsn"] * 1000,
            "with_instructions": with_snapshots["kinsn"] * 1000,
            "snapshots": with_snapshots["snapshots"], "pages": with_snapshots["pages"],
            "copied": with_snapshots["copied"],
            "first_write_in_kernel_mean_instructions": with_snapshots["write_mean"],
            "overhead_percent": round(100 * (with_snapshots["kinsn"] / without["kinsn"] - 1), 2),
        })  # fmt: skip
    total = sum(row["with_instructions"] for row in rows) / sum(row["without_instructions"] for row in rows)
    rows.append({
        **dict.fromkeys(rows[0], ""), "benchmark": "overhead", "program": "all together",
        "interval_ms": intervals_ms[-1], "overhead_percent": round(100 * (total - 1), 2),
    })  # fmt: skip
    return rows


def bench_snapshot(shop: Workshop) -> list[Row]:
    """The pause and what snapshots cost."""
    return [*bench_freeze(shop), *bench_overhead(shop)]


# --- stream ---

STREAM_PAYLOAD_MIB = 46
STREAM_DELAYS_MS = (0, 20, 100)
PAYLOAD_PROGRAM = """\
import os, revenant
payload = [b''.join(os.urandom(256) for _ in range(4096)) for _ in range(%d)]
print(revenant.commit())
"""


@dataclass(frozen=True)
class Traffic:
    """What a far store was asked for, from nbdkit's log filter (nbdkit-log-filter(1))."""

    request_count: int
    byte_count: int

    @classmethod
    def of(cls, log: Path) -> Traffic:
        """All reads in the log."""
        counts = [int(count, 16) for count in re.findall(r" Read .*?count=(0x[0-9a-f]+)", log.read_text())]
        return cls(len(counts), sum(counts))


@contextmanager
def serving(server: nbd.ServerConfig) -> Iterator[None]:
    """nbdkit, up until the end of the block; it has no log yet when the block begins."""
    assert server.pidfile is not None and server.unix is not None and server.log is not None
    process = subprocess.Popen(nbd.command_line(server))
    try:
        while not server.pidfile.exists():  # written when the socket accepts connections (nbdkit(1))
            if process.poll() is not None:
                raise RevenantError("nbdkit", "ended at once", "is it installed? apt-get install nbdkit")
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()
        server.unix.unlink(missing_ok=True)
        server.pidfile.unlink(missing_ok=True)


def bench_stream(shop: Workshop) -> list[Row]:
    """A start from a blank near disk over NBD, then again from what is near; without and with a resume list."""
    source = shop.copy("source.img")
    with Machine(MachineConfig(source)) as machine:
        machine.expect_exact(PROMPT)
        ask(machine, PAYLOAD_PROGRAM % STREAM_PAYLOAD_MIB)
    rows = []
    for record in (False, True):
        far = shop.folder / f"far-{record}.img"
        with Store(source) as store:
            root = publish.publish_image(store, far, None, record)
        for delay_ms in STREAM_DELAYS_MS:
            for _ in range(max(1, shop.run_count // 3)):
                rows += bench_stream_start(shop, far, root, delay_ms)
        far.unlink()
    return [*rows, *map(partial(round_trips, rows), ("none", "recorded"))]


def bench_stream_start(shop: Workshop, far: Path, root: Root, delay_ms: int) -> list[Row]:
    """One start from blank, one from what it has left."""
    near, log, size = shop.folder / "near.img", shop.folder / "far.log", far.stat().st_size
    server = nbd.ServerConfig(
        far, unix=shop.folder / "far.socket", delay_ms=delay_ms, log=log, pidfile=shop.folder / "far.pid"
    )
    with near.open("wb") as file:
        file.truncate(1 << 30)
    rows = []
    for state in ("blank", "adopted"):
        log.unlink(missing_ok=True)
        with serving(server):
            config = MachineConfig(near, fars=(server.uri,), trust=root.hash.hex(), fill=False)
            seconds = answered_s(config)
        traffic = Traffic.of(log)
        rows.append({
            "benchmark": "stream", "resume_list": "recorded" if root.packed_count else "none",
            "delay_ms": delay_ms, "near": state, "image_mib": round(size / MIB, 1),
            "answered_s": round(seconds, 3), "requests": traffic.request_count,
            "fetched_bytes": traffic.byte_count, "share_percent": round(100 * traffic.byte_count / size, 2),
        })  # fmt: skip
    near.unlink()
    return rows


def round_trips(rows: list[Row], resume_list: str) -> Row:
    """The slope of time against delay: how many answers of the far store a start from blank waits for in turn."""

    def seconds(delay_ms: int) -> float:
        wanted = {"resume_list": resume_list, "near": "blank", "delay_ms": delay_ms}
        return median([row["answered_s"] for row in rows if wanted.items() <= row.items()])

    least, most = min(STREAM_DELAYS_MS), max(STREAM_DELAYS_MS)
    slope = (seconds(most) - seconds(least)) * 1000 / (most - least)
    return {"benchmark": "stream round trips", "resume_list": resume_list, "round_trips": round(slope, 1)}


# --- the command ---

BENCHMARKS: Mapping[str, Any] = {
    "start": bench_start, "resume": bench_resume, "snapshot": bench_snapshot, "stream": bench_stream,
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds `bench` to the command."""

    @app.command()
    def bench(
        names: list[str] = typer.Argument(None, help="start, resume, snapshot, stream; all when none is given"),
        runs: int = typer.Option(RUN_COUNT, help="how often a start is timed"),
        as_json: bool = typer.Option(False, "--json", help="one list of rows"),
    ) -> None:
        """Measure: seconds from QEMU's start, guest instructions, bytes and requests."""
        wanted = names or list(BENCHMARKS)
        unknown = [name for name in wanted if name not in BENCHMARKS]
        if unknown:
            raise RevenantError(unknown[0], "no such benchmark", f"use {', '.join(BENCHMARKS)}")
        every: list[Row] = []
        with workshop(runs) as shop:
            for name in wanted:
                with working(f"measuring: {name}"):
                    rows = BENCHMARKS[name](shop)
                every += rows
                if not as_json:
                    say_groups(rows)
        if as_json:
            print_rows(every, as_json=True)


def say_groups(rows: list[Row]) -> None:
    """A table for each benchmark: their columns differ."""
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        say("")
        print_rows([row for row in rows if row["benchmark"] == name], as_json=False)


