"""The command debug: a machine under gdb, stopped before its first instruction, with names of kernel and userland.

Promise: names only where the image runs the build's code. The machine has a session of its own, so that Ctrl-C is
gdb's; when gdb ends, the machine's power is cut, and what was durable goes on. Used by: cli.py.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from qemu.qmp.legacy import QEMUMonitorProtocol

from revenant.errors import MachineError
from revenant.genesis import BuildFiles, build_folder
from revenant.images import Image
from revenant.inspection import Inspection
from revenant.machine import monitor_words, start_qemu, temporary_folder
from revenant.output import say
from revenant.qemu import MEMORY_MIB_DEFAULT, Boot, MachineConfig, Wiring
from revenant.running import announced_pty
from revenant.state import NEWEST, named
from revenant.store import Store
from revenant.symbols import Symbols, code_of

GDB = "gdb"
COMMANDS = Path(__file__).with_name("gdb_commands.py")
HINT = "stopped before the first instruction; try: hbreak proc_run, continue, rv-threads, rv-space, rv-tree, rv-frames"


def symbol_files(image: Path) -> Iterator[str]:
    """gdb's words for the ELF files whose code the image runs; says which it does not run."""
    kernel, userland = build_folder() / "kernel.elf", BuildFiles.locate().userland
    with Store(image) as store:
        inspection = Inspection(store, named(store, NEWEST))
        processes = list(inspection.state.processes.values())
        if kernel.is_file() and code_of(store.kernel()) == Symbols(kernel).code:
            yield f"symbol-file {kernel}"
        else:
            say(f"revenant: no names of the kernel: {image} runs another one than {kernel}")
        if userland.is_file() and any(inspection.program(process).runs(Symbols(userland)) for process in processes):
            yield f"add-symbol-file {userland}"
        else:
            say(f"revenant: no names of programs: none runs the code of {userland}")


def gdb_words(stub: Path, files: Sequence[str], commands: Sequence[str]) -> list[str]:
    """gdb's command line; with `commands`, they are all that it does."""
    setting = [
        "set pagination off",
        "set confirm off",
        "set architecture i386:x86-64",
        *files,
        f"source {COMMANDS}",
        f"target remote {stub}",
    ]
    words = [GDB, "-nx", "-q", *(["-batch"] if commands else [])]
    return words + [word for command in (*setting, *commands) for word in ("-ex", command)]


@contextmanager
def stopped_machine(config: MachineConfig, console: str, voice: Path) -> Iterator[socket.socket]:
    """A machine that waits for a debugger, and its monitor; its power is cut afterwards."""
    monitor, child = socket.socketpair()
    words = monitor_words(child.fileno())
    wiring = Wiring(console=console, voice=f"file,id=voice,path={voice}", monitor=words)
    streams = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr, "start_new_session": True}
    process, _ = start_qemu(config, wiring, [child.fileno()], **streams)
    child.close()
    try:
        yield monitor
    finally:
        process.kill()
        process.wait()
        monitor.close()


def console_words(console: str, folder: Path) -> str:
    """The chardev of --console: gdb has the terminal."""
    if console == "pty":
        return "pty,id=console"
    path = (folder / "console" if console == "none" else Path(console)).absolute()
    return f"file,id=console,path={str(path).replace(',', ',,')}"


@contextmanager
def listening(monitor: socket.socket) -> Iterator[None]:
    """Once QEMU answers its monitor, it listens to debuggers, too."""
    qmp = QEMUMonitorProtocol(monitor)
    qmp.connect()
    yield
    with suppress(Exception):  # QEMU may have ended
        qmp.close()


def debug(
    image: Image,
    command: Annotated[list[str] | None, typer.Option(help="A gdb command; with one or more, gdb ends then.")] = None,
    memory: Annotated[int, typer.Option(help="MiB of RAM.", min=32)] = MEMORY_MIB_DEFAULT,
    console: Annotated[str, typer.Option(help="pty, none, or a file that takes the output.")] = "pty",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print gdb's command, start nothing.")] = False,
) -> None:
    """Start the machine under gdb, stopped before its first instruction; commands rv-* show what is in it."""
    if shutil.which(GDB) is None:
        raise MachineError(GDB, "not installed", "apt-get install gdb")
    files = list(symbol_files(image))
    with temporary_folder() as folder:
        stub = folder / "gdb"
        words = gdb_words(stub, files, command or [])
        if dry_run:
            print(shlex.join(words))
            return
        extra = ("-S", "-gdb", f"unix:{stub},server=on,wait=off")
        config = MachineConfig(image, memory_mib=memory, boot=Boot.PVH, extra=extra)
        voice = folder / "voice"
        with stopped_machine(config, console_words(console, folder), voice) as monitor:
            if not command:
                say(f"revenant: {HINT}; the kernel's voice is in {voice}")
            with announced_pty(image, monitor) if console == "pty" else listening(monitor):
                status = subprocess.run(words, check=False).returncode
    if status:
        raise typer.Exit(status)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(debug)
