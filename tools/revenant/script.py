"""Runs a script on a machine through MicroPython's raw REPL, with mpremote's transport.

The script runs in the machine's own globals, as at its prompt; its output goes to stdout as it comes, a
traceback to stderr. The machine then stops; it has forgotten nothing. Used by: `revenant run -- SCRIPT`,
tests, benchmarks.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any, cast

import pexpect
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from revenant import resume_list
from revenant.errors import MachineError, RevenantError
from revenant.machine import PROMPT, ConsoleStream, Machine, explain_exit, local_images
from revenant.output import say
from revenant.qemu import MachineConfig
from revenant.relay import told
from revenant.symbols import explain

START_TIMEOUT_S = 30.0
EXIT_NAME = "RevenantScriptExit"

# SystemExit would end the interpreter; its number travels as another exception instead.
WRAPPER = """\
class {exit}(Exception):
    pass
try:
    exec(compile({source!r}, {name!r}, 'exec'))
except SystemExit as e:
    _status = e.args[0] if e.args else None
    if not (_status is None or isinstance(_status, int)):
        print(_status)
        _status = 1
    raise {exit}(_status or 0) from None
"""


class ConsoleTransport(SerialTransport):  # type: ignore[misc]
    """mpremote's transport over the console of a machine that we started."""

    def __init__(self, machine: Machine, timeout_s: float | None = None) -> None:
        self.serial = ConsoleStream(machine, timeout_s)
        self.in_raw_repl = False
        self.use_raw_paste = True
        self.device_name = "console"
        self.mounted = False
        self.is_pty = True  # reads wait for bytes


def wait_for_prompt(machine: Machine, timeout_s: float = START_TIMEOUT_S) -> None:
    """Interrupt what runs and get the friendly prompt, whatever mode the REPL was in when it was cut off.

    Afterwards nothing is left to be read: a mark that the echo does not contain has come back. No other life of
    the machine used that mark: what an earlier one had sent may still be in the keyboard's ring, to be answered now.
    """
    life = secrets.token_hex(4)
    end_s, patience_s = time.monotonic() + timeout_s, 1.0
    while time.monotonic() < end_s:
        mark = f"{life}-{patience_s:.0f}"
        machine.send(f'\x03\x02print("ready" "{mark}")\r'.encode())
        try:
            machine.expect_exact(f"ready{mark}\r\n".encode() + PROMPT, patience_s)
            return
        except pexpect.TIMEOUT:
            patience_s *= 2  # its disk may be so slow that each answer would come in the next one's time
        except (pexpect.EOF, OSError):
            machine.process.wait(machine.timeout_s)  # it ends, or it would not have hung up
            break
    status = machine.process.poll()
    error = explain_exit(machine.config, status, machine.voice) if status is not None else None
    raise error or MachineError(machine.config.near, "the machine gives no prompt", "look at its console")


def paste(machine: Machine, source: str) -> None:
    """Type a program at the prompt, in paste mode, and run it until the prompt is back."""
    machine.send(b"\x05")
    machine.expect_exact(b"=== ")
    for line in source.splitlines():
        machine.send(line.encode() + b"\r")
        machine.expect_exact(b"=== ")
    machine.send(b"\x04")
    machine.expect_exact(PROMPT)


def output_of(machine: Machine, source: str, timeout_s: float, what: str) -> bytes:
    """Run source in the raw REPL; what it printed. MachineError: `what` failed, or printed nothing for `timeout_s`."""
    transport = ConsoleTransport(machine, START_TIMEOUT_S)
    transport.enter_raw_repl(soft_reset=False, timeout_overall=START_TIMEOUT_S)
    transport.serial.timeout_s = timeout_s
    out, error = cast(tuple[bytes, bytes], transport.exec_raw(source, timeout=timeout_s))
    transport.exit_raw_repl()
    machine.expect_exact(PROMPT)
    if error:
        raise MachineError(machine.config.near, f"{what} failed: {error.decode(errors='replace')}")
    return out


def run_source(machine: Machine, source: str, name: str) -> tuple[int, str]:
    """Run source at the prompt of a running machine, output to stdout; returns its status and traceback."""
    transport = ConsoleTransport(machine)
    command = WRAPPER.format(exit=EXIT_NAME, source=source, name=name)

    def show(data: bytes) -> None:
        if data != b"\x04":
            sys.stdout.buffer.write(data.replace(b"\r", b""))
            sys.stdout.buffer.flush()

    try:
        transport.enter_raw_repl(soft_reset=False, timeout_overall=START_TIMEOUT_S)
        result = cast(tuple[Any, bytes], transport.exec_raw(command, timeout=None, data_consumer=show))
        transport.exit_raw_repl()
    except TransportError as error:
        raise MachineError(machine.config.near, f"the raw REPL does not answer: {error}") from None
    return script_status(result[1].decode(errors="replace").replace("\r\n", "\n"))


def script_status(traceback: str) -> tuple[int, str]:
    """Exit status and the traceback to show: 1 for an exception, n for sys.exit(n)."""
    if not traceback:
        return 0, ""
    last = traceback.rstrip().splitlines()[-1]
    if match := re.fullmatch(rf"{EXIT_NAME}: (-?\d+)", last):
        return int(match[1]) & 0xFF, ""
    return 1, traceback


def read_script(path: Path) -> str:
    """Its text; RevenantError where it cannot be read."""
    try:
        return path.read_text()
    except OSError as error:
        raise RevenantError(path, f"the script cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RevenantError(path, f"the script is not UTF-8: {error.reason} at byte {error.start}") from None


def run_script(config: MachineConfig, path: Path) -> int:
    """Start the machine, run the file, stop the machine; returns the script's exit status."""
    source = read_script(path)
    with Machine(config) as machine, told(machine, with_names=False):  # an end has them, too
        wait_for_prompt(machine)
        status, traceback = run_source(machine, source, path.name)
        machine.expect_exact(PROMPT)
        said = machine.voice
    if names := explain(said, local_images(config)):
        say(names)
    sys.stderr.write(traceback)
    if config.record:
        resume_list.renew(config, said)
    return status
