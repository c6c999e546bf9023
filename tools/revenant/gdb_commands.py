"""Commands for gdb: what a stopped machine's threads, spaces, tree and frames are.

gdb runs this file in its own Python. Promise: they only read, and say so where the kernel has no tables yet.
Loaded by: debug.py, by `gdb -x`; nothing of this package can be imported here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import gdb

DIRECT_MAP = 0xFFFF800000000000
PAGE_SIZE = 4096
RECORDS_PER_PAGE = 4
HOLE_FRAME_COUNT = 0x100  # the first MiB has some that no count counts
RUNTIME_STATES = ("unused", "ready", "waiting")
LATER = "try: hbreak proc_run, continue"
FRAME_KINDS = ("free", "kernel", "table", "store", "page", "record")


def value(expression: str) -> Any:
    """A variable of the kernel; in a file of its own name where it is static: `'kernel/proc/schedule.c'::threads`."""
    return gdb.parse_and_eval(expression)


def name_of(address: int) -> str:
    """The symbol that an address lies in."""
    text = str(gdb.execute(f"info symbol {address:#x}", to_string=True)).strip()
    return "?" if text.startswith("No symbol") else text.partition(" in section")[0].replace(" ", "")


def record(table: str, slot: int, kind: str) -> Any:
    """A record of space 0, through the direct map; None while its page is not loaded."""
    page = int(value(table)) + slot // RECORDS_PER_PAGE
    frame = value("'kernel/pager/record.c'::record_frame")[page]
    if int(frame) == 0:
        return None
    place = DIRECT_MAP + int(frame - value("frame_array")) * PAGE_SIZE
    address = place + slot % RECORDS_PER_PAGE * (PAGE_SIZE // RECORDS_PER_PAGE)
    return gdb.Value(address).cast(gdb.lookup_type(f"struct {kind}").pointer()).dereference()


def items(array: Any) -> Iterator[tuple[int, Any]]:
    """(index, element) of an array."""
    first, last = array.type.range()
    return ((index, array[index]) for index in range(first, last + 1))


class Command(gdb.Command):  # type: ignore[misc]
    """One command; its docstring is gdb's help."""

    NAME = ""
    NOTHING_YET = ""
    """What it says where the kernel has nothing yet that it could show: `lines` is empty then."""

    def __init__(self) -> None:
        super().__init__(self.NAME, gdb.COMMAND_USER)

    def invoke(self, argument: str, _from_tty: bool) -> None:
        """gdb calls this."""
        try:
            lines = list(self.lines(gdb.string_to_argv(argument)))
        except gdb.MemoryError as error:
            raise gdb.GdbError(f"the kernel is not there yet ({error}); {LATER}") from None
        if not lines:
            raise gdb.GdbError(f"{self.NOTHING_YET}; {LATER}")
        print("\n".join(lines))

    def lines(self, words: list[str]) -> Iterator[str]:
        """What it prints."""
        raise NotImplementedError


class Threads(Command):
    """rv-threads: every thread, where its program is, and what it waits for."""

    NAME = "rv-threads"
    NOTHING_YET = "no thread: no generation is resumed yet, or its programs have ended"

    def lines(self, words: list[str]) -> Iterator[str]:
        """A line each."""
        loaded = int(value("'kernel/proc/schedule.c'::loaded"))
        threads = [(slot, t) for slot, t in items(value("'kernel/proc/schedule.c'::threads")) if int(t["state"])]
        if threads:
            yield "slot  id  process           state    at"
        for slot, thread in threads:
            own = record("RECORD_THREAD_PAGE", slot, "thread_record")
            process = record("RECORD_PROCESS_PAGE", int(thread["process"]), "process_record")
            registers = value("boot_cpu.user") if int(thread.address) == loaded else own["registers"]
            rip, key = int(registers["rip"]), int(thread["wait_key"])
            state = RUNTIME_STATES[int(thread["state"])]
            name = process["name"].string(errors="replace")[:10]
            waits = f", waits for {name_of(key)}" if key else ""
            mark = "*" if int(thread.address) == loaded else " "
            numbers = f"{mark}{slot:3}  {int(own['id']):2}  {int(process['id']):3} {name:12}"
            yield f"{numbers}  {state:7}  {rip:#x} {name_of(rip)}{waits}"


