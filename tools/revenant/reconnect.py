"""Gives QEMU a new connection to an NBD server that was away, as soon as it is back.

QEMU itself tries again after 1, 2, 4, … at most 16 s, and nothing shortens that; for an answer that was lost on the
way it waits for ever. So each far disk over NBD is a raw node, and when a read of it has failed, the server is looked
for; once it gives a block, a new node with a connection of its own is put below the raw one, in the place of the broken
one. A connection that is silent while the server gives others what they ask for is ended: then its reads fail.
Promise: a disk that fails for other reasons keeps its server, and is given a new connection once a second at most.
Used by: machine.py, for every QEMU with far stores over NBD, in a thread that ends with QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from revenant import nbd
from revenant.qemu import nbd_blockdev, with_connection

PROBE_INTERVAL_S = 0.2
RENEWAL_INTERVAL_S = 1.0
OPEN_TIMEOUT_S = 1
"""For a server that has greeted, and is gone again: the machine stands still meanwhile."""
LOOK_INTERVAL_S = 1.0
SILENCE_S = 2.0
"""A link that needs longer than that for one request is given twice as long each time."""


@dataclass
class Disk:
    """A far disk over NBD."""

    node: str
    uri: str
    number: int = 1
    """Of its connection; QEMU is started with 1."""
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    """A read has failed, and the connection has not been renewed since."""

    @property
    def connection(self) -> str:
        """The name of its node."""
        return f"{self.node}-{self.number}"


def keep_connected(monitor: socket.socket, fars: Mapping[str, str]) -> None:
    """Do so until the other end of a QMP monitor is closed. `fars`: NBD URIs by the names of their raw nodes."""
    threading.Thread(target=lambda: asyncio.run(watch(monitor, fars)), daemon=True).start()


async def watch(monitor: socket.socket, fars: Mapping[str, str]) -> None:
    """The same, as a coroutine."""
    client = QMPClient("far stores")
    failures = EventListener("BLOCK_IO_ERROR")
    client.register_listener(failures)
    with contextlib.suppress(QMPError, EOFError, OSError):  # QEMU has ended
        await client.connect(monitor)
        disks = {node: Disk(node, uri) for node, uri in fars.items()}
        tasks = [asyncio.create_task(note(failures, disks))]
        for disk in disks.values():
            tasks += [asyncio.create_task(each(client, disk)) for each in (keep, end_silence)]
        await client.runstate_changed()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await client.disconnect()


async def note(failures: EventListener, disks: Mapping[str, Disk]) -> None:
    """Each disk whose read has failed."""
    async for event in failures:
        if (node := node_of(event)) in disks:
            disks[node].failed.set()


def node_of(event: Message) -> str:
    """The name of the node that a BLOCK_IO_ERROR is about."""
    data = event["data"]
    return str(data.get("node-name")) if isinstance(data, dict) else ""


async def found(uri: str) -> None:
    """Until a server gives a block. It is asked again and again: what a network lost while it was away stays lost."""
    asked: set[asyncio.Task[bool]] = set()
    try:
        while True:
            asked.add(asyncio.create_task(nbd.gives(uri)))
            done, asked = await asyncio.wait(
                asked, timeout=PROBE_INTERVAL_S, return_when=asyncio.FIRST_COMPLETED
            )
            if any(task.result() for task in done):
                return
            if done:
                await asyncio.sleep(PROBE_INTERVAL_S)
    finally:
        for task in asked:
            task.cancel()


async def keep(client: QMPClient, disk: Disk) -> None:
    """A new connection whenever reads fail."""
    while True:
        await disk.failed.wait()
        await found(disk.uri)
        if await renew(client, disk):
            disk.failed.clear()
        await asyncio.sleep(RENEWAL_INTERVAL_S)


async def renew(client: QMPClient, disk: Disk) -> bool:
    """Replace the connection by the next one; False: the server is gone again."""
    old = disk.connection
    new = Disk(disk.node, disk.uri, disk.number + 1).connection
    try:
        await client.execute("blockdev-add", nbd_blockdev(disk.uri, new, OPEN_TIMEOUT_S))
    except ExecuteError:
        return False
    await client.execute("blockdev-reopen", {"options": [with_connection(disk.node, new)]})
    with contextlib.suppress(ExecuteError):  # the one that QEMU was started with went with its last user
        await client.execute("blockdev-del", {"node-name": old})
    disk.number += 1
    return True


async def end_silence(client: QMPClient, disk: Disk) -> None:
    """End the connection when nothing that it owes comes, though what is asked for elsewhere, and later, does."""
    limit_s = SILENCE_S
    owed_before, since_s = None, time.monotonic()
    while True:
        await asyncio.sleep(LOOK_INTERVAL_S)
        owed = await owed_by(client, disk)
        if owed is None or owed != owed_before:
            limit_s = SILENCE_S if owed_before is not None else limit_s
            owed_before, since_s = owed, time.monotonic()
        elif time.monotonic() - since_s > limit_s:
            await found(disk.uri)
            await found(disk.uri)  # by then, one that had been stopped has answered whatever waited for it
            if await owed_by(client, disk) == owed and not disk.failed.is_set():
                connection = {"type": "block-node", "node-name": disk.connection}
                with contextlib.suppress(ExecuteError):  # it is being replaced
                    await client.execute("yank", {"instances": [connection]})
                limit_s *= 2
            owed_before, since_s = None, time.monotonic()


async def owed_by(client: QMPClient, disk: Disk) -> int | None:
    """What stays the same as long as a disk answers none of the reads that it has; None: it has none."""
    queue = {"path": f"/machine/peripheral/disk-{disk.node}/virtio-backend", "queue": 0}
    try:
        status = await client.execute("x-query-virtio-queue-status", queue)
    except ExecuteError:  # QEMU does not promise to have it for ever
        return None
    return int(status["used-idx"]) if isinstance(status, dict) and status["inuse"] else None
