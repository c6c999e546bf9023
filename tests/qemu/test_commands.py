"""The commands of the documents, run as they stand by somebody who types them, those of one document after each other.

Filled in: a free port, HOST, the root hash that `publish` printed, what "…" stands for (COMPLETED); figures that
would take hours are made small; `run` gets a script instead of a person. A command with arguments that is in a document
is run here, by the test that ELSEWHERE names, or cannot be run for the reason in NOT_HERE.
"""

from __future__ import annotations

import re
import select
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents import DOCUMENTS, ROOT, blocks, inline, snippets
from revenant import nbd

PORT, SOCKET = "10809", "/run/far.sock"
OTHER_PROGRAM = re.compile(r"^(?:make|nasm|nbdkit|qemu-img|python -m|build/host/\w+) .+")

COMPLETED = {
    "run --retain 40:0:0": "run --near machine.img --retain 40:0:0",
    "run --dry-run": "run --near machine.img --dry-run",
    "keygen publisher": "keygen publisher",
    "publish --sign publisher": "publish --sign publisher machine.img signed.img",
    "run --trust publisher.pub": "run --near by-key.img --far signed.img --trust publisher.pub",
    "publish --base far.img machine.img delta.img": "publish --base far.img machine.img delta.img",
    "run --far …/delta --far …/far": "run --near both.img --far delta.img --far far.img --trust ROOTHASH",
}
"""Of README.md, those in its lines; in this order, where there is a far.img."""

ELSEWHERE = {
    "run --console pty --keep": "tests/qemu/conftest.py",
    "mpremote exec|run|repl|fs|mount|mip …": "tests/qemu/test_mpremote.py",
    "run --window": "tests/qemu/test_window.py",
    "run --ui": "tests/qemu/test_ui.py",
    "run --heal": "tests/qemu/test_failing_states.py",
    "run --record": "tests/qemu/test_stream.py",
    "run --no-fill": "tests/qemu/test_stream.py",
    "fleet 20 --far … --trust …": "tests/qemu/test_fleet.py",
    "nbdkit -r -U … curl url=https://HOST/far.img": "tests/qemu/test_http.py",
}
"""The test where its first word and its options are found."""

NOT_HERE = {
    "bench all --html FILE": "takes an hour; tests/qemu/test_bench.py runs small parts of it",
    "crashtest --mutate --only store/": "takes an hour; the mutants that are quick are tried by test_mutants.py",
    "make run": "needs a person; it is `revenant run`",
    "make test": "is this suite",
    "make help": "is read by tests/unit/test_documents.py",
    "make build": "is what this suite runs on",
    "make -C userland BUILD=BUILD SRC=BUILD/src/micropython        (absolute paths)": "is what `make build` does",
    "make conformance": "takes hours; tests/upstream/test_suite.py runs a part",
    "nbdkit -r -U /run/far.sock S3 bucket=BUCKET key=far.img": "needs an account where there is S3",
    "nbdkit -r -U /run/far.sock ssh host=HOST /path/far.img": "needs a host that lets us in",
    "qemu-img convert -O raw far.img rbd:POOL/far": "needs a cluster of Ceph",
    "python -m jupyter_micropython_extended_kernel.install --sys-prefix": "needs Jupyter, which nothing else here does",
    "python -m http.server": "is named as what does not do",
}


class Session:
    """Commands in one folder, each with what those before it printed."""

    def __init__(self, folder: Path, run: Callable[..., Any], start: Callable[..., Any], port: int) -> None:
        self.folder, self.run, self.start = folder, run, start
        self.script = folder / "script.py"
        self.known = {PORT: str(port), "nbd://HOST": f"nbd://127.0.0.1:{port}", SOCKET: str(folder / "far.sock")}

    def make(self) -> None:
        """A machine in machine.img that knows something."""
        self.script.write_text(
            "import revenant\nrevenant.tag('tagged')\nnote = 6 * 7\nrevenant.commit()\nprint('answer', note)\n"
        )
        assert self.run("create", "machine.img", "--size", "64M", cwd=self.folder).returncode == 0
        self.do("run --near machine.img")
        self.script.write_text("print('answer', note)\n")

    def do(self, command: str) -> None:
        """One command, without its first word; it must succeed, and a program must know what it knew."""
        for word, value in self.known.items():
            command = command.replace(word, value)
        words = shlex.split(command)
        if words[0] == "serve":
            self.serve(words)
            return
        programs = words[0] == "run" and "--dry-run" not in words
        result = self.run(*words, *(["--", self.script] if programs else []), cwd=self.folder)
        assert result.returncode == 0, result.stderr
        if words[0] == "publish":
            self.known["ROOTHASH"] = re.search(r"\b[0-9a-f]{64}\b", result.stdout)[0]  # type: ignore[index]
        if programs:
            assert result.stdout == "answer 42\n"

    def serve(self, words: list[str]) -> None:
        """Until the test ends; returns when it answers."""
        process = self.start(*words, cwd=self.folder)
        where = f"127.0.0.1:{words[-1]}" if "--port" in words else f"?socket={words[-1]}"
        uri = f"nbd://{where}" if "--port" in words else f"nbd+unix:///{where}"
        while not nbd.answers(uri):
            assert process.poll() is None
            select.select([], [], [], 0.01)


