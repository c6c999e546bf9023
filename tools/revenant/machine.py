"""A running machine as a context manager: QEMU as our child, its console, monitor and voice in our hands.

Promise: only the QEMU started here is ever ended; it ends with us, however we end. Nothing is lost by killing
it: that is the point of Revenant. Used by: running.py (`run`, `demo`), bench, the tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import pexpect
from pexpect.socket_pexpect import SocketSpawn
from qemu.qmp.legacy import QEMUMonitorProtocol

from revenant.children import die_with_parent
from revenant.errors import MachineError, RefusedError, StoreError
from revenant.events import readable
from revenant.firmware import FoundKernel, boot_disk, remote_kernel, require_bootable
from revenant.qemu import Boot, MachineConfig, Wiring, command_line, is_file, is_nbd, require_qemu
from revenant.reconnect import keep_connected
from revenant.store import Store
from revenant.symbols import explain
from revenant.trust import is_trusted

EXIT_PANIC = 0x7F << 1 | 1  # isa-debug-exit: the value written, doubled, plus one
EXIT_LOADER = 0x7E << 1 | 1
EXIT_REFUSED = 0x7D << 1 | 1
EXIT_ENDED = 0x7C << 1 | 1
EXIT_STOPPED = 0x7B << 1 | 1
E_CORRUPT = 4  # kernel/lib/error.h
PROMPT = b">>> "
"""MicroPython's prompt."""


@dataclass(frozen=True)
class KernelFile:
    """The kernel to enter by PVH, in memory only."""

    fd: int
    found: FoundKernel

    @property
    def path(self) -> str:
        """A name that our child can open."""
        return f"/dev/fd/{self.fd}"


def local_images(config: MachineConfig) -> list[Path]:
    """The images that we can look into ourselves: near first, then far files."""
    return [config.near, *(Path(uri) for uri in config.fars if is_file(uri))]


def far_kernel(uri: str, trust: str | None) -> FoundKernel | None:
    """The kernel of a far store that is to be trusted; StoreError or None: it is not to be had."""
    if not is_file(uri):
        return remote_kernel(uri, trust) if trust else None
    with Store(Path(uri)) as store:
        if trust and not is_trusted(store.root, trust):
            raise store.fault("its root is not the trusted one")
        return FoundKernel(store.kernel(), f"generation {store.root.generation} of {uri}")


def find_kernel(config: MachineConfig) -> FoundKernel | None:
    """The kernel of the near image's newest generation, or of the first far store that has it; None: boot by MBR."""
    if config.boot == Boot.MBR:
        return None
    if config.kernel:
        return FoundKernel(config.kernel.read_bytes(), str(config.kernel), config.packed)
    reason, trust = "there is no image file to take it from", config.trust
    try:
        with Store(config.near) as store:
            trust = store.table[0].root_hash.hex() if store.table else trust
            return FoundKernel(store.kernel(), f"generation {store.root.generation} of {config.near}")
    except StoreError as error:
        reason = error.reason
    for number, uri in enumerate(config.reached):
        try:
            found = far_kernel(uri, trust)
        except StoreError as error:
            reason = error.reason
            continue
        if found is not None:  # the kernel reads ahead from its first far store only
            return found if number == 0 else replace(found, packed=None)
    if config.boot == Boot.PVH:
        raise MachineError(config.near, f"no kernel to enter by PVH: {reason}", "use --boot mbr")
    return None


def kernel_file(config: MachineConfig) -> KernelFile | None:
    """The kernel in an anonymous file."""
    found = find_kernel(config)
    if found is None:
        return None
    fd = os.memfd_create("revenant-kernel")
    os.write(fd, found.data)
    return KernelFile(fd, found)


