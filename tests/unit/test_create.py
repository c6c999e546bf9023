"""`create`: what genesis holds, and what it refuses."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from crafted import PROGRAM_ENTRY, elf_program
from revenant import genesis, record
from revenant.check import check_store
from revenant.errors import BuildError, StoreError
from revenant.format import BLOCK_SIZE, PageKey
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_records(small_image: Path) -> None:
    with Store(small_image) as store:
        machine = record.MachineRecord.unpack(store.record_page(record.RECORD_MACHINE_PAGE))
        process = record.ProcessRecord.unpack(store.record_page(record.RECORD_PROCESS_PAGE))
        thread = record.ThreadRecord.unpack(store.record_page(record.RECORD_THREAD_PAGE))
    assert (machine.magic, machine.process_slots, machine.thread_slots) == (record.RECORD_MAGIC, 2, 2)
    assert (machine.next_space, machine.resume_count) == (18, 0)
    assert (process.state, process.id, process.space) == (record.ProcessState.RUNNING, 1, 16)
    assert process.name.rstrip(b"\0") == b"python"
    assert (thread.state, thread.id, thread.process) == (record.ThreadState.READY, 1, 0)
    registers = thread.registers
    assert (registers.rip, registers.rsp, registers.rflags) == (PROGRAM_ENTRY, 0x1000000, 0x202)
    assert struct.unpack_from("<H22xI", thread.fx) == (0x37F, 0x1F80)
    regions = process.region[: process.region_count]
    program = [(region.start, region.end, region.access) for region in regions[:2]]
    assert program == [(0x401000, 0x402000, 5), (0x403000, 0x408000, 3)]
    assert all(r.access in (1, 3, 5) and r.start < r.end for r in regions)


def test_the_template_is_the_program_before_its_first_instruction(small_image: Path) -> None:
    """It has the pages of space 16, shared, and its thread at the entry."""
    with Store(small_image) as store:
        page = store.record_page(record.RECORD_PROCESS_PAGE)
        first, template = (record.ProcessRecord.unpack(page, slot * record.ProcessRecord.SIZE) for slot in (0, 1))
        thread = record.ThreadRecord.unpack(store.record_page(record.RECORD_THREAD_PAGE), record.ThreadRecord.SIZE)
        assert (template.state, template.space) == (record.ProcessState.TEMPLATE, 17)
        assert template.region == first.region and template.name == first.name
        assert (thread.state, thread.process) == (record.ThreadState.TEMPLATE, 1)
        assert thread.registers.rip == PROGRAM_ENTRY
        assert store.space_root(store.tree, 17) == store.space_root(store.tree, 16)
        check_store(store)


def test_pages(small_image: Path) -> None:
    with Store(small_image) as store:
        keys = [key for key, _ in store.pages(store.tree)]
        program = [PageKey(16, 0x401), PageKey(16, 0x403), PageKey(16, 0x405)]  # 0x404 is zero: not stored
        assert [key for key in keys if key.space == 16] == program
        assert store.page(store.tree, 16, 0x405) == b"\2" * 100 + bytes(BLOCK_SIZE - 100)
        assert store.page(store.tree, 16, 0x404) == bytes(BLOCK_SIZE)
        assert store.root.generation == 1 and len(store.generations()) == 1


def test_boot_objects(small_image: Path, stand_in_files: genesis.BuildFiles) -> None:
    with Store(small_image) as store:
        assert store.kernel() == stand_in_files.kernel.read_bytes()
        pages = store.loader_pages()
    data = small_image.read_bytes()
    assert data[:512] == stand_in_files.boot_record.read_bytes() and data[512:4096] == bytes(3584)
    loader = stand_in_files.loader.read_bytes()
    assert data[2 * BLOCK_SIZE : 2 * BLOCK_SIZE + len(loader)] == loader
    assert b"".join(pages[block] for block in range(2, 18))[: len(loader)] == loader


def test_it_is_sound_and_sparse(small_image: Path) -> None:
    with Store(small_image) as store:
        report = check_store(store)
    assert report.blocks_free + report.blocks_allocated == 2048 - 96
    assert small_image.stat().st_size == 8 << 20
    assert small_image.stat().st_blocks * 512 < 1 << 20


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([(0x401000, b"x", 1, 7)], "writable and executable"),
        ([(0x401000, b"x", 1, 5), (0x401800, b"x", 1, 6)], "share the page"),
        ([(0x401000, b"x", 0x700000, 5)], "do not lie"),
        ([(0x403000, b"x", 1, 5)], "entry"),
        ([], "do not lie"),
    ],
)
def test_refused_programs(tmp_path: Path, segments: list[tuple[int, bytes, int, int]], reason: str) -> None:
    path = tmp_path / "bad.elf"
    path.write_bytes(elf_program(segments))
    with pytest.raises(BuildError, match=reason):
        genesis.load_program(path, "x")


@pytest.mark.parametrize("contents", [b"", b"hello", b"\x7fELF\x02\x01\x01", b"\x7fELF" + bytes(200)])
def test_not_a_program(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "bad.elf"
    path.write_bytes(contents)
    with pytest.raises(BuildError):
        genesis.load_program(path, "x")


def test_too_small_and_in_the_way(tmp_path: Path, stand_in_files: genesis.BuildFiles) -> None:
    path = tmp_path / "x.img"
    stand_in_files.kernel.write_bytes(b"k" * (448 * 1024 + 1))
    with pytest.raises(StoreError, match="kernel"):
        genesis.create_image(path, stand_in_files)
    assert not path.exists()
    path.write_bytes(b"precious")
    stand_in_files.kernel.write_bytes(b"k")
    with pytest.raises(StoreError, match="exists"):
        genesis.create_image(path, stand_in_files)
    assert path.read_bytes() == b"precious"


def test_command(tmp_path: Path, stand_in_files: genesis.BuildFiles, run_revenant: Run) -> None:
    image = tmp_path / "made.img"
    words = ["--kernel", stand_in_files.kernel, "--userland", stand_in_files.userland, "--boot", tmp_path]
    result = run_revenant("create", image, *words, "--size", "16M", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    with Store(image) as store:
        assert facts["root_hash"] == store.root.hash.hex()
    again = run_revenant("create", image, *words)
    assert again.returncode == 1 and str(image) in again.stderr and len(again.stderr.splitlines()) == 1
    assert run_revenant("create", image, *words, "--force", "--size", "16M").returncode == 0
    assert run_revenant("create", image, *words, "--size", "many").returncode == 2
    missing = run_revenant("create", tmp_path / "y.img", "--kernel", tmp_path / "nothing")
    assert missing.returncode == 1 and "make build" in missing.stderr
