"""Processes and messages: spawn, fork, wait, kill, limits, what one can reach of another; and all of it across kill -9.

The ring: processes hand tokens round, each with a number that grows by one at every hop and a payload that belongs
to it; each process checks that a token comes back with exactly as many hops as the ring has members. A message that is
lost stops the ring, one that comes twice breaks it.
"""

from __future__ import annotations

import ast
import random
import re
import select
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.check import check_store
from revenant.machine import Machine
from revenant.qemu import ICOUNT
from revenant.record import ProcessRecord, ProcessState
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]

ESRCH, EAGAIN, ETIMEDOUT = 3, 11, 110
CUTS = 8

TOOLS = """\
import revenant, sys, time, random
from revenant import spawn, wait, kill, fork, send, receive, processes
def error_of(f, *args, **kw):
    try:
        f(*args, **kw)
    except Exception as e:
        return e.errno if isinstance(e, OSError) else type(e).__name__
def entry(id):
    return [p for p in processes() if p.id == id][0]
def answer(source, **kw):
    id = spawn('import revenant, sys\\n' + source, quiet=True, **kw)
    status = wait(id, 20000)
    return status, entry(id).error
"""


class Guest:
    """A machine at its prompt, with TOOLS."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        wait_for_prompt(machine)
        paste(machine, TOOLS)

    def __call__(self, expression: str, timeout_s: float = 40) -> Any:
        """The value of an expression."""
        text = self.machine.command_at_prompt(f"print(repr(({expression})))", timeout_s)
        assert not text.startswith("Traceback"), text
        return ast.literal_eval(text)

    def answer(self, source: str, **options: object) -> tuple[int, str]:
        """Status and last words of a process that runs this."""
        words = "".join(f", {name}={value!r}" for name, value in options.items())
        status, error = self(f"answer({source!r}{words})")
        return status, error or ""


@pytest.fixture
def python(machine: Start) -> Guest:
    """A fresh machine."""
    return Guest(machine())


def test_status_arguments_and_last_words(python: Guest) -> None:
    assert python.answer("pass") == (0, "")
    for code, status in (("3", 3), ("", 0), ("None", 0), ("-7", -7), ("'text'", 1)):
        assert python.answer(f"sys.exit({code})") == (status, ""), code
    status, error = python.answer("def f(x):\n  return 1 / x\nf(0)", name="divider")
    assert status == 1 and error.endswith("ZeroDivisionError: divide by zero\n")
    assert 'File "divider", line 4, in <module>' in error and 'File "divider", line 3, in f' in error
    status, error = python.answer("x = (")
    assert status == 1 and error.endswith("SyntaxError: invalid syntax\n")
    status, error = python.answer("def f(n):\n  f(n + 1)\nf(0)")  # more than the record keeps: the end of it
    assert len(error) == 503 and error.endswith("RuntimeError: maximum recursion depth exceeded\n")
    assert python.answer("input()")[1].endswith("EOFError: \n")
    assert python.answer("__import__('machine').reset()")[0] == 1
    code = "sys.argv == ['arguments', 1, [2.5, b'x'], {'a': None}] or 1 / 0"
    assert python.answer(code, name="arguments", args=(1, [2.5, b"x"], {"a": None})) == (0, "")


def test_an_end_is_told(python: Guest) -> None:
    """To who waits without end: nothing else would wake him."""
    assert python("wait(spawn('import time; time.sleep_ms(300)'))") == 0


def test_atexit(python: Guest) -> None:
    """Run at the end of a process, whatever ends it, and at a soft reset; only once, and it may fail."""
    say = "sys.atexit(lambda: revenant.send(revenant.parent_id(), 'left'))\n"
    for end, status in (("pass", 0), ("sys.exit(4)", 4), ("1 / 0", 1)):
        assert python.answer(say + end)[0] == status and python("receive(0)[1]") == "left"
    assert python.answer("sys.atexit(lambda: 1 / 0)") == (0, "")
    python.machine.command_at_prompt("sys.atexit(lambda: print('left'))")
    python.machine.send(b"\x04")
    python.machine.expect_exact(b"left\r\nMPY: soft reboot\r\n")
    wait_for_prompt(python.machine)
    python.machine.send(b"\x04")
    assert b"left" not in python.machine.expect_exact(b"MPY: soft reboot\r\n")


def test_what_spawn_refuses(python: Guest) -> None:
    assert python("answer('x = ' + repr('y' * 60000))") == (0, None)
    assert python("error_of(spawn, ' ' * 70000)") == "ValueError"
    assert python("error_of(spawn, 5), error_of(spawn, 'x', args=(print,))") == ("TypeError",) * 2
    assert python("[error_of(spawn, 'x', n) for n in ('', 'a' * 64, 'a\\n', 'a\\0b')]") == ["ValueError"] * 4
    assert python("error_of(spawn, 'x', memory=1000)") == "ValueError"
    assert python("len(processes())") == 2


WORKER = "import revenant\nif __name__ == '__main__': revenant.send(revenant.parent_id(), __name__)\n"


def test_a_module_is_spawned(python: Guest) -> None:
    paste(python.machine, f"with open('worker.py', 'w') as f: f.write({WORKER!r})\n")
    python.machine.command_at_prompt("import worker, aiorevenant")
    assert python("wait(spawn(worker))") == 0 and python("receive(0)[1]") == "__main__"
    assert python("wait(spawn(aiorevenant, quiet=True)), processes()[-1].name") == (0, "aiorevenant")


OUTER = """\
import revenant as r
def error_of(f, *a):
  try: f(*a)
  except OSError as x: return x.errno
