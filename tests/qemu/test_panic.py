"""What the kernel says of a panic or of a stopped program becomes names and lines, or the reason why it cannot.

A panic is provoked by QMP's inject-nmi: an NMI always panics (kernel/arch/x86_64/trap.c).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from revenant.errors import MachineError
from revenant.machine import EXIT_ENDED, EXIT_PANIC, ConsoleStream, Machine, explain_exit
from revenant.pytest_plugin import MachineUnderTest
from revenant.script import wait_for_prompt

IDLE = r"  ffffffff8[0-9a-f]{7}  arch_idle\+0x[0-9a-f]+  kernel/arch/x86_64/cpu\.c:\d+\n"
# innermost first; between the handler and the program's place, what the compiler did not inline
FRAMES = (
    rf"at:\n{IDLE}called from, innermost first:\n"
    r"  \w+  panic\+0x[0-9a-f]+  kernel/lib/log\.c:\d+\n"
    r"(?:  \w+  \w+\+0x[0-9a-f]+  kernel/arch/x86_64/trap\.c:\d+\n)+"
    r"  \w+  kernel_entry\+0x[0-9a-f]+  kernel/arch/x86_64/entry\.asm:\d+\n"
    rf"{IDLE}"
    r"  \w+  proc_\w+\+0x[0-9a-f]+  kernel/proc/schedule\.c:\d+\n"
)


def stop_while_idle(machine: Machine) -> None:
    """At moments, until its CPU is halted."""
    end_s = time.monotonic() + 60
    machine.qmp("stop")
    while "HLT=1" not in machine.qmp("human-monitor-command", **{"command-line": "info registers"}):
        assert time.monotonic() < end_s, "the CPU is never idle"
        machine.qmp("cont")
        machine.qmp("stop")


def nmi_while_idle(machine: Machine) -> None:
    """Stops the machine, and lets it go on with an NMI."""
    stop_while_idle(machine)
    with contextlib.suppress(Exception):  # QEMU ends before it answers
        machine.qmp("inject-nmi")
        machine.qmp("cont")


@pytest.fixture
def panicked(machine: Callable[..., Machine]) -> Machine:
    """A machine that an NMI ended while its program waited for input."""
    running = machine()
    wait_for_prompt(running)
    nmi_while_idle(running)
    assert running.wait() == EXIT_PANIC
    return running


def test_panic_has_names_and_lines(panicked: Machine) -> None:
    report = panicked.report()
    assert "panic: NMI in the kernel" in report and str(panicked.config.near) in report
    assert re.search(FRAMES, report), report
    assert re.search(r"\ngeneration \d+ is durable; .*; \d+ pages dirty since\nlast 64 events", report), report
    assert re.search(r"code of ffffffff8\w+:\n  kernel/arch/x86_64/cpu\.c:\d+: .*\n", report), report
    assert len(re.findall(r"\n  \[ *\d+\.\d{6}\] (?:freeze|commit|durable|page in|resume|said)", report)) >= 10


def test_run_says_them_too(panicked: Machine) -> None:
    error = explain_exit(panicked.config, EXIT_PANIC, panicked.voice)
    assert error is not None and "panic: NMI in the kernel" in str(error)
    assert re.search(FRAMES, error.details), error.details


def test_script_is_cut_short(machine: Callable[..., Machine]) -> None:
    running = machine()
    wait_for_prompt(running)
    nmi_while_idle(running)
    with pytest.raises(MachineError) as caught:
        ConsoleStream(running).read(1 << 20)
    assert caught.value.exit_status == 3 and re.search(FRAMES, caught.value.details)


def set_stack_pointer(machine: Machine, stub: Path, address: int) -> None:
    """By QEMU's stub for GDB: its remote protocol's packet "P" (allowed after the first); RSP is register 7.

    The machine is idle then: a program's stack pointer would be its own.
    """
    stop_while_idle(machine)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(stub))
        for packet in (b"qXfer:features:read:target.xml:0,10", b"P7=" + address.to_bytes(8, "little").hex().encode()):
            connection.sendall(b"+$%s#%02x" % (packet, sum(packet) % 256))
            answer = b""
            while not re.search(rb"\$.*#..", answer):
                answer += connection.recv(1000)
        assert b"$OK#" in answer, answer
    machine.qmp("cont")


def test_a_full_kernel_stack_is_a_panic(machine: Callable[..., Machine], build: Path, tmp_path: Path) -> None:
    """The page below the stack is not there: a fault that has no room for its frame, on a stack of its own."""
    with (build / "kernel.elf").open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        guard = symbols.get_symbol_by_name("kernel_stack_guard")[0]["st_value"]
    stub = tmp_path / "stub"
    running = machine(extra=("-gdb", f"unix:{stub},server=on,wait=off", "-no-reboot"))
    wait_for_prompt(running)
    set_stack_pointer(running, stub, guard + 4096 + 16)
    running.send(b"x")  # an interrupt
    assert running.wait() == EXIT_PANIC
    assert "panic: double fault in the kernel" in running.voice


def test_another_kernel_has_no_names(
    panicked: Machine, build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "userland").mkdir()
    shutil.copy(build / "userland/micropython.elf", tmp_path / "userland")
    other = bytearray((build / "kernel.elf").read_bytes())
    other[0x3000] ^= 1  # within .text
    (tmp_path / "kernel.elf").write_bytes(other)
    monkeypatch.setenv("REVENANT_BUILD", str(tmp_path))
    report = panicked.report()
    assert f"no names: {panicked.config.near} runs other code than {tmp_path / 'kernel.elf'}" in report
    assert "arch_idle" not in report


FAULT = """import revenant, uctypes
def fault(depth):
    return fault(depth - 1) if depth else uctypes.bytearray_at(8, 1)[0]

"""


def test_stopped_program(machine: MachineUnderTest) -> None:
    """A process that is too deep to be told whole, then the machine's own."""
    machine.python(FAULT + f"child = revenant.spawn({FAULT + 'fault(100)'!r})\nrevenant.wait(child)")
    deep = machine.running.report()
    assert "there are more callers: the kernel printed only this much of the stack" in deep
    machine.send("fault(3)\r")
    assert machine.running.wait() == EXIT_ENDED
    error = explain_exit(machine.running.config, EXIT_ENDED, machine.running.voice)
    assert error is not None and "no program is left" in str(error)
    stack = error.details.split("at:\n")[2]
    place = r"  0{10}[0-9a-f]{6}  %s\+0x[0-9a-f]+  (?:\S+/)?%s:\d+\n"
    assert re.match(place % (r"\w+", r"py/\w+\.[ch]") + "called from, innermost first:\n", stack)
    assert re.search(place % ("main", r"userland/main\.c") + r"  0{10}[0-9a-f]{6}  _start\+0x[0-9a-f]+\n", stack), stack
    assert len(re.findall(place % ("fun_bc_call", r"py/objfun\.c"), stack)) == 3 + 2, "fault(3) … fault(0), the prompt"
    assert re.search(r"code of [0-9a-f]{6}:\n(?:     0{10}\w{6}  \w.*\n)+  -> 0{10}\w{6}  mov\w* .*\[", stack)
