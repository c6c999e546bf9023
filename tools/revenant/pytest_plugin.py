"""Fixtures for tests of programs that must not die: `machine`, `far_store`, `image` (PYTEST.md has an example).

Promise: whatever a test does, its machines and servers end with it; a failed one shows the console, what the kernel
said, and QEMU's command line, addresses with names and lines. Images lie in the test's own folder. Loaded by: pytest,
by the entry point `revenant`; our own suite uses it, too.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from revenant import genesis, nbd
from revenant.children import temporary_folder
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.qemu import MachineConfig
from revenant.script import output_of, wait_for_prompt
from revenant.store import Store

IMAGE_SIZE = 64 << 20
START_TIMEOUT_S = 60
END_TIMEOUT_S = 10


@dataclass
class FarStore(nbd.Server):
    """nbdkit serving one image on a socket; its log says what was read."""

    root_hash: str = ""

    def depths(self) -> list[int]:
        """Of every read: the round trips that it may have waited for, its own included; by what was answered before."""
        assert self.config.log is not None
        depths: list[int] = []
        asked: dict[tuple[str, str], int] = {}
        answered = 0
        pattern = r"connection=(\d+) (\.*)Read id=(\d+)"
        for connection, dots, number in re.findall(pattern, self.config.log.read_text()):
            if dots:
                answered = max(answered, asked[connection, number])
            else:
                asked[connection, number] = answered + 1
                depths.append(answered + 1)
        return depths

    def bytes_under_way(self) -> list[int]:
        """At every read: how much was asked for and not answered, that read included."""
        assert self.config.log is not None
        asked: dict[tuple[str, str], int] = {}
        sums: list[int] = []
        pattern = r"connection=(\d+) (\.*)Read id=(\d+)(?: offset=\w+ count=(0x[0-9a-f]+))?"
        for connection, dots, number, count in re.findall(pattern, self.config.log.read_text()):
            if dots:
                asked.pop((connection, number), None)
            else:
                asked[connection, number] = int(count, 16)
                sums.append(sum(asked.values()))
        return sums

    def answered_count(self) -> int:
        """How many reads it has answered so far."""
        assert self.config.log is not None
        return self.config.log.read_text().count("...Read id=")

    def forget(self) -> None:
        """Begin to count anew, as a new server."""
        self.kill()
        self.start()


@dataclass
class MachineUnderTest:
    """One image and the machine on it, which starts when it is first needed. `far` is what it streams from, if any.

    Called like a function, it starts a machine of other options or on another image, and returns that.
    """

    image: Path
    options: dict[str, Any] = field(default_factory=dict)
    far: FarStore | None = None
    started: list[Machine] = field(default_factory=list)
    current: Machine | None = None
    at_prompt: bool = False

    def __call__(self, near: Path | None = None, timeout_s: float = START_TIMEOUT_S, **options: Any) -> Machine:
        own = self.options if near is None else {}
        machine = Machine(MachineConfig(near or self.image, **own | options), timeout_s)
        machine.start()
        self.started.append(machine)
        return machine

    @property
    def running(self) -> Machine:
        """The machine itself: `qmp`, `voice`, `console` and more."""
        if self.current is None:
            self.current = self()
        return self.current

    def send(self, text: str) -> None:
        """Type."""
        self.at_prompt = False
        self.running.send(text.encode())

    def expect(self, pattern: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """Wait for a regular expression on the console; what came before it."""
        return self.running.expect(pattern.encode(), timeout_s).decode(errors="replace")

    def python(self, source: str, timeout_s: float = START_TIMEOUT_S) -> str:
        """Run source at the prompt, interrupting what runs; what it printed. MachineError: it raised an exception."""
        if not self.at_prompt:
            wait_for_prompt(self.running)
        self.at_prompt = True
        printed = output_of(self.running, source, timeout_s, "the test's program")
        return printed.decode(errors="replace").replace("\r\n", "\n")

    def power_cut(self) -> None:
        """kill -9 of the machine, in the middle of whatever it does."""
        self.running.kill()
        self.current, self.at_prompt = None, False

    def resume(self, **options: Any) -> Self:
        """Start it again, with other options if any are given (fields of revenant.qemu.MachineConfig)."""
        assert self.current is None, "it runs: cut its power first"
        self.options |= options
        self.current = self()
        return self

    def end(self) -> None:
        """End all that were started."""
        for machine in self.started:
            machine.kill()


@pytest.fixture(scope="session")
def build_files() -> genesis.BuildFiles:
    """What `make build` made, in $REVENANT_BUILD or the checkout's build folder; a test that needs it fails without."""
    files = genesis.BuildFiles.locate()
    for path in (files.kernel, files.userland, files.boot_record, files.loader):
        assert path.is_file(), f"{path} is missing: {genesis.build_remedy()}"
    return files


