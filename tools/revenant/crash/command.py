"""`revenant crashtest`: records workloads, builds what a power cut could leave, judges each, starts some.

A failure keeps its recording and prints the command that replays exactly that state. With --mutate, the gate of the
tests instead (mutate.py).
Used by: cli.py, tests/qemu/test_crash_states.py.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from mpremote.transport import TransportError
from pexpect import ExceptionPexpect

from revenant.check import check_store
from revenant.crash import mutate
from revenant.crash.judge import Judge, Verdict
from revenant.crash.log import read_log
from revenant.crash.pool import workers
from revenant.crash.record import TIMEOUT_S, Recording, Steps, is_full, record
from revenant.crash.states import Image, State, enumerate_states, windows_of
from revenant.crash.workload import WORKLOADS
from revenant.errors import MachineError, RevenantError
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE, Root
from revenant.images import copy_image
from revenant.machine import Machine
from revenant.output import print_facts, say
from revenant.qemu import Boot, boots_by_itself
from revenant.store import Store

STEPS_AFTER_START = 3
TROUBLE = (RevenantError, OSError, ExceptionPexpect, TransportError)
"""What a machine that does not do as it should makes of us."""
SUMS = ("states", "looks", "roots", "generations", "started")


@dataclass(frozen=True)
class Scale:
    """How much is tried with each workload."""

    length: int  # of the recording, in those of the workload
    samples: int  # states of each sampled kind in each window
    starts: int  # states started in QEMU


SMALL, FULL = Scale(1, 4, 3), Scale(10, 16, 20)


@dataclass
class Failure:
    """A state that must not be."""

    id: str
    reason: str
    replay: str


@dataclass
class Result:
    """What was tried with one workload."""

    workload: str
    windows: int = 0
    writes: int = 0
    states: int = 0
    looks: int = 0
    roots: int = 0
    generations: int = 0
    started: int = 0
    failures: list[Failure] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For printing: the failures as their number."""
        return {**asdict(self), "failures": len(self.failures)}


