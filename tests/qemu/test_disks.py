"""Disks that fail, lie, fill up or are exchanged under a machine. What must happen, by kind:

near, a write fails once          made again at once, unheard
near, writes fail at some blocks  the commit is written anew, to other blocks; a root record to another slot of the ring
near, a flush fails               the whole commit is written anew, since the writes before it may be forgotten
near, writes or flushes fail on   output and, once memory is full, programs wait; it is said why, tried again every
  (EIO, ENOSPC, a full host)      second, and all goes on when the disk works again; a cut meanwhile loses nothing shown
near, a read fails once           made again at once, unheard; at the start, too
near, reads of a page fail on     only the program that touches it waits; it is said, and goes on when the page comes
near, its newest root unreadable  it is said, and the newest generation that is found goes on
near, cut short or not ours       refused, nothing is changed (test_bad_input.py; in use by another machine: there, too)
near, an older copy               goes on as it was then, nothing mixed
far, some reads fail              asked again; nothing is lost or wrong
far, all reads fail, or too short only the program that needs a page waits; it is said
far, of another machine           ignored for what near has; refused for a blank near

Never a wrong byte, a panic or silence. QEMU's blkdebug and nbdkit's error filter make the errors.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pexpect
import pytest
from revenant import genesis
from revenant.check import Checker, check_store
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE
from revenant.genesis import HEAP_START
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]
Serve = Callable[..., Any]
Run = Callable[..., subprocess.CompletedProcess[str]]
EIO, ENOSPC = 5, 28
SECTORS_PER_BLOCK = 8
LOST_NOTHING = "nothing is lost, it is written anew until it can"
DURABLE = "is durable now"


def rule(io: str, errno: int = EIO, *, once: bool = False, block: int | None = None) -> dict[str, Any]:
    """One of blkdebug's."""
    fields: dict[str, Any] = {"event": "none", "iotype": io, "errno": errno, "once": once}
    if block is not None:
        fields["sector"] = block * SECTORS_PER_BLOCK
    return fields


@contextmanager
def failing(machine: Machine, *rules: dict[str, Any]) -> Iterator[None]:
    """Near's disk fails so, until the end of the block."""
    disk = "/machine/peripheral/disk-near"
    machine.qmp("blockdev-add", **{
        "driver": "blkdebug", "node-name": "bad", "image": "near", "inject-error": list(rules)
    })  # fmt: skip
    machine.qmp("qom-set", path=disk, property="drive", value="bad")
    yield
    if machine.process.poll() is not None:
        return
    machine.qmp("qom-set", path=disk, property="drive", value="near")
    machine.qmp("blockdev-del", **{"node-name": "bad"})


def assert_sound(image: Path) -> None:
    """The image proves itself."""
    with Store(image) as store:
        check_store(store)


class Counter:
    """A program that prints each number once the number before it was saved; no number may be missing."""

    SOURCE = "i = 0\rwhile True: print('at', i); i += 1\r\r\r"
    LINE = re.compile(rb"at \d+")

    def __init__(self) -> None:
        self.last = -1
        self.text = b""

    def begin(self, machine: Machine) -> None:
        """Type it."""
        wait_for_prompt(machine)
        machine.send(self.SOURCE.encode())
        self.watch(machine, 3)

    def see(self, text: bytes) -> None:
        """Every number is the one behind the last, or (in a new life) one that was there before."""
        *lines, self.text = (self.text + text).split(b"\r\n")
        for number in [int(line[3:]) for line in lines if self.LINE.fullmatch(line)]:
            assert number <= self.last + 1, f"{self.last + 1} to {number - 1} are lost"
            self.last = max(self.last, number)

    def read(self, machine: Machine) -> None:
        """What there is; waits a little."""
        with suppress(pexpect.TIMEOUT):
            self.see(machine.console.read_nonblocking(65536, 0.05))

    def watch(self, machine: Machine, count: int) -> None:
        """So many new numbers."""
        goal, end = self.last + count, time.monotonic() + machine.timeout_s
        while self.last < goal:
            assert time.monotonic() < end, f"nothing comes behind {self.last}"
            self.read(machine)

    def watch_until_said(self, machine: Machine, text: str) -> None:
        """A program that nobody reads would stop by itself."""
        end = time.monotonic() + machine.timeout_s
        while text not in machine.voice:
            assert time.monotonic() < end, f"the kernel did not say {text!r}"
            self.read(machine)

    def cut(self, machine: Machine) -> None:
        """kill -9; what was shown counts."""
        machine.kill()
        self.see(machine.rest)
        self.text = b""


