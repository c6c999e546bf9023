"""Commands that start programs: run, serve, demo. The machinery is in machine.py and nbd.py."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from qemu.qmp import QMPError
from qemu.qmp.legacy import QEMUMonitorProtocol

from revenant import demonstration, genesis, heal, nbd, resume_list
from revenant.errors import MachineError, RefusedError, RevenantError, StoreError
from revenant.files import Addition
from revenant.format import BLOCK_SIZE, HEADER_BLOCK, HEADER_COPY_BLOCK
from revenant.images import parse_size
from revenant.keeper import keep_running
from revenant.machine import explain_exit, find_kernel, local_images, monitor_words, start_qemu
from revenant.output import say
from revenant.qemu import (
    MEMORY_MIB_DEFAULT,
    Accelerator,
    Boot,
    MachineConfig,
    Retention,
    Wiring,
    choose_accelerator,
    command_line,
    is_file,
    is_nbd,
    is_web,
)
from revenant.relay import RELAY_TIMEOUT_S, RENEWED_LINE, WINDOW_TITLE, Relay, piped, to_stderr
from revenant.remote import linked
from revenant.script import read_script, run_script
from revenant.start_line import found_line, last_screen
from revenant.store import Store
from revenant.symbols import explain
from revenant.trust import distrust_reason, parse_trust
from revenant.window import display_of, shown

Json = Annotated[bool, typer.Option("--json", help="Facts as JSON.")]
Near = typer.Option(help="The near image; made if missing.", readable=False)  # prepare_near says it better

UI = "ui"
"""`--console`'s value that `--ui` stands for: the terminal is drawn on by ui/app.py."""

# --- preparing ---


def is_blank(path: Path) -> bool:
    """Whether a near file waits to be filled: zero in blocks 0, 1 and 18."""
    try:
        with path.open("rb") as file:
            for block in (0, HEADER_BLOCK, HEADER_COPY_BLOCK):
                file.seek(block * BLOCK_SIZE)
                if file.read(BLOCK_SIZE).strip(b"\0"):
                    return False
    except OSError as error:
        raise StoreError(path, error.strerror or "cannot be read") from None
    return True


@dataclass(frozen=True)
class Making:
    """How a near image is made that is missing."""

    size: str
    additions: Sequence[Addition] = ()

    def make(self, near: Path) -> None:
        """An image with genesis in it."""
        files = genesis.BuildFiles.locate()
        root = genesis.create_image(near, files, parse_size(self.size), additions=self.additions)
        say(f"revenant: made {near}, root hash {root.hash.hex()}")


def prepare_near(near: Path, fars: list[str], trust: str | None, making: Making) -> bool:
    """Make a missing near file; refuse one that is not ours. True if it is blank, to be filled from far."""
    if near.is_dir():
        raise StoreError(near, "is a folder")
    if not near.exists():
        if not fars:
            making.make(near)
            return False
        make_blank(near, making.size)
    if not is_blank(near):
        require_sound(near)
        return False
    if not fars:
        raise StoreError(near, "blank: there is no store in it", "give --far and --trust")
    if trust is None:
        raise StoreError(near, "blank, and nothing says which far store to trust", "give --trust ROOTHASH or KEY.pub")
    return True


def make_blank(near: Path, size: str) -> None:
    """A sparse file, to be filled from far."""
    try:
        with near.open("xb") as file:
            file.truncate(parse_size(size))
    except OSError as error:
        raise StoreError(near, f"cannot be made: {error.strerror}") from None


def require_sound(near: Path) -> None:
    """StoreError unless a writable file has a generation to go on from; says what it had to pass over."""
    with Store(near) as store:
        for fault in store.root_faults:
            say(f"revenant: {near}: {fault}; going on from generation {store.root.generation}")
    if not os.access(near, os.W_OK):
        raise StoreError(near, "cannot be written", f"chmod u+w {shlex.quote(str(near))}")


@contextmanager
def removed_if_refused(near: Path) -> Iterator[None]:
    """A near file that is made for this start goes again if no program has run in it."""
    was_there = near.exists()
    try:
        yield
    except RevenantError as error:
        if not was_there and near.exists() and (isinstance(error, RefusedError) or is_blank(near)):
            near.unlink()
        raise


