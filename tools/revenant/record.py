"""The kernel's persistent records (kernel/abi/record.h, version 1): pages of space 0.

Every class has its twin there; tests/unit/test_layout.py compares them by DWARF.
Used by: genesis.py (writes the first ones), info and check (read them).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

from revenant.format import BLOCK_SIZE
from revenant.structure import Structure, at

RECORD_MAGIC = int.from_bytes(b"RVNTMACH", "little")
RECORD_VERSION = 1
RECORD_MACHINE_PAGE = 0
RECORD_CONSOLE_PAGE = 1
RECORD_CONSOLE_OUT_PAGE = 16
RECORD_CONSOLE_OUT_PAGE_COUNT = 16
RECORD_TRACE_PAGE = 64
RECORD_TRACE_PAGE_COUNT = 32
RECORD_PROCESS_PAGE = 256
RECORD_THREAD_PAGE = 8192
RECORD_INBOX_PAGE = 12288
INBOX_PAGE_COUNT = 16
RECORDS_PER_PAGE = 4
REGION_COUNT_MAX = 16
TRACE_EVENTS_PER_PAGE = 126


class Access(IntFlag):
    """`region_record.access`."""

    READ = 1
    WRITE = 2
    EXEC = 4


class ProcessState(IntEnum):
    """`process_record.state`."""

    FREE = 0
    RUNNING = 1
    ENDED = 2
    TEMPLATE = 3
    ENDING = 4


class ThreadState(IntEnum):
    """`thread_record.state`."""

    FREE = 0
    READY = 1
    WAITING = 2
    FAULTED = 3
    TEMPLATE = 4


class ResumeReason(IntEnum):
    """`machine_record.resume_reason`: why the next start is not the plain going on of this state."""

    RESTART = 0
    ROLLBACK = 1
    FORK = 2
    UPGRADE = 3
    OTHER_MACHINE = 4


class MachineRecord(Structure):
    """Page 0 of space 0."""

    C_NAME = "machine_record"
    SIZE = 96
    magic: int = at(0, "Q", RECORD_MAGIC)
    version: int = at(8, "I", RECORD_VERSION)
    zero: int = at(12, "I")
    machine_id: bytes = at(16, "16s")
    resume_reason: int = at(32, "Q")
    resume_count: int = at(40, "Q")
    process_slots: int = at(48, "Q")
    thread_slots: int = at(56, "Q")
    next_space: int = at(64, "Q")
    resume_seen: int = at(72, "Q")
    next_id: int = at(80, "Q")
    trace_page_number: int = at(88, "Q")

    @property
    def page(self) -> bytes:
        """Page 0 of space 0."""
        return self.pack().ljust(BLOCK_SIZE, b"\0")


class ConsoleRecord(Structure):
    """Page 1 of space 0: byte counters since genesis."""

    C_NAME = "console_record"
    SIZE = 32
    out_head: int = at(0, "Q")
    out_tail: int = at(8, "Q")
    in_head: int = at(16, "Q")
    in_tail: int = at(24, "Q")


class RegionRecord(Structure):
    """A range of virtual addresses and what may be done there."""

    C_NAME = "region_record"
    SIZE = 24
    start: int = at(0, "Q")
    end: int = at(8, "Q")
    access: int = at(16, "I")
    zero: int = at(20, "I")


class ProcessRecord(Structure):
    """Four to a page from RECORD_PROCESS_PAGE on."""

    C_NAME = "process_record"
    SIZE = 1024
    state: int = at(0, "I")
    id: int = at(4, "I")
    space: int = at(8, "Q")
    exit_status: int = at(16, "q")
    region_count: int = at(24, "I")
    flags: int = at(28, "I")
    region: tuple[RegionRecord, ...] = at(32, RegionRecord, count=REGION_COUNT_MAX)
    page_limit: int = at(416, "Q")
    parent: int = at(424, "I")
    zero: int = at(428, "I")
    inbox_head: int = at(432, "Q")
    inbox_tail: int = at(440, "Q")
    resume_seen: int = at(448, "Q")
    last_words: bytes = at(456, "504s")
    name: bytes = at(960, "64s")


class MessageRecord(Structure):
    """A message in an inbox, its bytes behind it."""

    C_NAME = "message_record"
    SIZE = 8
    sender: int = at(0, "I")
    size: int = at(4, "I")


class ThreadRegisters(Structure):
    """As kernel/arch/x86_64/entry.asm saves them."""

    C_NAME = "thread_registers"
    SIZE = 160
    rax: int = at(0, "Q")
    rbx: int = at(8, "Q")
    rcx: int = at(16, "Q")
    rdx: int = at(24, "Q")
    rsi: int = at(32, "Q")
    rdi: int = at(40, "Q")
    rbp: int = at(48, "Q")
    r8: int = at(56, "Q")
    r9: int = at(64, "Q")
    r10: int = at(72, "Q")
    r11: int = at(80, "Q")
    r12: int = at(88, "Q")
    r13: int = at(96, "Q")
    r14: int = at(104, "Q")
    r15: int = at(112, "Q")
    rip: int = at(120, "Q")
    rflags: int = at(128, "Q")
    rsp: int = at(136, "Q")
    fs_base: int = at(144, "Q")
    gs_base: int = at(152, "Q")


class ThreadRecord(Structure):
    """Four to a page from RECORD_THREAD_PAGE on."""

    C_NAME = "thread_record"
    SIZE = 1024
    state: int = at(0, "I")
    id: int = at(4, "I")
    process: int = at(8, "I")
    wait_reason: int = at(12, "I")
    wait_deadline_ns: int = at(16, "Q")
    wait_mask: int = at(24, "Q")
    registers: ThreadRegisters = at(32, ThreadRegisters)
    done_size: int = at(192, "Q")
    fork_generation: int = at(200, "Q")
    zero: bytes = at(208, "304s")
    fx: bytes = at(512, "512s")


class TraceEvent(Structure):
    """One event; kernel/abi/trace.h says what small, a and b are for each kind."""

    C_NAME = "trace_event"
    SIZE = 32
    time_ns: int = at(0, "Q")
    kind: int = at(8, "I")
    small: int = at(12, "I")
    a: int = at(16, "Q")
    b: int = at(24, "Q")


class TracePage(Structure):
    """A stretch of one life's events: RECORD_TRACE_PAGE_COUNT pages from RECORD_TRACE_PAGE on, a ring."""

    C_NAME = "trace_page"
    SIZE = 4096
    number: int = at(0, "Q")
    resume_count: int = at(8, "Q")
    base_mono_ns: int = at(16, "q")
    base_wall_ns: int = at(24, "Q")
    event_count: int = at(32, "I")
    lost_count: int = at(36, "I")
    zero: bytes = at(40, "24s")
    event: tuple[TraceEvent, ...] = at(64, TraceEvent, count=TRACE_EVENTS_PER_PAGE)


RECORD_STRUCTURES: tuple[type[Structure], ...] = (
    MachineRecord, ConsoleRecord, RegionRecord, ProcessRecord, MessageRecord, ThreadRegisters, ThreadRecord,
    TraceEvent, TracePage,
)  # fmt: skip
