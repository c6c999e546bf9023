"""nbdkit as the server of far stores: its command line, and whether somebody serves at a URI.

Used by: `revenant serve`, `revenant run` (is the server there?), the tests (delays, counts).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from revenant.qemu import nbd_server

NBDKIT = "nbdkit"
CONNECT_TIMEOUT_S = 2.0
BURSTINESS_S = 0.06
RATE_PIECE = "64K"
"""So much of a second passes a rate limit at once; nbdkit's own 2 s would hide it. A request of more bits than that is
held back far too long (nbdkit-rate-filter(1), "burstiness"), so requests pass in pieces: exact from 9 Mbit/s on."""
GREETING = b"NBDMAGIC"


@dataclass(frozen=True)
class ServerConfig:
    """What is served, where, and how slowly. `rate` is in bits per second as nbdkit reads it (100M)."""

    image: Path
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
    words += ["file", str(config.image.absolute()), *config.error_words]
    if config.log:
        words.append(f"logfile={config.log.absolute()}")
    if config.stats:
        words.append(f"statsfile={config.stats.absolute()}")
    if config.rate:
        words += [f"rate={config.rate}", f"burstiness={BURSTINESS_S}", f"maxdata={RATE_PIECE}"]
    if config.delay_ms is not None:
        words.append(f"rdelay={config.delay_ms}ms")
    return words


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
            return connection.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
    except OSError:
        return False
