"""Keeps a machine running behind a terminal that outlives it: who kills QEMU is not noticed by who types there.

Promise: a client of the terminal sees each byte of the machine's console once and in order, and each byte that it
typed arrives once, however often QEMU is ended by a signal. The machine repeats after a cut what may not have been
seen, and forgets input of no durable generation; at each start it says from which byte on, counted since genesis
(kernel/proc/console.c), and the keeper leaves out or sends again what is between.
What the kernel says goes to stderr, as with any other console.
Used by: `revenant run --console pty --keep`.
"""

from __future__ import annotations

import os
import re
import select
import signal
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from revenant.errors import MachineError
from revenant.machine import Machine, explain_exit
from revenant.output import say
from revenant.qemu import MachineConfig
from revenant.relay import told
from revenant.remote import linked

GOES_ON = re.compile(r"console: goes on at byte (\d+) out, (\d+) in")
LOG_DEBUG = 2
FAILED_STARTS_MAX = 3
"""In a row, of a QEMU that ends itself; who kills it may do so as often as he likes."""
PIECE_SIZE = 4096
INPUT_KEPT_SIZE = 1 << 20
"""Far more than a machine takes between two generations."""


@dataclass
class Input:
    """What the machine was sent, counted as its console record counts."""

    first: int = 0
    data: bytearray = field(default_factory=bytearray)

    def sent(self, more: bytes) -> None:
        """The machine's UART has these, too."""
        self.data += more
        if (excess := len(self.data) - INPUT_KEPT_SIZE) > 0:
            del self.data[:excess]
            self.first += excess

    def forget_from(self, counter: int) -> bytes:
        """The machine goes on with what came before `counter`; returns what it has to be sent again."""
        lost = bytes(self.data[counter - self.first :])
        del self.data[counter - self.first :]
        return lost


class Keeper:
    """Starts the machine again and again, and passes bytes between it and `client`, the master side of a pty."""

    def __init__(self, config: MachineConfig, client: int) -> None:
        self.config = replace(config, log_level=LOG_DEBUG)
        self.client = client
        self.shown: int | None = None  # console bytes since genesis that the client has been given
        self.input = Input()
        self.to_client = b""
        self.to_machine = b""

    def run(self) -> int:
        """Until the machine switches itself off (0), or ends in a way that another start does not mend (raises)."""
        failed_starts = 0
        while True:
            with Machine(self.config) as machine, told(machine) as relay:
                started = self._meet(machine)
                while started and self._pass_bytes(machine):
                    pass
                status = machine.process.wait()
                machine.kill()  # for what it had still said
                if started:
                    self._show(machine.rest)
            failed_starts = 0 if started else failed_starts + 1
            crashes = status != -signal.SIGKILL and failed_starts == FAILED_STARTS_MAX
            if status >= 0 or crashes:
                error = explain_exit(self.config, status, machine.voice, relay.unexplained.decode(errors="replace"))
                if error is not None:
                    raise error
                return 0
            say("revenant: QEMU was ended; the machine goes on")

    def _meet(self, machine: Machine) -> bool:
        """Wait until the machine says where it goes on; False if it ended before."""
        while True:
            has_ended = machine.process.poll() is not None  # looked at first: what it said at its end counts
            if match := GOES_ON.search(machine.voice):
                break
            if has_ended:
                return False
            select.select([], [], [], 0.01)
        out, taken = int(match[1]), int(match[2])
        if self.shown is None:
            self.shown, self.input.first = out, taken
        if out > self.shown or not 0 <= taken - self.input.first <= len(self.input.data):
            raise MachineError(self.config.near, "its console has gone on without its keeper", "start it anew")
        self.to_machine = self.input.forget_from(taken) + self.to_machine
        self.repeated = self.shown - out
        return True

    def _show(self, data: bytes) -> None:
        """Console bytes for the client, but for those that it has."""
        new = data[self.repeated :]
        self.repeated -= len(data) - len(new)
        self.to_client += new
        assert self.shown is not None
        self.shown += len(new)

    def _pass_bytes(self, machine: Machine) -> bool:
        """Wait, then move some bytes either way; False when the machine has ended."""
        console = machine.console_socket.fileno()
        to_read = [fd for fd, waiting in ((console, self.to_client), (self.client, self.to_machine)) if not waiting]
        to_write = [fd for fd, waiting in ((self.client, self.to_client), (console, self.to_machine)) if waiting]
        readable, writable, _ = select.select(to_read, to_write, [])
        try:
            if console in readable:
                if not (data := machine.console_socket.recv(PIECE_SIZE)):
                    return False
                self._show(data)
            if console in writable:
                count = machine.console_socket.send(self.to_machine[:PIECE_SIZE])
                self.input.sent(self.to_machine[:count])
                self.to_machine = self.to_machine[count:]
        except ConnectionError:
            return False
        if self.client in readable:
            self.to_machine = os.read(self.client, PIECE_SIZE)
        if self.client in writable:
            self.to_client = self.to_client[os.write(self.client, self.to_client[:PIECE_SIZE]) :]
        return True


@contextmanager
def terminal() -> Iterator[tuple[int, str]]:
    """A raw pty that both we and clients may open and close: its master side and the name of the other."""
    master, slave = os.openpty()
    try:
        tty.setraw(slave)
        os.set_blocking(master, False)
        yield master, os.ttyname(slave)
    finally:
        os.close(slave)
        os.close(master)


def keep_running(config: MachineConfig) -> int:
    """Print the terminal's name and keep the machine running there; the exit status."""
    with terminal() as (master, name), linked(config.near, name):
        print(name, flush=True)
        return Keeper(config, master).run()
