"""`revenant fleet`: many machines from one far store, each with a near of its own, and what that costs.

Promise: every machine has its own identity (its near's store id) and randomness; whatever ends this command, no QEMU
and no file of its making is left, but the nears of `--near-folder`. The kernel is fetched and verified once for all of
them. Used by: cli.py.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pexpect
import typer

from revenant import nbd
from revenant.children import temporary_folder
from revenant.errors import MachineError
from revenant.images import Json
from revenant.machine import PROMPT, Machine, explain_exit, find_kernel
from revenant.output import OUT, print_facts, print_rows, say
from revenant.qemu import MachineConfig
from revenant.running import Making, check_fars, prepare_near, usable_fars
from revenant.script import output_of
from revenant.store import Store

MEMORY_MIB = 32
TIMEOUT_S = 120.0
QUESTION = "import json, os, random; print(json.dumps([os.urandom(8).hex(), random.getrandbits(30)]))"


@dataclass(frozen=True)
class Report:
    """One machine at its prompt. Bytes and requests are those of its far disk; memory is QEMU's, all in all."""

    machine: int
    prompt_s: float
    requests: int
    fetched_bytes: int
    memory_mib: float
    identity: str
    randomness: str


def prepare(near: Path, fars: list[str], trust: str | None, size: str) -> MachineConfig:
    """A machine that goes on from its near, or starts from far where that is blank."""
    adopting = prepare_near(near, fars, trust, Making(size))
    check_fars(fars, trust, adopting)
    return MachineConfig(near, fars, trust)


def with_one_kernel(configs: Sequence[MachineConfig], folder: Path) -> list[MachineConfig]:
    """The machines; those that start from far share the kernel that the first of them would fetch."""
    is_new = [config.near.stat().st_blocks == 0 for config in configs]
    if not any(is_new):
        return list(configs)
    found = find_kernel(configs[is_new.index(True)])
    if found is None:
        return list(configs)
    kernel = folder / "kernel.elf"
    kernel.write_bytes(found.data)
    return [
        replace(config, kernel=kernel, packed=found.packed) if new else config
        for config, new in zip(configs, is_new, strict=True)
    ]


# --- one machine ---


def prompt_s(machine: Machine) -> float:
    """Waits for the prompt: seconds from QEMU's start; MachineError says why there is none."""
    machine.send(b"\r")  # a prompt that was shown before is not shown again by itself
    try:
        machine.expect_exact(PROMPT, TIMEOUT_S)
    except pexpect.TIMEOUT:
        raise MachineError(machine.config.near, f"no prompt within {TIMEOUT_S:.0f} s", "is its program busy?") from None
    except pexpect.EOF:
        error = explain_exit(machine.config, machine.process.wait(), machine.voice)
        raise error or MachineError(machine.config.near, "the machine ended") from None
    return time.monotonic() - machine.started_s


def memory_mib(pid: int) -> float:
    """A process's share of memory: pages that several map are split between them (proc(5), smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return round(kib / 1024, 1)


def far_traffic(machine: Machine) -> tuple[int, int]:
    """Requests to far disks and their bytes, as QEMU counts them."""
    disks = machine.qmp("query-blockstats")
    stats = [disk["stats"] for disk in disks if "disk-far" in disk.get("qdev", "")]
    return sum(each["rd_operations"] for each in stats), sum(each["rd_bytes"] for each in stats)


def report(number: int, machine: Machine, seconds: float) -> Report:
    """What a machine at its prompt has cost."""
    requests, fetched = far_traffic(machine)
    with Store(machine.config.near) as store:
        identity = store.header.store_id.hex()
    words: list[object] = json.loads(output_of(machine, QUESTION, TIMEOUT_S, "the question to the machine"))
    randomness = "-".join(map(str, words))
    memory = memory_mib(machine.process.pid)
    return Report(number, round(seconds, 3), requests, fetched, memory, identity, randomness)


# --- all ---


@contextmanager
def running(configs: Sequence[MachineConfig]) -> Iterator[tuple[list[Machine], ThreadPoolExecutor]]:
    """All machines, and threads to wait for them with; gone at the end of the block, whatever ended it."""
    machines: list[Machine] = []
    with ExitStack() as stack, ThreadPoolExecutor(len(configs)) as pool:
        try:
            for config in configs:  # here, not in threads: a machine ends with the thread that started it (prctl(2))
                machine = Machine(config, TIMEOUT_S)
                machine.start()
                stack.callback(machine.kill)
                machines.append(machine)
            yield machines, pool
        finally:
            for machine in machines:
                machine.process.kill()  # who waits for one sees it end


def reports_of(configs: Sequence[MachineConfig], hold: bool) -> Iterator[list[Report]]:
    """The machines' reports once all have their prompt; they live until the next step, or, held, until Ctrl-C."""
    with running(configs) as (machines, pool):
        waits: list[Future[float]] = [pool.submit(prompt_s, machine) for machine in machines]
        seconds = [wait.result() for wait in waits]
        yield list(pool.map(report, range(1, len(machines) + 1), machines, seconds))
        if hold:
            say("revenant: they run until Ctrl-C")
            signal.pause()


