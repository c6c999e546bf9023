"""The garbage collector's heap: what a collection makes dirty, keeps, and gives back. All exact, whatever the load.

A collection may write the marks of what lives, two bits for 32 bytes, and nothing else: with a snapshot every
100 ms, all that it writes is hashed and goes to the disk.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable

from revenant.machine import Machine
from revenant.script import paste, wait_for_prompt

SECOND_AREA = 0x3000000 + (512 << 10)
TOOLS = f"""
import gc, revenant, uctypes
def first_of_an_area():
    held = [None] * 30000
    i = 0
    t = None
    while id(t) < {SECOND_AREA}:
        i += 1
        t = held[i] = (i, 7)
    held = None
    gc.collect()
    others = [(0, 0) for _ in range(9)]
    return t[0] == i and t[1] == 7
def dirtied():
    gc.collect()
    revenant.commit()
    before = revenant.stats()['pages_dirty']
    gc.collect()
    return revenant.stats()['pages_dirty'] - before, gc.mem_alloc()
"""
FILL = """
held = [[i] for i in range(20000)], [bytearray(131072) for _ in range(96)]
held[1][-1][9] = 1
"""
TABLE_SHARE = 128  # bytes of the heap for each byte of marks
PAGES_BESIDES = 20  # both ends of each area's table, headers, stack, the interpreter's own


PACE = """
def collections(kib, step_kib):
    count = 0
    before = gc.mem_alloc()
    for _ in range(kib // step_kib):
        for _ in range(step_kib):
            bytes(1000)
        after = gc.mem_alloc()
        count += after < before
        before = after
    return count
def dirtied_by(kib):
    revenant.commit()
    before = revenant.stats()['pages_dirty']
    for i in range(kib * 8):
        (i, i)
    return revenant.stats()['pages_dirty'] - before
"""
CHECKED = """
import random
def filled(size, i):
    return bytes([i & 255]) * size
def left_behind():
    random.seed(SEED)
    sizes = [random.choice((1, 20, 40, 100, 900, 5000)) + random.randrange(70) for _ in range(600)]
    held = [filled(size, i) for i, size in enumerate(sizes)]
    for _ in range(400):
        held[random.randrange(len(held))] = None
    for _ in range(2):
        gc.collect()
        quick = gc.mem_alloc()
    open('/f', 'w')
    gc.collect()
    slow = gc.mem_alloc()
    good = all(b is None or b == filled(sizes[i], i) for i, b in enumerate(held))
    again = [filled(size, i + 1) for i, size in enumerate(sizes)]
    good = good and all(b is None or b == filled(sizes[i], i) for i, b in enumerate(held))
    return good, quick - slow
def more_than_the_stack_of_marks_holds():
    held = [(i, filled(40, i)) for i in range(4000)]
    gc.collect()
    again = [filled(40, 0) for i in range(8000)]
    return all(b == (i, filled(40, i)) for i, b in enumerate(held))
def finalised():
    open('/f', 'w').write('seen')
    again = [open('/f') for i in range(3)]
    again = None
    gc.collect()
    return open('/f').read()
"""


def heap_size_with(now: Machine, held_size: int) -> int:
    """In units of the first area, rounded up, after a collection with so many bytes in use."""
    now.command_at_prompt(f"some = bytearray({held_size}); import micropython; collected = gc.collect()")
    said = now.command_at_prompt("micropython.mem_info()")
    now.command_at_prompt("some = None")
    found = re.search(r"GC: total: (\d+)", said)
    assert found, said
    return -(-int(found[1]) // (512 << 10))


def test_collections(machine: Callable[..., Machine]) -> None:
    """Small first; marks only; empty areas become zero; an object alone in its area stays."""
    now = machine(interval_ms=0)
    wait_for_prompt(now)
    paste(now, TOOLS)
    assert [heap_size_with(now, held_size) for held_size in (0, 40 << 10, 80 << 10)] == [1, 1, 2]
    for last_of_them in ("held = None; collected = gc.collect()", "\x04"):
        paste(now, FILL)
        dirty_count, heap_size = ast.literal_eval(now.command_at_prompt("dirtied()"))
        assert heap_size > 12 << 20
        assert heap_size / TABLE_SHARE / 4096 / 2 < dirty_count < heap_size / TABLE_SHARE / 4096 + PAGES_BESIDES
        where = now.command_at_prompt("uctypes.addressof(held[1][-1])")
        assert now.command_at_prompt(f"any(uctypes.bytes_at({where}, 131072))") == "True"
        now.send(last_of_them.encode() + b"\r")
        wait_for_prompt(now)
        now.command_at_prompt("import uctypes")
        assert now.command_at_prompt(f"any(uctypes.bytes_at({where}, 131072))") == "False"
    paste(now, TOOLS)
    assert now.command_at_prompt("first_of_an_area()") == "True"


def test_pace(machine: Callable[..., Machine]) -> None:
    """Little that lives: the same pages again. Much: as rarely as without. gc.threshold() is the program's."""
    now = machine(interval_ms=0)
    wait_for_prompt(now)
    paste(now, TOOLS + PACE)
    now.command_at_prompt("dirtied_by(100)")
    dirty_count = int(now.command_at_prompt("dirtied_by(4096)"))
    assert 20 <= dirty_count <= 80, "the first area has 128 pages"
    assert 4096 // 256 <= int(now.command_at_prompt("collections(4096, 16)")) <= 4096 // 128
    assert now.command_at_prompt("gc.threshold()") == "-1"
    now.command_at_prompt("gc.threshold(32768)")
    assert 4096 // 64 <= int(now.command_at_prompt("collections(4096, 16)")) <= 4096 // 24
    assert now.command_at_prompt("gc.threshold()") == "32768"
    now.command_at_prompt("gc.threshold(-1); gc.disable(); gc.collect()")
    assert now.command_at_prompt("gc.threshold(), collections(4096, 16)") == "(-1, 0)"
    now.command_at_prompt("gc.enable(); held = [bytearray(1 << 20) for _ in range(8)]; collected = gc.collect()")
    assert 2 <= int(now.command_at_prompt("collections(20480, 512)")) <= 5, "of 16 MiB the half is free"


def test_the_same_is_left(machine: Callable[..., Machine], rng: random.Random) -> None:
    """Objects of all sizes, most of them dead: ours leaves what upstream does, which runs where a finaliser is due."""
    now = machine(interval_ms=0)
    wait_for_prompt(now)
    paste(now, TOOLS + f"SEED = {rng.getrandbits(30)}" + CHECKED)
    assert now.command_at_prompt("more_than_the_stack_of_marks_holds()") == "True"
    now.command_at_prompt("left_behind()")  # names and their like are made once
    for _ in range(2):
        now.command_at_prompt("SEED += 1")
        assert now.command_at_prompt("left_behind()") == "(True, 0)"
    assert now.command_at_prompt("finalised()") == "'seen'"
