"""Far stores that fail in mid-fetch, each in its own way, and all at once: no program sees it; who can go on does.

What a single store's failure does is in test_disks.py; what is said and done at the level of blocks in
tests/host/test_store_far.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]
Serve = Callable[..., Any]
PAGE_COUNT = 2048
LATE, AGAIN = "does not answer in time", "answers again"
READ = "sum(data[i] for i in range({0} * 4096, {1} * 4096, 4096))"


def total(first: int, end: int) -> int:
    """What READ gives."""
    return sum(page % 251 + 1 for page in range(first, end))


def publish(machine: Start, image: Path, out: Path) -> str:
    """A machine with 8 MiB of data to recognise; the root hash."""
    now = machine()
    wait_for_prompt(now)
    paste(now, f"import revenant\ndata = bytearray({PAGE_COUNT} * 4096)\nfor i in range({PAGE_COUNT}):\n"
          "    data[i * 4096] = i % 251 + 1\n")  # fmt: skip
    now.command_at_prompt("revenant.commit() > 0")
    now.kill()
    with Store(image) as store:
        return publish_image(store, out, None, record=True).hash.hex()


def fork_and_read(machine: Machine, first: int, end: int) -> None:
    """Another process reads, and sends what it has found."""
    paste(machine, f"if revenant.fork() == 0: revenant.send(revenant.parent_id(), {READ.format(first, end)})\n")


def told(machine: Machine, number: int) -> list[str]:
    """What was said of a far store, in order. On a busy host, one that is about to fail is late before."""
    return re.findall(rf"far{number}: (a read failed|{LATE}|{AGAIN})", machine.voice)


def look_alive(machine: Machine) -> None:
    """The prompt answers, and what it does is saved."""
    for turn in range(3):
        assert machine.command_at_prompt(f"turn = {turn}; revenant.commit() > 0, turn") == f"(True, {turn})"


def test_four_fail_and_the_fifth_serves_and_then_none(
    machine: Start, serve: Serve, image: Path, tmp_path: Path
) -> None:
    far, blank, switch = tmp_path / "far.img", tmp_path / "blank.img", tmp_path / "far-fails"
    trust = publish(machine, image, far)
    blank.touch()
    os.truncate(blank, 64 << 20)
    cut_short = Path(shutil.copy(far, tmp_path / "cut-short.img"))
    failing = serve(far, error_words=["error-pread=EIO", "error-pread-rate=100%", f"error-pread-file={switch}"])
    truncated, killed, stopped, good = serve(cut_short), serve(far), serve(far), serve(far)
    fars = [server.uri for server in (failing, truncated, killed, stopped, good)]
    now = machine(blank, fars=fars, trust=trust, fill=False)
    wait_for_prompt(now)
    assert now.command_at_prompt(READ.format(0, 50)) == str(total(0, 50))
    switch.touch()
    os.truncate(cut_short, 100 * 4096)
    killed.kill()
    stopped.process.send_signal(signal.SIGSTOP)
    assert now.command_at_prompt(READ.format(500, 700)) == str(total(500, 700))
    for number in (1, 2, 3, 4):
        failures, returns = told(now, number)[0::2], told(now, number)[1::2]
        assert set(failures) <= {"a read failed", LATE} and set(returns) <= {AGAIN} and len(failures) > len(returns)
    assert told(now, 4)[-1] == LATE
    assert good.reads() and "the program that touched it waits" not in now.voice

    # None is left: a program waits, the prompt of another one answers, once all that it needs for that is near.
    fork_and_read(now, 500, 600)
    look_alive(now)
    assert f", {total(500, 600)})" in now.command_at_prompt("revenant.receive()")
    good.process.send_signal(signal.SIGSTOP)
    fork_and_read(now, 1500, 1600)
    look_alive(now)
    good.process.send_signal(signal.SIGCONT)
    assert f", {total(1500, 1600)})" in now.command_at_prompt("revenant.receive()")
    assert now.voice.count("does not have its hash") == 0

    # The one that was killed is back: it is asked by a new connection, for which nobody waits until QEMU tries again.
    good.process.send_signal(signal.SIGSTOP)
    fork_and_read(now, 1700, 1800)
    look_alive(now)
    killed.start()
    assert f", {total(1700, 1800)})" in now.command_at_prompt("revenant.receive()")
    assert killed.reads() and "far3-2" in (node["node-name"] for node in now.qmp("query-named-block-nodes"))


class Network:
    """A way by TCP to a server on a unix socket, that can go away: what is sent then is lost, and nobody is told."""

    def __init__(self, server: Path) -> None:
        self.server = server
        self.is_away = False
        self.losses = 0
        self.lost_connections = 0  # that were begun while it was away
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.uri = "nbd://{}:{}".format(*self.listening.getsockname())
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        """Until it is stopped; its connections end then."""
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self.serve())

    async def serve(self) -> None:
        """The same, as a coroutine."""
        async with await asyncio.start_server(self.connect, sock=self.listening) as server:
            self.task = asyncio.current_task()
            await server.serve_forever()

    def stop(self) -> None:
        """No more of it."""
        self.loop.call_soon_threadsafe(lambda: self.task.cancel())
        self.thread.join()

    def lose(self) -> None:
        """It goes away; what is connected now will stay so, and hear nothing for ever."""
        self.losses += 1
        self.is_away = True

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody connects."""
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            if self.is_away:
                self.lost_connections += 1
                await asyncio.Event().wait()
            there_reader, there_writer = await asyncio.open_unix_connection(str(self.server))
            await asyncio.gather(self.carry(reader, there_writer), self.carry(there_reader, writer))

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction."""
        losses = self.losses
        while data := await reader.read(1 << 16):
            if losses == self.losses:
                writer.write(data)
        writer.close()


@pytest.fixture
def network(serve: Serve) -> Iterator[Callable[[Path], Network]]:
    """Networks until the test ends."""
    networks: list[Network] = []

    def start(image: Path) -> Network:
        networks.append(Network(serve(image).config.unix))
        return networks[-1]

    yield start
    for each in networks:
        each.stop()


def test_a_network_that_was_away(
    machine: Start, network: Callable[[Path], Network], image: Path, tmp_path: Path
) -> None:
    """Its old connections are silent for ever; a new one is made as soon as the server can be reached again."""
    far, blank = tmp_path / "far.img", tmp_path / "blank.img"
    trust = publish(machine, image, far)
    blank.touch()
    os.truncate(blank, 64 << 20)
    way = network(far)
    now = machine(blank, fars=[way.uri], trust=trust, fill=False)
    wait_for_prompt(now)
    assert now.command_at_prompt(READ.format(0, 50)) == str(total(0, 50))
    fork_and_read(now, 200, 300)
    look_alive(now)  # all that the prompt needs for that is near now
    assert f", {total(200, 300)})" in now.command_at_prompt("revenant.receive()")
    way.lose()
    fork_and_read(now, 500, 600)
    look_alive(now)
    while way.lost_connections < 5:  # the server is looked for
        assert now.process.poll() is None
        time.sleep(0.05)
    way.is_away = False
    back_s = time.monotonic()
    assert f", {total(500, 600)})" in now.command_at_prompt("revenant.receive()")
    print(f"answered {time.monotonic() - back_s:.2f} s after its return")
    assert now.voice.count("far1: a read failed") == 1
    assert "far1-2" in (node["node-name"] for node in now.qmp("query-named-block-nodes"))