class Space(Command):
    """rv-space [SLOT]: the regions and page counts of a process' memory; without a slot, of all."""

    NAME = "rv-space"
    NOTHING_YET = "no such space yet"

    def lines(self, words: list[str]) -> Iterator[str]:
        """A line for each space, and one for each region."""
        epoch = int(value("pager.epoch"))
        for slot, space in items(value("'kernel/proc/process.c'::spaces")):
            if int(space["root"]) == 0 or (words and slot != int(words[0], 0)):
                continue
            dirty = int(space["dirty_count"]) if int(space["dirty_epoch"]) == epoch else 0
            yield (
                f"process slot {slot}: space {int(space['id'])}, CR3 {int(space['root']):#x}, "
                f"{int(space['resident_count'])} pages in RAM, {dirty} dirty in epoch {epoch}"
            )
            for index in range(int(space["region_count"])):
                region = space["region"][index]
                access = "".join(flag if int(region["access"]) >> bit & 1 else "-" for bit, flag in enumerate("rwx"))
                yield f"  {int(region['start']):#14x} .. {int(region['end']):#14x}  {access}"


class Tree(Command):
    """rv-tree: the newest durable root, the trees that it names, and what is on its way to the next one."""

    NAME = "rv-tree"
    NOTHING_YET = "the store is not open yet"

    def lines(self, words: list[str]) -> Iterator[str]:
        """A line for each fact."""
        root, pager = value("store.root"), value("pager")
        if int(root["sequence"]) == 0:
            return
        yield (
            f"durable: generation {int(pager['durable'])}, root sequence {int(root['sequence'])}, "
            f"{int(root['free_count'])} of {int(root['block_count'])} blocks free"
        )
        yield f"now: epoch {int(pager['epoch'])}, {int(pager['dirty_count'])} pages dirty"
        yield f"tree:   {self.pointer(root['tree'])}, directory of height {int(root['tree_height'])}"
        yield f"meta:   {self.pointer(root['meta'])}, directory of height {int(root['meta_height'])}"
        yield f"kernel: {self.pointer(root['kernel'])}, {int(root['kernel_size'])} bytes"
        for index, entry in items(value("store.far")):
            if int(entry["block_count"]):
                yield f"far {index + 1}: generation {int(entry['generation'])}, {int(entry['block_count'])} blocks"

    def pointer(self, pointer: Any) -> str:
        """As FORMAT.md has it."""
        where = int(pointer["where"])
        if not where >> 56 & 0x80:
            return "missing"
        place, store, level = where & (1 << 48) - 1, where >> 48 & 0xFF, where >> 56 & 7
        birth = int(pointer["birth_length"]) & (1 << 48) - 1
        return f"store {store}, block {place // 8}, level {level}, written by generation {birth}"


class Frames(Command):
    """rv-frames: how RAM is used: frames by kind, pages and records by what a snapshot makes of them."""

    NAME = "rv-frames"
    NOTHING_YET = "memory is not set up yet: there are no frames"

    def lines(self, words: list[str]) -> Iterator[str]:
        """A line for each kind."""
        first, total = int(value("frame_array")), int(value("'kernel/mm/frame.c'::total_count"))
        if first == 0:
            return
        frame = gdb.lookup_type("struct frame")
        size, offsets = frame.sizeof, {field.name: field.bitpos // 8 for field in frame.fields()}
        kind, epoch = offsets["kind"], offsets["epoch"]
        data = bytes(gdb.selected_inferior().read_memory(first, (total + HOLE_FRAME_COUNT) * size))
        now, durable = int(value("pager.epoch")), int(value("pager.durable"))
        counts: Counter[str] = Counter()
        for start in range(0, len(data), size):
            name = FRAME_KINDS[data[start + kind]] if data[start + kind] < len(FRAME_KINDS) else "?"
            if name in ("page", "record"):
                born = int.from_bytes(data[start + epoch : start + epoch + 8], "little")
                name += " dirty" if born == now else " frozen" if born > durable else " clean"
            counts[name] += 1
        free = int(value("'kernel/mm/frame.c'::free_count"))
        yield f"{total} frames, {free} free"
        for name, count in sorted(counts.items()):
            if name != "free":
                yield f"  {name:14} {count:7}"


for command in (Threads, Space, Tree, Frames):
    command()
