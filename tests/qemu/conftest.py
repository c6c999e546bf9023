"""Fixtures of the tests that start machines, besides those of the package's own plugin (tools/revenant/PYTEST.md)."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect.fdpexpect
import pytest
from revenant import genesis


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder start QEMU."""
    for item in items:
        if "qemu" in item.path.parts:
            item.add_marker(pytest.mark.qemu)


@pytest.fixture
def assemble(tmp_path: Path) -> Callable[..., genesis.Program]:
    """Makes a program of NASM source, to be put into an image beside Python; data at a place that the test knows."""

    def build(source: str, name: str, data_address: int = 0x500000) -> genesis.Program:
        text, object_file, program = (tmp_path / f"{name}{suffix}" for suffix in (".asm", ".o", ".elf"))
        text.write_text(source)
        subprocess.run(["nasm", "-f", "elf64", "-o", object_file, text], check=True)
        sections = ["-Ttext=0x400000", f"-Tdata={data_address:#x}"]
        subprocess.run(["ld", *sections, "-z", "max-page-size=4096", "-o", program, object_file], check=True)
        return genesis.load_program(program, name)

    return build


@pytest.fixture
def large_image(build_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """A fresh image of 512 MiB."""
    path = tmp_path / "large.img"
    genesis.create_image(path, build_files, 512 << 20)
    return path


@pytest.fixture
def free_port() -> Iterator[int]:
    """One that nobody else is given until the test ends: who listens there has to say SO_REUSEADDR, as servers do."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


@dataclass
class Kept:
    """`revenant run --console pty --keep`: a client of its terminal, and the cutting of its power."""

    process: subprocess.Popen[str]
    client: pexpect.fdpexpect.fdspawn[bytes]
    stderr: Path
    cuts: int = 0

    def cut(self) -> None:
        """kill -9 of the QEMU of this moment; where there is none just now, of the next one."""
        keeper = self.process.pid
        children = Path(f"/proc/{keeper}/task/{keeper}/children")
        while self.cut_count() < self.cuts or not (pids := children.read_text().split()):
            assert self.process.poll() is None, "the keeper has ended"
            time.sleep(0.01)
        self.cuts += 1
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def cut_count(self) -> int:
        """How often QEMU was ended so far, and started again."""
        return self.stderr.read_text().count("QEMU was ended")


@pytest.fixture
def keep(tmp_path: Path, start_revenant: Callable[..., subprocess.Popen[str]]) -> Callable[..., Kept]:
    """Runs images behind a terminal until the test ends."""

    def start(near: Path, *words: str) -> Kept:
        path = tmp_path / "keeper.stderr"
        keeping = ("run", "--near", near, "--console", "pty", "--keep", *words)
        with path.open("w") as stderr:
            process = start_revenant(*keeping, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        assert name, path.read_text()
        terminal = os.open(name, os.O_RDWR | os.O_NOCTTY)
        return Kept(process, pexpect.fdpexpect.fdspawn(terminal, timeout=60), path)

    return start
