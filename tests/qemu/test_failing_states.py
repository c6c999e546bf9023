"""States that fail at their start, on real machines: said, counted, and left behind with --heal.

Called by: pytest.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from revenant import genesis, heal
from revenant.change import Commit, edit, locked
from revenant.check import check_store
from revenant.errors import MachineError
from revenant.format import SPACE_RECORDS, PageKey, StartFailures
from revenant.machine import Machine, explain_exit
from revenant.qemu import MachineConfig
from revenant.record import RECORD_CONSOLE_PAGE, RECORD_THREAD_PAGE, ConsoleRecord
from revenant.script import wait_for_prompt
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Machine]

PROGRAM = """
bits 64
section .text
global _start
_start:
    {instructions}
section .data align=4096
    dq 1
"""
EXIT = "xor eax, eax\n mov edi, {status}\n syscall"


@pytest.fixture
def alone(
    tmp_path: Path, build_files: genesis.BuildFiles, assemble: Callable[..., genesis.Program]
) -> Callable[..., Path]:
    """An image with one program, of these instructions."""

    def make(instructions: str) -> Path:
        assemble(PROGRAM.format(instructions=instructions), "alone")
        genesis.create_image(tmp_path / "alone.img", replace(build_files, userland=tmp_path / "alone.elf"), 16 << 20)
        return tmp_path / "alone.img"

    return make


def script(folder: Path, source: str) -> Path:
    """A file to be run."""
    path = folder / "script.py"
    path.write_text(source)
    return path


def generation_of(image: Path) -> int:
    """The newest; the image is sound."""
    with Store(image) as store:
        check_store(store)
        return store.root.generation


DIES = "import revenant, uctypes; x = 'kept'; revenant.tag('safe'); x = 'lost'; uctypes.bytearray_at(8, 1)[0]"


def test_a_dead_machine_says_so_and_is_healed(image: Path, tmp_path: Path, run_revenant: Run) -> None:
    result = run_revenant("run", "--near", image, "--", script(tmp_path, DIES))
    assert result.returncode == 4
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"revenant: {image}: no program is left: process 1 (python) stopped: it touched memory")
    assert "revenant run --heal --near" in last and "mp_binary_get_val_array" in result.stderr
    dead = generation_of(image)
    result = run_revenant("run", "--near", image, stdin=subprocess.DEVNULL)
    assert result.returncode == 4 and "process 1 (python) had ended with status -1" in result.stderr.splitlines()[-1]
    assert generation_of(image) == dead  # nothing ran, so that there is nothing to save
    result = run_revenant("run", "--heal", "--near", image, "--", script(tmp_path, "print('x is', x)"))
    assert (result.returncode, result.stdout) == (0, "x is kept\n")
    assert f"generation {dead} has failed 2 times right after its start: going on from generation" in result.stderr
    assert generation_of(image) > dead
    with Store(image) as store:
        assert f"failed-{dead}" in {record.tag_text for record in store.generations()}


def test_last_words_are_heard(machine: Start, image: Path) -> None:
    """What the last program said leaves the machine before that ends."""
    now = machine()
    wait_for_prompt(now)
    now.send(b"import uctypes; print('last ' + 'words'); uctypes.bytearray_at(8, 1)[0]\r")
    now.expect_exact(b"last words\r\n")
    status = now.wait()
    error = explain_exit(now.config, status, now.voice)
    assert error is not None and error.exit_status == 4 and error.blames_state
    with locked(image) as fd, Store(image) as store:  # as if the power had been cut before they left
        record = ConsoleRecord.unpack(store.record_page(RECORD_CONSOLE_PAGE))
        page = replace(record, out_tail=record.out_head - 5).pack().ljust(4096, b"\0")
        key = PageKey(SPACE_RECORDS, RECORD_CONSOLE_PAGE)
        edit(store, fd, Commit(new=True, pages=[key], load=lambda _: page).orders())
    again = machine()
    again.expect_exact(b"last words\r\n")
    assert again.wait() == status


def test_programs_that_are_done(alone: Callable[..., Path], run_revenant: Run) -> None:
    image = alone(EXIT.format(status=0))
    for word in ("ended", "had ended"):
        result = run_revenant("run", "--heal", "--near", image, stdin=subprocess.DEVNULL)
        assert result.returncode == 0
        assert f"process 1 (python) {word} with status 0" in result.stderr
        assert "no program is left: the machine ends" in result.stderr
        assert generation_of(image) == 2


def test_a_program_that_fails_from_the_beginning(alone: Callable[..., Path], run_revenant: Run) -> None:
    """There is nothing to go back to that would not fail as well: it ends all the same."""
    image = alone("ud2")
    result = run_revenant("run", "--heal", "--near", image, stdin=subprocess.DEVNULL)
    assert result.returncode == 4
    assert "no older one that could go on is retained" in result.stderr.splitlines()[-1]
    generation_of(image)


def test_an_exit_status_is_told(alone: Callable[..., Path], run_revenant: Run) -> None:
    result = run_revenant("run", "--near", alone(EXIT.format(status=7)), stdin=subprocess.DEVNULL)
    assert result.returncode == 4 and "ended with status 7" in result.stderr.splitlines()[-1]


def test_one_program_of_two_is_enough(
    tmp_path: Path, build_files: genesis.BuildFiles, assemble: Callable[..., genesis.Program]
) -> None:
    image = tmp_path / "near.img"
    dying = assemble(PROGRAM.format(instructions="ud2"), "dying")
    genesis.create_image(image, build_files, others=[dying])
    with Machine(MachineConfig(image)) as machine:
        machine.expect_voice("(dying) stopped")
        wait_for_prompt(machine)
        machine.command_at_prompt("import revenant; revenant.commit()")
    with Store(image) as store:
        assert not heal.is_dead(store)


def test_panics_are_counted_and_left_behind(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The third panic in a row offers an older generation, and --heal takes it; kills between change nothing."""
    answers = []

    def run_once(panics: bool) -> int:
        with Machine(MachineConfig(image)) as machine:
            wait_for_prompt(machine)
            if not panics:
                answers.append(machine.command_at_prompt("n"))
                return 0
            with contextlib.suppress(Exception):  # QEMU ends before it answers
                machine.qmp("inject-nmi")
            error = explain_exit(machine.config, machine.wait(), machine.voice)
            assert error is not None
            raise error

    def run_cut() -> int:
        with Machine(MachineConfig(image)) as machine:
            machine.expect_voice("goes on")
        raise MachineError("qemu", "ended by SIGKILL", "", 137)

    with Machine(MachineConfig(image)) as machine:
        wait_for_prompt(machine)
        for n in range(3):
            machine.command_at_prompt(f"n = {n}; import revenant; revenant.tag('n{n}') > 0")
    for count in range(1, 4):
        with pytest.raises(MachineError) as caught:
            heal.watched(image, [], False, lambda: run_once(True))
        assert caught.value.exit_status == 3
        assert ("has failed 3 times" in caught.value.reason) == (count == 3)
        with Store(image) as store:
            assert store.root.failures.start_count == count
        with pytest.raises(MachineError):
            heal.watched(image, [], False, run_cut)
    assert "--heal" in caught.value.remedy
    assert heal.watched(image, [], True, lambda: run_once(False)) == 0
    said = capsys.readouterr().err
    assert "has failed 3 times right after its start: going on from generation" in said
    assert answers and answers[0] in ("0", "1", "2")
    with Store(image) as store:
        check_store(store)
        assert store.root.failures == StartFailures()


def test_damaged_records(image: Path, tmp_path: Path, run_revenant: Run) -> None:
    """Refused, nothing changed, an older generation offered; and taken, although the newest cannot be read."""
    run_revenant("run", "--near", image, "--", script(tmp_path, "import revenant; n = 1; revenant.tag('one')"))
    with Store(image) as store:
        root = store.space_root(store.tree, SPACE_RECORDS)
        block = dict(store.leaves(root, root.level))[RECORD_THREAD_PAGE].block
    with image.open("r+b") as file:
        file.seek(block * 4096 + 100)
        file.write(b"\xff")
    before = image.read_bytes()
    result = run_revenant("run", "--near", image, stdin=subprocess.DEVNULL)
    assert result.returncode == 1 and image.read_bytes() == before
    assert "damaged in every copy" in result.stderr and "revenant run --heal" in result.stderr.splitlines()[-1]
    result = run_revenant("run", "--heal", "--near", image, "--", script(tmp_path, "print('n is', n)"))
    assert (result.returncode, result.stdout) == (0, "n is 1\n")
    assert "cannot go on: going on from generation" in result.stderr
