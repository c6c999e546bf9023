"""`bench snapshot`: the pause, the first writes after it, how long until it is durable, and what whole programs pay.

In guest instructions, but for the time until it is durable. Used by: command.py.
"""

from __future__ import annotations

from dataclasses import replace

from revenant import genesis
from revenant.bench.common import MIB, TIMEOUT_S, Row, Workshop, ask, median
from revenant.machine import PROMPT, Machine
from revenant.qemu import ICOUNT, ICOUNT_WAITING, MachineConfig

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


COMMIT_PROGRAM = """\
import json, revenant, time
def write(data, count, value):
    for page in range(count):
        data[page << 12] = value
def took_us(data, count, value):
    write(data, count, value)
    start = time.ticks_us()
    revenant.commit()
    return time.ticks_diff(time.ticks_us(), start)
data = bytearray(%(dirty)d << 12)
write(data, %(dirty)d, 1)
revenant.commit()
print(json.dumps([took_us(data, %(dirty)d, turn) for turn in range(%(runs)d)]))
"""


def bench_commit(shop: Workshop) -> list[Row]:
    """Milliseconds that revenant.commit() waits until so many pages are durable."""
    rows = []
    for dirty in (10, 100, 1000, 10000):
        with Machine(MachineConfig(shop.copy("commit.img"), interval_ms=0), TIMEOUT_S) as machine:
            machine.expect_exact(PROMPT)
            times_ms = [us / 1000 for us in ask(machine, COMMIT_PROGRAM % {"dirty": dirty, "runs": shop.run_count})]
        rows.append({
            "benchmark": "commit", "dirty_pages": dirty, "runs": len(times_ms), "commit_median_ms": median(times_ms),
            "commit_max_ms": max(times_ms),
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
import json, time, random, revenant, gc
gc.collect()
random.seed(1)
scope = {}
exec(%(source)r, scope)
parameters = max((p for p in scope['bm_params'] if p[0] <= %(n)d and p[1] <= %(m)d), key=lambda p: p)
run, result = scope['bm_setup'](scope['bm_params'][parameters])
a = revenant.stats()
start = time.ticks_us()
run()
end = time.ticks_us()
b = revenant.stats()
idle = (b['idle_cycles'] - a['idle_cycles']) // 1000  # waiting for a slow disk is no work
writes = b['write_fault_count'] - a['write_fault_count']
print(json.dumps({'kinsn': time.ticks_diff(end, start) - idle, 'snapshots': b['commits'] - a['commits'],
                  'pages': b['commit_pages'] - a['commit_pages'], 'copied': b['pages_copied'] - a['pages_copied'],
                  'write_mean': (b['write_fault_cycles'] - a['write_fault_cycles']) // max(writes, 1)}))
"""


def bench_overhead(shop: Workshop, intervals_ms: tuple[int, ...] = (0, 100)) -> list[Row]:
    """MicroPython's own benchmark programs, without snapshots and with them, in guest instructions."""
    folder = genesis.build_folder() / "src/micropython/tests/perf_bench"
    answers: dict[int, dict[str, Row]] = {}
    for interval_ms in intervals_ms:
        image = shop.copy("overhead.img")
        config = MachineConfig(image, interval_ms=interval_ms, extra=ICOUNT_WAITING)
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
    """The pause, the time until durable, and what snapshots cost."""
    return [*bench_freeze(shop), *bench_commit(shop), *bench_overhead(shop)]
