"""Python's threads: they take turns, hold locks, wait and collect; and each goes on where it was after kill -9.

Upstream's own tests of `_thread` are in tests/upstream; here is what they do not know of: power cuts, forks, the prompt
that goes on beside, memory limits. Called by: pytest.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any

from revenant.machine import Machine
from revenant.script import paste, wait_for_prompt

TIMEOUT_S = 60

PROGRAM = """\
import _thread, gc, revenant, sys, time
lock, own = _thread.allocate_lock(), _thread.allocate_lock()
own.acquire()
pair, wrong, idents = [0, 0], [], set()
def locked():
    with lock:
        pair[0] += 1
        for _ in range(2000): pass
        pair[1] += 1
        pair[0] == pair[1] or wrong.append(tuple(pair))
def asleep():
    time.sleep_ms(3)
def received():
    revenant.send(revenant.process_id(), counts['received'])
    if revenant.receive()[1] != counts['received']: wrong.append('message')
def deep(n, held):
    if n == 0:
        gc.collect()
        return 0
    return held[0] + deep(n - 1, [n - 1])
def collected():
    if deep(40, [40]) != 820: wrong.append('collected')
    [[i] for i in range(300)]
def count(work):
    idents.add(_thread.get_ident())
    while True:
        work()
        counts[work.__name__] += 1
works = locked, locked, asleep, received, collected
counts = {work.__name__: 0 for work in works}
for work in works: _thread.start_new_thread(count, (work,))
def all_go_on():
    before = dict(counts)
    while any(counts[name] < before[name] + 5 for name in before): time.sleep_ms(1)
    return len(idents), wrong
def forked():
    child = revenant.fork()
    if child: return revenant.wait(child, 30000)
    sys.exit(len(repr(all_go_on())))
"""
ALL_WELL = (5, [])


def value(machine: Machine, expression: str) -> Any:
    """Of an expression, at the prompt."""
    return ast.literal_eval(machine.command_at_prompt(expression, TIMEOUT_S))


def test_threads_go_on(machine: Callable[..., Machine]) -> None:
    """While the prompt answers, after a cut, in a fork; Ctrl-C is the main thread's; a soft reset ends them."""
    now = machine()
    wait_for_prompt(now)
    paste(now, PROGRAM)
    assert value(now, "all_go_on()") == ALL_WELL
    before = value(now, "counts")
    now.kill()
    now = machine()
    wait_for_prompt(now)
    after = value(now, "counts")
    assert all(after[name] >= before[name] for name in before)
    assert value(now, "all_go_on()") == ALL_WELL
    assert value(now, "forked()") == len(repr(ALL_WELL))
    for wait in (b"time.sleep(1000)", b"own.acquire()", b"exec('while True: pass')"):
        now.send(b"print('wait' 'ing'); " + wait + b"\r")
        now.expect_exact(b"waiting\r\n")
        now.send(b"\x03")
        now.expect_exact(b"KeyboardInterrupt")
        wait_for_prompt(now)
    assert value(now, "all_go_on()") == ALL_WELL
    now.send(b"\x04")
    now.expect_exact(b"MPY: soft reboot\r\n")
    wait_for_prompt(now)
    assert "NameError" in now.command_at_prompt("counts")


LIMITS = """\
import _thread, revenant, sys, time
def error_of(size):
    _thread.stack_size(size)
    try:
        _thread.start_new_thread(time.sleep, (0,))
    except OSError as e:
        return e.errno
def as_many_as_fit():
    _thread.stack_size(0)
    lock, count = _thread.allocate_lock(), 0
    lock.acquire()
    try:
        while True:
            _thread.start_new_thread(lambda: lock.acquire() and lock.release(), ())
            count += 1
    except OSError:
        lock.release()
    return count
"""


def test_limits(machine: Callable[..., Machine]) -> None:
    """Stacks count as heap and are given back; what a thread raises is told and ends it alone."""
    now = machine()
    wait_for_prompt(now)
    paste(now, LIMITS)
    assert value(now, "error_of(-1), error_of(1 << 62), error_of(1 << 40), error_of(1)") == (12, 12, 12, None)
    now.command_at_prompt("limit = revenant.heap_limit(4 << 20)")
    first, second = value(now, "as_many_as_fit()"), value(now, "as_many_as_fit()")
    assert 4 < first < 14 and second >= first - 1
    said = now.command_at_prompt("id = _thread.start_new_thread(lambda: 1 / 0, ()); time.sleep_ms(1)")
    assert re.search(r"Unhandled exception in thread started by <function.*ZeroDivisionError", said, re.DOTALL)


WAITS = """\
import _thread, micropython, revenant, sys, time
slept, ids, lines, turns = [], [], [], [0]
def busy():
    while True: turns[0] += 1
def callback(timeout_ms):
    time.sleep_ms(timeout_ms)
    slept.append(timeout_ms)
def scheduled():
    id = _thread.start_new_thread(busy, ())
    micropython.schedule(callback, 20)
    while not slept: pass
    return slept
def fork(end):
    child = revenant.fork()
    if child == 0: return end()
    ids.append(child)
def status(end):
    ids.clear()
    _thread.start_new_thread(fork, (end,))
    while not ids: time.sleep_ms(1)
    return revenant.wait(ids[0], 30000)
def division():
    try:
        1 / 0
    except OSError:
        pass
def error():
    return [p.error for p in revenant.processes() if p.id == ids[0]]
@micropython.native
def compiled(count, called):
    before = turns[0]
    for i in range(count):
        if called is not None: called(0)
    return turns[0] - before
def ask():
    lines.append(input('asking'))
"""


def test_where_others_wait(machine: Callable[..., Machine]) -> None:
    """A callback that waits goes on; compiled code gives turns where it calls; a thread's fork ends with it, as
    programs do; a line is one thread's at a time."""
    now = machine()
    wait_for_prompt(now)
    paste(now, WAITS)
    assert value(now, "scheduled()") == [20]
    assert value(now, "compiled(100000, None)") == 0
    assert value(now, "compiled(100, time.sleep_ms)") > 0
    assert value(now, "[status(end) for end in (lambda: 1, sys.exit, lambda: sys.exit(7))]") == [0, 0, 7]
    said = now.command_at_prompt("ended = status(division)")
    assert "Unhandled exception in thread started by <function fork" in said
    assert value(now, "ended") == 1
    assert "ZeroDivisionError" in now.command_at_prompt("error()")
    now.send(b"print('go'); id = _thread.start_new_thread(ask, ()); lines.append(input())\r")
    now.expect_exact(b"asking")
    now.send(b"one\rtwo\r")
    wait_for_prompt(now)
    assert value(now, "sorted(lines)") == ["one", "two"]


def test_a_silent_machine_has_said_all(machine: Callable[..., Machine]) -> None:
    """What a thread wrote comes out when all wait, also where it waits for a lock or has ended."""
    now = machine()
    wait_for_prompt(now)
    now.command_at_prompt("import _thread; lock = _thread.allocate_lock(); taken = lock.acquire()")
    for end in ("", "; lock.acquire()"):
        program = f"import sys, time; time.sleep_ms(20); sys.stdout.write('wr' 'itten'){end}"
        now.send(f"id = _thread.start_new_thread(exec, ({program!r}, ))\r".encode())
        now.expect_exact(b"written")
