"""What inspect says of a machine that ran: its stack by name, its memory, its instructions; and of damaged images.

Called by: pytest.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import typer
from revenant.errors import StoreError
from revenant.inspection import Inspection, parse_place
from revenant.machine import Machine
from revenant.python_heap import Heap, layouts_of
from revenant.qemu import MachineConfig
from revenant.record import ProcessState, ThreadRegisters
from revenant.script import paste, wait_for_prompt
from revenant.state import NEWEST, named
from revenant.store import Store
from revenant.symbols import Symbols
from revenant.unwind import FRAME_COUNT_MAX, NAMES, Unwinder

Run = Callable[..., subprocess.CompletedProcess[str]]
VARIABLES = {
    "n": "-5", "big": "-3**200", "f": "1.5", "s": "'text' * 3", "b": "b'ab'", "ba": "bytearray(b'cd')",
    "t": "(1, 'x', None, True)", "l": "[1, [2, [3, [4]]]]", "d": "{'a': 1, 2: 'b'}", "st": "{7}", "huge": "'x' * 9000",
    "C": "type('C', (), {})", "c": "C()",
}  # fmt: skip
FUNCTIONS = """\
import micropython
def counter(start):
    def more(step):
        nonlocal start
        start += step
        return start
    return more
def ticks():
    yield 1
class D:
    def step(self): pass
@micropython.native
def quick(x): return x
@micropython.native
def quick_ticks(): yield 1
more, step, say = counter(40), D().step, print
"""
BUSY = "import revenant\rdef spin():\r while True: pass\r\r\rrevenant.tag('idle') > 0\r"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image cut off within spin(); its tag `idle` is a moment before."""
    from revenant import genesis

    path = tmp_path_factory.mktemp("busy") / "busy.img"
    genesis.create_image(path, genesis.BuildFiles.locate(), 16 << 20)
    with Machine(MachineConfig(path)) as machine:
        wait_for_prompt(machine)
        for name, value in VARIABLES.items():
            machine.command_at_prompt(f"{name} = {value}")
        paste(machine, FUNCTIONS)
        machine.command_at_prompt("c.attr = l; loop = [1]; loop.append(loop)")
        machine.send(BUSY.encode())
        machine.expect_exact(b"True\r\n>>> ")
        machine.send(b"n += 1; l[1][1][1][0] = 5; del f; fresh = 1; more(2); print('begin'); spin()\r")
        machine.expect_exact(b"begin\r\n")
        with Store(path) as store:
            begun = store.root.generation
        while True:  # snapshots come every 100 ms; the first of them may be from before spin()
            with Store(path) as store:
                if store.root.generation >= begun + 3:
                    break
    return path


