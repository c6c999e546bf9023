"""Gives QEMU a new connection to an NBD server that was away, as soon as it is back.

QEMU itself tries again after 1, 2, 4, … at most 16 s, and nothing shortens that. So each far disk over NBD is a raw
node, and when a read of it has failed, the server is looked for; once it greets, a new node with a connection of its
own is put below the raw one, in the place of the broken one. Nothing runs while nothing fails.
Promise: a disk that fails for other reasons keeps its server, and is given a new connection once a second at most.
Used by: machine.py, for every QEMU with far stores over NBD, in a thread that ends with QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Mapping

from qemu.qmp import EventListener, ExecuteError, Message, QMPClient, QMPError

from revenant import nbd
from revenant.qemu import nbd_blockdev, with_connection

PROBE_INTERVAL_S = 0.25
RENEWAL_INTERVAL_S = 1.0
OPEN_TIMEOUT_S = 1
"""For a server that has greeted, and is gone again: the machine stands still meanwhile."""


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
        failed = {node: asyncio.Event() for node in fars}
        tasks = [asyncio.create_task(keep(client, node, fars[node], failed[node])) for node in fars]
        tasks.append(asyncio.create_task(note(failures, failed)))
        await client.runstate_changed()
        for task in tasks:
            task.cancel()
        await client.disconnect()


async def note(failures: EventListener, failed: Mapping[str, asyncio.Event]) -> None:
    """Each disk whose read has failed."""
    async for event in failures:
        if (node := node_of(event)) in failed:
            failed[node].set()


def node_of(event: Message) -> str:
    """The name of the node that a BLOCK_IO_ERROR is about."""
    data = event["data"]
    return str(data.get("node-name")) if isinstance(data, dict) else ""


async def keep(client: QMPClient, node: str, uri: str, failed: asyncio.Event) -> None:
    """One disk."""
    number = 1  # of the connection that QEMU was started with
    while True:
        await failed.wait()
        while not await asyncio.to_thread(nbd.answers, uri):
            await asyncio.sleep(PROBE_INTERVAL_S)
        if await renew(client, node, uri, number):
            number += 1
            failed.clear()
        await asyncio.sleep(RENEWAL_INTERVAL_S)


async def renew(client: QMPClient, node: str, uri: str, number: int) -> bool:
    """Replace connection `number` by the next one; False: the server is gone again."""
    old, new = f"{node}-{number}", f"{node}-{number + 1}"
    try:
        await client.execute("blockdev-add", nbd_blockdev(uri, new, OPEN_TIMEOUT_S))
    except ExecuteError:
        return False
    await client.execute("blockdev-reopen", {"options": [with_connection(node, new)]})
    with contextlib.suppress(ExecuteError):  # the one that QEMU was started with went with its last user
        await client.execute("blockdev-del", {"node-name": old})
    return True
