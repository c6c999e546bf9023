#!/usr/bin/env python3
"""Run MicroPython's own test suite against a machine and report what failed.

    python3 tests/upstream/run.py SOURCE (--pty /dev/pts/N | --image IMAGE) [options] [FOLDER ...]

SOURCE is the build's MicroPython source (BUILD/src/micropython), with upstream's runner as it is. IMAGE is started
and kept running (`revenant run --console pty --keep`), so that --kill may end its QEMU after every test and in the
middle of some: the output must be as if nothing had been. What is not run is in skips.toml: a test that skips itself
and is not there fails. A first, generated test bounds the heap and writes the files that others need.
Folders with tests of time run by the machine's own clock (QEMU's -icount: an instruction takes 1 ns): margins of
milliseconds do not fail by what else the host does while a program runs. Idle time takes its time: if it took none,
each wait for the disk would be a leap to the next timer. --pty's machine has the clock that it has.
Exit: 0 all passed, 1 some failed, 2 the suite could not run. Called by: test_suite.py, `make conformance`.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from revenant.qemu import ICOUNT_WAITING, QEMU

FOLDERS = ("basics", "float", "micropython", "extmod", "misc", "stress", "thread", "unicode", "io", "import")
SKIPS = Path(__file__).with_name("skips.toml")

# Host folder (below tests/) -> folder in the machine.
FILES = {"import": "", "io/data": "data", "unicode/data": "data"}

TIMED = ("extmod", "thread")
GUEST_CLOCK = (*ICOUNT_WAITING, "-rtc", "clock=vm")
"""Folders with tests of time, and what makes the machine's time its own."""

HEAP_SIZE_MAX = 8 << 20
"""Bytes: tests that fill the heap take long with more; tests that want much of it skip themselves with less."""

PREPARE = f"""
import os, revenant
revenant.heap_limit({HEAP_SIZE_MAX})
def put(name, data):
    parts = name.split("/")[:-1]
    for i in range(len(parts)):
        try:
            os.mkdir("/" + "/".join(parts[:i + 1]))
        except OSError:
            pass
    with open("/" + name, "wb") as f:
        f.write(data)
"""


class SuiteError(Exception):
    """The suite could not be run at all; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What one run of the suite gave. Names are "folder/name.py"."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    skipped_by_us: dict[str, str]
    skipped_by_themselves: tuple[str, ...]
    results: Path
    """Folder with NAME.exp and NAME.out for every failure."""
    kill_count: int = 0
    middle_count: int = 0
    """Kills in all, and those of them some time after a test had begun."""

    def table(self) -> str:
        """A row for each folder, and the sum."""
        names = (self.passed, self.failed, self.skipped_by_us, self.skipped_by_themselves)
        counts = [Counter(str(Path(name).parent) for name in kind) for kind in names]
        rows = [("folder", "passed", "failed", "left out", "skip themselves")]
        for folder in sorted(set().union(*counts) & set(FOLDERS)):
            rows.append((folder, *(str(count[folder]) for count in counts)))
        rows.append(("all", *(str(sum(count[folder] for folder in FOLDERS)) for count in counts)))
        return "\n".join("{:>12}  {:>6}  {:>6}  {:>8}  {:>15}".format(*row) for row in rows)


def joined(outcomes: list[Outcome]) -> Outcome:
    """One of all; their results are in folders below `results`, or there is but one."""
    return Outcome(
        tuple(name for one in outcomes for name in one.passed),
        tuple(name for one in outcomes for name in one.failed),
        {name: why for one in outcomes for name, why in one.skipped_by_us.items()},
        tuple(name for one in outcomes for name in one.skipped_by_themselves),
        Path(os.path.commonpath([one.results for one in outcomes])),
        sum(one.kill_count for one in outcomes),
        sum(one.middle_count for one in outcomes),
    )


def load_skips(*tables: str) -> dict[str, str]:
    """Pattern -> reason, from these tables of skips.toml."""
    all_tables = tomllib.loads(SKIPS.read_text(encoding="utf-8"))
    return {str(pattern): str(reason) for table in tables for pattern, reason in all_tables[table].items()}


def reason_of(name: str, skips: dict[str, str]) -> str | None:
    """Why this test is not run."""
    return next((why for pattern, why in skips.items() if fnmatch.fnmatch(name, pattern)), None)


def unknown_folders(tests: Path) -> set[str]:
    """Those with tests that are neither run nor listed in skips.toml."""
    folders = {path.name for path in tests.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return folders - {*FOLDERS, *load_skips("folder")}


def select_tests(
    tests: Path, folders: tuple[str, ...], skips: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The tests to run, in order, and those left out with their reasons."""
    chosen: list[str] = []
    left_out: dict[str, str] = {}
    for folder in folders:
        names = sorted(f"{folder}/{path.name}" for path in (tests / folder).glob("*.py"))
        if not names:
            raise SuiteError(f"no tests in {tests / folder}")
        for name in names:
            reason = reason_of(name, skips)
            if reason is None:
                chosen.append(name)
            else:
                left_out[name] = reason
    return chosen, left_out