inner = r.spawn('import time; time.sleep(1000)', 'inner')
seen = [p.name for p in r.processes()]
r.send(r.parent_id(), (inner, [error_of(r.kill, 1), error_of(r.wait, 1), error_of(r.kill, r.parent_id())], seen))
r.receive()
"""


def test_who_may_end_and_wait_for_whom(python: Guest) -> None:
    python.machine.command_at_prompt("p = spawn('while True: pass')")
    assert python("entry(p).state, error_of(wait, p, 50), kill(p), wait(p)") == ("running", ETIMEDOUT, None, -2)
    assert python("entry(p).error, kill(p), entry(p).pages") == ("killed", None, 0)
    bad = "[error_of(f, id) for f in (kill, wait) for id in (0, 2, 1000, 2**32, 2**63 - 1)]"
    assert python(bad) == [ESRCH] * 10
    outer = python(f"spawn({OUTER!r}, 'outer')")
    sender, (inner, errors, seen) = python("receive(9000)")
    assert sender == outer and errors == [ESRCH] * 3 and seen == ["outer", "inner"]
    assert python(f"entry({inner}).parent, kill({outer}), entry({inner}).parent") == (outer, None, 1)
    assert python(f"kill({inner}), wait({inner})") == (None, -2)


def test_fork(python: Guest) -> None:
    paste(python.machine, """
def forks(n):
    data = [bytes([i % 256]) * 1000 for i in range(4000)]
    same = [bytes([i]) * 1000 for i in range(256)]
    revenant.commit()
    free = revenant.stats()['near_blocks_free']
    children = []
    for i in range(n):
        child = fork()
        if child == 0:
            data[i] = b'mine'
            whole = all(d == same[j % 256] for j, d in enumerate(data) if j != i)
            send(revenant.parent_id(), (i, whole, random.getrandbits(30), revenant.process_id()))
            sys.exit(i)
        children.append(child)
    answers = sorted(receive(20000)[1] for i in range(n))
    ok = [a[0] for a in answers] == list(range(n)) and all(a[1] for a in answers)
    ok = ok and len({a[2] for a in answers} | {random.getrandbits(30)}) == n + 1
    ok = ok and sorted(children) == [a[3] for a in answers]
    return ok, [wait(c) for c in children], b'mine' in data, (free - revenant.stats()['near_blocks_free']) // n
""")
    ok, statuses, changed, blocks = python("forks(6)")
    assert ok and statuses == list(range(6)) and not changed
    assert blocks < 600, "4 MB of pages are shared until they are written"


FORKED_END = """
def forked(what):
    child = fork()
    if child == 0:
        exec(what)
        return
    status = wait(child)
    return status, entry(child).error or ''