def facts(run: Run, *words: object) -> Any:
    """What a command prints with --json."""
    result = run("inspect", *words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def names(stack: list[dict[str, str]]) -> list[str]:
    """The functions of a stack."""
    return [frame["place"].partition("+")[0] for frame in stack]


def test_a_running_thread(busy: Path, run_revenant: Run) -> None:
    found = facts(run_revenant, busy)
    assert found["alive"] and found["remarks"] == []
    thread, new = found["threads"]  # the other one is the template's, which has never run
    assert new["stack"] == [] or names(new["stack"]) == ["_start"]
    assert thread["state"] == "ready" and len(thread["registers"]) == len(NAMES)
    stack = names(thread["stack"])
    assert stack.count("mp_execute_bytecode") == 2 and stack[-2:] == ["main", "_start"]
    assert any("micropython/py/vm.c:" in frame["place"] for frame in thread["stack"])
    process, template = found["processes"]
    assert template["state"] == "template"
    assert (process["name"], process["state"], process["space"]) == ("python", "running", 16)
    spaces = {space["space"]: space for space in found["spaces"]}
    with Store(busy) as store:
        assert spaces[16]["pages"] == sum(1 for key, _ in store.pages(store.tree) if key.space == 16)
        assert spaces[16]["near"] == spaces[16]["pages"] and spaces[16]["newest"] <= store.root.generation
    assert sum(region["present"] for region in found["regions"] if region["process"] == 1) == spaces[16]["pages"]


def test_an_older_generation(busy: Path, run_revenant: Run) -> None:
    found = facts(run_revenant, busy, "--at", "idle")
    assert found["tag"] == "idle"
    assert "mp_execute_bytecode" in names(found["threads"][0]["stack"])  # it is in tag() itself
    assert "no generation" in run_revenant("inspect", busy, "--at", "77777").stderr


def test_threads_of_python(image: Path, run_revenant: Run) -> None:
    """One runs, or is the last that did; the others' calls are read from where a switch has left them."""
    with Machine(MachineConfig(image)) as machine:
        wait_for_prompt(machine)
        machine.command_at_prompt("import _thread, time, revenant; lock = _thread.allocate_lock()")
        machine.command_at_prompt("lock.acquire() and _thread.start_new_thread(lock.acquire, ()) > 0")
        machine.command_at_prompt("_thread.start_new_thread(time.sleep, (3600,)) > 0")
        machine.command_at_prompt("time.sleep_ms(10), revenant.commit() > 0")
        found = facts(run_revenant, image)
    assert found["remarks"] == []
    thread = found["threads"][0]
    waiting = {row["python_thread"]: names(row["stack"]) for row in thread["waiting"]}
    assert names(thread["stack"])[-2:] == ["main", "_start"]
    assert waiting.keys() == {2, 3} and all(stack[-1] == "thread_run" for stack in waiting.values())
    assert "thread_lock_acquire" in waiting[2] and "time_sleep" in waiting[3]


def test_memory_and_instructions(busy: Path, run_revenant: Run, build: Path) -> None:
    code = (build / "userland/micropython.elf").read_bytes()
    page = facts(run_revenant, busy, "--page", "0x400123")
    assert page["address"] == "0x400000" and bytes.fromhex(page["bytes"]) in code
    text = run_revenant("inspect", busy, "--space", 0, "--page", 0).stdout
    assert "|RVNTMACH" in text
    (first, *_) = facts(run_revenant, busy, "--disassemble", "0x400000", "--count", 3)
    assert first["place"].startswith("_start+0x0") and first["instruction"] and first["address"] == "400000"
    text = run_revenant("inspect", busy, "--disassemble", "0x400020", "--count", 3).stdout
    assert "[rip + " in text and "nlr.c:" in text
    (named, *_) = facts(run_revenant, busy, "--disassemble", "mp_execute_bytecode", "--count", 1)
    assert named["place"].startswith("mp_execute_bytecode+0x0 ")
    assert run_revenant("inspect", busy, "--page", "here").returncode == 2
    refused = run_revenant("inspect", busy, "--page", 0, "--space", 99)
    assert refused.returncode == 1 and "has no space 99" in refused.stderr


def test_functions_by_name(busy: Path, build: Path) -> None:
    names = Counter(name for _, name in Symbols(build / "userland/micropython.elf").functions if name.isidentifier())
    several = next(name for name, count in names.items() if count > 1)
    refused = {several: r"is the name of \d+ functions \(give one of 0x\w+, 0x", "mp_exec_bytecod": r"it has .*mp_exec"}
    with Store(busy) as store:
        inspection = Inspection(store, named(store, NEWEST))
        for name, reason in refused.items():
            with pytest.raises(StoreError, match=rf"{name}.*{reason}"):
                inspection.function(16, name)
        with pytest.raises(StoreError, match="no names of space 0 are known"):
            inspection.function(0, "main")
    assert parse_place("main", "--disassemble") == "main" and parse_place("0x10", "--disassemble") == 16
    with pytest.raises(typer.BadParameter):
        parse_place("12 no", "--disassemble")


def test_python_variables(busy: Path, run_revenant: Run) -> None:
    found = {row["name"]: row for row in facts(run_revenant, busy, "--at", "idle", "--python")}
    shown = {name: row["value"] for name, row in found.items()}
    for name in ("n", "f", "t", "st"):
        assert shown[name] == str(eval(VARIABLES[name])), name
    assert shown["big"] == str(-(3**200))[:57] + "..." and found["big"]["type"] == "int"
    assert (shown["s"], shown["b"], shown["ba"]) == ("'texttexttext'", "b'ab'", "bytearray(b'cd')")
    assert shown["l"] == "[1, [2, [3, ...]]]" and shown["c"] == "<C 'attr': [1, [2, ...]]>"
    assert sorted(shown["d"].strip("{}").split(", ")) == ["'a': 1", "2: 'b'"]
    assert shown["C"] == "<class 'C'>" and shown["loop"].startswith("[1, [1, [1, ")
    assert 9000 < found["huge"]["bytes"] < 9100 and found["spin"]["type"] == "function"
    for name in ("spin", "counter", "ticks", "quick", "quick_ticks"):
        assert shown[name] == f"<function {name}>"
    assert (shown["more"], shown["step"]) == ("<closure more>", "<bound_method D.step>")
    assert found["ticks"]["type"] == "generator" and shown["say"] == "<function>"  # of a part of the port
    assert found["n"]["bytes"] == 0 and all(row["whole"] for row in found.values())
    assert found["c"]["bytes"] > found["l"]["bytes"] > 100


def test_which_variables_changed(busy: Path, run_revenant: Run) -> None:
    result = run_revenant("diff", busy, "idle", "newest", "--python", "--json")
    kinds = {row["name"]: row["kind"] for row in json.loads(result.stdout)}
    changed = dict.fromkeys(("n", "l", "c", "more"), "changed")  # more: what it has closed over
    assert kinds == {**changed, "f": "removed", "fresh": "added"}


def test_an_ended_program(busy: Path) -> None:
    with Store(busy) as store:
        inspection = Inspection(store, named(store, NEWEST))
        processes = inspection.state.processes
        processes[0] = replace(processes[0], state=ProcessState.ENDED)
        assert [thread["stack"] for thread in inspection.threads() if thread["process"] == 0] == [[]]
        assert all(process.id != processes[0].id for process, _ in inspection.variables())
        assert [reason for reason in inspection.reasons if "it has ended" in reason] == list(inspection.reasons)
        assert inspection.space_to_show(None) != processes[0].space


def test_variables_of_a_damaged_heap(build: Path, rng: random.Random) -> None:
    """Memory of any kind is read to the end, in bounded time."""
    layouts = layouts_of(build / "userland/micropython.elf")
    places = [*layouts.symbol, layouts.address["mp_state_ctx"], *(0x3000000 + n * 32 for n in range(500))]

    def anything(_address: int, size: int) -> bytes:
        kinds = (lambda: rng.choice(places), lambda: rng.getrandbits(64), lambda: rng.getrandbits(8))
        return b"".join(rng.choice(kinds)().to_bytes(8, "little") for _ in range(-(-size // 8)))[:size]

    seen = 0
    for _ in range(40):
        for variable in islice(Heap(layouts, anything, 1 << 16).variables(), 20):
            seen += 1
            assert variable.type.isprintable() and len(variable.value) <= 60
    assert seen


def test_another_build_has_no_names(
    busy: Path, run_revenant: Run, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = bytearray((build / "userland/micropython.elf").read_bytes())
    other[0x2000] ^= 1
    (tmp_path / "userland").mkdir()
    (tmp_path / "userland/micropython.elf").write_bytes(other)
    monkeypatch.setenv("REVENANT_BUILD", str(tmp_path))
    found = facts(run_revenant, busy)
    assert [frame["place"] for frame in found["threads"][0]["stack"]] == ["?"]
    assert len(found["remarks"]) == 2 and all("runs other code than" in remark for remark in found["remarks"])


def look(image: Path) -> None:
    """All that inspect would say of the newest generation and the oldest."""
    with Store(image) as store:
        for record in store.generations()[:: len(store.generations()) - 1]:
            inspection = Inspection(store, record)
            inspection.machine()
            for part in (inspection.spaces, inspection.processes, inspection.regions, inspection.threads):
                list(part())


def test_damaged_images(busy: Path, tmp_path: Path, rng: random.Random) -> None:
    """A StoreError or an answer."""
    image = Path(shutil.copy(busy, tmp_path / "damaged.img"))
    with Store(busy) as store:
        blocks = [pointer.block for key, pointer in store.pages(store.tree) if key.space == 0]
        blocks += [store.root.tree.block, store.root.meta.block, store.space_root(store.tree, 0).block]
    refused = 0
    for block in blocks:
        place = block * 4096 + rng.randrange(4096)
        with image.open("r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 0x40]))
            file.flush()
            try:
                look(image)
            except StoreError:
                refused += 1
            file.seek(place)
            file.write(bytes([byte]))
    assert refused


def test_unwinding_ends(build: Path, rng: random.Random) -> None:
    """Registers and memory of any kind: a few frames, never an error."""
    unwinder = Unwinder(build / "userland/micropython.elf")
    places = [0x400000 + n * 977 for n in range(300)]
    for place in places:
        registers = replace(ThreadRegisters(), rip=place, rsp=rng.getrandbits(47), rbp=rng.getrandbits(64))
        for read in (lambda _: rng.choice(places), lambda _: None, lambda _: 2**64 - 1, lambda address: address):
            assert 1 <= len(list(unwinder.frames(registers, read))) <= FRAME_COUNT_MAX
