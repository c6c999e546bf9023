"""Programs that go to the limits: memory, arguments of system calls, the console's rings, the power switch. All exact.

`call` in the guest makes any system call: a native module whose machine code loads the registers from an array.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from revenant import genesis
from revenant.format import SPACE_RECORDS
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.qemu import ICOUNT, Retention
from revenant.record import RECORD_CONSOLE_PAGE, RECORD_THREAD_PAGE, ConsoleRecord, ThreadRecord
from revenant.script import paste, wait_for_prompt
from revenant.store import Store, of_newest

Start = Callable[..., Machine]

ERR_INVAL, ERR_NOSYS, ERR_TIMEOUT = -1, -3, -5
EXEC, HEAP, HEAP_END = genesis.EXEC_START, genesis.HEAP_START, genesis.HEAP_END
UNTOUCHED = 0x50000000  # in the heap region, where MicroPython has no area yet
USER_END = 1 << 47
OUT_RING_SIZE = 16 * 4096

# push rbx; mov rbx, array; mov rax, rdi, rsi, rdx, r10 from it; syscall; mov [rbx], rax; pop rbx; mov eax, 1; ret
RAW_CALL = """\
import sys, uctypes, machine, revenant, time
from array import array
registers = array('Q', (0, 0, 0, 0, 0))
code = bytes.fromhex('5348bb') + uctypes.addressof(registers).to_bytes(8, 'little')
code += bytes.fromhex('488b03488b7b08488b7310488b53184c8b53200f054889035bb801000000c3')
head = bytes((77, 6, sys.implementation._mpy >> 8 & 255, 31, 1, 0, 14)) + b'rawcall\\0'
file = open('rawcall.mpy', 'wb')
_ = file.write(head + bytes((len(code) >> 4 | 128, len(code) << 3 & 127 | 2)) + code + b'\\0')
file.close()
def call(*words):
    for i in range(5): registers[i] = words[i] % 2 ** 64 if i < len(words) else 0
    sys.modules.pop('rawcall', None)
    import rawcall
    return registers[0] - (registers[0] >> 63 << 64)