"""


def test_how_forked_ones_end(python: Guest) -> None:
    paste(python.machine, FORKED_END)
    inner = "child = fork(); (child == 0 and sys.exit(9)); sys.exit(wait(child) + 1)"
    for what, status, words in (
        ("pass", 0, ""),
        ("input()", 1, "EOFError: \n"),
        ("1/0", 1, "ZeroDivisionError: divide by zero\n"),
        ("kill(revenant.process_id())", -2, "killed"),
        ("sys.exit(4)", 4, ""),
        (inner, 10, ""),
    ):
        python.machine.command_at_prompt(f"result = forked({what!r})")  # the child stores its own, and would prompt
        result = python("result")
        assert result[0] == status and result[1].endswith(words) and bool(result[1]) == bool(words), what


VALUES = [
    None, True, False, 0, -1, 2**62, -(2**62), 10**40, -(10**400), 0.1, -1e300, "", "hé\0\n", b"", bytes(range(256)),
    (), (1, (2,)), [], [[], [None]], {}, {"a": 1, 2: b"x", (3, None): [4.5]},
]  # fmt: skip


def test_what_messages_carry(python: Guest) -> None:
    for value in VALUES:
        assert python(f"send(1, {value!a}), receive(0)") == (None, (1, value))
    assert python("[send(1, float('inf')), receive(0)[1] > 1e308]") == [None, True]
    for bad in ("print", "bytearray(1)", "object()", "{1, 2}", "1j", "[range(3)]"):
        assert python(f"error_of(send, 1, {bad})") == "TypeError", bad
    assert python("[send(1, bytes(32750)), len(receive(0)[1]), error_of(send, 1, bytes(32760))]") == [
        None, 32750, "ValueError",
    ]  # fmt: skip
    assert python("[error_of(send, id, 1) for id in (0, 2, 77, 2**40, -1)]") == [ESRCH] * 5
    assert python("error_of(receive, 0), error_of(receive, 30)") == (ETIMEDOUT,) * 2
    child, message = python("spawn('import revenant; revenant.send(1, 7)', quiet=True), receive()")
    assert message == (child, 7) and child != 1
    now = python.machine
    now.command_at_prompt("deep = []")
    paste(now, "for i in range(9000): deep = [deep]\n")
    assert python("error_of(send, 1, deep)") in ("ValueError", "RuntimeError")


def test_a_full_inbox(python: Guest) -> None:
    paste(python.machine, """
def fill(id):
    n = 0
    while error_of(send, id, (n, bytes(1000)), 0) is None: n += 1
    return n
""")
    count = python("fill(1)")
    assert 60 < count < 65
    assert python("error_of(send, 1, bytes(1000), 20)") == ETIMEDOUT
    assert python("send(1, 'small')") is None  # there is room for it
    assert python(f"[receive(0)[1][0] for i in range({count})]") == list(range(count))
    assert python("[receive(0)[1], error_of(receive, 0)]") == ["small", ETIMEDOUT]
    # a sender that waits goes on as soon as there is room; one whose receiver ends is told
    slow = "import revenant as r, time\ntime.sleep_ms(100)\nfor i in range(200): r.receive()\nr.send(1, 'done')"
    assert python(f"[send(p, bytes(3000)) for p in (spawn({slow!r}),) for i in range(200)] == [None] * 200") is True
    assert python("receive(9000)[1], wait(processes()[-1].id, 9000)") == ("done", 0)
    full = "[p for p in r.processes() if p.id == r.process_id()][0].inbox > 60000"
    late = f"import revenant as r, time\nwhile not {full}: time.sleep_ms(5)\ntime.sleep_ms(100)"
    python.machine.command_at_prompt(f"p = spawn({late!r})")
    assert python("fill(p) > 50, error_of(send, p, bytes(9000))") == (True, ESRCH)


def test_asyncio(python: Guest) -> None:
    """Tasks that send, receive and wait at the same time as others sleep."""
    now = python.machine
    echo = "import sys, revenant as r\nwhile True:\n  s, v = r.receive()\n  if v is None: sys.exit(5)\n  r.send(s, v)"
    paste(now, f"""
import asyncio, aiorevenant
async def main():
    workers = [spawn({echo!r}) for i in range(3)]
    got, ticks = [], 0
    async def collect():
        for i in range(90): got.append(await aiorevenant.receive())
    async def feed(w):
        for i in range(30): await aiorevenant.send(w, (w, i, bytes(5000)))
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep_ms(5)
            ticks += 1
    ticker = asyncio.create_task(tick())
    await asyncio.gather(collect(), *(feed(w) for w in workers))
    for w in workers: send(w, None)
    statuses = await asyncio.gather(*(aiorevenant.wait(w) for w in workers))
    ticker.cancel()
    order = all([v[1] for s, v in got if s == w] == list(range(30)) for w in workers)
    return statuses, order, ticks > 0
