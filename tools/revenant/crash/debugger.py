"""QEMU's gdb stub: breakpoints, registers, memory of a machine, from a program.

The protocol is gdb's (GDB manual, appendix "Remote Serial Protocol"); names and sizes of registers come from QEMU.
A machine under it is stopped except inside `go`. Used by: crash/watched.py.
"""

from __future__ import annotations

import re
import socket
import time
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

from revenant.errors import MachineError

CONNECT_PAUSE_S = 0.01
XML_PIECE_SIZE = 0xF00


def connected(path: Path, timeout_s: float) -> socket.socket:
    """A connection to a socket that QEMU is about to make."""
    end_s = time.monotonic() + timeout_s
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.settimeout(timeout_s)
            client.connect(str(path))
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
            if time.monotonic() > end_s:
                raise MachineError(path, "QEMU does not answer as a debugger") from None
            time.sleep(CONNECT_PAUSE_S)


class Debugger:
    """One connection."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self.socket = connected(path, timeout_s)
        self.buffer = b""
        self.breakpoints: set[int] = set()

    def close(self) -> None:
        """QEMU goes on without us, or has ended."""
        self.socket.close()

    # --- packets ---

    def _receive(self) -> bytes:
        while not (match := re.match(rb"\+*\$([^#]*)#..", self.buffer, re.DOTALL)):
            try:
                data = self.socket.recv(1 << 16)
            except TimeoutError:
                raise MachineError(self.path, "the machine runs and does not stop where it should") from None
            if not data:
                raise MachineError(self.path, "the machine ended")
            self.buffer += data
        self.buffer = self.buffer[match.end() :]
        self.socket.sendall(b"+")
        return re.sub(rb"}(.)", lambda escape: bytes([escape[1][0] ^ 0x20]), match[1], flags=re.DOTALL)

    def _send(self, packet: bytes) -> None:
        self.socket.sendall(b"$%b#%02x" % (packet, sum(packet) & 0xFF))

    def ask(self, packet: bytes) -> bytes:
        """A packet and its answer; MachineError if that is an error."""
        self._send(packet)
        answer = self._receive()
        if answer.startswith(b"E"):
            raise MachineError(self.path, f"the debugger answers {answer.decode()} to {packet.decode()}")
        return answer

    # --- what a debugger does ---

    def go(self) -> None:
        """Run until a breakpoint, but not the one at which it is: QEMU would stop there for ever."""
        place = self.registers()["rip"]
        if place in self.breakpoints:
            self.ask(b"z0,%x,1" % place)
            self.ask(b"s")
            self.ask(b"Z0,%x,1" % place)
            if self.registers()["rip"] in self.breakpoints:
                return
        self.ask(b"c")

    def break_at(self, address: int) -> None:
        """Stop before the instruction at an address."""
        self.ask(b"Z0,%x,1" % address)
        self.breakpoints.add(address)

    def unbreak(self, address: int) -> None:
        """No more."""
        self.ask(b"z0,%x,1" % address)
        self.breakpoints.remove(address)

    def read(self, address: int, size: int) -> bytes:
        """Memory at a virtual address."""
        return bytes.fromhex(self.ask(b"m%x,%x" % (address, size)).decode())

    def write(self, address: int, data: bytes) -> None:
        """Memory at a virtual address, whatever its page allows."""
        self.ask(b"M%x,%x:%b" % (address, len(data), data.hex().encode()))

    def registers(self) -> dict[str, int]:
        """All that QEMU shows, by gdb's names."""
        data = bytes.fromhex(self.ask(b"g").decode())
        values, offset = {}, 0
        for name, size in self._layout:
            if offset + size <= len(data):
                values[name] = int.from_bytes(data[offset : offset + size], "little")
            offset += size
        return values

    def set_register(self, name: str, value: int) -> None:
        """One of eight bytes."""
        number = [register for register, _ in self._layout].index(name)
        self.ask(b"P%x=%b" % (number, value.to_bytes(8, "little").hex().encode()))

    @cached_property
    def _layout(self) -> list[tuple[str, int]]:
        """(name, bytes) of the registers in a g packet."""
        top = self._xml("target.xml")
        files = re.findall(r'href="([^"]+)"', top)
        registers = [node for name in files for node in ElementTree.fromstring(self._xml(name)).iter("reg")]
        return [(register.attrib["name"], int(register.attrib["bitsize"]) // 8) for register in registers]

    def _xml(self, name: str) -> str:
        text = b""
        while True:
            piece = self.ask(b"qXfer:features:read:%b:%x,%x" % (name.encode(), len(text), XML_PIECE_SIZE))
            text += piece[1:]
            if piece[:1] == b"l":
                return text.decode()
