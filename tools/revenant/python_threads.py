"""Python's threads that wait while another one runs: where each goes on, read by the DWARF of the port that made them.

Promise: whatever memory holds, it ends. userland/thread.c keeps them in a ring, each with the registers that it needs
on its own stack; the one that runs has the registers of the process' kernel thread. Used by: inspection.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from revenant.python_heap import Read, layouts_of
from revenant.record import ThreadRegisters

THREAD_COUNT_MAX = 256
SWITCHED = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")
"""What port_stack_switch leaves on a stack, from its end on."""


def waiting_threads(program: Path, read: Read) -> Iterator[tuple[int, ThreadRegisters]]:
    """(its number, its registers) of each but the one that runs, in the order of their turns.

    program: its ELF file; KeyError where that is no such port.
    """
    layouts = layouts_of(program, ("port_thread_wait",))

    def member(thread: int, name: str) -> int:
        return int.from_bytes(read(thread + layouts.member(f"port_thread.{name}").offset, 8), "little")

    running = int.from_bytes(read(layouts.address["current"], 8), "little")
    thread = member(running, "next")
    for _ in range(THREAD_COUNT_MAX):
        if thread in (0, running):
            return
        stack = member(thread, "stack_pointer")
        values = {name: int.from_bytes(read(stack + 8 * n, 8), "little") for n, name in enumerate(SWITCHED)}
        empty = ThreadRegisters.unpack(bytes(ThreadRegisters.SIZE))
        yield member(thread, "id"), replace(empty, rsp=stack + 8 * len(SWITCHED), **values)
        thread = member(thread, "next")
