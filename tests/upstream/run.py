#!/usr/bin/env python3
"""Run MicroPython's own test suite against a machine and report what failed.

    python3 tests/upstream/run.py SOURCE (--pty /dev/pts/N | --exec SCRIPT) [options] [FOLDER ...]

SOURCE is the build's MicroPython source (BUILD/src/micropython). SCRIPT starts a machine and prints the path
of its console's pty on its first line; it has no arguments and no blanks in its path. The tests of skips.toml
are left out. A first, generated test bounds the heap and writes the files that others need.
Needs pyserial in the running Python. Exit: 0 all passed, 1 some failed, 2 the suite could not run.
Called by: tests/qemu (run_suite), people.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDERS = ("basics", "float", "micropython", "extmod", "misc", "stress", "unicode", "io", "import")
SKIPS = Path(__file__).with_name("skips.toml")

# Host folder (below tests/) -> folder in the machine.
FILES = {"import": "", "io/data": "data", "unicode/data": "data"}

# 8 MiB: tests that fill the heap take long with more; tests that want much of it skip themselves with less.
PREPARE = """
import os, revenant
revenant.heap_limit(8 << 20)
def put(name, data):
    parts = name.split("/")[:-1]
    for i in range(len(parts)):
        try:
            os.mkdir("/".join(parts[:i + 1]))
        except OSError:
            pass
    with open(name, "wb") as f:
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


def load_skips(path: Path = SKIPS) -> dict[str, str]:
    """Pattern -> reason, from skips.toml."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))["skip"]
    return {str(pattern): str(reason) for pattern, reason in table.items()}


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
            reason = next((why for pattern, why in skips.items() if fnmatch.fnmatch(name, pattern)), None)
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
    tests: Path, target: str, mpy_cross: Path | None, files: list[str], results: Path, timeout_s: float
) -> None:
    """One call of upstream's runner; what it prints goes to results/run-tests.log."""
    options = ["--via-mpy", "--emit", "native"] if mpy_cross is not None else []
    command = [sys.executable, "run-tests.py", "-t", target, "-r", str(results), "-j", "1", *options, *files]
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
    target: str,
    results: Path,
    folders: tuple[str, ...] = FOLDERS,
    *,
    mpy_cross: Path | None = None,
    timeout_s: float = 1800.0,
) -> Outcome:
    """Run the folders' tests against target, "port:/dev/pts/N" or "execpty:/path/of/script".

    With mpy_cross (the build's) every test is compiled to x64 code first. timeout_s is for the whole run.
    Raises SuiteError when the suite cannot run.
    """
    tests = source.resolve() / "tests"
    if not (tests / "run-tests.py").is_file():
        raise SuiteError(f"{source} has no tests/run-tests.py")
    results = results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    files, left_out = select_tests(tests, folders, load_skips())
    with tempfile.TemporaryDirectory(dir=results) as scratch:
        files.insert(0, write_prepare_test(tests, Path(scratch)))
        run_tests_py(tests, target, mpy_cross, files, results, timeout_s)
        passed, failed, skipped = read_results(results, files)
    return Outcome(tuple(passed), tuple(failed), left_out, tuple(skipped), results)


def main() -> int:
    """Command line of the module docstring."""
    parser = argparse.ArgumentParser(description="Run MicroPython's own tests against a machine.")
    parser.add_argument("source", type=Path)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--pty", help="console of a running machine")
    where.add_argument("--exec", help="script that starts one")
    parser.add_argument("--results", type=Path, default=Path("upstream-results"))
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS")
    parser.add_argument("--native", type=Path, metavar="MPY_CROSS", help="compile tests to x64 code first")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    parser.add_argument("folders", nargs="*", metavar="FOLDER")
    arguments = parser.parse_intermixed_args()
    folders = tuple(arguments.folders) or FOLDERS
    target = f"port:{arguments.pty}" if arguments.pty else f"execpty:{arguments.exec}"
    try:
        outcome = run_suite(
            arguments.source, target, arguments.results, folders,
            mpy_cross=arguments.native, timeout_s=arguments.timeout,
        )
    except (SuiteError, OSError) as error:
        print(f"upstream: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps({**asdict(outcome), "results": str(outcome.results)}))
    else:
        for name in outcome.failed:
            print(f"FAIL {name}")
        skipped = len(outcome.skipped_by_us) + len(outcome.skipped_by_themselves)
        print(f"{len(outcome.passed)} passed, {len(outcome.failed)} failed, {skipped} skipped")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
