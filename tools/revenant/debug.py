"""The command debug: a machine under gdb, stopped before its first instruction, with names of kernel and userland.

Promise: names only where the image runs the build's code. The machine has a session of its own, so that Ctrl-C is
gdb's; when gdb ends, the machine's power is cut, and what was durable goes on. Used by: cli.py.

A recorded run (`--record FOLDER`) repeats under gdb to the instruction, as often as one likes, each time from the image
as it was: same input, same clocks, same randomness; where it ended, QEMU ends. Limits of QEMU 7.2: while it records, an
answer takes about 0.2 s, for its log goes on when a timer runs; of input that comes faster than it is read, what the
UART cannot hold (16 bytes) is lost; no far stores. It does not go backwards: gdb's reverse commands need `rrsnapshot`,
that wants qcow2, and with qcow2 behind blkreplay QEMU hangs at the first snapshot, before the first instruction.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from revenant.change import locked
from revenant.children import temporary_folder
from revenant.errors import MachineError
from revenant.genesis import BuildFiles, build_folder, build_remedy
from revenant.images import copy_image
from revenant.inspection import Inspection
from revenant.machine import monitor_words, start_qemu
from revenant.output import say
from revenant.qemu import MEMORY_MIB_DEFAULT, Boot, MachineConfig, Recording, Wiring
from revenant.running import announced_pty
from revenant.state import NEWEST, named
from revenant.store import Store
from revenant.symbols import Symbols, code_of

GDB = "gdb"
COMMANDS = Path(__file__).with_name("gdb_commands.py")
HINT = (
    "stopped before the first instruction; try: hbreak proc_run, continue, rv-threads, rv-space, rv-tree, rv-frames;"
    " Ctrl-C stops it anywhere"
)


def symbol_files(image: Path) -> Iterator[str]:
    """gdb's words for the ELF files whose code the image runs; says which it does not run."""
    kernel, userland = build_folder() / "kernel.elf", BuildFiles.locate().userland
    with Store(image) as store:
        inspection = Inspection(store, named(store, NEWEST))
        processes = list(inspection.state.processes.values())
        if not kernel.is_file():
            say(f"revenant: no names of the kernel: {kernel} is missing: {build_remedy()}")
        elif code_of(store.kernel()) == Symbols(kernel).code:
            yield f"file {kernel}"
        else:
            say(f"revenant: no names of the kernel: {image} runs another one than {kernel}")
        if not userland.is_file():
            say(f"revenant: no names of programs: {userland} is missing: {build_remedy()}")
        elif any(inspection.program(process).runs(Symbols(userland)) for process in processes):
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
def own_machine(
    config: MachineConfig, console: str, voice: Path
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """A machine that a terminal's Ctrl-C does not reach, and its monitor; its power is cut afterwards."""
    monitor, child = socket.socketpair()
    words = monitor_words(child.fileno())
    wiring = Wiring(console=console, voice=f"file,id=voice,path={voice}", monitor=words)
    streams = {"stdin": subprocess.DEVNULL, "stdout": sys.stderr, "start_new_session": True}
    process, _ = start_qemu(config, wiring, [child.fileno()], **streams)
    child.close()
    try:
        yield process, monitor
    except (QMPError, EOFError):
        raise MachineError("qemu", "ended before the machine's first instruction", "its reason is above") from None
    finally:
        process.kill()
        process.wait()
        monitor.close()


@contextmanager
def left_to_gdb() -> Iterator[None]:
    """Ctrl-C in the terminal is meant for gdb, which stops the machine by it; we get it, too, and go on."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)  # SIG_IGN would be gdb's as well
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


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


def require_unused(image: Path) -> None:
    """StoreError while a machine has it, which says it better than QEMU."""
    with locked(image):
        pass


def recorded_files(folder: Path) -> tuple[Path, Path, Path]:
    """Of a recorded run: the image as it was, QEMU's log, and what the machine was."""
    return folder / "near.img", folder / "events", folder / "machine.json"


def record_run(image: Path, folder: Path, memory_mib: int, console: str) -> None:
    """Let the machine run until Ctrl-C, and write down what it takes to repeat that."""
    near, log, facts = recorded_files(folder)
    Store(image).close()  # it is one
    require_unused(image)
    try:
        folder.mkdir()
    except OSError as error:
        raise MachineError(folder, f"cannot be made: {error.strerror}", "name a folder that is not there yet") from None
    copy_image(image, near)
    facts.write_text(json.dumps({"memory_mib": memory_mib}))
    config = MachineConfig(image, memory_mib=memory_mib, boot=Boot.PVH, recording=Recording(log, repeats=False))
    words, voice = console_words(console, folder), folder / "voice"
    with own_machine(config, words, voice) as (process, monitor), ExitStack() as stack:
        say(f"revenant: recording; Ctrl-C ends it, then `revenant debug {folder}`; the kernel's voice is in {voice}")
        try:
            stack.enter_context(announced_pty(image, monitor) if console == "pty" else listening(monitor))
            process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)  # it ends the log, too
            process.wait()
        if process.returncode:
            raise MachineError("qemu", f"ended with status {process.returncode}", f"see {voice}")


def config_of(image: Path, memory_mib: int, folder: Path) -> MachineConfig:
    """The machine to be debugged: on an image, or a recorded run again, on a copy of its image in `folder`."""
    if not image.is_dir():
        return MachineConfig(image, memory_mib=memory_mib, boot=Boot.PVH)
    near, log, facts = recorded_files(image)
    if not log.is_file():
        raise MachineError(image, "no recorded run", f"revenant debug IMAGE --record {image}")
    memory_mib = json.loads(facts.read_text())["memory_mib"]
    copy_image(near, folder / near.name)
    recording = Recording(log, repeats=True)
    return MachineConfig(folder / near.name, memory_mib=memory_mib, boot=Boot.PVH, recording=recording)


def debug(
    image: Annotated[Path, typer.Argument(help="The image file; or the folder of a recorded run, to repeat it.")],
    command: Annotated[list[str] | None, typer.Option(help="A gdb command; with one or more, gdb ends then.")] = None,
    record: Annotated[Path | None, typer.Option(help="No gdb: record a run into this new folder.")] = None,
    memory: Annotated[int, typer.Option(help="MiB of RAM.", min=32)] = MEMORY_MIB_DEFAULT,
    console: Annotated[str, typer.Option(help="pty, none, or a file that takes the output.")] = "pty",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print gdb's command, start nothing.")] = False,
) -> None:
    """Start the machine under gdb, stopped before its first instruction; commands rv-* show what is in it."""
    if record:
        record_run(image, record, memory, console)
        return
    if shutil.which(GDB) is None:
        raise MachineError(GDB, "not installed", "apt-get install gdb")
    with temporary_folder() as folder:
        stub, voice = folder / "gdb", folder / "voice"
        config = config_of(image, memory, folder)
        words = gdb_words(stub, list(symbol_files(config.near)), command or [])
        if dry_run:
            print(shlex.join(words))
            return
        require_unused(config.near)
        config = replace(config, extra=("-S", "-gdb", f"unix:{stub},server=on,wait=off"))
        with own_machine(config, console_words(console, folder), voice) as (_, monitor):
            if not command:
                say(f"revenant: {HINT}; the kernel's voice is in {voice}")
            with announced_pty(config.near, monitor) if console == "pty" else listening(monitor), left_to_gdb():
                status = subprocess.run(words, check=False).returncode
    if status:
        raise typer.Exit(status)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(debug)