"""


def at_prompt(machine: Machine) -> Machine:
    """Waits for the prompt and gives the guest `call`."""
    wait_for_prompt(machine)
    paste(machine, RAW_CALL)
    return machine


def pause(seconds: float) -> None:
    """Real time has to pass."""
    select.select([], [], [], seconds)


def test_bad_pointers_in_every_call(machine: Start) -> None:
    now = at_prompt(machine())
    bad = [0, 1, 0x1000, EXEC - 1, 0xE00000, HEAP_END - 1, HEAP_END, USER_END - 1, USER_END]
    bad += [1 << 63, 2**64 - 1, 2**64 - 4096]
    sizes = [2, 4096, 65536, 2**63, 2**64 - 1]
    now.command_at_prompt("zeros = bytearray(4096); buffer = uctypes.addressof(zeros)")
    for number in (1, 7, 8):  # console_write, random, stats
        cases = f"for a in {bad} for n in {sizes} if {number} != 7 or n == 2"
        paste(now, f"found = {{call({number}, a, n) {cases}}}\n")
        assert now.command_at_prompt("found") == "{-2}", number
    assert now.command_at_prompt("call(7, buffer, 257)") == str(ERR_INVAL)
    paste(now, f"found = {{call(10, a & -4096, n & -4096) for a in {bad} for n in {sizes} if n > 4096}}\n")
    assert now.command_at_prompt("found") == "{-2}"
    paste(now, f"found = {{call(11, a, buffer, n) for a in {bad} for n in (1, 4096, 65536)}}\n")
    assert now.command_at_prompt("found") == "{-2}"
    paste(now, f"found = {{call(11, {EXEC}, a, n) for a in {bad} for n in (2, 4096)}}\n")
    assert now.command_at_prompt("found") == "{-2}"
    paste(now, f"found = {{call(13, a, 2) for a in {bad}}}, {{call(14, a, 4096) for a in {bad}}}\n")
    assert now.command_at_prompt("found") == "({-2}, {-2})"  # tag, history
    assert now.command_at_prompt("[call(13, buffer, n) for n in (1, 48)], call(13, 0, 0, 2**40)") == "([-1, -1], -1)"
    paste(now, "name = bytearray(b'a' * 4096)\n")
    assert now.command_at_prompt("[call(13, uctypes.addressof(name), n) for n in (48, 49, 4096)]") == "[-1, -1, -1]"
    assert now.command_at_prompt("call(14, 0, 95), call(14, buffer, 96), call(14, buffer, 4096, 2**63)") == "(0, 96, 0)"
    for number in (1, 7, 8, 10, 11):  # nothing, anywhere
        words = {10: "a & -4096, 0", 11: "a, a, 0"}.get(number, "a, 0")
        paste(now, f"found = {{call({number}, {words}) for a in {bad}}}\n")
        assert now.command_at_prompt("found") == "{0}", number
    assert now.command_at_prompt("call(2, 5, 0)") == "0"
    assert now.command_at_prompt("[call(n) for n in (24, 2**31, 2**63, 2**64 - 1)]") == str([ERR_NOSYS] * 4)
    others = "[call(9, 2), call(4, 2), call(6, 2**40), call(10, 1, 4096)]"
    assert now.command_at_prompt(others) == "[-1, -1, -1, -2]"
    assert now.command_at_prompt("6 * 7") == "42"


def test_what_a_region_does_not_allow(machine: Start) -> None:
    """Buffers in text, code in data, zeros in text, half pages: refused, and nothing is changed."""
    now = at_prompt(machine())
    text = genesis.load_program(genesis.BuildFiles.locate().userland, "python").entry & -4096
    paste(now, f"buffer = uctypes.addressof(bytearray(8192)) + 4095 & -4096\nbefore = machine.mem32[{text}]\n")
    assert now.command_at_prompt(f"call(7, {text}, 96), call(8, {text}, 96), call(14, {text}, 96)") == "(-2, -2, -2)"
    assert now.command_at_prompt(f"call(10, {text}, 4096), call(10, {EXEC}, 4096)") == "(-2, -2)"
    assert now.command_at_prompt(f"machine.mem32[{text}] == before") == "True"
    into_data = "call(11, buffer, buffer, 16), call(11, 0x5000000, buffer, 16)"
    assert now.command_at_prompt(into_data) == "(-2, -2)"
    assert now.command_at_prompt(f"call(11, {EXEC}, buffer, 65537), call(11, {EXEC}, {UNTOUCHED}, 2**40)") == "(-1, -1)"
    paste(now, f"machine.mem32[{UNTOUCHED}], machine.mem32[{UNTOUCHED} + 4096] = 1, 2\n")
    halves = [f"call(10, {UNTOUCHED} + {offset}, {size})" for offset, size in ((8, 4096), (0, 4097), (2048, 2048))]
    assert now.command_at_prompt(", ".join(halves)) == "(-2, -2, -2)"
    assert now.command_at_prompt(f"machine.mem32[{UNTOUCHED}], machine.mem32[{UNTOUCHED} + 4096]") == "(1, 2)"


def test_deadlines(machine: Start) -> None:
    """By the machine's own time: how long the host takes for it is nobody's concern."""
    now = at_prompt(machine(extra=ICOUNT))
    others = "call(3, 0, 0), call(3, 0, 1), call(3, 2, 0), call(3, 2, 2**64 - 1)"
    assert now.command_at_prompt(others) == "(-5, -5, 2, 2)"
    paste(now, "def wait(ns):\n    before = call(4, 0)\n    return call(3, 0, before + ns), call(4, 0) - before\n")
    for ns in (1, 1000, 1_000_000, 30_000_000, 300_000_000):
        result, took = map(int, re.findall(r"-?\d+", now.command_at_prompt(f"wait({ns})")))
        assert result == ERR_TIMEOUT and ns <= took < ns + 1_000_000_000
    now.send(b"call(3, 0, 2**64 - 2)\r")
    now.expect_exact(b"- 2)\r\n")
    now.kill()  # it waits for ever, or is about to
    again = machine()
    again.send(b"6 * 7\r")
    with pytest.raises(pexpect.TIMEOUT):
        again.expect_exact(b"42", 1)


def test_discard_of_all_that_is_free(machine: Start) -> None:
    now = at_prompt(machine())
    size = HEAP_END - UNTOUCHED
    paste(now, f"for a in range({UNTOUCHED}, {HEAP_END}, 64 << 20): machine.mem32[a] = a & 0xffffffff\n")
    assert now.command_at_prompt(f"call(10, {UNTOUCHED}, {size})", 60) == "0"
    assert now.command_at_prompt(f"any(machine.mem32[a] for a in range({UNTOUCHED}, {HEAP_END}, 64 << 20))") == "False"


def done_sizes(image: Path) -> list[tuple[int, int]]:
    """How far the discard of the first thread had come in each generation that is kept, oldest first."""
    found = []
    with Store(image) as store:
        for entry in store.generations():
            page = store.page(store.tree_at(entry.generation), SPACE_RECORDS, RECORD_THREAD_PAGE)
            found.append((entry.generation, ThreadRecord.unpack(page).done_size))
    return found


def test_discard_of_more_than_memory(machine: Start, large_image: Path, run_revenant: Callable[..., Any]) -> None:
    """It has to wait for memory again and again, and does not begin anew where a cut in the middle has left it."""
    now = at_prompt(machine(large_image, memory_mib=48, retain=Retention(1024)))
    count = 2 * 48 * 256  # pages
    paste(now, f"for i in range({count}): machine.mem32[{UNTOUCHED} + i * 4096] = i + 1\n")
    now.send(f"call(10, {UNTOUCHED}, {count * 4096})\r".encode())
    now.expect_exact(b"0\r\n>>> ")
    now.kill()
    generation, before = next(found for found in done_sizes(large_image) if found[1] >= count * 4096 // 4)
    assert before % 4096 == 0 and before < count * 4096
    assert run_revenant("rollback", large_image, "--to", generation).returncode == 0  # as if cut behind that one
    gone_back = done_sizes(large_image)[-1][0]
    again = machine(large_image, memory_mib=48)
    again.expect_exact(b"0\r\n>>> ")
    total = f"sum(machine.mem32[{UNTOUCHED} + i * 4096] for i in range({count}))"
    assert again.command_at_prompt(total, 120) == "0"
    assert again.command_at_prompt("revenant.commit() > 0") == "True"
    again.kill()
    first, *others, last = (size for generation, size in done_sizes(large_image) if generation >= gone_back)
    assert (first, last) == (before, 0) and others
    assert all(size == 0 or size >= before for size in others), "it has begun anew"


def test_discard_of_pages_on_their_way(machine: Start, image: Path, serve: Callable[..., Any], tmp_path: Path) -> None:
    """Where one page is touched, a slow far store sends its neighbours, too: they are waited for, and stay zero.

    One of each cluster is discarded before: it is here already, though the tree still says far.
    """
    now = at_prompt(machine())
    count = 16 * 24  # pages: clusters of 16
    paste(now, f"for i in range({count}): machine.mem32[{UNTOUCHED} + i * 4096] = i + 1\n")
    paste(now, f"""def discard_all():
    for a in range({UNTOUCHED}, {UNTOUCHED + count * 4096}, 16 * 4096):
        call(10, a + 7 * 4096, 4096)
        machine.mem32[a]
        call(10, a, 16 * 4096)