def start_qemu(
    config: MachineConfig, wiring: Wiring, pass_fds: Sequence[int] = (), **streams: Any
) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Start QEMU as a child; returns it and its command line."""
    require_qemu()
    kernel = kernel_file(config)
    if kernel is None:
        require_bootable(config)
    else:
        config = replace(config, packed=kernel.found.packed)
    command = command_line(config, wiring, kernel.path if kernel else None)
    fds = [*pass_fds, *([kernel.fd] if kernel else [])]
    with connection_keeper(config) as monitor_fds:
        command += [word for fd in monitor_fds for word in monitor_words(fd, "connections")]
        process = subprocess.Popen(command, pass_fds=[*fds, *monitor_fds], preexec_fn=die_with_parent, **streams)
    if kernel:
        os.close(kernel.fd)
    return process, command


@contextlib.contextmanager
def connection_keeper(config: MachineConfig) -> Iterator[list[int]]:
    """The end of a monitor for the QEMU that the block starts, if its far stores are to be connected to again."""
    fars = {f"far{number}": uri for number, uri in enumerate(config.reached, start=1) if is_nbd(uri)}
    if not fars:
        yield []
        return
    monitor, child = socket.socketpair()
    with child:
        yield [child.fileno()]
    keep_connected(monitor, fars)


def reasons(stderr: str) -> list[str]:
    """What QEMU, the loader or the kernel said, without time stamps and names and arguments of programs."""
    noise = r"\[ *\d+\.\d+\] (store: )?|revenant boot: |qemu-system-x86_64: (-\w+ \{.*\}: )?"
    lines = (re.sub(f"^({noise})", "", line.strip()) for line in stderr.splitlines())
    return [line for line in lines if line] or ["no message"]


def refusal(config: MachineConfig, said: list[str], disk: str | Path) -> RefusedError:
    """The last line says what cannot be done, the one before it why; "farN: ": it is that disk's fault."""
    what, why = said[-1].partition(" (error ")[0], said[-2] if len(said) > 1 else ""
    if match := re.match(r"far(\d): ", why):
        disk = config.fars[int(match[1]) - 1]
    why = re.sub(r"^(near|far\d): ", "", why)
    reason = f"{why}; {what}" if why else what
    damaged = disk == config.near and f"(error {E_CORRUPT})" in said[-1]
    return RefusedError(disk, reason, "the machine did not start", blames_state=damaged)


def panic(config: MachineConfig, said: list[str], names: str) -> MachineError:
    """What the kernel gave as its reason, and the last damage that it had found; where it was as details."""
    why = next((line for line in said if line.startswith("panic: ")), said[-1])
    return MachineError(config.near, "; ".join([*damage(said), why]), "no generation is lost", 3, names, True)


def damage(said: list[str]) -> list[str]:
    """The last damage that was found."""
    return [line for line in said if "does not have its hash" in line][-1:]


def stopped(config: MachineConfig, said: list[str]) -> MachineError:
    """The kernel ended a machine that could go on, but not save anything any more."""
    what = said[-1].partition(" (error ")[0]
    near = config.near
    remedy = f"what was shown is saved; `revenant check {near}`; `revenant fork {near} OUT` makes a whole image of it"
    return MachineError(config.near, "; ".join([*damage(said), what]), remedy, 3)


def ended(config: MachineConfig, said: list[str], names: str) -> MachineError:
    """How the programs ended, the first words of each; the last damage that was found may be why."""
    ends = re.compile(r"process \d+ \(.*\) (stopped|(had )?ended)\b")
    why = "; ".join([*damage(said), *(line for line in said if ends.match(line))])
    remedy = "`revenant inspect --at` looks into an older generation, `revenant rollback` goes back to it"
    return MachineError(config.near, f"no program is left: {why}", remedy, 4, names, True)


def explain_exit(
    config: MachineConfig, status: int, stderr: str, unexplained: str | None = None
) -> MachineError | None:
    """QEMU's end as an error for the user, or None when the machine was switched off.

    Its details are about the reports in stderr, or in that part of it that nobody has explained yet.
    """
    said = reasons(stderr)
    if status == 0:
        return None
    if 'Failed to get "write" lock' in stderr:
        return MachineError(config.near, "in use by another machine", "end that one first")
    if status == EXIT_PANIC:
        return panic(config, said, explain(stderr if unexplained is None else unexplained, local_images(config)))
    if status == EXIT_ENDED:
        return ended(config, said, explain(stderr if unexplained is None else unexplained, local_images(config)))
    if status == EXIT_REFUSED:
        return refusal(config, said, config.near)
    if status == EXIT_STOPPED:
        return stopped(config, said)
    if status == EXIT_LOADER:
        return refusal(config, said, boot_disk(config))
    if status < 0:
        name = signal.Signals(-status).name
        return MachineError("qemu", f"ended by {name}", "the next start goes on from here", 128 - status)
    return MachineError("qemu", said[-1])


