"""The mutation gate: variants of the kernel with one safeguard left out, and the tests that must fail for each of them.

The lists are tests/*/mutants.toml. A mutant is a text that occurs exactly once in a file of kernel/ and what takes its
place, so that a list that does not follow its sources fails loudly. The variants are made and tried in a copy of the
checkout (its objects too, so that a variant costs one compilation); the checkout itself stays as it is.
Used by: command.py (`crashtest --mutate`), tests/qemu/test_mutants.py.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from revenant.errors import RevenantError
from revenant.genesis import build_folder

ROOT = Path(__file__).resolve().parents[3]
COPIED = ("kernel", "boot", "tests", "userland", "tools", "Makefile", "linker.ld", "pyproject.toml")
WARNING_FLAGS = ("Makefile", "tests/host/native/Makefile", "tests/host/store_host.py")  # have -Werror in them
COPIED_BUILT = ("kernel", "host")
LINKED_BUILT = ("boot", "userland", "src", "venv")
TARGETS = ("build/kernel.elf", "build/kernel.stripped.elf")
TIMEOUT_S = 600
SEED = "1"  # REVENANT_SEED of the tests, if none is given: a survivor of today survives tomorrow
PYTEST_FAILED = 1
OUTCOMES = FOUND, SURVIVED, EQUIVALENT = "found", "survived", "equivalent"


@dataclass(frozen=True)
class Mutant:
    """A safeguard: where its text is, what takes its place, what it is for, which tests must fail without it."""

    why: str
    file: str  # below kernel/
    text: str
    by: str
    tests: tuple[str, ...]  # words for pytest, cheap ones first
    quick: bool = False  # tried by `make test`
    hangs: bool = False  # a test that never ends has found it
    equivalent: str = ""  # why nothing can tell the variant from the kernel here: it is not tried

    def fault(self, root: Path = ROOT) -> str:
        """Why it does not fit the sources, or an empty string."""
        count = (root / "kernel" / self.file).read_text().count(self.text)
        return "" if count == 1 else f"{self.file}: occurs {count} times, not once: {self.text!r} ({self.why})"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: the name of the test that failed, SURVIVED or EQUIVALENT. Seconds include building."""

    why: str
    file: str
    found_by: str
    reason: str
    seconds: float = 0

    @property
    def outcome(self) -> str:
        """One of OUTCOMES."""
        return self.found_by if self.found_by in OUTCOMES else FOUND


@dataclass
class Scratch:
    """A copy of the checkout with a build folder of its own."""

    folder: Path
    originals: dict[Path, str] = field(default_factory=dict)  # of what is changed

    def prepare(self) -> None:
        """Sources as they are; no warning is an error, since what is left out leaves things unused."""
        for name in COPIED:
            copy(ROOT / name, self.folder / name)
        for name in WARNING_FLAGS:
            path = self.folder / name
            times = path.stat()
            path.write_text(path.read_text().replace("-Werror", "-w"))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        build = self.folder / "build"
        build.mkdir()
        for name in LINKED_BUILT:
            (build / name).symlink_to((build_folder() / name).resolve())
        for name in COPIED_BUILT:
            copy(build_folder() / name, build / name)
        (build / ".packages").touch()

    def change(self, mutant: Mutant) -> None:
        """Make the kernel that variant."""
        path = self.folder / "kernel" / mutant.file
        self.originals[path] = path.read_text()
        path.write_text(self.originals[path].replace(mutant.text, mutant.by))

    def restore(self) -> None:
        """Make it what it was. With a new time: make compares times."""
        for path, text in self.originals.items():
            path.write_text(text)
        self.originals.clear()

    def build(self) -> None:
        """The kernel; RevenantError if it does not compile."""
        done = run(["make", "--silent", "BUILD=build", *TARGETS], self.folder)
        if done.returncode != 0:
            raise RevenantError("mutant", f"it does not build: {done.stderr[-400:]}", "correct the list")

    def try_tests(self, tests: Sequence[str], hangs: bool = False) -> tuple[str, str]:
        """(test, reason) of the first failure, or two empty strings."""
        for words in tests:
            try:
                done = run(pytest_words(words, self.folder), self.folder)
            except subprocess.TimeoutExpired:
                return words if hangs else "", f"no end in {TIMEOUT_S} s"
            if done.returncode == PYTEST_FAILED:
                return failure_of(done.stdout, words)
            if done.returncode != 0:
                raise RevenantError(words, f"pytest cannot run it: {done.stdout[-400:]}{done.stderr[-400:]}")
        return "", ""

    def judge(self, mutant: Mutant) -> Verdict:
        """Try one."""
        started = time.monotonic()
        try:
            self.change(mutant)
            self.build()
            found_by, reason = self.try_tests(mutant.tests, mutant.hangs)
        except RevenantError as error:
            raise RevenantError(f"{mutant.file}: {mutant.why}", str(error)) from None
        finally:
            self.restore()
        seconds = round(time.monotonic() - started, 1)
        return Verdict(mutant.why, mutant.file, found_by or SURVIVED, reason, seconds)