# --- near: writes and flushes ---


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
@pytest.mark.parametrize("io", ["write", "flush"])
def test_an_error_once(machine: Start, image: Path, io: str, errno: int) -> None:
    now = machine()
    wait_for_prompt(now)
    for turn in range(3):
        with failing(now, rule(io, errno, once=True)):
            assert now.command_at_prompt(f"n = {turn}; n") == str(turn)
        assert now.voice.count(DURABLE) == (turn + 1 if io == "flush" else 0)
    assert now.voice.count(LOST_NOTHING) == now.voice.count(DURABLE)
    now.kill()
    assert_sound(image)
    again = machine()
    wait_for_prompt(again)
    assert again.command_at_prompt("n") == "2"


@pytest.mark.parametrize("io", ["write", "flush"])
@pytest.mark.parametrize("errno", [EIO, ENOSPC])
def test_errors_until_the_disk_is_mended(machine: Start, image: Path, io: str, errno: int) -> None:
    counter = Counter()
    now = machine()
    counter.begin(now)
    with failing(now, rule(io, errno)):
        counter.watch_until_said(now, LOST_NOTHING)
    counter.watch_until_said(now, DURABLE)
    counter.watch(now, 20)
    assert now.voice.count(LOST_NOTHING) == 1
    counter.cut(now)
    again = machine()
    counter.watch(again, 20)
    with failing(again, rule(io, errno)):
        counter.watch_until_said(again, LOST_NOTHING)
        counter.cut(again)
    assert_sound(image)
    counter.watch(machine(), 20)


def test_some_blocks_are_bad(machine: Start, image: Path) -> None:
    """Of those that the next snapshots would take, every sixteenth; and two slots of the root ring."""
    now = machine()
    wait_for_prompt(now)
    assert now.command_at_prompt("import revenant; revenant.commit() > 0") == "True"
    with Store(image) as store:
        first, sequence = store.root.alloc_next, store.root.sequence
        slots = [store.header.ring_block(sequence + n) for n in (3, 4)]
    bad = [*range(first + 5, first + 200, 16), *slots]
    with failing(now, *(rule("write", block=block) for block in bad)):
        for turn in range(12):
            paste(now, f"data = [bytearray(b'{turn:04}' * 1024) for _ in range(32)]\n")
            assert now.command_at_prompt("revenant.commit() > 0; len(data)") == "True\n32"
        assert LOST_NOTHING in now.voice and now.voice.count(LOST_NOTHING) == now.voice.count(DURABLE)
    now.kill()
    assert_sound(image)
    with Store(image) as store:
        reached = {pointer.block for _, pointer in store.pages(store.tree)}
        assert not reached & set(bad)
        assert store.root.sequence - sequence > 12
    again = machine()
    wait_for_prompt(again)
    assert again.command_at_prompt("all(d == b'0011' * 1024 for d in data)") == "True"


def test_full_host(machine: Start, build_files: genesis.BuildFiles, tmp_path: Path) -> None:
    """The image's file system has no room: programs wait; there is room: they go on."""
    folder = tmp_path / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", folder], check=False).returncode:
        pytest.skip("mounting needs root")
    image, ballast = folder / "near.img", folder / "ballast"
    genesis.create_image(image, build_files, 64 << 20)
    now = machine(image)
    try:
        counter = Counter()
        counter.begin(now)
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        counter.watch_until_said(now, LOST_NOTHING)
        ballast.unlink()
        counter.watch_until_said(now, DURABLE)
        counter.watch(now, 20)
        counter.cut(now)
        assert_sound(image)
        now = machine(image)
        counter.watch(now, 20)
    finally:
        now.kill()
        subprocess.run(["umount", folder], check=True)


# --- near: reads ---


def newest_root_block(image: Path) -> int:
    """Where the ring has it."""
    with Store(image) as store:
        return store.header.ring_block(store.root.sequence)