def prepare_script(tests: Path) -> str:
    """A test that bounds the heap (some tests fill it) and writes the files that others open or import."""
    files: dict[str, bytes] = {}
    for source, target in FILES.items():
        for path in sorted((tests / source).rglob("*")):
            if path.is_file() and not path.name.endswith((".exp", ".native.exp", ".pyc")):
                files[str(Path(target) / path.relative_to(tests / source))] = path.read_bytes()
    calls = [f"put({name!r}, {data!r})" for name, data in files.items()]
    return "\n".join([PREPARE, *calls, "print('prepared')", ""])


def write_prepare_test(tests: Path, scratch: Path) -> str:
    """Put the generated test and its expected output into scratch; returns its path."""
    path = scratch / "prepare.py"
    path.write_text(prepare_script(tests), encoding="utf-8")
    (scratch / "prepare.py.exp").write_text("prepared\n", encoding="utf-8")
    return str(path)


class Killer(threading.Thread):
    """kill -9 of the machine after every test that run-tests.py reports, and in the middle of some of the next ones."""

    MIDDLE_SHARE = 0.1
    MIDDLE_MAX_S = 0.3
    LOOK_EACH_S = 0.02

    def __init__(self, keeper_pid: Path, log: Path, seed: str) -> None:
        super().__init__(daemon=True)
        self.keeper_pid = keeper_pid
        self.log = log
        self.rng = random.Random(seed)
        self.over = threading.Event()
        self.kill_count = 0
        self.middle_count = 0

    def run(self) -> None:
        """Until `over` is set."""
        seen = 0
        while not self.over.wait(self.LOOK_EACH_S):
            count = self.log.read_bytes().count(b"\n") if self.log.exists() else 0
            if count == seen:
                continue
            seen = count
            self.kill()
            if self.rng.random() < self.MIDDLE_SHARE:
                self.over.wait(self.rng.uniform(0, self.MIDDLE_MAX_S))
                self.kill()
                self.middle_count += 1

    def kill(self) -> None:
        """The QEMU of this moment, a child of the keeper; there may be none just now."""
        with contextlib.suppress(OSError, ValueError):
            keeper = int(self.keeper_pid.read_text())
            for child in Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
                self.kill_count += 1


@dataclass(frozen=True)
class Target:
    """What run-tests.py drives: its -t option, and where the keeper's pid is, if one may kill its machine."""

    option: str
    keeper_pid: Path | None = None


