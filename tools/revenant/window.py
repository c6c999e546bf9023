"""Where `run --window` shows the machine's screen: QEMU's own window, or a VNC server on a socket beside the image.

Promise: QEMU's window is chosen only where this QEMU has one and there is a desktop to show it on. The socket can be
opened by who could write a file that we made (the umask says who that is), not from the net, and goes with the machine.
Used by: running.py, doctor.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from revenant.output import say
from revenant.qemu import QEMU

KINDS = ("gtk", "sdl")
DESKTOPS = ("WAYLAND_DISPLAY", "DISPLAY")
REMEDY = "apt-get install qemu-system-gui"


def has_desktop() -> bool:
    """Whether there is something to open a window on."""
    return any(os.environ.get(name) for name in DESKTOPS)


def window_kinds() -> list[str]:
    """What this QEMU, if there is one, can open windows with; best first."""
    if shutil.which(QEMU) is None:
        return []
    result = subprocess.run([QEMU, "-display", "help"], capture_output=True, text=True, check=False)
    return [kind for kind in KINDS if kind in result.stdout.split()]


def usable_kind() -> str | None:
    """What a window is opened with here; None: by VNC."""
    return next(iter(window_kinds()), None) if has_desktop() else None


def vnc_socket(near: Path) -> Path:
    """Where a machine of this image has its VNC server."""
    return near.with_name(near.name + ".vnc").absolute()


def display_of(near: Path) -> str:
    """The value of QEMU's -display."""
    return usable_kind() or f"vnc=unix:{str(vnc_socket(near)).replace(',', ',,')}"


def is_served(path: Path) -> bool:
    """Whether somebody listens on a socket."""
    with socket.socket(socket.AF_UNIX) as viewer, suppress(OSError):
        viewer.connect(str(path))
        return True
    return False


@contextmanager
def shown(near: Path, display: str | None) -> Iterator[None]:
    """While the machine runs: says where its screen is, if it is not a window, and removes the socket afterwards."""
    if display is None or not display.startswith("vnc="):
        yield
        return
    path = vnc_socket(near)
    say(f"revenant: the window is a VNC server on {path}")
    say(f"revenant: from elsewhere: ssh -L 5900:{path} HOST, then a VNC viewer on localhost:5900")
    try:
        yield
    finally:
        if not is_served(path):  # else it is another machine's, which had the image first
            path.unlink(missing_ok=True)