""")
    assert python("asyncio.run(main())") == ([5, 5, 5], True, True)


def test_sleepers_cost_nothing(python: Guest) -> None:
    """Twenty processes that sleep or wait for a message: nothing is written, nothing is run."""
    paste(python.machine, """
def still(ms):
    begin = 'import revenant, time; revenant.send(1, 0); '
    ids = [spawn(begin + ('time.sleep(1000)', 'revenant.receive()')[i % 2]) for i in range(20)]
    for i in ids: receive()
    time.sleep_ms(500)
    revenant.commit()
    before = revenant.stats()
    time.sleep_ms(ms)
    after = revenant.stats()
    return [after[n] - before[n] for n in ('commits', 'faults')] + [kill(i) for i in ids][:0]
""")
    commits, faults = python("still(2000)")
    assert commits <= 4 and faults < 50


def test_memory_limits(python: Guest) -> None:
    """MemoryError for a program; the end of one that goes round the interpreter; nothing for all others."""
    grow = "x = []\nwhile True: x.append(bytes(10000))"
    status, error = python.answer(grow, memory=2 << 20)
    assert status == 1 and "MemoryError" in error
    assert "MemoryError" in python.answer("revenant.heap_limit(1 << 30)\n" + grow, memory=2 << 20)[1]
    inner = f"p = revenant.spawn({grow!r}, memory=1 << 30, quiet=True)\nsys.exit(revenant.processes()[1].memory >> 20)"
    assert python.answer(inner, memory=3 << 20) == (3, "")
    poke = "import machine\nmachine.mem32[0x3000000 + (2 << 20) - 4] = 1\nmachine.mem32[0x3000000 + (2 << 20)] = 1"
    status, error = python.answer(poke, memory=2 << 20)
    assert status == -1 and error.startswith("it touched memory that it has not")
    assert python("6 * 7") == 42


RUN_AWAY = """
def run_away():
    n = 0
    while True:
        try: spawn('import time; time.sleep(1000)', quiet=True)
        except OSError as e: return n, e.errno
        n += 1
"""


def test_runaway_spawn_in_little_memory(machine: Start) -> None:
    """As many as have room for their tables and some pages."""
    python = Guest(machine(memory_mib=16))
    paste(python.machine, RUN_AWAY)
    count, error = python("run_away()")
    assert error == EAGAIN and 20 < count < 64


def test_runaway_spawn(python: Guest) -> None:
    """It ends in an OSError; whoever runs goes on; when they have ended there is room again, also on the disk."""
    now = python.machine
    assert python("wait(spawn('pass'))") == 0
    paste(now, f"""{RUN_AWAY}
def free():
    for i in range(20): revenant.commit()
    return revenant.stats()['near_blocks_free'], revenant.stats()['frames_free']
before = free()
""")
    count, error = python("run_away()")
    assert error == EAGAIN and 20 < count < 256
    assert python("sum(p.state == 'running' for p in processes())") == count + 1
    assert python("error_of(spawn, 'pass'), error_of(fork)") == (EAGAIN, EAGAIN)
    assert python("{kill(p.id) or wait(p.id) for p in processes()[1:]} <= {0, -2}") is True
    after = python("free()")
    before = python("before")
    assert before[0] - after[0] < 1000 and before[1] - after[1] < 1500  # records and inboxes stay, 40 pages each do not
    assert python("[wait(spawn('pass', quiet=True)) for i in range(30)] == [0] * 30") is True
    assert len(python("[p.id for p in processes()]")) <= 256


def test_memory_of_another_is_out_of_reach(python: Guest) -> None:
    """A spawned process that looks at all its memory finds nothing of its parent, whose frames it may have got."""
    look = """
import uctypes
mark = bytes(c ^ 1 for c in %r)
found = 0
for start, end in ((0xe01000, 0x1000000), (0x3000000, 0x3000000 + (12 << 20))):
    for at in range(start, end, 4096):
        page = uctypes.bytes_at(at, 4096)
        place = page.find(mark)
        found += place >= 0 and page[place + len(mark) :].startswith(mark)
