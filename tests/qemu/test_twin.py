"""The twin oracle (tools/revenant/crash/twin.py) on the kernel, and on kernels that were broken on purpose.

A kernel is broken while it runs: the debugger leaves out a call, or one of its executions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from revenant.crash.twin import RUN, run_twins
from revenant.crash.watched import Watched
from revenant.errors import RevenantError

CALL_SIZE = 5
NOTHING = b"\x90" * CALL_SIZE


def check(folder: Path, seed: int, crash_count: int) -> None:
    report = run_twins(folder, "mixture", seed, crash_count)
    assert report.freezes >= crash_count and report.steps >= 3
    assert report.pages >= 150 * crash_count, "hardly anything was compared"  # genesis alone has some 120
    assert report.registers > 0 and len(report.hashes) > 1


def test_a_program_that_is_cut_off_is_its_twin(tmp_path: Path, rng: random.Random) -> None:
    check(tmp_path, rng.getrandbits(32), 6)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(6))
def test_many_cuts(turn: int, tmp_path: Path, rng: random.Random) -> None:
    check(tmp_path, rng.getrandbits(32), 40)


# --- it can fail ---


def leave_out(watched: Watched, caller: str, file: str, callee: str, callee_file: str = "") -> None:
    """Every call of one function by another."""
    start, size = watched.kernel.symbol(caller, file), watched.kernel.size(caller, file)
    code, target = watched.read(start, size), watched.kernel.symbol(callee, callee_file)
    places = [
        start + at
        for at in range(size - CALL_SIZE + 1)
        if code[at] == 0xE8
        and start + at + CALL_SIZE + int.from_bytes(code[at + 1 : at + CALL_SIZE], "little", signed=True) == target
    ]
    assert places, f"{caller} does not call {callee}"
    for place in places:
        watched.debugger.write(place, NOTHING)


def without_floating_point(watched: Watched, stop: str, _: Mapping[str, int]) -> None:
    """Registers are saved, those of the floating point unit are not."""
    leave_out(watched, "registers_save", "schedule.c", "arch_fx_save")


def without_write_protection(watched: Watched, stop: str, _: Mapping[str, int]) -> None:
    """A freeze leaves pages writable."""
    leave_out(watched, "pager_work", "", "space_protect")


def without_registers(watched: Watched, stop: str, _: Mapping[str, int]) -> None:
    """A freeze takes the registers of an earlier one."""
    leave_out(watched, "proc_freezing", "", "registers_save", "schedule.c")


class SomePagesUnmarked:
    """One page in fifteen that a program writes is writable, but not on the dirty list.

    Such a kernel may come to mark the same page again and again.
    """

    NUMBER = 15
    STOP_COUNT_MAX = 3000  # in one life

    def __call__(self, watched: Watched, stop: str, registers: Mapping[str, int]) -> None:
        if stop == RUN:
            self.count = self.stop_count = 0
            watched.watch("page_mark_dirty")
            return
        self.stop_count += 1
        if self.stop_count > self.STOP_COUNT_MAX:
            raise RevenantError("the machine", "marks pages without end")
        back = int.from_bytes(watched.debugger.read(registers["rsp"], 8), "little")
        self.count += 0 <= back - watched.kernel.symbol("page_own") < watched.kernel.size("page_own")
        if self.count == self.NUMBER:
            self.count = 0
            watched.debugger.set_register("rsp", registers["rsp"] + 8)
            watched.debugger.set_register("rip", back)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (without_floating_point, "goes on with other registers: .*xmm"),
        (without_write_protection, "is not as it was frozen|does not have the hash"),
        (without_registers, "the program is at .*, its record at"),
        pytest.param(
            SomePagesUnmarked(), "is not as it was frozen|marks pages without end", marks=pytest.mark.slow
        ),
    ],
)
def test_a_broken_kernel_is_found(
    broken: Callable[[Watched, str, Mapping[str, int]], None], reason: str, tmp_path: Path, rng: random.Random
) -> None:
    with pytest.raises(RevenantError, match=reason):
        run_twins(tmp_path, "mixture", rng.getrandbits(32), 12, broken)