def copy(source: Path, target: Path) -> None:
    """A file or a tree, with its times; what is not there needs no copy."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    elif source.exists():
        shutil.copy2(source, target)


def run(words: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command in a scratch copy, with what ties it to that copy."""
    ours = ("MAKE", "MFLAGS", "PYTEST")  # of whoever called us
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"REVENANT_BUILD": str(folder / "build"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "240"}
    environment.setdefault("REVENANT_SEED", SEED)
    with subprocess.Popen(
        words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what a test without end has started, too
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def pytest_words(words: str, folder: Path) -> list[str]:
    """Pytest's command line: it ends at the first failure and leaves nothing behind."""
    options = ["-x", "-q", "--tb=no", "--no-header", "--durations=0", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-m", "not slow", f"--basetemp={folder / 'tmp'}"]
    return [sys.executable, "-m", "pytest", *options, *shlex.split(words)]


def failure_of(output: str, words: str) -> tuple[str, str]:
    """(test, reason) as pytest's summary has them."""
    match = re.search(r"^(?:FAILED|ERROR) \S*?(\w+(?:\[.*?\])?)(?: - (.*))?$", output, re.MULTILINE)
    return (match[1], (match[2] or "").strip()[:160]) if match else (words, "it fails")


# --- the lists ---


def read_list(path: Path) -> list[Mutant]:
    """The mutants of a list; [tests] gives names to words for pytest, `tests` alone is what most mutants need."""
    data: dict[str, Any] = tomllib.loads(path.read_text())
    names: dict[str, str] = data["tests"]
    usual: list[str] = data.get("usual", [])
    mutants = []
    for entry in data["mutant"]:
        tests = tuple(names[name] for name in entry.pop("tests", usual))
        mutants.append(Mutant(**entry, tests=tests))
    return mutants


def mutants(only: str = "") -> list[Mutant]:
    """All whose file or reason contains that; RevenantError if one does not fit the sources."""
    lists = sorted(ROOT.glob("tests/*/mutants.toml"))
    found = [mutant for path in lists for mutant in read_list(path) if only in f"{mutant.file} {mutant.why}"]
    if faults := [fault for mutant in found if (fault := mutant.fault())]:
        raise RevenantError("tests/*/mutants.toml", "\n".join(faults), "let the list follow the sources")
    if not found:
        raise RevenantError(only, "no mutant has that in its file or its reason")
    return found


# --- the gate ---


@contextmanager
def scratches(count: int) -> Iterator[queue.Queue[Scratch]]:
    """So many copies, built; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="revenant-mutate-") as folder:
        free: queue.Queue[Scratch] = queue.Queue()
        for number in range(count):
            scratch = Scratch(Path(folder) / str(number))
            scratch.folder.mkdir()
            scratch.prepare()
            scratch.build()
            free.put(scratch)
        yield free


class Gate:
    """Judges mutants in scratch copies, as many at a time as there are copies."""

    def __init__(self, free: queue.Queue[Scratch]) -> None:
        self.free = free

    def judge(self, mutant: Mutant) -> Verdict:
        """In a copy that is free."""
        with self.scratch() as scratch:
            return scratch.judge(mutant)

    def require_sound(self, words: str) -> None:
        """RevenantError if a test fails with the kernel as it is: what it finds would prove nothing."""
        with self.scratch() as scratch:
            test, reason = scratch.try_tests([words])
        if test:
            raise RevenantError(words, f"fails with the kernel as it is: {test}: {reason}", "repair that first")

    @contextmanager
    def scratch(self) -> Iterator[Scratch]:
        """One for a while."""
        scratch = self.free.get()
        try:
            yield scratch
        finally:
            self.free.put(scratch)


def try_all(chosen: Sequence[Mutant], jobs: int, tell: Callable[[Verdict], None], sound: bool = True) -> list[Verdict]:
    """Judge them, `jobs` at a time. `sound`: first look that the tests pass with the kernel as it is."""
    tried = [mutant for mutant in chosen if not mutant.equivalent]
    verdicts = [Verdict(m.why, m.file, EQUIVALENT, m.equivalent) for m in chosen if m.equivalent]
    with scratches(min(jobs, len(tried) or 1)) as free, ThreadPoolExecutor(jobs) as pool:
        gate = Gate(free)
        if sound:
            list(pool.map(gate.require_sound, dict.fromkeys(words for mutant in tried for words in mutant.tests)))
        for verdict in pool.map(gate.judge, tried):
            tell(verdict)
            verdicts.append(verdict)
    return verdicts