def summary(reports: Sequence[Report], kernel_bytes: int) -> dict[str, Any]:
    """All machines together."""
    seconds = [each.prompt_s for each in reports]
    return {
        "machines": len(reports),
        "prompt_median_s": round(statistics.median(seconds), 3),
        "prompt_worst_s": max(seconds),
        "requests": sum(each.requests for each in reports),
        "fetched_bytes": sum(each.fetched_bytes for each in reports) + kernel_bytes,
        "memory_median_mib": statistics.median(each.memory_mib for each in reports),
        "identities": len({each.identity for each in reports}),
        "random_streams": len({each.randomness for each in reports}),
    }


def show(reports: Sequence[Report], kernel_bytes: int, as_json: bool) -> None:
    """The reports and their summary."""
    rows, facts = [asdict(each) for each in reports], summary(reports, kernel_bytes)
    if as_json:
        print(json.dumps({**facts, "reports": rows}), flush=True)
        return
    print_rows(rows, as_json=False)
    OUT.print()
    print_facts(facts, as_json=False)


def end(_number: int, _frame: object) -> None:
    """SIGTERM ends us as Ctrl-C does."""
    raise KeyboardInterrupt


def fleet(
    count: Annotated[int, typer.Argument(help="How many machines.", min=1, max=1000)],
    far: Annotated[list[str], typer.Option(help="A far store (repeatable), as for `run`.")],
    trust: Annotated[str | None, typer.Option(help="As for `run`.")] = None,
    memory: Annotated[int, typer.Option(help="MiB of RAM, each.", min=MEMORY_MIB)] = MEMORY_MIB,
    size: Annotated[str, typer.Option(help="Of each near that has to be made.")] = "256M",
    near_folder: Annotated[Path | None, typer.Option(help="Keep the nears here, and go on from them.")] = None,
    fill: Annotated[bool, typer.Option(help="Fetch also what nobody touches.")] = False,
    hold: Annotated[bool, typer.Option("--hold", help="Let them run until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Start many machines from one store, say what each cost until its prompt, end them; Ctrl-C leaves nothing."""
    signal.signal(signal.SIGTERM, end)
    with ExitStack() as stack:
        scratch = stack.enter_context(temporary_folder())
        folder = near_folder or scratch
        folder.mkdir(parents=True, exist_ok=True)
        nears = [folder / f"near-{number}.img" for number in range(1, count + 1)]
        fars = usable_fars(far, adopting=not all(near.exists() for near in nears))
        bridges = stack.enter_context(nbd.bridged(fars))
        prepared = [replace(prepare(near, fars, trust, size), bridges=bridges) for near in nears]
        configs = with_one_kernel([replace(each, memory_mib=memory, fill=fill) for each in prepared], scratch)
        kernel_bytes = sum(path.stat().st_size for path in {config.kernel for config in configs} if path)
        for reports in reports_of(configs, hold):
            show(reports, kernel_bytes, as_json)
            sys.stdout.flush()


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fleet)
