"""Fixtures of the tests that start machines: a far store behind nbdkit whose requests are counted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pexpect.fdpexpect
import pytest
from revenant import genesis, nbd
from revenant.pytest_plugin import FarStore


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
def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
def keep(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    """Runs images behind a terminal until the test ends."""
    with contextlib.ExitStack() as stack:

        def start(near: Path, *words: str) -> Kept:
            path = tmp_path / "keeper.stderr"
            stderr = stack.enter_context(path.open("w"))
            command = [sys.executable, "-m", "revenant", "run", "--near", str(near), "--console", "pty", "--keep"]
            command += words
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            assert process.stdout is not None
            terminal = os.open(process.stdout.readline().strip(), os.O_RDWR | os.O_NOCTTY)
            return Kept(process, pexpect.fdpexpect.fdspawn(terminal, timeout=60), path)

        yield start


class FarServer(FarStore):
    """A far store whose requests are counted."""

    def depths(self) -> list[int]:
        """Of every read: the round trips that it may have waited for, its own included; by what was answered before."""
        assert self.config.log is not None
        depths: list[int] = []
        asked: dict[tuple[str, str], int] = {}
        answered = 0
        pattern = r"connection=(\d+) (\.*)Read id=(\d+)"
        for connection, dots, number in re.findall(pattern, self.config.log.read_text()):
            if dots:
                answered = max(answered, asked[connection, number])
            else:
                asked[connection, number] = answered + 1
                depths.append(answered + 1)
        return depths

    def bytes_under_way(self) -> list[int]:
        """At every read: how much was asked for and not answered, that read included."""
        assert self.config.log is not None
        asked: dict[tuple[str, str], int] = {}
        sums: list[int] = []
        pattern = r"connection=(\d+) (\.*)Read id=(\d+)(?: offset=\w+ count=(0x[0-9a-f]+))?"
        for connection, dots, number, count in re.findall(pattern, self.config.log.read_text()):
            if dots:
                asked.pop((connection, number), None)
            else:
                asked[connection, number] = int(count, 16)
                sums.append(sum(asked.values()))
        return sums

    def answered_count(self) -> int:
        """How many reads it has answered so far."""
        assert self.config.log is not None
        return self.config.log.read_text().count("...Read id=")

    def forget(self) -> None:
        """Begin to count anew, as a new server."""
        self.kill()
        self.start()


@pytest.fixture
def serve(tmp_path: Path, socket_folder: Path) -> Iterator[Callable[..., FarServer]]:
    """Serves images until the test ends."""
    servers: list[FarServer] = []

    def start(image: Path, **fields: Any) -> FarServer:
        name = f"far{len(servers)}"
        config = nbd.ServerConfig(image, unix=socket_folder / f"{name}.sock", log=tmp_path / f"{name}.log")
        server = FarServer(replace(config, **fields))
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()