""")
    assert now.command_at_prompt("discard_all.__name__, revenant.commit() > 0").endswith("True)")
    now.kill()
    with Store(image) as store:
        root = publish_image(store, tmp_path / "far.img", None)
    near = tmp_path / "blank.img"
    near.touch()
    os.truncate(near, 64 << 20)
    far = serve(tmp_path / "far.img", rate="20M")
    again = machine(near, fars=[far.uri], trust=root.hash.hex())
    wait_for_prompt(again)
    again.command_at_prompt("discard_all()", 60)
    total = f"sum(machine.mem32[{UNTOUCHED} + i * 4096] for i in range({count}))"
    assert again.command_at_prompt(f"revenant.commit() > 0, {total}") == "(True, 0)"


FILL = """\
def fill(count):
    for i in range(count): machine.mem32[0x50000000 + i * 4096] = i + 1
    return 'full'
"""


def test_typing_while_all_memory_is_dirty(machine: Start, large_image: Path) -> None:
    """Only want of memory asks for snapshots; the kernel has records to write all the while, and gets its frames."""
    now = machine(large_image, memory_mib=24, interval_ms=0)
    wait_for_prompt(now)
    paste(now, "import machine, sys\n" + FILL)
    count = 2 * 24 * 256
    now.send(f"fill({count}), sys.stdin.read(4)\r".encode())
    now.expect_exact(b"\n")
    for _ in range(30000):
        now.send(b"#")
        if select.select([now.console_socket], [], [], 0.001)[0]:
            break
        assert now.process.poll() is None, now.voice
    now.expect_exact(b"('full', '####')", 120)
    now.send(b"\x03")
    total = f"sum(machine.mem32[{UNTOUCHED} + i * 4096] for i in range({count}))"
    wait_for_prompt(now)
    assert now.command_at_prompt(total, 120) == str(sum(range(count + 1)))


def test_every_page_below_a_node_of_its_own(machine: Start, large_image: Path) -> None:
    """The nodes of this commit need as much memory as its pages: more than the commit's reserve."""
    now = machine(large_image, memory_mib=48, interval_ms=0)
    wait_for_prompt(now)
    now.command_at_prompt("import machine")
    where = "machine.mem32[0x10000000 + i * 0x80000]"
    paste(now, f"for i in range(7600): {where} = i\n")
    assert now.command_at_prompt(f"sum({where} == i for i in range(7600))", 60) == "7600"
    now.kill()
    again = machine(large_image, memory_mib=48)
    wait_for_prompt(again)
    assert again.command_at_prompt(f"sum({where} == i for i in range(7600))", 60) == "7600"