sys.exit(found)
"""
    now = python.machine
    masked = bytes(c ^ 1 for c in b"secret-of-the-parent")
    paste(now, f"mark = bytes(c ^ 1 for c in {masked!r})\ndata = [mark * 150 for i in range(500)]\n")
    paste(now, f"look = {look % masked!r}\n")
    paste(now, "def churn():\n    for i in range(6): child = fork(); (child == 0 and sys.exit(0)); wait(child)\n")
    assert python("churn()") is None
    assert python("answer(look)", 90) == (0, None)
    python.machine.command_at_prompt("child = fork(); child == 0 and exec(look)")  # it may know: it is the same
    assert python("wait(child)", 90) > 10


def test_an_image_without_a_template(
    machine: Start, build_files: genesis.BuildFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As images were made before there were processes: spawn says so, fork works."""
    real = genesis.process_record

    def process_record(program: genesis.Program, slot: int) -> ProcessRecord:
        record = real(program, slot)
        return replace(record, state=ProcessState.FREE) if program.is_template else record

    monkeypatch.setattr(genesis, "process_record", process_record)
    genesis.create_image(tmp_path / "old.img", build_files, 64 << 20)
    python = Guest(machine(tmp_path / "old.img"))
    assert "without a template" in python.machine.command_at_prompt("spawn('pass')")
    python.machine.command_at_prompt("child = fork(); child == 0 and sys.exit(6)")
    assert python("wait(child)") == 6


# --- across power cuts ---

RING = """\
import revenant, sys
from revenant import spawn, send, receive, fork, wait
MEMBER = '''
import revenant, sys, random
size, tokens = sys.argv[1:]
sender, next = revenant.receive()
seen = {}
def hop(token, number, payload):
    assert payload == bytes([number % 256]) * (number * 7919 % 2500), 'payload'
    assert number == seen.get(token, number - size) + size, (token, number, seen)
    seen[token] = number
    number += 1
    revenant.send(next, (token, number, bytes([number % 256]) * (number * 7919 % 2500)))
def go():
    while True:
        hop(*revenant.receive()[1])
if not sys.argv[0].startswith('first'): go()
'''
def ring(size, tokens):
    members = [spawn(MEMBER, 'member', args=(size, tokens)) for i in range(size - 1)]
    for id, next in zip(members, members[1:] + [revenant.process_id()]): send(id, next)
    place = {'__name__': 'x'}
    sys.argv[:] = ['first', size, tokens]
    send(revenant.process_id(), members[0])
    exec(MEMBER, place)
    number = size + 1
    for token in range(tokens): send(members[0], (token, number, bytes([number]) * (number * 7919 % 2500)))
    step = 0
    while True:
        for i in range(tokens): place['hop'](*receive()[1])
        step += 1
        if step % 3 == 0:
            child = fork()
            if child == 0: sys.exit(step % 100)
            assert wait(child) == step % 100
        if step % 4 == 0:
            assert wait(spawn('import sys; sys.exit(sys.argv[1])', args=(step % 100,))) == step % 100
        broken = [p for p in revenant.processes() if p.name == 'member' and p.state == 'ended']
        print('step', step, 'broken' if broken else 'whole', broken)
"""
LINE = re.compile(rb"step (\d+) (whole|broken) (.*)\r\n")


def watch(machine: Machine, last: int, count: int) -> int:
    """`count` lines of the ring, none of which is left out; at least one is new. Returns the last step."""
    previous: int | None = None
    first_new = last + 1
    while count > 0 or last < first_new:
        machine.console.expect(LINE, 40)
        match = machine.console.match
        assert isinstance(match, re.Match)
        step = int(match.group(1))
        assert match.group(2) == b"whole", match.group(3)
        assert step <= last + 1 and previous in (None, step - 1)
        previous, last, count = step, max(last, step), count - 1
    return last