def monitor_words(fd: int, name: str = "monitor") -> tuple[str, ...]:
    """A QMP monitor on an inherited socket."""
    return ("-chardev", f"socket,id={name},fd={fd}", "-mon", f"chardev={name},mode=control")


if TYPE_CHECKING:
    BytesSpawn = SocketSpawn[bytes]
else:
    BytesSpawn = SocketSpawn


class Console(BytesSpawn):
    """pexpect on the console's socket; keeps all bytes in `transcript` (SocketSpawn itself logs nothing)."""

    def __init__(self, connection: socket.socket, timeout_s: float, transcript: io.BytesIO) -> None:
        super().__init__(connection, timeout=timeout_s, maxread=65536)
        self.transcript = transcript

    def read_nonblocking(self, size: int = 1, timeout: float | None = -1) -> bytes:
        """pexpect's own, recorded."""
        data: bytes = super().read_nonblocking(size, timeout)
        self.transcript.write(data)
        return data

    def read_rest(self) -> bytes:
        """What was received and not looked at yet, up to the end. The other end is gone."""
        # not `buffer`: that is cut to a window after an expect that timed out
        data: bytes = self._before.getvalue()  # type: ignore[attr-defined]
        try:
            while True:
                data += self.read_nonblocking(65536, 1)
        except (pexpect.EOF, pexpect.TIMEOUT, OSError):
            return data


