"""The kernel's events (kernel/abi/trace.h) in words: what each kind's numbers mean.

Promise: a kind or a number that a newer kernel has is told as a number. Used by: trace.py (events of an image);
relay.py, ui/app.py, machine.py (events in a report).
"""

from __future__ import annotations

import re
from enum import IntEnum

from revenant.record import ResumeReason, TraceEvent


class Kind(IntEnum):
    """`enum trace_kind`."""

    NONE = 0
    NOTICE = 1
    RESUME = 2
    FREEZE = 3
    COMMIT = 4
    DURABLE = 5
    COMMIT_AGAIN = 6
    NEAR_FULL = 7
    PAGE_IN = 8
    PAGE_ABSENT = 9
    IO_ERROR = 10
    SPAWN = 11
    EXIT = 12
    FAULT = 13
    THROTTLE = 14
    ALL_DIRTY = 15
    INTERRUPT = 16
    INPUT_LOST = 17


WORDS = {
    Kind.FREEZE: "generation {a}, {b} pages dirty",
    Kind.COMMIT: "generation {a}, {b} pages, after a pause of {small} cycles",
    Kind.DURABLE: "generation {a}, {b} pages, {small} us after the freeze",
    Kind.COMMIT_AGAIN: "generation {a} could not be finished and is written anew",
    Kind.NEAR_FULL: "generation {a} waits for room",
    Kind.PAGE_IN: "{a:#x} of space {b} from {store}",
    Kind.PAGE_ABSENT: "{a:#x} of space {b}: no store gives it (error {small})",
    Kind.IO_ERROR: "{store}, sector {a}, {operation}",
    Kind.SPAWN: "process {small}, parent {a}",
    Kind.EXIT: "process {small}, status {signed}",
    Kind.FAULT: "vector {small} at {a:#x}, address {b:#x}",
    Kind.THROTTLE: "space {b} waits for near, {a} pages dirty",
    Kind.ALL_DIRTY: "{a} pages dirty, {b} frames free",
    Kind.INTERRUPT: "vector {small}, spurious or without a handler",
    Kind.INPUT_LOST: "{a} bytes, room for {b}",
    Kind.RESUME: "generation {a} goes on, start {b} of this machine, {reason}",
}
# kernel/lib/trace.c prints them so in reports of panics and stopped programs
PRINTED = re.compile(rb"^(  \[ *\d+\.\d{6}\]) ([a-z ]+) (\d+) ([0-9a-f]+) ([0-9a-f]+)$", re.MULTILINE)
PRINTED_TEXT = re.compile(rb"^(  \[ *\d+\.\d{6}\]) said: (.*)$", re.MULTILINE)
CONVERSION = re.compile(r"%[-0-9.]*(?:ll|l|z)?[a-z]")
KIND_NAMES: dict[int, str] = {kind: kind.name.lower().replace("_", " ") for kind in Kind}
OPERATIONS = ("read", "write", "flush")  # enum store_op


def sentence(event: TraceEvent) -> str:
    """An event's numbers in words; a notice's is its text."""
    template = WORDS.get(Kind(event.kind)) if event.kind in tuple(Kind) else None
    if template is None:
        return f"{event.small} {event.a:#x} {event.b:#x}"
    return template.format(
        small=event.small,
        a=event.a,
        b=event.b,
        signed=event.a - (event.a >> 63 << 64),
        store="near" if event.small == 0 else f"far{event.small}",
        operation=OPERATIONS[event.b] if event.b < len(OPERATIONS) else event.b,
        reason=ResumeReason(event.small).name.lower() if event.small in tuple(ResumeReason) else event.small,
    )


def template_text(template: str) -> str:
    """A log line as the ring has it: without what was put in where it was said."""
    return CONVERSION.sub("…", template)


def readable(said: bytes) -> bytes:
    """What the kernel said, the events of a report in words instead of numbers."""
    kinds = {name: kind for kind, name in KIND_NAMES.items()}

    def line(match: re.Match[bytes]) -> bytes:
        name = match[2].decode()
        if name not in kinds:
            return match[0]
        event = TraceEvent(0, kinds[name], int(match[3]), int(match[4], 16), int(match[5], 16))
        return match[1] + f" {name:12}  {sentence(event)}".encode()

    def text(match: re.Match[bytes]) -> bytes:
        return match[1] + b" notice        " + template_text(match[2].decode(errors="replace")).encode()

    return PRINTED_TEXT.sub(text, PRINTED.sub(line, said))