@pytest.fixture
def image(build_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """A fresh image of 64 MiB in generation 1."""
    path = tmp_path / "near.img"
    genesis.create_image(path, build_files, IMAGE_SIZE)
    return path


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """For Unix sockets, whose paths have at most 107 bytes: a test's own folder may be too deep."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def far_store(image: Path, tmp_path: Path, socket_folder: Path) -> Iterator[FarStore]:
    """`image`, published and served by NBD; a test that asks for it has a `machine` that starts from a blank disk."""
    published = tmp_path / "published.img"
    with Store(image) as store:
        root = publish_image(store, published, None)
    config = nbd.ServerConfig(published, unix=socket_folder / "published.sock", log=tmp_path / "published.log")
    with FarStore(config, root_hash=root.hash.hex()) as server:
        yield server


@pytest.fixture
def serve(tmp_path: Path, socket_folder: Path) -> Iterator[Callable[..., FarStore]]:
    """Serves published images until the test ends; with other fields of revenant.nbd.ServerConfig if any are given."""
    servers: list[FarStore] = []

    def start(published: Path, **fields: Any) -> FarStore:
        name = f"far{len(servers)}"
        config = nbd.ServerConfig(published, unix=socket_folder / f"{name}.sock", log=tmp_path / f"{name}.log")
        servers.append(FarStore(replace(config, **fields)))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def machine(image: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MachineUnderTest]:
    """A machine on `image`, or on a blank disk where the test has a `far_store`; it ends with the test."""
    subject = MachineUnderTest(image)
    if "far_store" in request.fixturenames:
        far: FarStore = request.getfixturevalue("far_store")
        blank = tmp_path / "blank.img"
        with blank.open("xb") as file:
            file.truncate(IMAGE_SIZE)
        subject = MachineUnderTest(blank, {"fars": (far.uri,), "trust": far.root_hash}, far)
    yield subject
    subject.end()


@pytest.fixture
def run_revenant() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command, behind `prefix`; returns its result, status unchecked, shown if the test fails."""

    def run(*words: object, prefix: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-m", "revenant", *map(str, words)]
        options.setdefault("timeout", 120)
        print("$", shlex.join(command))
        result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
        print(f"{result.stdout[-4000:]}\n{result.stderr[-8000:]}\nexit status {result.returncode}")
        return result

    return run


@pytest.fixture
def start_revenant() -> Iterator[Callable[..., subprocess.Popen[Any]]]:
    """Starts the command as a child, with subprocess.Popen's options; what the test has not ended, ends with it."""
    started: list[subprocess.Popen[Any]] = []

    def start(*words: object, **options: Any) -> subprocess.Popen[Any]:
        command = [sys.executable, "-m", "revenant", *map(str, words)]
        print("$", shlex.join(command))
        started.append(subprocess.Popen(command, **options))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        with process:
            pass  # its pipes are closed


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the report of every machine that a failed test had."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    for machine in Machine.started:
        report.sections.append((f"machine {machine.config.near}", machine.report()))


@pytest.fixture(autouse=True)
def forget_machines() -> None:
    """Reports show the machines of their own test only."""
    Machine.started.clear()
