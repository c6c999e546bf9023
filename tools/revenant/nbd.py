"""nbdkit as the server of far stores: its command line, its life, what it was asked for; is there one at a URI?

Promise: what is started here ends with us, however we end, also while it is stopped. Errors name what is missing.
Used by: `revenant serve`, `run` (before web servers; is the server there?), bench and the tests (delays, counts).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from revenant.children import die_with_parent, temporary_folder
from revenant.errors import MachineError
from revenant.qemu import is_web, nbd_server

NBDKIT = "nbdkit"
INSTALL = "apt-get install nbdkit"
NOT_THERE = ("no server answers there", "start it; one for NBD: `revenant serve`")
"""Reason and remedy."""
POLL_INTERVAL_S = 0.005
CONNECT_TIMEOUT_S = 2.0
BURSTINESS_S = 0.06
RATE_PIECE = "64K"
"""So much of a second passes a rate limit at once; nbdkit's own 2 s would hide it. A request of more bits than that is
held back far too long (nbdkit-rate-filter(1), "burstiness"), so requests pass in pieces: exact from 9 Mbit/s on."""
START_TIMEOUT_S = 20.0
WEB_TIMEOUT_S = 5
GREETING_SIZE = 18
GREETING = b"NBDMAGIC"
FAREWELL = struct.pack(">I8sII", 1, b"IHAVEOPT", 2, 0)
"""NBD_FLAG_C_FIXED_NEWSTYLE, then NBD_OPT_ABORT: who just hangs up is an error in the server's log."""
REQUEST, REPLY, EXPORT = struct.Struct(">IHHQQI"), struct.Struct(">IIQ"), struct.Struct(">QH")
REQUEST_MAGIC = 0x25609513
READ, DISCONNECT = 0, 2
GIVEN_SIZE = 512
GIVE_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class ServerConfig:
    """What is served, where, and how slowly. `rate` is in bits per second as nbdkit reads it (100M)."""

    image: Path | str
    """A file, or the URL of one."""
    unix: Path | None = None
    port: int | None = None
    readonly: bool = True
    delay_ms: int | None = None
    rate: str | None = None
    stats: Path | None = None
    log: Path | None = None
    pidfile: Path | None = None
    error_words: Sequence[str] = ()
    """Parameters of nbdkit-error-filter(1), for tests."""

    @property
    def uri(self) -> str:
        """For `run --far`."""
        return f"nbd+unix:///?socket={self.unix}" if self.unix else f"nbd://localhost:{self.port}"


def command_line(config: ServerConfig) -> list[str]:
    """nbdkit's words. It stays in the foreground and ends with its parent."""
    words = [NBDKIT, "--foreground", "--exit-with-parent"]
    if config.unix:
        words += ["--unix", str(config.unix.absolute())]
    else:
        words += ["--port", str(config.port)]
    if config.readonly:
        words.append("--readonly")
    if config.pidfile:
        words += ["--pidfile", str(config.pidfile.absolute())]
    wanted: dict[str, object] = {"log": config.log, "stats": config.stats, "delay": config.delay_ms}
    wanted |= {"blocksize": config.rate, "rate": config.rate}
    words += [f"--filter={name}" for name, value in wanted.items() if value is not None]
    words += ["--filter=error"] if config.error_words else []
    if isinstance(config.image, Path):
        words += ["file", str(config.image.absolute())]
    else:
        words += ["curl", f"url={config.image}", f"timeout={WEB_TIMEOUT_S}"]
    words += config.error_words
    if config.log:
        words.append(f"logfile={config.log.absolute()}")
    if config.stats:
        words.append(f"statsfile={config.stats.absolute()}")
    if config.rate:
        words += [f"rate={config.rate}", f"burstiness={BURSTINESS_S}", f"maxdata={RATE_PIECE}"]
    if config.delay_ms is not None:
        words.append(f"rdelay={config.delay_ms}ms")
    return words