class Machine:
    """A machine driven by a program: `console` is a pexpect spawn, `qmp(…)` speaks to QEMU.

    What QEMU and the kernel say (stderr and COM2) is in the file `voice_path`, console bytes in `transcript`.
    Leaving the context kills the machine. `started` lists all machines of this process, for reports.
    """

    started: ClassVar[list[Machine]] = []

    def __init__(self, config: MachineConfig, timeout_s: float = 30) -> None:
        self.config = config
        self.timeout_s = timeout_s
        self.transcript = io.BytesIO()
        self.rest = b""
        self.last_words = ""
        self._monitor: QEMUMonitorProtocol | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            error.add_note(self.report())

    def start(self) -> None:
        """Start QEMU with its console and monitor on socket pairs, connected from the first byte on."""
        console, console_child = socket.socketpair()
        monitor, monitor_child = socket.socketpair()
        handle, name = tempfile.mkstemp(prefix="revenant-voice-")
        self.voice_path = Path(name)
        wiring = Wiring(
            console=f"socket,id=console,fd={console_child.fileno()}",
            voice=f"file,id=voice,path={name},append=on",
            monitor=monitor_words(monitor_child.fileno()),
        )
        self.started_s = time.monotonic()
        fds = [console_child.fileno(), monitor_child.fileno()]
        try:
            self.process, self.command = start_qemu(
                self.config, wiring, fds, stdin=subprocess.DEVNULL, stdout=handle, stderr=handle
            )
        except BaseException:
            self.voice_path.unlink()
            raise
        Machine.started.append(self)
        os.close(handle)
        console_child.close()
        monitor_child.close()
        self.console_socket, self._monitor_socket = console, monitor
        self.console = Console(console, self.timeout_s, self.transcript)

    # --- ending ---

    def kill(self) -> None:
        """kill -9, as a power cut would do it; `rest` is then what the console showed and nobody read yet."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.console_socket.fileno() >= 0:
            self.rest = self.console.read_rest()
        self._close()

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for QEMU's own end; its exit status."""
        status = self.process.wait(timeout_s or self.timeout_s)
        self._close()
        return status

    def _close(self) -> None:
        self.last_words = self.voice
        self.voice_path.unlink(missing_ok=True)
        if self._monitor is not None:
            with contextlib.suppress(Exception):  # the other end is gone
                self._monitor.close()
            self._monitor = None
        for end in (self.console_socket, self._monitor_socket):
            with contextlib.suppress(OSError):
                end.close()

    # --- looking and speaking ---

    def qmp(self, command: str, **arguments: object) -> Any:
        """A QMP command; its return value."""
        if self._monitor is None:
            self._monitor = QEMUMonitorProtocol(self._monitor_socket)
            self._monitor.connect()
        return self._monitor.cmd(command, **arguments)

    @property
    def voice(self) -> str:
        """What QEMU and the kernel said so far."""
        try:
            return self.voice_path.read_text(errors="replace")
        except FileNotFoundError:
            return self.last_words  # it has ended

    def expect(self, pattern: bytes | list[bytes], timeout_s: float | None = None) -> bytes:
        """Wait for a regular expression on the console; returns what came before it."""
        self.console.expect(pattern, timeout=timeout_s or self.timeout_s)  # type: ignore[arg-type]
        return cast(bytes, self.console.before)

    def expect_exact(self, text: bytes, timeout_s: float | None = None) -> bytes:
        """Wait for bytes on the console; returns what came before them."""
        self.console.expect_exact(text, timeout=timeout_s or self.timeout_s)
        return cast(bytes, self.console.before)

    def expect_voice(self, text: str, timeout_s: float | None = None) -> None:
        """Wait until the kernel's voice (or QEMU's) contains text."""
        end = time.monotonic() + (timeout_s or self.timeout_s)
        while True:
            is_last_look = time.monotonic() > end or self.process.poll() is not None  # what it said at its end counts
            if text in self.voice:
                return
            if is_last_look:
                raise TimeoutError(f"the kernel did not say {text!r}")
            select.select([], [], [], 0.02)

    def send(self, data: bytes) -> None:
        """Bytes to the console."""
        self.console_socket.sendall(data)

    def command_at_prompt(self, line: str, timeout_s: float | None = None) -> str:
        """Type a line at the prompt; what it prints, without the echo."""
        self.send(line.encode() + b"\r")
        answer = self.expect_exact(PROMPT, timeout_s).decode(errors="replace")
        return answer.replace("\r\n", "\n").partition("\n")[2].rstrip("\n")

    def report(self) -> str:
        """All that helps to understand a failure."""
        tail = self.transcript.getvalue()[-2000:].decode(errors="replace")
        voice = self.voice
        names = explain(voice, local_images(self.config)) or "(there are none)"
        said = readable(voice[-8000:].encode()).decode()
        return "\n".join([
            f"--- QEMU: {shlex.join(self.command)}",
            f"--- exit status: {self.process.poll()}; image: {self.config.near}",
            f"--- kernel's voice and QEMU's stderr:\n{said}",
            f"--- names of the addresses in it:\n{names}",
            f"--- console, last 2000 bytes:\n{tail}",
        ])  # fmt: skip


class ConsoleStream:
    """The console socket in the shape of a pyserial port, for mpremote's transport.

    MachineError where the machine ends, or is silent for `timeout_s`.
    """

    def __init__(self, machine: Machine, timeout_s: float | None = None) -> None:
        self.machine = machine
        self.timeout_s = timeout_s
        self.socket = machine.console_socket
        self.buffer = b""
        self.rts = self.dtr = False

    def _fill(self, timeout_s: float | None) -> bool:
        if not select.select([self.socket], [], [], timeout_s)[0]:
            return False
        data = self.socket.recv(65536)
        if not data:
            status = self.machine.process.wait(self.machine.timeout_s)
            error = explain_exit(self.machine.config, status, self.machine.voice)
            raise error or MachineError("qemu", "the machine ended")
        self.machine.transcript.write(data)
        self.buffer += data
        return True

    def inWaiting(self) -> int:
        """Bytes that can be read at once."""
        if not self.buffer:
            self._fill(0)
        return len(self.buffer)

    def read(self, size: int = 1) -> bytes:
        """`size` bytes; waits for them as long as the machine lives."""
        while len(self.buffer) < size:
            if not self._fill(self.timeout_s):
                raise MachineError(self.machine.config.near, f"its console was silent for {self.timeout_s} s")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def write(self, data: bytes) -> int:
        """All of data."""
        self.socket.sendall(data)
        return len(data)

    def close(self) -> None:
        """The machine owns the socket."""