def check_fars(fars: list[str], trust: str | None, adopting: bool) -> None:
    """Far files must be stores; where one is to be adopted, it is enough that one of all far stores may be."""
    faults = []
    for uri in fars:
        if not is_file(uri):
            continue
        try:
            with Store(Path(uri)) as store:
                reason = distrust_reason(store.roots, trust) if adopting and trust else ""
            if reason:
                raise StoreError(uri, reason)
        except StoreError as error:
            faults.append(error)
    if faults and (not adopting or len(faults) == len(fars)):
        raise faults[0]


def reachable(uri: str) -> bool:
    """Whether a server answers the door. Other kinds of far store are left to QEMU."""
    return not (is_nbd(uri) or is_web(uri)) or nbd.is_there(uri)


def usable_fars(fars: list[str], adopting: bool) -> list[str]:
    """QEMU refuses to start with a dead server; a near store that has what it needs starts without it."""
    dead = [uri for uri in fars if not reachable(uri)]
    if adopting and dead == fars:
        raise MachineError(dead[0], *nbd.NOT_THERE)
    for uri in dead:
        say(f"revenant: {uri}: {nbd.NOT_THERE[0]}; going on without it")
    return [uri for uri in fars if uri not in dead]


# --- the terminal ---


@contextmanager
def terminal_restored() -> Iterator[None]:
    """QEMU sets the terminal to raw; however it ends, the terminal is as before afterwards."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextmanager
def signals_passed(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """SIGTERM and SIGHUP end QEMU, then us; SIGINT reaches QEMU by itself."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        process.terminate()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def console_words(console: str) -> str:
    """The chardev of `--console`."""
    if console in ("stdio", UI):
        mux = "on" if sys.stdin.isatty() else "off"
        return f"stdio,id=console,signal=off,mux={mux}"
    if console == "pty":
        return "pty,id=console"
    if console.startswith("unix:") and len(console) > len("unix:"):
        path = console.removeprefix("unix:").replace(",", ",,")
        return f"socket,id=console,path={path},server=on,wait=off"
    raise typer.BadParameter(f"{console!r} is not stdio, pty or unix:PATH", param_hint="--console")


def shared_monitor(console: str) -> tuple[str, ...]:
    """QEMU's own prompt behind Ctrl-A C, where the console is a terminal."""
    shared = console == "stdio" and sys.stdin.isatty()
    return ("-mon", "chardev=console,mode=readline") if shared else ()


@contextmanager
def announced_pty(near: Path, monitor: socket.socket) -> Iterator[None]:
    """Print the terminal's name and link to it; held open, so that no byte is lost before somebody opens it."""
    qmp = QEMUMonitorProtocol(monitor)
    qmp.connect()
    chardevs: Any = qmp.cmd("query-chardev")
    path = next(dev["filename"] for dev in chardevs if dev["label"] == "console").removeprefix("pty:")
    held = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(held)
    qmp.close()
    try:
        with linked(near, path):
            print(path, flush=True)
            yield
    finally:
        os.close(held)


def redraw(config: MachineConfig) -> None:
    """The last screen, above what the kernel sends again; raw, as the program wrote it."""
    row_count = shutil.get_terminal_size().lines - 1
    sys.stdout.buffer.write(last_screen(config.near, config.fars, row_count))
    sys.stdout.flush()


def screen_console(console: str, script: list[str] | None, record: bool) -> str:
    """The console of `--ui`: UI, where it can be; MachineError: there is no terminal to draw on."""
    if console not in ("stdio", UI) or script or record:
        raise typer.BadParameter("not with --console, --keep, a script or --record", param_hint="--ui")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise MachineError("--ui", "stdin and stdout are no terminal", "leave --ui out", exit_status=2)
    return UI