class Trial:
    """All states of one recording."""

    def __init__(self, recording: Recording, scale: Scale) -> None:
        self.recording = recording
        self.scale = scale
        self.windows = windows_of(read_log(recording.log))
        self.fars = open_fars([recording.far] if recording.far else [])
        self.judge = Judge(Image(recording.base), self.windows, self.fars, recording.sightings)
        self.roots: dict[bytes, int] = {}  # all that a state recovered to: hash, generation
        self.first_step: dict[bytes, int] = {}  # by root hash: the same state prints the same
        write_count = sum(len(window.writes) for window in self.windows)
        self.result = Result(recording.workload.name, len(self.windows), write_count)

    def run(self) -> Result:
        """Try them all."""
        states = list(enumerate_states(self.windows, self.recording.seed, self.scale.samples))
        chosen = self.chosen(states)
        for index, state in enumerate(states):
            reason = self.look(state)
            if not reason and index in chosen:
                reason = self.start(state)
            if reason:
                self.result.failures.append(self.failure(state, reason))
        self.result.states, self.result.looks = len(states), self.judge.looks
        self.result.roots, self.result.generations = len(self.roots), len(set(self.roots.values()))
        return self.result

    def chosen(self, states: Sequence[State]) -> set[int]:
        """Which are started. Of a command each window is another stage, so one of each, too."""
        rng = random.Random(self.recording.seed)
        chosen = set(rng.sample(range(len(states)), min(self.scale.starts, len(states))))
        if self.recording.workload.change:
            chosen |= {i for i, state in enumerate(states) if i == 0 or states[i - 1].window < state.window}
        return chosen

    def look(self, state: State) -> str:
        """Judge one without starting it; why it fails, or an empty string."""
        verdict, reason = self.judge.judge(state)
        if verdict.root:
            self.roots[verdict.root.hash] = verdict.root.generation
        return reason

    def failure(self, state: State, reason: str) -> Failure:
        """With what repeats it."""
        name = f"{self.recording.workload.name}:{self.recording.seed}:{state}"
        return Failure(name, reason, f"revenant crashtest --replay {self.recording.folder} {name}")

    # --- starting ---

    def save(self, state: State, path: Path) -> Verdict:
        """The state as an image file, and the verdict on it."""
        copy_image(self.recording.base, path)
        verdict, _ = self.judge.judge(state)
        self.judge.image.with_state(state, self.windows[state.window]).save(path)
        return verdict

    def start(self, state: State) -> str:
        """Start it: the machine must go on as its twin and leave a sound image. Why it fails, or nothing."""
        path = self.recording.folder / "state.img"
        verdict = self.save(state, path)
        self.result.started += 1
        try:
            boot, *more = self.boots(state, path)
            first = self.go_on(path, boot, verdict.root)
            for boot in more:
                self.go_on(path, boot, None)
            with Store(path, self.fars) as store:
                check_store(store)
        except TROUBLE as error:
            return f"started: {error}" + "".join(f"\n{note}" for note in getattr(error, "__notes__", []))
        path.unlink()
        return self.unlike(verdict, first)

    def boots(self, state: State, path: Path) -> list[Boot]:
        """How to start it: either way; one after the other where the first has to install the loader."""
        if self.recording.workload.change and not boots_by_itself(path):
            return [Boot.PVH, Boot.MBR]
        return [Boot.MBR if state.window % 2 else Boot.PVH]

    def go_on(self, path: Path, boot: Boot, root: Root | None) -> int:
        """Start from that root, see some steps, kill; the first step that was seen (0: the disk is full)."""
        with Machine(self.recording.config(path, boot=boot), TIMEOUT_S) as machine:
            steps = Steps(machine, self.recording.twin)
            steps.go_on()
            while not self.is_enough(steps, path) and steps.see():
                pass
            if root and f"generation {root.generation} goes on" not in machine.voice:
                raise MachineError(path, f"the machine did not go on with generation {root.generation}")
            if root and is_full(machine) and root.block_count * BLOCK_SIZE > self.recording.workload.image_size:
                raise MachineError(path, "full, although it was enlarged")
        return steps.first

    def is_enough(self, steps: Steps, path: Path) -> bool:
        """Some steps; and who found no loader has installed it, so that the next start can be by it."""
        loaderless = self.recording.workload.change is not None and not boots_by_itself(path)
        return steps.last >= steps.first + STEPS_AFTER_START and not loaderless

    def unlike(self, verdict: Verdict, first: int) -> str:
        """Why a first step does not fit those of the other states that were started."""
        root = verdict.root.hash if verdict.root else b""
        same = self.first_step.setdefault(root, first)
        return f"it went on with step {first}, another state with the same root with {same}" * (same != first)


# --- the command ---


