"""Records a machine: a workload runs on it while QEMU keeps every write and flush of its near disk in a log.
Or, with the machine off, a command that changes its image (changes.py).

A recording is a folder: `base.img` (near as it was before), `writes.log`, `far.img` where there is one, and
`recording.json`. Base and log make every state that a power cut could have left. Used by: crash/command.py.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import pexpect

from revenant import genesis
from revenant.crash.changes import run_change
from revenant.crash.log import logged_count
from revenant.crash.workload import DRIVER, LINE, WORKLOADS, Twin, Workload
from revenant.errors import MachineError, RevenantError
from revenant.images import copy_image
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.qemu import Boot, MachineConfig, WriteLog
from revenant.script import START_TIMEOUT_S, output_of, wait_for_prompt
from revenant.store import Store

TIMEOUT_S = 120.0
POLL_S = 1.0
ERROR = re.compile(rb"\w+Error[^\r]*")


class Sighting(NamedTuple):
    """A line was seen: the generation that holds it, and how many entries the log had flushed by then."""

    generation: int
    entry_count: int


@dataclass(frozen=True)
class Recording:
    """A folder with a recording."""

    folder: Path
    workload: Workload
    seed: int
    trust: str | None
    sightings: list[Sighting]

    @classmethod
    def load(cls, folder: Path) -> Recording:
        """From its folder; RevenantError if it is none."""
        try:
            facts = json.loads((folder / "recording.json").read_text())
            sightings = [Sighting(*numbers) for numbers in facts["sightings"]]
            return cls(folder, WORKLOADS[facts["workload"]], facts["seed"], facts["trust"], sightings)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RevenantError(folder, f"no recording: {error!r}") from None

    def save(self) -> None:
        """Write recording.json: from now on it is one."""
        facts = {"workload": self.workload.name, "seed": self.seed, "trust": self.trust}
        (self.folder / "recording.json").write_text(json.dumps({**facts, "sightings": self.sightings}) + "\n")

    @property
    def base(self) -> Path:
        """Near before the first write."""
        return self.folder / "base.img"

    @property
    def log(self) -> Path:
        """QEMU's, or the editor's."""
        return self.folder / "writes.log"

    @property
    def far(self) -> Path | None:
        """The far store, if the workload has one."""
        return self.folder / "far.img" if self.workload.far else None

    def config(self, near: Path, write_log: WriteLog | None = None, boot: Boot = Boot.AUTO) -> MachineConfig:
        """The machine on this or another near disk."""
        return MachineConfig(
            near, fars=[str(self.far)] if self.far else [], trust=self.trust, write_log=write_log,
            memory_mib=self.workload.memory_mib, boot=boot,
        )  # fmt: skip

    @cached_property
    def twin(self) -> Twin:
        """What the steps must print."""
        return Twin(self.workload)


class Steps:
    """Reads a workload's lines from a machine's console and holds each against the twin."""

    def __init__(self, machine: Machine, twin: Twin) -> None:
        self.machine = machine
        self.twin = twin
        self.first = self.last = 0
        self.generation = 0  # that holds the last line, or one before

    def go_on(self) -> None:
        """Let the program begin with what is recorded, if it still waits there."""
        self.machine.expect_voice("goes on")  # from then on what is sent arrives
        self.machine.send(b"\r")

    def see(self) -> bool:
        """One line more; MachineError if it is wrong or none comes. False: none can, the disk is full."""
        end_s = time.monotonic() + self.machine.timeout_s
        console = self.machine.console
        while console.expect([LINE, ERROR, pexpect.TIMEOUT, pexpect.EOF], timeout=POLL_S) != 0:
            if console.after is pexpect.EOF:
                raise self._error("the machine ended")
            if isinstance(console.after, bytes):
                raise self._error(f"the program ended: {console.after.decode(errors='replace')}")
            if is_full(self.machine):
                return False
            if time.monotonic() > end_s:
                raise self._error(f"no step after {self.last}")
        match = console.match
        assert isinstance(match, re.Match)
        step, digest, self.generation = (int(text) for text in match.groups())
        self._check(step, digest)
        return True

    def _check(self, step: int, digest: int) -> None:
        if self.last and step != self.last + 1:
            raise self._error(f"step {step} came after {self.last}")
        expected = self.twin.digest(step)
        if digest != expected:
            raise self._error(f"step {step} gave {digest}, its undisturbed twin {expected}")
        self.first = self.first or step
        self.last = step

    def _error(self, reason: str) -> MachineError:
        return MachineError(self.machine.config.near, reason)


def is_full(machine: Machine) -> bool:
    """Whether the machine says that its near disk is full, and so waits."""
    return "near store is full" in machine.voice


def prepare(workload: Workload, image: Path, twin: Twin) -> int:
    """A fresh image on which the workload runs, cut off after its first steps; the generation of the very first."""
    genesis.create_image(image, genesis.BuildFiles.locate(), workload.image_size)
    with Machine(MachineConfig(image, memory_mib=workload.memory_mib), TIMEOUT_S) as machine:
        wait_for_prompt(machine)
        output_of(machine, workload.source + DRIVER, START_TIMEOUT_S, f"the workload {workload.name}")
        machine.send(workload.call.encode() + b"\r")
        steps = Steps(machine, twin)
        first = 0
        while steps.see():
            first = first or steps.generation
            if steps.last == workload.warm_steps:
                return first
        if workload.warm_steps:
            raise MachineError(image, f"full after step {steps.last}, before the recording begins")
        return first


def record(workload: Workload, seed: int, folder: Path, entry_count: int) -> Recording:
    """Prepare, start again with a log, let it run for so many writes and flushes, cut it off."""
    twin = Twin(workload)
    first = 0
    base = folder / "base.img"
    trust = None
    if workload.far:
        prepare(workload, folder / "source.img", twin)
        with Store(folder / "source.img") as store:
            trust = publish_image(store, folder / "far.img", None).hash.hex()
        (folder / "source.img").unlink()
        with base.open("wb") as file:
            file.truncate(workload.image_size)
    else:
        first = prepare(workload, base, twin)
    recording = Recording(folder, workload, seed, trust, [])
    near = folder / "near.img"
    copy_image(base, near)
    if workload.change:
        run_change(workload.change, base, near, recording.log, first)
    else:
        run_logged(recording, near, twin, entry_count)
    near.unlink()
    recording.save()
    return recording


def run_logged(recording: Recording, near: Path, twin: Twin, entry_count: int) -> None:
    """The run that is recorded."""
    recording.log.write_bytes(b"")
    log = WriteLog(recording.log, recording.workload.writes_per_s)
    with Machine(recording.config(near, log), TIMEOUT_S) as machine:
        steps = Steps(machine, twin)
        steps.go_on()
        while (recording.workload.fills or logged_count(recording.log) < entry_count) and steps.see():
            sighting = Sighting(steps.generation, logged_count(recording.log))
            recording.sightings.append(sighting)
        machine.qmp("stop")  # waits for what is in flight, and flushes: the log then counts all its entries
