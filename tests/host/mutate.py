"""The mutation gate of kernel/store: builds it with one safeguard left out at a time, and the native tests must fail.

    build/venv/bin/python tests/host/mutate.py [--only WORD] [--json]

mutants.toml lists the safeguards. Prints one line for each mutant: what found it, after how many seconds, and how.
Exit status 0: every mutant was found; 1: one survived (a test is missing); 2: the list does not fit the sources.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path

import native
from store_host import ROOT

LIST = ROOT / "tests" / "host" / "mutants.toml"
SUITE = [
    ("crash_states_asan", ["--seed", "0", "--states", "12000", "--second", "3000", "--window", "24"]),
    ("damage_asan", ["--seed", "0", "--lives", "7"]),
    ("fuzz_store_asan", [str(path) for path in sorted(native.CORPUS.iterdir())]),
]


@dataclass(frozen=True)
class Mutant:
    """A safeguard: where its text is, what takes its place, what it is for."""

    file: str
    text: str
    by: str
    why: str

    def fault(self) -> str:
        """Why the list does not fit the sources, or an empty string."""
        count = (ROOT / "kernel" / self.file).read_text().count(self.text)
        return "" if count == 1 else f"{self.file}: occurs {count} times, not once: {self.text!r} ({self.why})"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant; `found_by` is empty when it survived. Seconds include building."""

    why: str
    file: str
    found_by: str
    reason: str
    seconds: float


def mutants() -> list[Mutant]:
    """The list."""
    return [Mutant(**entry) for entry in tomllib.loads(LIST.read_text())["mutant"]]


def reason_of(done: subprocess.CompletedProcess[str]) -> str:
    """The line that says why a run failed."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    telling = [line for line in lines if "ERROR: AddressSanitizer" in line or "runtime error:" in line]
    telling += [line for line in lines if not line.startswith(("FAILED", "repeat:"))]
    return telling[0][:110] if telling else f"exit status {done.returncode}"


def try_mutant(mutant: Mutant, folder: Path) -> Verdict:
    """Builds the mutant in `folder` and runs the suite up to its first failure."""
    started = time.monotonic()
    kernel = folder / "kernel"
    for room in ("store", "lib"):
        shutil.copytree(ROOT / "kernel" / room, kernel / room)
    source = kernel / mutant.file
    source.write_text(source.read_text().replace(mutant.text, mutant.by))
    found_by = reason = ""
    for name, words in SUITE:
        program = native.build(name, folder / "out", kernel, "WARNINGS=-std=gnu17 -w")
        try:
            done = native.run(program, *words, timeout_s=120)
        except subprocess.TimeoutExpired:
            found_by, reason = name, "it never ends"
            break
        if done.returncode != 0:
            found_by, reason = name, reason_of(done)
            break
    return Verdict(mutant.why, mutant.file, found_by, reason, round(time.monotonic() - started, 1))


def judge(mutant: Mutant) -> Verdict:
    """`try_mutant` in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return try_mutant(mutant, Path(folder))


def main() -> int:
    """Runs the gate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutants whose file or reason contains this")
    parser.add_argument("--json", action="store_true", help="facts as JSON on standard output")
    options = parser.parse_args()
    chosen = [mutant for mutant in mutants() if options.only in mutant.file + " " + mutant.why]
    faults = [fault for mutant in chosen if (fault := mutant.fault())]
    if faults:
        print("\n".join(faults), file=sys.stderr)
        return 2
    verdicts = []
    for mutant in chosen:
        verdict = judge(mutant)
        verdicts.append(verdict)
        found = verdict.found_by or "SURVIVED"
        print(
            f"{found:18} {verdict.seconds:6.1f} s  {verdict.file:15} {verdict.why}: {verdict.reason}",
            file=sys.stderr if options.json else sys.stdout,
            flush=True,
        )
    if options.json:
        print(json.dumps([asdict(verdict) for verdict in verdicts], indent=1))
    return 1 if any(not verdict.found_by for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
