#!/usr/bin/env python3
"""MicroPython's other runners against a machine: modules of machine code made outside, and the benchmarks.

    python3 tests/upstream/others.py SOURCE --image IMAGE --mpy-cross MPY_CROSS [--results FOLDER]

run-natmodtests.py: the modules of examples/natmod are compiled by gcc and mpy_ld.py, loaded into the machine in place
of its own, and must pass the tests of those. run-perfbench.py: every program of perf_bench must give the right result;
the figures are printed, not judged. Exit: 0 all right, 1 something failed, 2 it could not run. Called by:
test_suite.py, `make conformance`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from run import HEAP_SIZE_MAX, SuiteError, Target, kept_machine, runner_environment

MODULES = ("deflate", "framebuf", "heapq", "random", "re")
"""Of examples/natmod; those with tests whose sources are there (btree's are not)."""
PERF_N, PERF_M, PERF_RUNS = 100, 100, 2
TIMEOUT_S = 900


@dataclass(frozen=True)
class Report:
    """What a runner said: each test with its verdict."""

    verdicts: dict[str, str]
    log: Path

    @property
    def failed(self) -> list[str]:
        """Neither passed nor skipped by itself."""
        return [name for name, verdict in self.verdicts.items() if verdict.startswith(("FAIL", "CRASH", "TRUTH"))]


def build_modules(source: Path, mpy_cross: Path, scratch: Path) -> None:
    """Compile MODULES for x64, to where run-natmodtests.py looks for them."""
    for module in MODULES:
        words = [f"MPY_CROSS={mpy_cross.resolve()}", f"PYTHON={sys.executable}", f"BUILD={scratch / module}"]
        command = ["make", "-s", "-C", source / "examples/natmod" / module, "ARCH=x64", *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SuiteError(f"{module} does not build: {result.stderr[-2000:]}")


def limit_heap(image: Path) -> None:
    """As run.py's first test does it: some tests fill the heap. The limit outlives soft resets and power cuts."""
    with tempfile.TemporaryDirectory(prefix="revenant-upstream-") as folder:
        script = Path(folder, "limit.py")
        script.write_text(f"import revenant\nrevenant.heap_limit({HEAP_SIZE_MAX})\n", encoding="utf-8")
        words = [sys.executable, "-m", "revenant", "run", "--near", image, "--", script]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SuiteError(f"the heap cannot be limited: {result.stderr[-2000:]}")


def run_logged(command: list[str], tests: Path, log: Path) -> str:
    """Run one of upstream's runners; what it said."""
    environment = {**runner_environment(None), "PYTHONUNBUFFERED": "1"}
    try:
        with log.open("w", encoding="utf-8") as file:
            subprocess.run(
                [sys.executable, *command],
                cwd=tests, env=environment, stdout=file, stderr=file, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise SuiteError(f"no end after {TIMEOUT_S} s, see {log}") from error
    return log.read_text(encoding="utf-8", errors="replace")


def native_modules(source: Path, target: Target, results: Path) -> Report:
    """run-natmodtests.py with the tests of all MODULES."""
    tests = source / "tests"
    found = [path.name for module in MODULES for path in (tests / "extmod").glob(f"{module}[0-9_]*.py")]
    files = [f"extmod/{name}" for name in sorted(found)]
    said = run_logged(["run-natmodtests.py", "-p", "-d", target.option, *files], tests, results / "natmod.log")
    verdicts = {name: verdict for verdict, name in re.findall(r"^(pass|SKIP|FAIL|TRUTH FAIL|----) +(\S+)", said, re.M)}
    return Report({name: verdicts.get(name, "FAIL") for name in files}, results / "natmod.log")


def benchmarks(source: Path, target: Target, results: Path) -> Report:
    """run-perfbench.py with all programs, whose parameters are the largest below PERF_N and PERF_M."""
    tests = source / "tests"
    words = ["-p", "-d", target.option, "-a", str(PERF_RUNS), str(PERF_N), str(PERF_M)]
    said = run_logged(["run-perfbench.py", *words], tests, results / "perfbench.log")
    verdicts = dict(re.findall(r"^perf_bench/(\w+\.py): (.+)$", said, re.M))
    names = {path.name for path in (tests / "perf_bench").glob("*.py")} - {"benchrun.py"}
    return Report({name: verdicts.get(name, "FAIL") for name in sorted(names)}, results / "perfbench.log")


def main() -> int:
    """Command line of the module docstring."""
    parser = argparse.ArgumentParser(description="Run MicroPython's other runners against a machine.")
    parser.add_argument("source", type=Path)
    parser.add_argument("--image", type=Path, required=True, help="image of a machine to start; it is changed")
    parser.add_argument("--mpy-cross", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=Path("build/upstream-others"))
    arguments = parser.parse_args()
    source, results = arguments.source.resolve(), arguments.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    reports = []
    try:
        build_modules(source, arguments.mpy_cross, results)
        limit_heap(arguments.image)
        for runner in (native_modules, benchmarks):
            with kept_machine(arguments.image) as target:
                reports.append(runner(source, Target(target.option), results))
    except (SuiteError, OSError) as error:
        print(f"upstream: {error}", file=sys.stderr)
        return 2
    for report in reports:
        for name, verdict in report.verdicts.items():
            print(f"{name:<40} {verdict}")
        for name in report.failed:
            print(f"FAIL {name}: see {report.log}")
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