def cut_while_it_counts(
    machine: Start, image: Path, rng: random.Random, program: str, most: int, intervals_ms: tuple[int, ...]
) -> None:
    """Power cuts soon after fewer than `most` further steps were seen; each image is sound, each life goes on."""
    now = machine(interval_ms=10)
    wait_for_prompt(now)
    *definition, call = program.rsplit("\n", 1)
    paste(now, *definition)
    now.send(call.encode() + b"\r")
    last = 0
    for _ in range(CUTS):
        last = watch(now, last, rng.randrange(1, most))
        select.select([], [], [], rng.uniform(0, 0.15))
        now.kill()
        for match in LINE.finditer(now.rest):
            last = max(last, int(match.group(1)))
        with Store(image) as store:
            check_store(store)
        now = machine(interval_ms=rng.choice(intervals_ms))
    watch(now, last, most)


@pytest.mark.parametrize("part", range(2))
def test_the_ring_across_power_cuts(machine: Start, image: Path, rng: random.Random, part: int) -> None:
    cut_while_it_counts(machine, image, rng, RING + "\nring(4, 5)", most=12, intervals_ms=(1, 10, 100))


FORKS = """\
import revenant, sys
def go():
    step = 0
    while True:
        step += 1
        child = revenant.fork()
        if child == 0: sys.exit(step % 100)
        print('step', step, 'whole' if revenant.wait(child) == step % 100 else 'broken', '')
"""


def test_forks_across_power_cuts(machine: Start, image: Path, rng: random.Random) -> None:
    """Most of the time the only snapshots are those that fork itself asks for: each cut falls into one."""
    cut_while_it_counts(machine, image, rng, FORKS + "\ngo()", most=2, intervals_ms=(0, 1, 10))


def test_ended_processes_and_their_words_outlive_the_power(machine: Start, rng: random.Random) -> None:
    now = machine()
    wait_for_prompt(now)
    paste(now, TOOLS)
    now.command_at_prompt("ids = [spawn('1/0', 'bad', quiet=True), spawn('import time; time.sleep(1000)', 'good')]")
    now.command_at_prompt("send(ids[1], 'kept'); send(1, 'mine'); _ = wait(ids[0]), revenant.commit()")
    now.kill()
    now = machine()
    wait_for_prompt(now)
    assert now.command_at_prompt("[(p.name, p.state, p.status) for p in processes()]") == str(
        [("python", "running", None), ("bad", "ended", 1), ("good", "running", None)]
    )
    assert now.command_at_prompt("entry(ids[0]).error.split()[-1], entry(ids[1]).inbox > 0, receive(0)[1]") == (
        "('zero', True, 'mine')"
    )
    assert now.command_at_prompt("kill(ids[1]), wait(ids[1]), revenant.commit() > 0") == "(None, -2, True)"


def test_each_process_is_told_of_a_resume(machine: Start) -> None:
    now = machine()
    wait_for_prompt(now)
    paste(now, TOOLS)
    source = "import revenant as r, time\nr.on_resume(lambda why: r.send(1, why))\nr.send(1, 0)\nwhile 1: time.sleep(9)"
    now.command_at_prompt(f"ids = [spawn({source!r}) for i in range(3)]; [receive() for i in ids]; revenant.commit()")
    now.kill()
    now = machine()
    wait_for_prompt(now)
    assert now.command_at_prompt("sorted(receive(9000) for i in ids) == [(i, 'restart') for i in ids]") == "True"
    assert now.command_at_prompt("error_of(receive, 300)") == str(ETIMEDOUT)


BUSY = """\
import revenant as r
r.send(1, 'ready')
r.receive()
n, done = 0, False
while not done:
    n += 1
    if n % 256 == 0:
        try: done = r.receive(0) is not None
        except OSError: pass
r.send(1, n)
"""


def test_a_busy_process_leaves_time_to_others(machine: Start) -> None:
    """Three that never wait, and the prompt still answers; each makes about the same progress, in guest time."""
    now = machine(extra=ICOUNT)
    wait_for_prompt(now)
    paste(now, TOOLS)
    now.command_at_prompt(f"ids = [spawn({BUSY!r}) for i in range(3)]")
    assert now.command_at_prompt("[receive()[1] for i in ids]") == "['ready', 'ready', 'ready']"
    now.command_at_prompt("for i in ids: send(i, 0)\r")
    now.command_at_prompt("time.sleep_ms(400)")
    now.command_at_prompt("for i in ids: send(i, 0)\r")
    counts = ast.literal_eval(now.command_at_prompt("[receive(9000)[1] for i in ids]"))
    assert max(counts) < 2 * min(counts), counts