def test_new_nodes_while_memory_is_full_of_clean_pages(machine: Start, large_image: Path) -> None:
    """They are more than the commit's reserve and all nodes that could be dropped: pages have to go for them."""
    now = machine(large_image, memory_mib=48, interval_ms=0)
    wait_for_prompt(now)
    paste(now, "import machine, revenant\n" + FILL)
    assert now.command_at_prompt(f"fill({48 * 256}), revenant.commit() > 0", 120) == "('full', True)"
    where = "machine.mem32[0x10000000 + i * 0x80000]"
    paste(now, f"for i in range(1500): {where} = i\n")
    assert now.command_at_prompt("revenant.commit() > 0", 60) == "True"
    assert now.command_at_prompt(f"sum({where} == i for i in range(1500))", 60) == "1500"


SLOW_DISK = {"driver": "throttle", "throttle-group": "slow"}
SLOW_DISK_WORDS = ("-object", "throttle-group,id=slow,x-iops-write=50")
LINE_COUNT = 6144  # six times the output ring
LINES = b"".join(b"%063d\r\n" % i for i in range(LINE_COUNT))
PRINTER = f"for i in range({LINE_COUNT}): print('%063d' % i)\r\r".encode()


def read_slowly(machine: Machine, rng: random.Random, received: bytearray) -> None:
    """Some bytes, and a pause now and then."""
    before = len(received)
    received += machine.console.read_nonblocking(rng.choice([64, 1000, 65536]), 20)
    assert len(received) < 2 * len(LINES), received[-1000:]
    if before // 20000 != len(received) // 20000:
        pause(rng.uniform(0, 0.1))


@pytest.mark.parametrize("relaxed", [False, True])
def test_six_rings_for_a_slow_reader(machine: Start, rng: random.Random, relaxed: bool) -> None:
    now = machine(relaxed=relaxed, interval_ms=10)
    wait_for_prompt(now)
    now.send(PRINTER)
    pause(0.5)
    received = bytearray()
    while not received.endswith(LINES[-65:] + b">>> "):
        read_slowly(now, rng, received)
    assert received.partition(b"... \r\n")[2] == LINES + b">>> "
    assert now.command_at_prompt("6 * 7") == "42"