@contextmanager
def workshop(keep: Path | None) -> Iterator[Path]:
    """A folder for recordings: `keep`, or one that goes unless something failed."""
    if keep is not None and keep.exists():
        raise RevenantError(keep, "is there already", "name a new folder for the recordings")
    folder = keep or Path(tempfile.mkdtemp(prefix="revenant-crashtest-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except KeyboardInterrupt:
        if keep is None:
            shutil.rmtree(folder)
        raise
    if keep is None and not any(folder.iterdir()):
        folder.rmdir()


def try_workload(name: str, seed: int, scale: Scale, folder: Path, keep: bool) -> Result:
    """Record and try one; its recording stays if it is to be kept, or something failed."""
    folder.mkdir()
    workload = WORKLOADS[name]
    try:
        recording = record(workload, seed, folder, workload.entry_count * scale.length)
        result = Trial(recording, scale).run()
    except TROUBLE as error:
        result = Result(name, failures=[Failure(f"{name}:{seed}", f"recording it failed: {error}", "")])
    if not keep and not result.failures:
        shutil.rmtree(folder)
    return result


def replay(folder: Path, name: str) -> None:
    """One state again: judged, started, left as an image."""
    recording = Recording.load(folder)
    trial = Trial(recording, SMALL)
    state = State.parse(name.removeprefix(f"{recording.workload.name}:{recording.seed}:"))
    if state.window >= len(trial.windows):
        raise RevenantError(name, f"the recording has {len(trial.windows)} windows")
    verdict, reason = trial.judge.judge(state)
    image = folder / f"{state}.img".replace(":", "-")
    trial.save(state, image)
    fault = reason or trial.start(state)
    root = verdict.root.sequence if verdict.root else "none"
    print_facts({"id": name, "image": str(image), "root": root, "fault": fault or "none"}, as_json=False)
    if fault:
        raise RevenantError(name, fault)


def crashtest(
    state: Annotated[str | None, typer.Argument(help="With --replay: the state's id.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Minutes instead of seconds.")] = False,
    workload: Annotated[list[str] | None, typer.Option(help="Only this one (repeatable).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the samples.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Workloads at a time.")] = os.cpu_count() or 1,
    keep: Annotated[Path | None, typer.Option(help="Keep the recordings in this new folder.")] = None,
    replay_from: Annotated[Path | None, typer.Option("--replay", help="A kept recording.")] = None,
    mutants: Annotated[bool, typer.Option("--mutate", help="Leave out one safeguard at a time instead.")] = False,
    only: Annotated[str, typer.Option(help="With --mutate: those whose file or purpose contains this.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Facts as JSON.")] = False,
) -> None:
    """Try the states that a power cut could leave; exit 1 if one is no exact generation or does not go on.

    With --mutate: exit 1 if the tests do not fail for a variant of the kernel with one safeguard left out.
    """
    if mutants:
        mutation_gate(only, jobs, as_json)
        return
    if replay_from is not None:
        if state is None:
            raise typer.BadParameter("--replay needs a state's id")
        replay(replay_from, state)
        return
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    names = wanted(workload or [])
    results = []
    with workshop(keep) as folder, workers(jobs) as pool:
        turns = [
            pool.submit(try_workload, name, seed, FULL if full else SMALL, folder / name, keep is not None)
            for name in names
        ]
        for turn in turns:
            results.append(turn.result())
            say_result(results[-1])
    report(seed, results, as_json)


def say_result(result: Result) -> None:
    """One workload's figures, and what failed with how to see it again."""
    facts = {name: value for name, value in result.facts().items() if name != "workload"}
    say(f"{result.workload} ({WORKLOADS[result.workload].about}):")
    say("  " + ", ".join(f"{value} {name}" for name, value in facts.items()))
    for failure in result.failures:
        say(f"  {failure.id}: {failure.reason}\n    {failure.replay}")


def wanted(names: Sequence[str]) -> list[str]:
    """All workloads, or those that were asked for."""
    for name in names:
        if name not in WORKLOADS:
            raise RevenantError(name, "no such workload", f"use {', '.join(WORKLOADS)}")
    return list(names or WORKLOADS)


def report(seed: int, results: Sequence[Result], as_json: bool) -> None:
    """The sums; exit 1 if anything failed."""
    failures = [asdict(failure) for result in results for failure in result.failures]
    sums = {name: sum(getattr(result, name) for result in results) for name in SUMS}
    facts: dict[str, Any] = {"seed": seed, **sums, "failures": failures if as_json else len(failures)}
    if as_json:
        facts["workloads"] = [result.facts() for result in results]
    print_facts(facts, as_json)
    if failures:
        sys.exit(1)


def mutation_gate(only: str, jobs: int, as_json: bool) -> None:
    """A line for each mutant, then the sums; exit 1 if one survived: a test is missing."""

    def tell(verdict: mutate.Verdict) -> None:
        say(f"{verdict.found_by:40} {verdict.seconds:6.1f} s  {verdict.file}: {verdict.why}: {verdict.reason}")

    verdicts = mutate.try_all(mutate.mutants(only), jobs, tell)
    sums = Counter(verdict.outcome for verdict in verdicts)
    facts: dict[str, Any] = {name: sums[name] for name in mutate.OUTCOMES}
    print_facts({**facts, "mutants": [asdict(v) for v in verdicts]} if as_json else facts, as_json)
    if facts[mutate.SURVIVED]:
        sys.exit(1)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(crashtest)
