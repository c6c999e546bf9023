"""`revenant debug`: gdb from before the first instruction on, with names of kernel and programs, and rv-* commands."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect.fdpexpect
from revenant.check import check_store
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
STOPS = (
    "info registers rip",
    "rv-frames",
    "thbreak kernel_main",
    "continue",
    "backtrace",
    "rv-frames",
    "rv-threads",
    "thbreak pager_want_commit",  # the program's first output
    "continue",
    "backtrace 12",
    "rv-threads",
    "rv-space 0",
    "rv-tree",
    "rv-frames",
)


def test_a_machine_in_gdb(image: Path, run_revenant: Run) -> None:
    words = [word for stop in STOPS for word in ("--command", stop)]
    result = run_revenant("debug", image, "--console", "none", *words)
    assert result.returncode == 0
    said = result.stdout
    assert re.search(r"rip +0xfff0\b", said), "stopped at the reset vector"
    assert re.search(r"kernel_main \(info=.*\) at kernel/main\.c:\d+", said)
    assert re.search(r"#1 .* in boot_high \(\) at kernel/arch/x86_64/boot_high\.asm:\d+", said)
    assert "warning" not in result.stderr
    before, after = said.split("Temporary breakpoint 2")
    for nothing in ("the kernel is not there yet (", "memory is not set up yet", "no thread: no generation is resumed"):
        assert result.stderr.count(nothing) == 1, nothing
    assert not re.search(r"^[ *] +0 +1 +1 python", before, re.MULTILINE), "no thread before the generation is resumed"
    assert re.search(r"#1 .* sys_console_write .* at kernel/proc/syscall\.c:\d+", after)
    assert re.search(r"in port_console_flush \(\) at userland/console\.c:\d+|at userland/console\.c:\d+", after)
    assert re.search(r"^\*  0 +1 +1 python +ready +0x[0-9a-f]+ mp_hal_\w+", after, re.MULTILINE)
    space = re.search(r"process slot 0: space 16, CR3 0x\w+, \d+ pages in RAM, [1-9]\d* dirty in epoch (\d+)\n", after)
    assert re.search(r" 0x400000 \.\. +0x\w+  r-x\n", after)
    durable = re.search(r"durable: generation (\d+), root sequence \d+, \d+ of 16384 blocks free\n", after)
    assert space and durable and int(space[1]) - int(durable[1]) in (1, 2)  # 2: a snapshot by the interval is under way
    assert re.search(rf"tree:   store 0, block \d+, level \d, written by generation {durable[1]}\b", after)
    assert re.search(r"\n  page dirty +[1-9]\d*\n", after) and re.search(r"\n  record clean +[1-9]\d*\n", after)
    with Store(image) as store:
        check_store(store)


def test_ctrl_c_stops_the_machine(image: Path, run_revenant: Run) -> None:
    """Not the command; and while it has the image, who else wants it is told."""
    words = ["-m", "revenant", "debug", str(image), "--console", "none"]
    gdb = pexpect.spawn(sys.executable, words, timeout=60)
    gdb.expect_exact(b"(gdb) ")
    for _ in range(2):
        gdb.send(b"continue\r")
        gdb.expect_exact(b"Continuing.")
        gdb.send(b"\x03")
        gdb.expect_exact(b"SIGINT, Interrupt.")
        gdb.expect_exact(b"(gdb) ")
    for refused in (("debug", image, "--command", "quit"), ("run", "--near", image, "--console", "pty")):
        result = run_revenant(*refused)
        assert result.returncode == 1 and "in use by" in result.stderr and "Traceback" not in result.stderr
    gdb.send(b"quit\r")
    gdb.expect(pexpect.EOF)
    gdb.wait()
    assert gdb.exitstatus == 0


def test_names_of_another_build_are_refused(
    image: Path, build: Path, tmp_path: Path, run_revenant: Run
) -> None:
    (tmp_path / "userland").mkdir()
    for name in ("kernel.elf", "userland/micropython.elf"):
        other = bytearray((build / name).read_bytes())
        other[0x3000] ^= 1  # within .text
        (tmp_path / name).write_bytes(other)
    result = run_revenant("debug", image, "--dry-run", env={"PATH": "/usr/bin:/bin", "REVENANT_BUILD": str(tmp_path)})
    assert result.returncode == 0 and ".elf" not in result.stdout
    assert "no names of the kernel" in result.stderr and "no names of programs" in result.stderr


def test_a_recorded_run_repeats(tmp_path: Path, run_revenant: Run, start_revenant: Callable[..., Any]) -> None:
    image, run, repeated, program = (tmp_path / name for name in ("m.img", "run", "repeated", "main.py"))
    program.write_text("import os, time\nprint(os.urandom(8), time.time_ns(), time.ticks_us())\n")
    assert run_revenant("create", image, "--size", "64M", "--add", program).returncode == 0
    process = start_revenant("debug", image, "--record", run, stdout=subprocess.PIPE, text=True)
    terminal = os.open(process.stdout.readline().strip(), os.O_RDWR | os.O_NOCTTY)
    client = pexpect.fdpexpect.fdspawn(terminal, timeout=60)
    client.logfile_read = io.BytesIO()
    client.expect_exact(b">>> ")
    client.send(b"6*7\r")
    client.expect_exact(b"42\r\n>>> ")
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0
    commands = ("hbreak console_write", "continue", "backtrace 3", "delete", "continue")
    options = [word for command in commands for word in ("--command", command)]
    result = run_revenant("debug", run, "--console", repeated, *options)
    assert re.search(r"#1 .* sys_console_write ", result.stdout), result.stderr
    assert repeated.read_bytes() == client.logfile_read.getvalue()