def test_relaxed_output_for_a_quick_reader(machine: Start) -> None:
    """What a commit has frozen left long ago: its end releases nothing, and takes nothing back. Each takes its time."""
    now = machine(relaxed=True, interval_ms=1, near_filter=SLOW_DISK, extra=SLOW_DISK_WORDS)
    wait_for_prompt(now)
    now.send(PRINTER)
    assert now.expect_exact(LINES[-65:] + b">>> ").partition(b"... \r\n")[2] + LINES[-65:] == LINES


TAKE = """\
def take():
    import sys, hashlib
    n = work()
    h = hashlib.sha256()
    for i in range(200): h.update(sys.stdin.buffer.read(1000))
    return n, h.digest().hex()
"""


def test_a_flood_of_input_while_it_computes(machine: Start, rng: random.Random) -> None:
    now = machine()
    wait_for_prompt(now)
    flood = bytes(rng.choice(b"abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(200_000))
    paste(now, "def work():\n    n = 1\n    for i in range(300000): n = (n * 5 + i) % 1000003\n    return n\n")
    paste(now, TAKE)
    n = 1
    for i in range(300000):
        n = (n * 5 + i) % 1000003
    now.console_socket.settimeout(60)
    now.send(b"take()\r" + flood)
    now.expect_exact(f"({n}, '{hashlib.sha256(flood).hexdigest()}')".encode(), 60)
    now.expect_exact(b">>> ")
    assert now.command_at_prompt("6 * 7") == "42"


def console_record(image: Path) -> ConsoleRecord:
    """In the newest generation."""
    return ConsoleRecord.unpack(of_newest(image, lambda store: store.record_page(RECORD_CONSOLE_PAGE)))


@pytest.mark.parametrize("width", [5, 250])
def test_a_cut_while_nobody_reads(machine: Start, image: Path, width: int) -> None:
    """The ring is full and the UART has bytes of its own: after the cut all come, a whole line first."""
    now = machine(interval_ms=20)
    wait_for_prompt(now)
    count = 600_000 // width
    paste(now, f"def lines():\n    for i in range({count}): print('%0{width}d' % i)\n")
    now.send(b"lines()\r")
    end_s = time.monotonic() + 60
    while (record := console_record(image)).out_head - record.out_tail < OUT_RING_SIZE - 1000:
        assert time.monotonic() < end_s, record
        pause(0.02)
    now.kill()
    rest = now.rest
    assert console_record(image).out_tail <= len(now.transcript.getvalue()), "counted as gone what the UART had"
    seen = rest.partition(b"lines()\r\n")[2].split(b"\r\n")[:-1]
    again = machine()
    last = b"%0*d" % (width, count - 1)
    more = (again.expect_exact(last) + last).split(b"\r\n")
    if more[0].endswith(b"lines()"):
        more.pop(0)  # the generation is from before the first line left
    wanted = [b"%0*d" % (width, i) for i in range(count)]
    assert seen == wanted[: len(seen)]
    assert more == wanted[-len(more) :] and len(more) + len(seen) >= count


LAST_WORDS = """\
import revenant
def last(n):
    for i in range(n): print('%063d' % i)
    revenant.power_off()
"""


def test_power_off_waits_for_the_last_byte(machine: Start, rng: random.Random) -> None:
    now = machine()
    wait_for_prompt(now)
    paste(now, LAST_WORDS)
    now.send(f"last({LINE_COUNT})\r".encode())
    received = bytearray()
    with pytest.raises((pexpect.EOF, OSError)):
        while True:
            read_slowly(now, rng, received)
    assert received.partition(b"\r\n")[2] == LINES
    assert now.wait() == 0


def test_power_off_does_not_wait_for_ever(machine: Start) -> None:
    """Nobody reads: it goes off, and shows the rest at the next start."""
    now = machine()
    wait_for_prompt(now)
    paste(now, LAST_WORDS)
    now.send(b"last(500)\r")
    assert now.process.wait(60) == 0
    seen = now.console.read_rest()
    again = machine()
    last_line = LINES[499 * 65 : 500 * 65]
    seen += again.expect_exact(last_line) + last_line
    assert set(LINES.split()[:500]) <= set(seen.split())