@pytest.fixture
def session(
    socket_folder: Path, run_revenant: Callable[..., Any], start_revenant: Callable[..., Any], free_port: int
) -> Session:
    """With a machine in machine.img."""
    session = Session(socket_folder, run_revenant, start_revenant, free_port)
    session.make()
    return session


def revenant_commands(document: Path) -> list[str]:
    """Those of its blocks; `# or: …` is one, too."""
    lines = re.findall(r"^```\w*\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    found = (re.search(r"(?:^|: )revenant ([a-z][^#]*)", line) for block in lines for line in block.splitlines())
    return [match[1].strip() for match in found if match]


def test_readme(session: Session) -> None:
    commands = revenant_commands(ROOT / "README.md")
    assert [command.split()[0] for command in commands] == ["tag", "log", "rollback", "fork", "publish", "serve", "run"]
    for command in commands:
        session.do(command)


@pytest.mark.slow
def test_lines_of_readme(session: Session) -> None:
    session.do("publish machine.img far.img")
    for command in COMPLETED.values():
        session.do(command)


def test_far_stores(session: Session) -> None:
    text = (ROOT / "tools/revenant/FAR.md").read_text()
    publish, run = revenant_commands(ROOT / "tools/revenant/FAR.md")
    session.do(publish)
    rows = [re.findall(r"`([^`]+)`", line) for line in text.splitlines() if line.endswith("| tested |")]
    assert len(rows) == 3
    for far, *serve in rows:
        for command in serve:
            session.do(command.removeprefix("revenant "))
        session.do(run.replace("…", far).replace("nbd://HOST:", "nbd://127.0.0.1:"))
        (session.folder / "new.img").unlink()


def run_there(command: str) -> subprocess.CompletedProcess[str]:
    """A command of the shell, in the checkout."""
    print("$", command)
    return subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)


def test_boot_code(build: Path, tmp_path: Path) -> None:
    commands = [line for line in blocks((ROOT / "boot/README.md").read_text()) if line.startswith("nasm ")]
    for command in commands:
        built = command.split(" -o ")[1].split()[0]
        made = tmp_path / Path(built).name
        run_there(command.replace(built, str(made)))
        assert made.read_bytes() == (build / "boot" / made.name).read_bytes()
    assert len(commands) == 2


SMALL = {"STATES=1000000": "STATES=400", "SECOND=100000": "SECOND=40", "FUZZ_TIME_S=600": "FUZZ_TIME_S=1"}


def host_commands() -> list[str]:
    """Of the host's tests, with small figures: the programs are the same."""
    text = (ROOT / "tests/host/README.md").read_text()
    for figure, small in SMALL.items():
        assert text.count(figure) == 1
        text = text.replace(figure, small)
    return blocks(text)


def test_crash_states_on_the_host() -> None:
    states, _, _, replay = host_commands()
    assert '"failures": 0' in run_there(states).stdout
    assert "expected and recovered: generation" in run_there(replay).stdout


@pytest.mark.slow
def test_fuzzing_on_the_host() -> None:
    _, fuzz, _, _ = host_commands()
    run_there(fuzz)


@pytest.mark.slow
def test_ten_thousand_machines(session: Session) -> None:
    text = (ROOT / "kernel/store/SCALE.md").read_text()
    command = next(code for code in inline(text) if code.startswith("python -m "))
    session.do("publish machine.img far.img --record")
    run_there(command.replace("python", sys.executable).replace("IMAGE", str(session.folder / "far.img")))


def test_each_command_is_run() -> None:
    """Here, elsewhere, or not for a reason; and no list has what no document says."""
    documents = {path.relative_to(ROOT): path.read_text() for path in DOCUMENTS}
    found = {" ".join(words) for text in documents.values() for words in snippets(text) if len(words) > 1}
    code = [code for text in documents.values() for code in [*blocks(text), *inline(text)]]
    found |= {match[0] for match in map(OTHER_PROGRAM.match, code) if match}
    here = {*COMPLETED, *revenant_commands(ROOT / "README.md"), *revenant_commands(ROOT / "tools/revenant/FAR.md")}
    here |= {"serve far.img --unix /run/far.sock", "python -m revenant.scale IMAGE"}
    here |= {line for room in ("boot", "tests/host") for line in blocks((ROOT / room / "README.md").read_text())}
    assert found - here - set(ELSEWHERE) - set(NOT_HERE) == set()
    assert (set(ELSEWHERE) | set(NOT_HERE) | set(COMPLETED)) - found == set()
    for command, place in ELSEWHERE.items():
        text = (ROOT / place).read_text()
        words = [command.split()[0], *re.findall(r"--[a-z-]+", command)]
        assert all(f'"{word}"' in text or f"{word} " in text for word in words), f"{place} has not {words}"