def run_console(config: MachineConfig, console: str) -> int:
    """Run until QEMU ends; its exit status as ours, errors raised."""
    if console == UI:
        from revenant.ui.app import run_ui  # here: Textual takes longer to load than a machine to start

        return run_ui(config)
    reading, writing = os.pipe()
    monitor, monitor_child = socket.socketpair()
    words = monitor_words(monitor_child.fileno()) if console == "pty" else shared_monitor(console)
    if console == "stdio" and sys.stdout.isatty():
        redraw(config)
    wiring = Wiring(console=console_words(console), monitor=words)
    with terminal_restored():
        fds = [monitor_child.fileno()] if console == "pty" else []
        stdout = None if console == "stdio" else writing  # QEMU has a remark about a pty of its own
        process, _ = start_qemu(config, wiring, fds, stdout=stdout, stderr=writing)
        os.close(writing)
        monitor_child.close()
        progress = WINDOW_TITLE if console == "stdio" and sys.stdout.isatty() else RENEWED_LINE
        relay = Relay(
            piped(reading),
            to_stderr,
            progress if sys.stderr.isatty() else None,
            lambda report: explain(report, local_images(config)),
        )
        relay.start()
        with signals_passed(process), contextlib.ExitStack() as stack:
            if console == "pty":
                with contextlib.suppress(QMPError, EOFError, OSError):  # QEMU ended; its status says why
                    stack.enter_context(announced_pty(config.near, monitor))
            status = process.wait()
            relay.join(RELAY_TIMEOUT_S)
    unexplained = relay.unexplained.decode(errors="replace")
    error = explain_exit(config, status, relay.tail.decode(errors="replace"), unexplained)
    if error is not None:
        if console == "stdio" and sys.stdout.isatty():
            say("")  # the console may have ended within a line
        raise error
    if config.record:
        resume_list.renew(config, relay.head.decode(errors="replace"))
    return 0


