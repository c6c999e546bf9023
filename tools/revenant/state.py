"""Which generations there are, and what the records of one say: processes and threads, read from space 0.

Promise: records of another version, or counts that no kernel writes, are a StoreError; so is what cannot be verified.
Used by: travel.py, heal.py, inspection.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from revenant.errors import StoreError
from revenant.format import BLOCK_SIZE, SPACE_RECORDS, Generation, GenerationFlag
from revenant.record import (
    RECORD_MACHINE_PAGE,
    RECORD_MAGIC,
    RECORD_PROCESS_PAGE,
    RECORD_THREAD_PAGE,
    RECORD_VERSION,
    RECORDS_PER_PAGE,
    MachineRecord,
    ProcessRecord,
    ProcessState,
    ThreadRecord,
    ThreadState,
)
from revenant.store import Store, Tree

NEWEST = "newest"
SLOT_COUNT_MAX = 4096 * RECORDS_PER_PAGE
ALIVE = (ThreadState.READY, ThreadState.WAITING)
DEAD = (ProcessState.ENDED, ProcessState.ENDING)


@dataclass(frozen=True)
class State:
    """The records of one generation; processes and threads by slot, free slots left out."""

    generation: int
    machine: MachineRecord
    processes: dict[int, ProcessRecord]
    threads: dict[int, ThreadRecord]

    @property
    def alive(self) -> bool:
        """Whether any thread would go on (kernel/proc/resume.c says which)."""
        return any(
            thread.state in ALIVE and self.processes[thread.process].state == ProcessState.RUNNING
            for thread in self.threads.values()
            if thread.process in self.processes
        )

    @property
    def died(self) -> list[ProcessRecord]:
        """Processes that ended, but not with status 0."""
        ended = (record for record in self.processes.values() if record.state in DEAD)
        return [record for record in ended if record.exit_status != 0]


def retained(store: Store) -> list[Generation]:
    """The records of the generations that can be returned to, oldest first."""
    return [record for record in store.generations() if not record.flags & GenerationFlag.DROPPED]


def named(store: Store, name: str) -> Generation:
    """The retained generation of a number, a tag, or `newest`, which is known even where the table is damaged."""
    root = store.root
    is_newest = name in (NEWEST, str(root.generation))
    try:
        records = retained(store)
    except StoreError:
        if not is_newest:
            raise
        records = []
    for record in reversed(records):
        if name in (NEWEST, record.tag_text, str(record.generation)):
            return record
    if is_newest:
        return Generation(root.generation, root.wall_ns, root.mono_ns)
    raise store.fault(f"no generation {name!r} is retained", "`revenant log` lists those that are")


def machine_record(store: Store, generation: int) -> MachineRecord:
    """The machine record of a generation; StoreError if it is of a version that this tool does not know."""
    record = MachineRecord.unpack(store.page(store.tree_at(generation), SPACE_RECORDS, RECORD_MACHINE_PAGE))
    if record.magic != RECORD_MAGIC or record.version != RECORD_VERSION:
        raise store.fault(
            f"generation {generation} has records of version {record.version}, not {RECORD_VERSION}",
            "use the tool that belongs to its kernel",
        )
    return record


def slots(store: Store, tree: Tree, first_page: int, count: int) -> Iterator[tuple[int, bytes]]:
    """(slot, the record's bytes) of a table in space 0."""
    if count > SLOT_COUNT_MAX:
        raise store.fault(f"its records count {count} slots, of which {SLOT_COUNT_MAX} are possible")
    size = BLOCK_SIZE // RECORDS_PER_PAGE
    for slot in range(count):
        page = store.page(tree, SPACE_RECORDS, first_page + slot // RECORDS_PER_PAGE)
        start = slot % RECORDS_PER_PAGE * size
        yield slot, page[start : start + size]


def read_state(store: Store, generation: int | None = None) -> State:
    """The records of a retained generation (None: the newest)."""
    generation = store.root.generation if generation is None else generation
    tree, machine = store.tree_at(generation), machine_record(store, generation)
    processes = {
        slot: ProcessRecord.unpack(data)
        for slot, data in slots(store, tree, RECORD_PROCESS_PAGE, machine.process_slots)
    }
    threads = {
        slot: ThreadRecord.unpack(data) for slot, data in slots(store, tree, RECORD_THREAD_PAGE, machine.thread_slots)
    }
    return State(
        generation,
        machine,
        {slot: record for slot, record in processes.items() if record.state != ProcessState.FREE},
        {slot: record for slot, record in threads.items() if record.state != ThreadState.FREE},
    )