@pytest.fixture
def saved(machine: Start, image: Path) -> Path:
    """An image whose newest generation has n = 2, the one before it n = 1, and 64 pages to recognise."""
    now = machine(interval_ms=0)
    wait_for_prompt(now)
    now.command_at_prompt("import revenant; data = bytearray(b'recognise me!...' * 256 * 64)")
    for n in (1, 2):
        now.command_at_prompt(f"n = {n}; revenant.commit() > 0")
    now.kill()
    return image


@pytest.mark.parametrize("kind", ["root", "any"])
def test_a_read_fails_once_at_the_start(machine: Start, saved: Path, kind: str) -> None:
    """No reason to go back in time."""
    block = newest_root_block(saved) if kind == "root" else None
    faults = [rule("read", once=True, block=block)] * (3 if kind == "root" else 1)
    now = machine(saved, near_filter={"driver": "blkdebug", "inject-error": faults})
    wait_for_prompt(now)
    assert now.command_at_prompt("n") == "2"
    assert "cannot be read" not in now.voice


def test_the_newest_root_cannot_be_read(machine: Start, saved: Path) -> None:
    faults = [rule("read", block=newest_root_block(saved))]
    now = machine(saved, near_filter={"driver": "blkdebug", "inject-error": faults})
    wait_for_prompt(now)
    assert "1 root records cannot be read: an older generation may be the newest that is found" in now.voice
    assert now.command_at_prompt("n") in ("1", "2")
    now.kill()
    assert_sound(saved)


def test_a_page_cannot_be_read(machine: Start, saved: Path) -> None:
    """Who does not touch it goes on; who does waits for it."""
    with Store(saved) as store:
        wanted = b"recognise me!..." * 2
        pages = [(key, pointer) for key, pointer in store.pages(store.tree) if key.space == 16]
        places = [pointer.block for _, pointer in pages if wanted in store.read(pointer, 0)]
    assert len(places) > 60
    now = machine(saved)
    wait_for_prompt(now)
    with failing(now, rule("read", block=places[30])):
        assert now.command_at_prompt("n") == "2"
        now.send(b"data == bytearray(b'recognise me!...' * 256 * 64)\r")
        now.expect_voice("is in no store that answers; the program that touched it waits")
    now.expect_exact(b"True\r\n>>> ")
    assert "is here; the program goes on" in now.voice


def test_reads_fail_now_and_then(machine: Start, saved: Path) -> None:
    now = machine(saved)
    wait_for_prompt(now)
    with failing(now, *[rule("read", once=True)] * 7):
        assert now.command_at_prompt("data == bytearray(b'recognise me!...' * 256 * 64), n") == "(True, 2)"
    now.kill()
    assert_sound(saved)


# --- images that are exchanged ---


def test_an_older_copy_of_near(machine: Start, saved: Path, tmp_path: Path) -> None:
    """The state of that time goes on; what has come since is not mixed in."""
    older = Path(shutil.copy(saved, tmp_path / "older.img"))
    now = machine(saved)
    wait_for_prompt(now)
    paste(now, "for n in range(3, 40): data[n * 100] = n; revenant.commit()\n")
    assert now.command_at_prompt("n") == "39"
    now.kill()
    shutil.copy(older, saved)
    again = machine(saved)
    wait_for_prompt(again)
    assert again.command_at_prompt("n, data == bytearray(b'recognise me!...' * 256 * 64)") == "(2, True)"
    assert again.command_at_prompt("n = 100; revenant.commit() > 0; n") == "True\n100"
    again.kill()
    assert_sound(saved)


def publish(image: Path, out: Path) -> str:
    """Its newest generation; the root hash."""
    with Store(image) as store:
        return publish_image(store, out, None).hash.hex()


def ask_and_see_it_taken(machine: Machine) -> None:
    """The line is saved when its echo is seen, and will be answered, in another life if need be."""
    machine.send(b"data == bytearray(b'recognise me!...' * 256 * 64)\r")
    machine.expect_exact(b"* 64)\r\n")