@dataclass
class Server:
    """nbdkit on a unix socket; a context manager. What was read is known if its configuration names a log."""

    config: ServerConfig
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """For --far."""
        return self.config.uri

    def start(self) -> None:
        """Serve; returns when clients can connect. After `kill`, the same place again, with an empty log."""
        assert self.config.unix is not None
        self.config.unix.unlink(missing_ok=True)
        if self.config.log:
            self.config.log.write_text("")
        require_nbdkit()
        command = command_line(self.config)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
        end_s = time.monotonic() + START_TIMEOUT_S
        while not answers(self.uri):
            if self.process.poll() is not None or time.monotonic() > end_s:
                self.kill()
                raise MachineError(NBDKIT, f"does not serve {self.config.image}", f"see what it said; {INSTALL}")
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """kill -9: nobody answers there any more."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.kill()

    def reads(self) -> list[tuple[int, int]]:
        """(offset, size) of every read so far (nbdkit-log-filter(1))."""
        assert self.config.log is not None
        pattern = r" Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+)"
        return [(int(a, 16), int(b, 16)) for a, b in re.findall(pattern, self.config.log.read_text())]


def require_nbdkit() -> None:
    """MachineError where it is not installed."""
    if shutil.which(NBDKIT) is None:
        raise MachineError(NBDKIT, "not installed", INSTALL)


@contextlib.contextmanager
def bridged(fars: Sequence[str]) -> Iterator[dict[str, str]]:
    """nbdkit before each web server, until the end of the block: the NBD URIs, by URL.

    QEMU 7.2's own driver stalls when several requests are on their way (FAR.md).
    """
    with contextlib.ExitStack() as stack:
        bridges: dict[str, str] = {}
        for url in filter(is_web, fars):
            folder = stack.enter_context(temporary_folder())
            server = Server(ServerConfig(url, unix=folder / "far.sock"))
            bridges[url] = stack.enter_context(server).uri
        yield bridges


def is_there(uri: str) -> bool:
    """Whether the server of a far store, by NBD or a web server, answers the door."""
    if not is_web(uri):
        return answers(uri)
    parts = urlsplit(uri)
    with contextlib.suppress(OSError):
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT_S).close()
        return True
    return False


def answers(uri: str) -> bool:
    """Whether an NBD server greets at a URI: one that is stopped is connected to, but says nothing."""
    server = nbd_server(uri)
    try:
        if server["type"] == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(server["path"])
        else:
            connection = socket.create_connection((server["host"], int(server["port"])), CONNECT_TIMEOUT_S)
        with connection:
            greeting = connection.recv(GREETING_SIZE, socket.MSG_WAITALL)
            connection.sendall(FAREWELL)
            return greeting.startswith(GREETING)
    except OSError:
        return False


async def gives(uri: str) -> bool:
    """Whether an NBD server gives the beginning of what it serves, in whatever time it takes for a read."""
    server = nbd_server(uri)
    writer = None
    try:
        async with asyncio.timeout(GIVE_TIMEOUT_S):
            if server["type"] == "unix":
                reader, writer = await asyncio.open_unix_connection(server["path"])
            else:
                reader, writer = await asyncio.open_connection(server["host"], int(server["port"]))
            return await read_first(reader, writer, urlsplit(uri).path.lstrip("/").encode())
    except (OSError, EOFError):
        return False
    finally:
        if writer is not None:
            writer.close()


async def read_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, export: bytes) -> bool:
    """By the protocol's shortest way: NBD_OPT_EXPORT_NAME without the zeros that used to follow, one read, good-bye."""
    if not (await reader.readexactly(GREETING_SIZE)).startswith(GREETING):
        return False
    writer.write(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, len(export)) + export)
    await reader.readexactly(EXPORT.size)
    writer.write(REQUEST.pack(REQUEST_MAGIC, 0, READ, 0, 0, GIVEN_SIZE))
    _, error, _ = REPLY.unpack(await reader.readexactly(REPLY.size))
    if error == 0:
        await reader.readexactly(GIVEN_SIZE)
    writer.write(REQUEST.pack(REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0))
    return bool(error == 0)