def run(
    script: Annotated[list[str] | None, typer.Argument(help="-- SCRIPT: run it, then stop.")] = None,
    near: Annotated[Path, Near] = Path("machine.img"),
    far: Annotated[list[str] | None, typer.Option(help="A file, nbd://, nbd+unix://, http(s)://, json:{…}.")] = None,
    trust: Annotated[str | None, typer.Option(help="Far's root hash, or the public key of its publisher.")] = None,
    memory: Annotated[int, typer.Option(help="MiB of RAM.", min=32)] = MEMORY_MIB_DEFAULT,
    accel: Annotated[Accelerator, typer.Option(help="QEMU's engine.")] = Accelerator.AUTO,
    interval: Annotated[int, typer.Option(help="ms from snapshot to snapshot.", min=0, max=60000)] = 100,
    relaxed: Annotated[bool, typer.Option("--relaxed", help="Show output before it is saved.")] = False,
    fill: Annotated[bool, typer.Option(help="Fetch what is still far when nothing else is to be done.")] = True,
    record: Annotated[bool, typer.Option("--record", help="Note what the start touches: a new resume list.")] = False,
    pidfile: Annotated[Path | None, typer.Option(help="Where QEMU's pid goes.")] = None,
    console: Annotated[str, typer.Option(help="stdio, pty or unix:PATH.")] = "stdio",
    window: Annotated[bool, typer.Option("--window", help="A screen and a keyboard besides the console.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="With pty: start QEMU again when it is killed.")] = False,
    boot: Annotated[Boot, typer.Option(help="How the kernel is entered.")] = Boot.AUTO,
    size: Annotated[str, typer.Option(help="Of a near image that has to be made.")] = "1G",
    add: Annotated[list[str] | None, typer.Option(help="FILE[:TARGET] into an image that has to be made.")] = None,
    retain: Annotated[str | None, typer.Option(help="Keep NEWEST[:HOURLY[:DAILY]] from now on.")] = None,
    ui: Annotated[bool, typer.Option("--ui", help="The console, and around it what the machine does.")] = False,
    healing: Annotated[bool, typer.Option("--heal", help="Go back to an older generation while starts fail.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print QEMU's command, start nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Start the machine, or let it go on. In a terminal, Ctrl-A X leaves it; nothing is lost by that."""
    try:
        trust = parse_trust(trust) if trust is not None else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--trust") from None
    if script and len(script) > 1:
        raise typer.BadParameter("one script file", param_hint="SCRIPT")
    if script:
        read_script(Path(script[0]))  # before an image is made for it
    if ui or console == UI:
        console = screen_console(console, script, record)
    if keep and (console != "pty" or script or relaxed or record):
        reason = "only with --console pty, without a script, --relaxed or --record"
        raise typer.BadParameter(reason, param_hint="--keep")
    wiring = Wiring(console=console_words(console), monitor=shared_monitor(console))
    config = MachineConfig(near, far or [], trust, memory, accel, interval, relaxed, boot, pidfile)
    config = replace(config, retain=parse_retain(retain), fill=fill, record=record)
    config = replace(config, window=display_of(near) if window else None)
    if dry_run:
        print_dry_run(config, wiring, as_json)
        return
    with removed_if_refused(near):
        making = Making(size, [Addition.parse(text) for text in add or []])
        raise typer.Exit(start(config, making, Path(script[0]) if script else None, console, keep, healing))


def start(
    config: MachineConfig, making: Making, script: Path | None, console: str, keep: bool, healing: bool
) -> int:
    """Look at the images, then run; the exit status."""
    fars = list(config.fars)
    adopting = prepare_near(config.near, fars, config.trust, making)
    check_fars(fars, config.trust, adopting)
    config = replace(config, fars=usable_fars(fars, adopting))
    engine, reason = choose_accelerator(config.accelerator)
    say(f"revenant: {found_line(config.near, config.fars, adopting)}")
    say(f"revenant: accelerator {engine} ({reason})")

    def run_once() -> int:
        with shown(config.near, config.window):
            if script:
                return run_script(config, script)
            return keep_running(config) if keep else run_console(config, console)

    with nbd.bridged(config.fars) as bridges:
        config = replace(config, bridges=bridges)
        return heal.watched(config.near, fars, healing, run_once)


def parse_retain(text: str | None) -> Retention | None:
    """The value of --retain."""
    try:
        return Retention.parse(text) if text is not None else None
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(f"{text!r} is not like 16:24:7: {error}", param_hint="--retain") from None


def print_dry_run(config: MachineConfig, wiring: Wiring, as_json: bool) -> None:
    """The command as `run` would start it; the kernel, a file in memory then, is named by its origin."""
    for number, url in enumerate(filter(is_web, config.fars), start=1):
        server = nbd.ServerConfig(url, unix=Path(f"web{number}.sock"))
        say(f"revenant: before it: {shlex.join(nbd.command_line(server))}")
        config = replace(config, bridges={**config.bridges, url: server.uri})
    try:
        found = find_kernel(config)
    except RevenantError:
        found = None
    kernel = f"<kernel of {found.origin}>" if found else None
    command = command_line(config, wiring, kernel)
    print(json.dumps(command) if as_json else shlex.join(command))


# --- serve ---


def serve(
    image: Annotated[Path, typer.Argument(help="A published image.")],
    unix: Annotated[Path | None, typer.Option(help="Serve on this socket.")] = None,
    port: Annotated[int | None, typer.Option(help="Serve on this TCP port.")] = None,
    readonly: Annotated[bool, typer.Option("--readonly/--writable", help="Refuse writes.")] = True,
    delay_ms: Annotated[int | None, typer.Option("--delay", help="ms to wait before every read.")] = None,
    rate: Annotated[str | None, typer.Option(help="Bits per second, like 100M.")] = None,
    stats: Annotated[Path | None, typer.Option(help="nbdkit's statistics go there at the end.")] = None,
    log: Annotated[Path | None, typer.Option(help="nbdkit logs every request there.")] = None,
    pidfile: Annotated[Path | None, typer.Option(help="For nbdkit's pid, once it serves.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print nbdkit's command only.")] = False,
) -> None:
    """Serve an image to other machines by NBD, until ended."""
    if (unix is None) == (port is None):
        raise typer.BadParameter("give either --unix PATH or --port NUMBER")
    with Store(image) as store:
        hash_text = store.root.hash.hex()
    server = nbd.ServerConfig(image, unix, port, readonly, delay_ms, rate, stats, log, pidfile)
    command = nbd.command_line(server)
    if dry_run:
        print(shlex.join(command))
        return
    nbd.require_nbdkit()
    say(f"revenant: serving {image} at {server.uri}, root hash {hash_text}")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    with signals_passed(process):
        status = process.wait()
    if status > 0:
        raise MachineError(nbd.NBDKIT, f"ended with status {status}")


# --- demo ---


def demo(
    keep: Annotated[Path | None, typer.Option(help="Keep the image here.")] = None,
    boot: Annotated[Boot, typer.Option(help="How the kernel is entered.")] = Boot.AUTO,
) -> None:
    """Let programs run, cut the power, and look whether all of them go on. Exit 0 only if they do."""
    demonstration.show(keep, boot)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (run, serve, demo):
        app.command()(command)