def keep_heap_near(machine: Machine) -> None:
    """All of the heap but `data`: which page the prompt takes next is not for a test to know."""
    machine.command_at_prompt("import machine, uctypes; at = uctypes.addressof(data) - 4096")
    machine.command_at_prompt("end = at + 4096 + len(data)")
    pages = f"range({HEAP_START}, {HEAP_START} + (1 << 20), 4096)"
    assert machine.command_at_prompt(f"sum(machine.mem8[page] * 0 for page in {pages} if not at < page < end)") == "0"


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A blank near disk of 64 MiB."""
    path = tmp_path / "blank.img"
    path.touch()
    os.truncate(path, 64 << 20)
    return path


def test_the_far_of_another_machine(
    machine: Start, saved: Path, blank: Path, build_files: genesis.BuildFiles, tmp_path: Path
) -> None:
    """Its blocks are at the same places and have other contents: none of it is ever used."""
    far, other_near, other = tmp_path / "far.img", tmp_path / "other-near.img", tmp_path / "other.img"
    trust = publish(saved, far)
    genesis.create_image(other_near, build_files, 64 << 20)
    publish(other_near, other)
    now = machine(blank, fars=[str(far)], trust=trust, fill=False)
    wait_for_prompt(now)
    assert now.command_at_prompt("n") == "2"
    now.kill()
    again = machine(blank, fars=[str(other)], trust=trust, fill=False)
    again.expect_voice("far1: not a store that near has adopted: ignored")
    ask_and_see_it_taken(again)
    again.expect_voice("is in no store that answers; the program that touched it waits")
    again.kill()
    third = machine(blank, fars=[str(far)], trust=trust, fill=False)
    third.expect_exact(b"True\r\n>>> ")


# --- far ---


def test_far_fails_now_and_then(machine: Start, serve: Serve, saved: Path, blank: Path, tmp_path: Path) -> None:
    """Slow besides. The tool and the firmware read far when near is blank, so the errors come with the second start."""
    far, switch = tmp_path / "far.img", tmp_path / "far-fails"
    trust = publish(saved, far)
    words = ["error-pread=EIO", "error-pread-rate=20%", f"error-pread-file={switch}"]
    server = serve(far, delay_ms=2, error_words=words)
    first = machine(blank, fars=[server.uri], trust=trust, fill=False)
    first.expect_voice("near starts by itself now")
    first.kill()
    switch.touch()
    now = machine(blank, fars=[server.uri], trust=trust, fill=False)
    wait_for_prompt(now)
    assert now.command_at_prompt("data == bytearray(b'recognise me!...' * 256 * 64), n", 60) == "(True, 2)"
    now.kill()
    with Store(blank, open_fars([far])) as store:
        Checker(store).check_structure()


def test_far_fails_for_a_while(machine: Start, serve: Serve, saved: Path, blank: Path, tmp_path: Path) -> None:
    far, switch = tmp_path / "far.img", tmp_path / "far-fails"
    trust = publish(saved, far)
    words = ["error-pread=EIO", "error-pread-rate=100%", f"error-pread-file={switch}"]
    server = serve(far, error_words=words)
    now = machine(blank, fars=[server.uri], trust=trust, fill=False)
    wait_for_prompt(now)
    switch.touch()
    assert now.command_at_prompt("n") == "2"
    now.send(b"data == bytearray(b'recognise me!...' * 256 * 64)\r")
    now.expect_voice("is in no store that answers; the program that touched it waits")
    switch.unlink()
    now.expect_exact(b"True\r\n>>> ")


def test_far_is_cut_short_later(machine: Start, serve: Serve, saved: Path, blank: Path, tmp_path: Path) -> None:
    """What near has goes on; who needs what is cut off waits until the whole far is there again."""
    far = tmp_path / "far.img"
    trust = publish(saved, far)
    whole = Path(shutil.copy(far, tmp_path / "whole.img"))
    now = machine(blank, fars=[str(far)], trust=trust, fill=False)
    wait_for_prompt(now)
    now.expect_voice("near starts by itself now")
    wait_for_prompt(now)
    keep_heap_near(now)
    for _ in range(2):  # what the prompt needs is near, for good
        assert now.command_at_prompt("import revenant; revenant.commit() > 0, n") == "(True, 2)"
    now.kill()
    os.truncate(far, (100 * BLOCK_SIZE))
    again = machine(blank, fars=[str(far)], trust=trust, fill=False)
    wait_for_prompt(again)
    assert again.command_at_prompt("n") == "2"
    ask_and_see_it_taken(again)
    again.expect_voice("the program that touched it waits")
    again.kill()
    third = machine(blank, fars=[str(whole)], trust=trust, fill=False)
    third.expect_exact(b"True\r\n>>> ")
