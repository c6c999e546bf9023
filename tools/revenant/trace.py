"""The command trace: what the kernel did, from the trace pages of an image (kernel/abi/trace.h, kernel/proc/trace.c).

Promise: an image's pages hold the events up to the newest generation's freeze; what the machine did after that went
with the power. A log line's text is given only where the image's kernel has that very text at the place that was noted.
Used by: cli.py, report.py. Reads an image whether its machine runs or not.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from revenant.events import KIND_NAMES, Kind, sentence, template_text
from revenant.far_store import open_fars
from revenant.format import SPACE_RECORDS
from revenant.images import Far, Image, Json, when
from revenant.output import say
from revenant.record import (
    RECORD_TRACE_PAGE,
    RECORD_TRACE_PAGE_COUNT,
    TRACE_EVENTS_PER_PAGE,
    TraceEvent,
    TracePage,
)
from revenant.state import NEWEST, named, read_state
from revenant.store import Store, of_newest

FOLLOW_PAUSE_S = 0.2
TEXT_SIZE_MAX = 512
FNV_BASIS, FNV_PRIME = 2166136261, 16777619


@dataclass(frozen=True)
class Event:
    """One event with its times."""

    life: int
    mono_ns: int
    wall_ns: int
    kind: int
    text: str
    words: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Its kind's name, or the number of a newer kernel."""
        return KIND_NAMES.get(self.kind, str(self.kind))

    @property
    def row(self) -> dict[str, Any]:
        """For programs."""
        return {
            "life": self.life,
            "time": when(self.wall_ns),
            "mono_ns": self.mono_ns,
            "event": self.name,
            "words": self.words,
            "what": self.text,
        }

    @property
    def line(self) -> str:
        """For people: which life, its wall clock, machine time in seconds."""
        return f"{self.life:4}  {when(self.wall_ns)[11:23]}  {self.mono_ns / 1e9:13.6f}  {self.name:12}  {self.text}"


class Texts:
    """The constant texts of a kernel, by address."""

    def __init__(self, kernel: bytes) -> None:
        try:
            segments: Any = ELFFile(io.BytesIO(kernel)).iter_segments("PT_LOAD")
            self.segments = [(int(segment["p_vaddr"]), bytes(segment.data())) for segment in segments]
        except ELFError:
            self.segments = []

    def at(self, address: int, text_hash: int) -> str:
        """The text at an address, if it has that FNV-1a hash; else says that it is not known."""
        for start, data in self.segments:
            if start <= address < start + len(data):
                text = data[address - start : address - start + TEXT_SIZE_MAX].split(b"\0")[0]
                if fnv(text) == text_hash:
                    return text.decode(errors="replace")
        return f"(a text at {address:#x} of another kernel)"


def fnv(text: bytes) -> int:
    """FNV-1a, 32 bits."""
    value = FNV_BASIS
    for byte in text:
        value = (value ^ byte) * FNV_PRIME & 0xFFFFFFFF
    return value


def describe(event: TraceEvent, texts: Texts) -> str:
    """What an event says; a log line its text."""
    if event.kind == Kind.NOTICE:
        return template_text(texts.at(event.a, event.small))
    return sentence(event)


def trace_pages(store: Store, generation: int) -> list[TracePage]:
    """The pages that a generation holds, oldest first; StoreError where one counts more events than it has."""
    tree = store.tree_at(generation)
    pages = []
    for index in range(RECORD_TRACE_PAGE_COUNT):
        page = TracePage.unpack(store.page(tree, SPACE_RECORDS, RECORD_TRACE_PAGE + index))
        if page.event_count > TRACE_EVENTS_PER_PAGE:
            raise store.fault(f"a trace page counts {page.event_count} events, {TRACE_EVENTS_PER_PAGE} fit")
        if page.number:
            pages.append(page)
    return sorted(pages, key=lambda page: page.number)


def events_of(store: Store, generation: int) -> Iterator[Event]:
    """What a generation knows of the time before its freeze, oldest first."""
    texts = Texts(store.kernel())
    for page in trace_pages(store, generation):
        if page.lost_count:
            yield Event(page.resume_count, page.base_mono_ns, page.base_wall_ns, Kind.NONE,
                        f"{page.lost_count} events came too fast and are lost", (page.lost_count, 0, 0))  # fmt: skip
        for event in page.event[: page.event_count]:
            yield Event(
                page.resume_count,
                page.base_mono_ns + event.time_ns,
                page.base_wall_ns + event.time_ns,
                event.kind,
                describe(event, texts),
                (event.small, event.a, event.b),
            )


def untraced(store: Store, generation: int) -> str:
    """Why a generation has no events."""
    if read_state(store, generation).machine.resume_count == 0:
        return "is from before the machine's first start"
    return "has no trace: an older kernel made it"


# --- the command ---


def trace(
    image: Image,
    at: Annotated[str, typer.Option(help="A retained generation or a tag.")] = NEWEST,
    last: Annotated[int, typer.Option(help="How many events; 0: all that are left.", min=0)] = 64,
    follow: Annotated[bool, typer.Option("--follow", help="Show what comes, while the machine runs.")] = False,
    far: Far = None,
    as_json: Json = False,
) -> None:
    """What the kernel did, up to the newest generation: also what happened before the power went."""
    with Store(image, open_fars(far or [])) as store:
        record = named(store, at)
        events = list(events_of(store, record.generation))
        why_none = "" if events else f"generation {record.generation} {untraced(store, record.generation)}"
    shown = events[-last if last else 0 :]
    if as_json:
        print(json.dumps([event.row for event in shown]))
    elif why_none:
        say(f"revenant: {image}: {why_none}")
    else:
        print("life  time (UTC)    machine s      event         what", *(event.line for event in shown), sep="\n")
        say(f"revenant: what came after the freeze of generation {record.generation} is not in it")
    if follow:
        show_new(image, events[-1] if events else None)


def show_new(image: Image, newest: Event | None) -> None:
    """Prints events as generations become durable, until interrupted."""
    while True:
        time.sleep(FOLLOW_PAUSE_S)
        events = of_newest(image, lambda store: list(events_of(store, store.root.generation)))
        before = (newest.life, newest.mono_ns) if newest else (0, 0)
        fresh = [event for event in events if (event.life, event.mono_ns) > before]
        for event in fresh:
            print(event.line, flush=True)
        newest = fresh[-1] if fresh else newest


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(trace)
