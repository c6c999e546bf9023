"""What processes that we start need: an end with ours, and a folder for their sockets.

Used by: machine.py (QEMU), nbd.py (nbdkit), bench, the tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
"""Not opened in the child of a process with threads: they may hold the loader's locks."""


def die_with_parent() -> None:
    """In the child: SIGKILL when the parent ends. A machine without its owner would keep the image locked."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for sockets and pid files, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="revenant-") as name:
        yield Path(name)
