"""Far stores that fail in mid-fetch, each in its own way, and all at once: no program sees it; who can go on does.

What a single store's failure does is in test_disks.py; what is said and done at the level of blocks in
tests/host/test_store_far.py.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]
Serve = Callable[..., Any]
PAGE_COUNT = 2048
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
    for number, why in enumerate(("a read failed", "a read failed", "a read failed", "does not answer in time"), 1):
        assert now.voice.count(f"far{number}: {why}") == 1
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
