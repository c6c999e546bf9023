"""The garbage collector's heap: what a collection makes dirty, keeps, and gives back. All exact, whatever the load.

A collection may write the marks of what lives, two bits for 32 bytes, and nothing else: with a snapshot every
100 ms, all that it writes is hashed and goes to the disk.
"""

from __future__ import annotations

import ast
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
