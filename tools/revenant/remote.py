"""Finds the running machine's terminal: a link beside the image, IMAGE.tty, and mpremote on it.

mpremote begins with a soft reset unless it is told to `resume`; a soft reset would throw the program's state away.
Used by: running.py (makes the link), `revenant mpremote`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from revenant.errors import MachineError

PASS_ALL = {"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}


def terminal_link(near: Path) -> Path:
    """Where a machine of this image has its terminal, if it runs with `--console pty`."""
    return near.with_name(near.name + ".tty")


@contextlib.contextmanager
def linked(near: Path, terminal: str) -> Iterator[None]:
    """While the machine runs; a link that a killed one left is replaced."""
    link = terminal_link(near)
    link.unlink(missing_ok=True)
    link.symlink_to(terminal)
    try:
        yield
    finally:
        if link.is_symlink() and os.readlink(link) == terminal:
            link.unlink()


def mpremote(
    context: typer.Context,
    near: Annotated[Path, typer.Option(help="The running machine's image.")] = Path("machine.img"),
) -> None:
    """mpremote on the running machine, with `resume`: mpremote exec, run, eval, repl, fs, mount, mip …"""
    link = terminal_link(near)
    if not link.exists():
        link.unlink(missing_ok=True)
        raise MachineError(near, "no machine runs there on a pty", f"revenant run --near {near} --console pty --keep")
    words = [sys.executable, "-m", "mpremote", "connect", str(link), "resume", *context.args]
    raise typer.Exit(subprocess.run(words, check=False).returncode)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings=PASS_ALL)(mpremote)
