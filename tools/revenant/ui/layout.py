"""What lies in the memory of a running machine: kernel/abi/live.h, and a frame's state (kernel/mm/frame.h).

Every structure has its twin there; tests/unit/test_layout.py compares them by DWARF.
Used by: live.py.
"""

from __future__ import annotations

from enum import IntEnum

from revenant.structure import Structure, at

LIVE_VERSION = 1
LIVE_NOTE_TYPE = 2
LIVE_NOTES_PLACE = 0x100000
FAR_COUNT_MAX = 8
FRAME_SIZE = 4096
FRAME_STATE_SIZE = 64
FRAME_SPACE, FRAME_PAGE, FRAME_EPOCH, FRAME_KIND = 16, 24, 32, 48
"""Where these lie in `struct frame`."""


class FrameKind(IntEnum):
    """`enum frame_kind`: who has a frame."""

    FREE = 0
    KERNEL = 1
    TABLE = 2
    STORE = 3
    PAGE = 4
    RECORD = 5


class LiveNote(Structure):
    """What the kernel's ELF note of type LIVE_NOTE_TYPE holds."""

    C_NAME = "live_note"
    SIZE = 16
    version: int = at(0, "I")
    zero: int = at(4, "I")
    address: int = at(8, "Q")


class FarStats(Structure):
    """One far store since this start: blocks that came, pages of them that had their hash, blocks nobody wanted."""

    C_NAME = "far_stats"
    SIZE = 24
    fetched: int = at(0, "Q")
    verified: int = at(8, "Q")
    unused: int = at(16, "Q")


class MachineStats(Structure):
    """As `revenant.stats()` gives it; kernel/abi/syscall.h says what each is."""

    C_NAME = "machine_stats"
    SIZE = 456
    generation: int = at(0, "Q")
    epoch: int = at(8, "Q")
    resume_count: int = at(16, "Q")
    mono_ns: int = at(24, "Q")
    frames_total: int = at(32, "Q")
    frames_free: int = at(40, "Q")
    pages_dirty: int = at(48, "Q")
    pages_resident: int = at(56, "Q")
    faults: int = at(64, "Q")
    pages_copied: int = at(72, "Q")
    commits: int = at(80, "Q")
    commit_pages: int = at(88, "Q")
    commit_ns_last: int = at(96, "Q")
    freeze_cycles_last: int = at(104, "Q")
    freeze_cycles_max: int = at(112, "Q")
    write_fault_cycles: int = at(120, "Q")
    write_fault_count: int = at(128, "Q")
    write_fault_cycles_max: int = at(136, "Q")
    near_reads: int = at(144, "Q")
    near_writes: int = at(152, "Q")
    far_reads: int = at(160, "Q")
    far_requests: int = at(168, "Q")
    near_blocks_total: int = at(176, "Q")
    near_blocks_free: int = at(184, "Q")
    boot_cycles: int = at(192, "Q")
    throttled_count: int = at(200, "Q")
    throttled_ns: int = at(208, "Q")
    pages_dirty_max: int = at(216, "Q")
    resume_cycles: int = at(224, "Q")
    far_used: int = at(232, "Q")
    far_remaining: int = at(240, "Q")
    complete: int = at(248, "Q")
    far: tuple[FarStats, ...] = at(256, FarStats, count=FAR_COUNT_MAX)
    idle_cycles: int = at(448, "Q")


class LiveRecord(Structure):
    """Figures about the present moment, and where more of them are."""

    C_NAME = "live_record"
    SIZE = 512
    taken_count: int = at(0, "Q")
    frame_array: int = at(8, "Q")
    frame_end: int = at(16, "Q")
    trace_ring: int = at(24, "Q")
    trace_count: int = at(32, "Q")
    trace_size: int = at(40, "Q")
    ns_per_cycle: int = at(48, "Q")
    stats: MachineStats = at(56, MachineStats)


LIVE_STRUCTURES: tuple[type[Structure], ...] = (LiveNote, FarStats, MachineStats, LiveRecord)
