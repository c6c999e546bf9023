"""More dirty pages than the disk takes, more heap than memory: programs are slowed, evenly, and nothing else happens.

The disk is throttled by QEMU, in bytes a second; writers are machine code that makes page after page dirty. What is
asserted are counts (pages, generations, progress against each other), never seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant import genesis
from revenant.check import check_store
from revenant.machine import Machine
from revenant.qemu import ICOUNT_WAITING, MEMORY_MIB_DEFAULT
from revenant.script import paste, wait_for_prompt
from revenant.store import Store, of_newest
from revenant.ui.live import Live, Memory

Start = Callable[..., Machine]
MIB = 1 << 20
AREA_MIB = 16
TIMEOUT_S = 60
LOOKED_FOR_NS = 3_000_000_000  # room, at least twice
COUNTER_ADDRESS = 0x500000
SPACE_FIRST = 17
SLOW_DISK = {"driver": "throttle", "throttle-group": "slow"}
SLOW_DISK_WORDS = ("-object", "throttle-group,id=slow,x-bps-write=4000000")
EPOCH_PAGE_COUNT = 4000000 // 4096 // 2  # what it takes in half a second

WRITER = f"""
bits 64
section .text
global _start
_start:
    mov rbx, {COUNTER_ADDRESS:#x}
.pass:
    mov rdi, {genesis.HEAP_START:#x}
    mov rcx, {AREA_MIB * 256}
.page:
    inc qword [rbx]
    mov rax, [rbx]
    mov [rdi], rax
    add rdi, 4096
    dec rcx
    jnz .page
    jmp .pass
section .data align=4096
    dq 0
"""


def writers_image(tmp_path: Path, assemble: Callable[..., genesis.Program], count: int) -> Path:
    """Python, and so many writers beside it."""
    others = [assemble(WRITER, f"writer{n}", COUNTER_ADDRESS) for n in range(count)]
    path = tmp_path / "writers.img"
    genesis.create_image(path, genesis.BuildFiles.locate(), 512 * MIB, others=others)
    return path


def saved_counts(image: Path, count: int) -> list[int]:
    """How many pages each writer has written, in the newest generation."""

    def counts(store: Store) -> list[int]:
        pages = [store.page(store.tree, SPACE_FIRST + n, COUNTER_ADDRESS >> 12) for n in range(count)]
        return [int.from_bytes(page[:8], "little") for page in pages]

    return of_newest(image, counts)


def test_two_writers_are_slowed_evenly(
    machine: Start, assemble: Callable[..., genesis.Program], tmp_path: Path
) -> None:
    """Each gets its half; the prompt waits for a few small snapshots only; memory stays free; it is told."""
    image = writers_image(tmp_path, assemble, 2)
    now = machine(image, memory_mib=128, near_filter=SLOW_DISK, extra=SLOW_DISK_WORDS)
    now.expect_exact(b">>> ")
    now.command_at_prompt("import revenant; s = revenant.stats")
    for _ in range(2):  # until the disk's pace is known
        now.command_at_prompt("revenant.commit() > 0")
    before = saved_counts(image, 2)
    now.command_at_prompt("start = s()")
    for _ in range(3):
        now.command_at_prompt("a = s()")
        now.command_at_prompt("b = s()")
        written, share = eval(now.command_at_prompt("b['commit_pages'] - a['commit_pages'], b['pages_dirty_max']"))
        assert written <= 8 * share + 200, "the prompt waited for more than a few small snapshots"
        assert share < 1024 < 2 * AREA_MIB * 256
    pages, commits = eval(now.command_at_prompt("[b[name] - start[name] for name in ('commit_pages', 'commits')]"))
    assert pages <= 1.5 * commits * EPOCH_PAGE_COUNT, "an epoch holds more than near takes in half a second"
    first, second = (b - a for a, b in zip(before, saved_counts(image, 2), strict=True))
    assert first > 500 and 0.8 < first / second < 1.25, (first, second)
    assert "programs write more than near takes: they are slowed to its pace" in now.voice
    throttled = "b['throttled_count'] > a['throttled_count'], b['throttled_ns'] > a['throttled_ns']"
    assert now.command_at_prompt(throttled) == "(True, True)"
    assert now.command_at_prompt("b['frames_free'] > b['frames_total'] // 4") == "True"
    now.kill()
    last = saved_counts(image, 2)
    with Store(image) as store:
        check_store(store)
    again = machine(image, memory_mib=128)
    wait_for_prompt(again)
    again.command_at_prompt("revenant.commit() > 0")
    assert all(a < b for a, b in zip(last, saved_counts(image, 2), strict=True))


def test_a_quick_disk_slows_nobody(machine: Start, image: Path) -> None:
    """What one program writes at the interpreter's pace, a disk without a throttle takes."""
    now = machine()
    wait_for_prompt(now)
    now.command_at_prompt("import revenant; data = bytearray(4 << 20)")
    for _ in range(2):  # at first its pace is not known
        before = now.command_at_prompt("revenant.stats()['throttled_count']")
        paste(now, "for turn in range(20):\n    for i in range(0, len(data), 4096): data[i] = turn\n")
    assert now.command_at_prompt("revenant.stats()['throttled_count']") == before


def test_a_full_near_is_waited_for(machine: Start, tmp_path: Path) -> None:
    """One epoch stays frozen and the next stays open however often room is looked for; the programs wait."""
    image, memory = tmp_path / "small.img", Memory(MEMORY_MIB_DEFAULT)
    genesis.create_image(image, genesis.BuildFiles.locate(), 12 * MIB)
    now = machine(image, interval_ms=20, memory_file=memory.path)
    wait_for_prompt(now)
    now.send(b"chunks = []\r\nwhile True: chunks.append(bytes([1]) * 4096)\r\n\r\n")
    now.expect_voice("near store is full")
    live, end_s, since_ns = Live(memory), time.monotonic() + TIMEOUT_S, 0
    while (moment := live.look()) is None or moment.stats.mono_ns < since_ns + LOOKED_FOR_NS:
        assert now.process.poll() is None and time.monotonic() < end_s, moment
        if moment is not None:
            since_ns = since_ns or moment.stats.mono_ns
        time.sleep(0.01)
    assert moment.stats.epoch == moment.stats.generation + 2 and moment.stats.pages_dirty > 0
    memory.close()


def fill(machine: Machine, count: int) -> str:
    """So many MiB of heap, each with a number of its own; the question whether all of it is right."""
    wait_for_prompt(machine)
    machine.command_at_prompt("import gc; gc.disable()")  # each collection would read all of it again
    paste(machine, f"blocks = []\nfor i in range({count}): blocks.append(bytes([i % 251]) * (1 << 20))\n")
    machine.command_at_prompt("import revenant; revenant.commit() > 0", 120)
    return f"all(blocks[i][j] == i % 251 for i in range({count}) for j in range(0, 1 << 20, 4096))"


def test_heap_of_four_times_the_memory(machine: Start, large_image: Path) -> None:
    now = machine(large_image, memory_mib=24)
    question = fill(now, 96)
    now.kill()
    again = machine(large_image, memory_mib=24)
    wait_for_prompt(again)
    assert again.command_at_prompt(question, 240) == "True"


@pytest.mark.slow
def test_collections_in_a_heap_of_four_times_the_memory(machine: Start, large_image: Path) -> None:
    """Each one reads all of it: slow, and nothing wrong."""
    now = machine(large_image, memory_mib=64, timeout_s=240)
    question = fill(now, 256)
    for _ in range(2):
        assert now.command_at_prompt("gc.collect() >= 0") == "None"
        assert now.command_at_prompt(question) == "True"


MANY = """
import revenant
source = '''
import revenant, sys
revenant.receive()
me, data = sys.argv[1], bytearray(20000)
for i in range(0, len(data), 512): data[i] = (me + i) % 256
revenant.send(1, all(data[i] == (me + i) % 256 for i in range(0, len(data), 512)))
'''
def go(count):
    ids = [revenant.spawn(source, args=(i,), quiet=True) for i in range(count)]
    input('ready')
    for id in ids: revenant.send(id, None)
    print('all right', [revenant.receive()[1] for id in ids] == [True] * count)
"""


@pytest.mark.slow
def test_more_programs_than_memory_has_room_for(machine: Start, large_image: Path) -> None:
    """Each needs its pages for a while to get on: taking them from each other in turn, none would."""
    now = machine(large_image, memory_mib=128)
    wait_for_prompt(now)
    paste(now, MANY)
    now.send(b"go(120)\r")
    now.expect_exact(b"ready")
    now.kill()
    again = machine(large_image, memory_mib=16, timeout_s=120)
    again.send(b"\r")
    again.expect_exact(b"all right True")


def test_more_than_the_limit(machine: Start, large_image: Path) -> None:
    """A MemoryError, early enough that the program goes on; a limit that is set, and the one that the disk sets."""
    now = machine(large_image, memory_mib=32)
    wait_for_prompt(now)
    now.command_at_prompt("import revenant, gc; before = revenant.heap_limit(12 << 20); hoard = []")
    paste(now, "try:\n    while True: hoard.append(bytearray(1 << 20))\nexcept MemoryError: print('enough')\n")
    assert 4 <= int(now.command_at_prompt("len(hoard)")) < 12
    now.command_at_prompt("revenant.heap_limit(before); hoard = None; gc.collect()")
    paste(now, "n = 0\ntry: bytearray(2 << 30)\nexcept MemoryError: n = 42\n")
    assert now.command_at_prompt("n") == "42"


SHORT_INTERVAL = """\
import micropython, revenant, time
data = bytearray(256 << 12)
@micropython.viper
def write(data: ptr8):
    for page in range(256): data[page << 12] = data[page << 12] + 1
def ms_of_a_snapshot():
    first, start = revenant.stats()['commits'], time.ticks_ms()
    while revenant.stats()['commits'] < first + 8: write(data)
    return time.ticks_diff(time.ticks_ms(), start) // 8
"""


def test_a_short_interval_is_stretched(machine: Start) -> None:
    """Snapshots of 256 pages take 4 ms of a CPU whose instruction takes 1 ns: every 10 ms would be too many."""
    now = machine(interval_ms=10, extra=ICOUNT_WAITING)
    wait_for_prompt(now)
    paste(now, SHORT_INTERVAL)
    assert int(now.command_at_prompt("ms_of_a_snapshot()")) >= 25
