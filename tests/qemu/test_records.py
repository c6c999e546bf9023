"""Generations whose records make no sense are refused with the reason, nothing is changed; what only looks odd runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.format import SPACE_FIRST_USER, SPACE_RECORDS, PageKey
from revenant.machine import EXIT_REFUSED, Machine
from revenant.record import (
    RECORD_CONSOLE_PAGE,
    RECORD_MACHINE_PAGE,
    ConsoleRecord,
    MachineRecord,
    ProcessRecord,
    ProcessState,
    RegionRecord,
    ThreadRecord,
)

Start = Callable[..., Machine]
RING_SIZE = 16 * 4096
SIXTEEN = tuple(RegionRecord(start=page << 12, end=(page + 1) << 12, access=1) for page in range(0x400, 0x410))
EMPTY_INBOX = {"inbox_head": 64, "inbox_tail": 64}
USER_END = 1 << 47


@pytest.fixture
def craft(
    build_files: genesis.BuildFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """Makes an image whose records of the second of two programs, and of the console, are as given."""
    path = tmp_path / "crafted.img"
    real_records, real_process, real_thread = genesis.records, genesis.process_record, genesis.thread_record

    def create(
        process: dict[str, Any] | None = None,
        thread: dict[str, Any] | None = None,
        console: ConsoleRecord | None = None,
        machine: dict[str, Any] | None = None,
    ) -> Path:
        def process_record(program: genesis.Program, slot: int) -> ProcessRecord:
            record = real_process(program, slot)
            return replace(record, **process) if slot == 1 and process else record

        def thread_record(program: genesis.Program, slot: int) -> ThreadRecord:
            record = real_thread(program, slot)
            return replace(record, **thread) if slot == 1 and thread else record

        def records(programs: Sequence[genesis.Program], store_id: bytes) -> Iterator[tuple[PageKey, bytes]]:
            for key, page in real_records(programs, store_id):
                is_machine = key == PageKey(SPACE_RECORDS, RECORD_MACHINE_PAGE)
                yield key, replace(MachineRecord.unpack(page), **machine).page if is_machine and machine else page
            if console:
                yield PageKey(SPACE_RECORDS, RECORD_CONSOLE_PAGE), console.pack().ljust(4096, b"\0")

        monkeypatch.setattr(genesis, "process_record", process_record)
        monkeypatch.setattr(genesis, "thread_record", thread_record)
        monkeypatch.setattr(genesis, "records", records)
        other = genesis.load_program(build_files.userland, "other")
        genesis.create_image(path, build_files, 64 << 20, others=[other])
        return path

    return create


def region(start: int, end: int, access: int = 1) -> dict[str, Any]:
    """The changes that give a process this region only."""
    return {"process": {"region": (RegionRecord(start=start, end=end, access=access),), "region_count": 1}}



REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "space of another": ({"process": {"space": SPACE_FIRST_USER}}, "another process has it"),
    "space of the records": ({"process": {"space": 0}}, "there is no space 0"),
    "space beyond the tree": ({"process": {"space": 1 << 21}}, "there is no space 2097152"),
    "space far beyond": ({"process": {"space": 2**64 - 1}}, "there is no space 18446744073709551615"),
    "region count": ({"process": {"region_count": 17}}, "make no sense"),
    "region count, with what would be a region": (
        {"process": {"region": SIXTEEN, "region_count": 17, "page_limit": 0x700000, "parent": 0x701000, **EMPTY_INBOX}},
        "make no sense",
    ),
    "empty region": (region(4096, 4096), "make no sense"),
    "region of page 0": (region(0, 8192), "make no sense"),
    "region beyond ring 3": (region(USER_END - 4096, USER_END + 4096), "make no sense"),
    "region of the kernel's": (region(0xFFFF800000000000, 0xFFFF800000001000), "make no sense"),
    "region from the middle of a page": (region(0x400010, 0x402000), "make no sense"),
    "region to the middle of a page": (region(0x400000, 0x401010), "make no sense"),
    "writable and executable region": (region(0x400000, 0x401000, 7), "make no sense"),
    "records without a magic": ({"machine": {"magic": 1}}, "has no machine record"),
    "records of another version": ({"machine": {"version": 2}}, "records have version 2, this kernel knows 1"),
    "too many processes": ({"machine": {"process_slots": 257}}, "too many for this kernel"),
    "too many threads": ({"machine": {"thread_slots": 1025}}, "too many for this kernel"),
    "thread of nobody": ({"thread": {"process": 2}}, "make no sense"),
    "thread of a process far beyond": ({"thread": {"process": 1 << 20}}, "make no sense"),
    "thread of a free slot": ({"process": {"state": ProcessState.FREE}}, "make no sense"),
    "output": ({"console": ConsoleRecord(out_head=RING_SIZE + 1)}, "more bytes than its rings hold"),
    "output that has left unwritten": ({"console": ConsoleRecord(out_tail=1)}, "more bytes than its rings hold"),
    "output with a wrapped counter": (
        {"console": ConsoleRecord(out_head=5, out_tail=2**64 - 5)},
        "more bytes than its rings hold",
    ),
    "input": ({"console": ConsoleRecord(in_head=2**63)}, "more bytes than its rings hold"),
    "input read before it came": ({"console": ConsoleRecord(in_tail=1)}, "more bytes than its rings hold"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(machine: Start, craft: Callable[..., Path], name: str) -> None:
    changes, reason = REFUSED[name]
    image = craft(**changes)
    before = image.read_bytes()
    now = machine(image)
    now.expect_voice("nothing was changed")
    assert now.wait() == EXIT_REFUSED
    assert reason in now.voice and "panic" not in now.voice
    assert image.read_bytes() == before


def test_a_thread_of_an_ended_process_is_left_alone(machine: Start, craft: Callable[..., Path]) -> None:
    now = machine(craft(process={"state": ProcessState.ENDED}))
    now.expect_exact(b">>> ")
    assert now.command_at_prompt("6 * 7") == "42"
    assert now.transcript.getvalue().count(b"MicroPython") == 1  # the other program is not there


def test_full_rings_are_sane(machine: Start, craft: Callable[..., Path]) -> None:
    console = ConsoleRecord(out_head=RING_SIZE, in_head=RING_SIZE + 7, in_tail=7)
    now = machine(craft(process={"state": ProcessState.ENDED}, console=console))
    now.expect_exact(b">>> ")
