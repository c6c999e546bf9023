"""`revenant run` as people and programs use it: pipe, terminal, pty, socket, script."""

from __future__ import annotations

import io
import os
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pyte
from pexpect import fdpexpect
from revenant.format import PageKey
from revenant.machine import Machine
from revenant.script import wait_for_prompt
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
REVENANT = [sys.executable, "-m", "revenant"]
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
TIMEOUT_S = 60


@contextmanager
def running(*words: object, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a child; ended by SIGTERM."""
    process = subprocess.Popen([*REVENANT, "run", *map(str, words)], **streams)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(TIMEOUT_S)


def test_plain_pipe(image: Path) -> None:
    with running("--near", image, **PIPES) as child:
        assert child.stdin is not None and child.stdout is not None
        console = fdpexpect.fdspawn(child.stdout, timeout=TIMEOUT_S)
        console.expect_exact(b">>> ")
        child.stdin.write(b"print('p' + 'ipe')\r")
        child.stdin.flush()
        console.expect_exact(b"pipe\r\n>>> ")


def test_line_ends(image: Path) -> None:
    """A program may send any of the three; none of them is two."""
    with running("--near", image, **PIPES) as child:
        assert child.stdin is not None and child.stdout is not None
        console = fdpexpect.fdspawn(child.stdout, timeout=TIMEOUT_S)
        console.expect_exact(b">>> ")
        for end in (b"\n", b"\r\n", b"\r", b"\n"):
            child.stdin.write(b"6 * 7" + end)
            child.stdin.flush()
            console.expect_exact(b"42\r\n>>> ")
            assert console.before == b"6 * 7\r\n"
        child.stdin.write(b"input()\nmoon\nfor i in range(2): print('row', i)\n\n")
        child.stdin.flush()
        console.expect_exact(b"'moon'\r\n>>> ")
        console.expect_exact(b"row 0\r\nrow 1\r\n>>> ")


def test_make_run_in_a_terminal(root: Path, build: Path, image: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    words = ["run", f"BUILD={build}", f"IMAGE={image}"]
    child = pexpect.spawn("make", words, cwd=str(root), env=inherited, timeout=TIMEOUT_S)
    child.expect_exact(">>> ")
    child.send("print('ter' + 'minal')\r")
    child.expect("terminal\r+\n>>> ")
    child.send("\x01x")
    child.expect_exact(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_input_that_was_there_first(image: Path, run_revenant: Run) -> None:
    for line in ("print(6 * 7)", "print(7 * 6)"):  # the first byte comes before the kernel does
        typed = f"{line}\rimport revenant; revenant.power_off()\r"
        result = run_revenant("run", "--near", image, input=typed)
        assert result.returncode == 0 and f">>> {line}\n" in result.stdout, result.stdout + result.stderr


def test_typed_ahead(image: Path) -> None:
    """What is typed in a terminal while the machine starts is all there, without a further key."""
    for line in ("print(6 * 7)", "print(7 * 6)  # " + 8 * "and far more "):  # in QEMU's multiplexer 32 bytes wait
        child = pexpect.spawn(sys.executable, ["-m", "revenant", "run", "--near", str(image)], timeout=TIMEOUT_S)
        child.expect(rb"found [^\r]*\r\n")
        child.send(f"{line}\r")
        child.expect(rb"\n42\r+\n>>> ")
        child.send("\x01x")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0


def test_terminal_is_restored(image: Path) -> None:
    child = pexpect.spawn(sys.executable, ["-m", "revenant", "run", "--near", str(image)], timeout=TIMEOUT_S)
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact(b">>> ")
    assert termios.tcgetattr(child.child_fd)[3] != before[3]  # raw while it runs
    child.send("'on' + 'ly'\r")
    child.expect(rb"'only'\r+\n>>> ")
    child.send("\x01cinfo status\r")  # QEMU's own prompt, and back
    child.expect_exact(b"VM status: running")
    child.send("\x01c'aga' + 'in'\r")
    child.expect(rb"'again'\r+\n>>> ")
    child.send("\x01x")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0
    assert termios.tcgetattr(child.child_fd) == before


def test_terminal_is_restored_after_kill(image: Path, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    words = ["-m", "revenant", "run", "--near", str(image), "--pidfile", str(pidfile)]
    child = pexpect.spawn(sys.executable, words, timeout=TIMEOUT_S)
    before = termios.tcgetattr(child.child_fd)
    child.expect_exact(b">>> ")
    os.kill(int(pidfile.read_text()), signal.SIGKILL)
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 128 + signal.SIGKILL
    assert termios.tcgetattr(child.child_fd) == before


def test_last_screen_is_redrawn(image: Path, tmp_path: Path) -> None:
    """After a cut a person sees the last lines again, each once, then the prompt; what the kernel says is above it."""
    pidfile = tmp_path / "pid"
    words = ["-m", "revenant", "run", "--near", str(image), "--pidfile", str(pidfile)]
    child = pexpect.spawn(sys.executable, words, timeout=TIMEOUT_S, dimensions=(24, 80))
    child.expect_exact(b">>> ")
    child.send("for i in range(60): print('line', i)\r\r")
    child.expect(rb"line 59\r+\n>>> ")
    os.kill(int(pidfile.read_text()), signal.SIGKILL)
    child.expect(pexpect.EOF)
    child = pexpect.spawn(sys.executable, words, timeout=TIMEOUT_S, dimensions=(24, 80))
    child.logfile_read = io.BytesIO()
    child.expect(rb"found generation \d+, saved [^,]*\r\n")
    while not all(text in child.logfile_read.getvalue() for text in (b"goes on after", b">>> ")):
        child.expect(b".+")
    child.send("6*7\r")
    child.expect(rb"42\r+\n>>> ")
    screen = pyte.Screen(80, 24)
    pyte.ByteStream(screen).feed(child.logfile_read.getvalue())
    rows = [row.rstrip() for row in screen.display]
    assert rows[-3:] == [">>> 6*7", "42", ">>>"], rows
    assert [row for row in rows if "goes on after" in row] == [row for row in rows[:-3] if row.startswith("[")], rows
    shown = [int(row.split()[1]) for row in rows if row.startswith("line")]
    assert shown == list(range(shown[0], 60)) and len(shown) >= 18, rows
    child.send("\x01x")
    child.expect(pexpect.EOF)


def test_pty(image: Path) -> None:
    with running("--near", image, "--console", "pty", **PIPES) as child:
        assert child.stdout is not None
        path = child.stdout.readline().decode().strip()
        assert path.startswith("/dev/pts/")
        with open(path, "r+b", buffering=0) as terminal:
            console = fdpexpect.fdspawn(terminal, timeout=TIMEOUT_S)
            console.expect_exact(b">>> ")
            console.send(b"6 * 7\r")
            console.expect_exact(b"42\r\n>>> ")


def test_socket(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "console"
    with (
        running("--near", image, "--console", f"unix:{path}", stderr=subprocess.PIPE) as child,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        assert child.stderr is not None
        while b"goes on" not in child.stderr.readline():
            assert child.poll() is None
        connection.connect(str(path))
        connection.sendall(b"\r6 * 7\r")
        console = fdpexpect.fdspawn(connection.fileno(), timeout=TIMEOUT_S)
        console.expect_exact(b"42\r\n>>> ")


def test_script(image: Path, tmp_path: Path, run_revenant: Run) -> None:
    script = tmp_path / "script.py"
    cases = [
        ("print('one')\nprint('two', 2)", 0, "one\ntwo 2\n", ""),
        ("import sys\nprint('x')\nsys.exit(7)", 7, "x\n", ""),
        ("import sys\nsys.exit()", 0, "", ""),
        ("raise ValueError('no')", 1, "", "ValueError: no"),
        ("def f(:\n", 1, "", "SyntaxError"),
        ("kept = 'kept'", 0, "", ""),
        ("print(kept)", 0, "kept\n", ""),
        ("print('ä€', '\\x00\\x01' == chr(0) + chr(1))", 0, "ä€ True\n", ""),
        ("x = " + repr("y" * 50000) + "\nprint(len(x))", 0, "50000\n", ""),
    ]
    for source, status, output, error in cases:
        script.write_text(source)
        result = run_revenant("run", "--near", image, "--", script)
        assert (result.returncode, result.stdout) == (status, output), result.stderr
        assert error in result.stderr
    assert run_revenant("run", "--near", image, "--", tmp_path / "none.py").returncode == 1


def test_killed_with_its_owner(image: Path, tmp_path: Path, machine: Callable[..., Machine]) -> None:
    pidfile = tmp_path / "pid"
    words = ["--near", image, "--pidfile", pidfile]
    with running(*words, **PIPES) as child:
        fdpexpect.fdspawn(child.stdout, timeout=TIMEOUT_S).expect_exact(b">>> ")
        qemu = os.pidfd_open(int(pidfile.read_text()))
        child.kill()
        child.wait()
    assert select.select([qemu], [], [], TIMEOUT_S)[0], "QEMU has outlived its owner"
    os.close(qemu)
    now = machine()  # the image is free again
    now.expect_exact(b">>> ")


def test_a_page_with_a_flipped_bit(machine: Callable[..., Machine], image: Path) -> None:
    first = machine()
    wait_for_prompt(first)
    first.command_at_prompt("block = bytearray(64 * 4096)")
    first.command_at_prompt("for i in range(64): block[i * 4096] = 0xa5\r")
    first.command_at_prompt("import revenant; revenant.commit() > 0")
    first.kill()
    with Store(image) as store:
        found = [
            pointer.block for key, pointer in store.pages(store.tree)
            if key.space == 16 and key > PageKey(16, 0x3000) and store.read(pointer, 0).count(b"\xa5") == 1
        ]  # fmt: skip
    assert len(found) > 32
    with image.open("r+b") as file:
        file.seek(found[20] * 4096 + 1000)
        file.write(b"\x01")
    second = machine()
    wait_for_prompt(second)
    assert second.command_at_prompt("6 * 7") == "42"
    second.send(b"sum(block)\r")
    second.expect_voice("does not have its hash")
    second.expect_voice("waits")