def write_script(path: Path, *lines: str) -> None:
    """One that the shell runs."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)


@contextlib.contextmanager
def kept_machine(image: Path, *, killable: bool = True, guest_clock: bool = False) -> Iterator[Target]:
    """A script that starts the image's machine on a pty, as `execpty:` wants it: no arguments, no blanks.

    It finds a QEMU of its own first, which adds guest_clock's options.
    """
    words = [sys.executable, "-m", "revenant", "run", "--near", str(image.resolve()), "--console", "pty", "--keep"]
    with tempfile.TemporaryDirectory(prefix="revenant-upstream-") as folder:
        script, pid = Path(folder, "machine"), Path(folder, "pid")
        write_script(script, f"echo $$ >{pid}", f"PATH={folder}:$PATH exec {shlex.join(words)} 2>{folder}/stderr")
        clock = shlex.join(GUEST_CLOCK) if guest_clock else ""
        write_script(Path(folder, QEMU), f'exec {shutil.which(QEMU)} "$@" {clock}')
        try:
            yield Target(f"execpty:{script}", pid if killable else None)
        finally:
            with contextlib.suppress(OSError, ValueError):  # it ended by itself, or was never started
                os.kill(int(pid.read_text()), signal.SIGTERM)


def runner_environment(mpy_cross: Path | None) -> dict[str, str]:
    """Ours, plus what run-tests.py takes from there. A Python shim would double the time."""
    environment = {
        **os.environ,
        "MICROPY_CPYTHON3": os.path.realpath(sys.executable),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if mpy_cross is not None:
        environment["MICROPY_MPYCROSS"] = str(mpy_cross.resolve())
    return environment


def run_tests_py(
    tests: Path, option: str, mpy_cross: Path | None, files: list[str], results: Path, timeout_s: float
) -> None:
    """One call of upstream's runner; what it prints goes to results/run-tests.log."""
    options = ["--via-mpy", "--emit", "native"] if mpy_cross is not None else []
    command = [sys.executable, "run-tests.py", "-t", option, "-r", str(results), "-j", "1", *options, *files]
    environment = runner_environment(mpy_cross)
    with (results / "run-tests.log").open("w", encoding="utf-8") as log:
        try:
            subprocess.run(
                command, cwd=tests, env=environment, stdout=log, stderr=log, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise SuiteError(f"no end after {timeout_s:.0f} s, see {results / 'run-tests.log'}") from error


def read_results(results: Path, files: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Passed, failed and skipped tests by run-tests.py's own log; a test that it does not mention failed."""
    state: dict[str, str] = {}
    for line in (results / "run-tests.log").read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] in ("pass", "FAIL", "skip"):
            state[words[1]] = words[0]
    if not state:
        raise SuiteError(f"run-tests.py did not start, see {results / 'run-tests.log'}")

    def of(kind: str) -> list[str]:
        return [name for name in files if state.get(name, "FAIL") == kind]

    return of("pass"), of("FAIL"), of("skip")


def run_suite(
    source: Path,
    target: Target,
    results: Path,
    folders: tuple[str, ...] = FOLDERS,
    *,
    mpy_cross: Path | None = None,
    timeout_s: float = 1800.0,
    seed: str = "0",
    step: int = 1,
) -> Outcome:
    """Run the folders' tests against target; its machine is killed again and again if that is allowed.

    With mpy_cross (the build's) every test is compiled to x64 code first. timeout_s is for the whole run. Of the tests
    that are to run, each step-th does.
    Raises SuiteError when the suite cannot run.
    """
    tests = source.resolve() / "tests"
    if not (tests / "run-tests.py").is_file():
        raise SuiteError(f"{source} has no tests/run-tests.py")
    results = results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    kinds = ("", "_native") if mpy_cross else ("",)
    tables = [f"skip{kind}" for kind in kinds] + (["skip_killed"] if target.keeper_pid else [])
    files, left_out = select_tests(tests, folders, load_skips(*tables))
    files = files[::step]
    may_skip = load_skips(*(f"skips_itself{kind}" for kind in kinds))
    with tempfile.TemporaryDirectory(dir=results) as scratch:
        files.insert(0, write_prepare_test(tests, Path(scratch)))
        killer = Killer(target.keeper_pid, results / "run-tests.log", seed) if target.keeper_pid else None
        if killer:
            killer.start()
        try:
            run_tests_py(tests, target.option, mpy_cross, files, results, timeout_s)
        finally:
            if killer:
                killer.over.set()
                killer.join()
        passed, failed, skipped = read_results(results, files)
    failed += [name for name in skipped if reason_of(name, may_skip) is None]
    kills = (killer.kill_count, killer.middle_count) if killer else (0, 0)
    return Outcome(tuple(passed), tuple(failed), left_out, tuple(skipped), results, *kills)


def main() -> int:
    """Command line of the module docstring."""
    parser = argparse.ArgumentParser(description="Run MicroPython's own tests against a machine.")
    parser.add_argument("source", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--pty", help="console of a running machine")
    where.add_argument("--image", type=Path, help="image of a machine to start; it is changed")
    parser.add_argument("--kill", metavar="SEED", help="end --image's QEMU after every test, and within some")
    parser.add_argument("--results", type=Path, default=Path("build/upstream"))
    parser.add_argument("--timeout", type=float, default=3600.0, metavar="SECONDS")
    parser.add_argument("--native", type=Path, metavar="MPY_CROSS", help="compile tests to x64 code first")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    arguments = parser.parse_intermixed_args()
    killable = arguments.kill is not None
    if killable and not arguments.image:
        parser.error("--kill needs --image")
    folders = tuple(arguments.folders) or FOLDERS
    timed = tuple(folder for folder in folders if folder in TIMED)

    def run_folders(target: Target, some: tuple[str, ...], results: Path) -> Outcome:
        return run_suite(
            arguments.source, target, results, some,
            mpy_cross=arguments.native, timeout_s=arguments.timeout, seed=arguments.kill or "",
        )  # fmt: skip

    outcomes: list[Outcome] = []
    try:
        if arguments.pty:
            outcomes.append(run_folders(Target(f"port:{arguments.pty}"), folders, arguments.results))
        else:
            for some, name in ((timed, "timed"), (tuple(f for f in folders if f not in timed), "others")):
                if some:
                    with kept_machine(arguments.image, killable=killable, guest_clock=some is timed) as target:
                        outcomes.append(run_folders(target, some, arguments.results / name))
    except (SuiteError, OSError) as error:
        print(f"upstream: {error}", file=sys.stderr)
        return 2
    outcome = joined(outcomes)
    show(outcome, arguments.json)
    return 1 if outcome.failed else 0


def show(outcome: Outcome, as_json: bool) -> None:
    """The table, or all of it."""
    if as_json:
        print(json.dumps({**asdict(outcome), "results": str(outcome.results)}))
        return
    for name in outcome.failed:
        unlisted = name in outcome.skipped_by_themselves
        print(f"FAIL {name}: {'skips itself: why? skips.toml' if unlisted else f'see {outcome.results}'}")
    print(outcome.table())
    if outcome.kill_count:
        print(f"{outcome.kill_count} times kill -9, {outcome.middle_count} of them in the middle of a test")


if __name__ == "__main__":
    sys.exit(main())
