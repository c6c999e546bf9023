"""Memory of programs, looked at in every generation that a cut leaves: each page as it was at that freeze, none other.

programs/mosaic.c changes one page in each of its steps, as a hash of the step says; the model here says what each page
must hold in a generation with that step. What was written unseen, copied too late, kept in a stale translation or mixed
of two epochs shows, in the generation or to the program itself.
Called by: pytest.
"""

from __future__ import annotations

import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.format import SPACE_FIRST_USER, SPACE_RECORDS
from revenant.machine import Machine
from revenant.qemu import MachineConfig
from revenant.record import RECORD_THREAD_PAGE, RECORDS_PER_PAGE, ThreadRecord, ThreadRegisters
from revenant.script import paste, wait_for_prompt
from revenant.store import Store, of_newest

PROGRAMS = Path(__file__).with_name("programs")
DATA, PAGE = 0x500000, 4096
EXEC_TILE_COUNT = 64
MEMORY_SIZE = 64 << 20
KIND_DISCARD, KIND_EXEC, KIND_RANDOM, KIND_RUN, KIND_STORE, KIND_COUNT = 0, 1, 2, 3, 32, 64
CONTENT = 0x600000


# --- the model ---


def splitmix(x: int) -> int:
    """As the program has it."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


@dataclass(frozen=True)
class Mosaic:
    """One such program: its space, its order."""

    space: int
    seed: int
    tile_count: int

    def page_of(self, tile: int) -> int:
        """The page index of a tile."""
        area = tile % 8
        start = genesis.HEAP_START + (area >> 1) * 0x40000000 + (area & 1) * 0x10000000
        return start // PAGE + tile // 8

    def last_changes(self, step: int) -> Iterator[tuple[int, int, int]]:
        """(tile, kind, step) of the last change of each tile that was changed, newest first."""
        seen: set[int] = set()
        while step > 0 and len(seen) < self.tile_count:
            hashed = splitmix((self.seed + step) & 2**64 - 1)
            tile, kind = hashed % self.tile_count, (hashed >> 40) % KIND_COUNT
            if kind not in (KIND_EXEC, KIND_RUN) and tile not in seen:
                seen.add(tile)
                yield tile, kind, step
            step -= 1

    def last_exec_changes(self, step: int) -> Iterator[tuple[int, int]]:
        """(tile, step) of the last change of each executable tile, as far as twenty thousand steps."""
        seen: set[int] = set()
        for at in range(step, max(0, step - 20000), -1):
            hashed = splitmix((self.seed + at) & 2**64 - 1)
            tile = hashed % self.tile_count % EXEC_TILE_COUNT
            if (hashed >> 40) % KIND_COUNT == KIND_EXEC and tile not in seen:
                seen.add(tile)
                yield tile, at

    def program(self, program: genesis.Program) -> genesis.Program:
        """The program with this order."""
        order = struct.pack("<QQQ", self.seed, self.tile_count, 0)
        pages = {**program.pages, DATA // PAGE: order + program.pages[DATA // PAGE][24:]}
        return replace(program, pages=pages)


class Generation:
    """The pages of one program in one generation."""

    def __init__(self, store: Store, generation: int | None, space: int) -> None:
        self.store, self.space = store, space
        self.tree = store.tree_at(generation)

    @property
    def registers(self) -> ThreadRegisters:
        """Of the program's thread."""
        slot = self.space - SPACE_FIRST_USER
        page = self.store.page(self.tree, SPACE_RECORDS, RECORD_THREAD_PAGE + slot // RECORDS_PER_PAGE)
        return ThreadRecord.unpack(page[slot % RECORDS_PER_PAGE * ThreadRecord.SIZE :]).registers

    def words(self, page: int) -> tuple[int, ...]:
        """A page as 64-bit words."""
        return struct.unpack("<512Q", self.store.page(self.tree, self.space, page))

    def word(self, address: int) -> int:
        """One of them."""
        return self.words(address // PAGE)[address % PAGE // 8]

    @property
    def step(self) -> int:
        """The step that the program was in."""
        return self.word(DATA + 16)


def check_generation(generation: Generation, mosaic: Mosaic) -> None:
    """Every tile is as the model says; that of the step under way may be half done. So are the registers."""
    step = generation.step
    assert step - generation.registers.r15 in (0, 1)
    for tile, kind, changed in mosaic.last_changes(step):
        words = generation.words(mosaic.page_of(tile))
        if changed == step:
            continue
        found, noted = words[0], generation.word(CONTENT + 8 * tile)
        about = f"tile {tile}, changed in step {changed} of {step}"
        if kind == KIND_RANDOM:
            assert found == noted, about
        else:
            wanted = 0 if kind == KIND_DISCARD else changed
            assert (found, noted, words[511]) == (wanted, wanted, wanted), about
    for tile, changed in mosaic.last_exec_changes(step):
        if changed != step:
            assert generation.word(genesis.EXEC_START + 3 * tile * PAGE + 8) == changed, f"executable tile {tile}"


# --- the machine ---


@pytest.fixture(scope="session")
def mosaic_elf(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """The program."""
    program = tmp_path_factory.mktemp("mosaic") / "mosaic.elf"
    words = "-std=c17 -O2 -Wall -Wextra -Werror -ffreestanding -fno-pic -no-pie -static -nostdlib -mno-red-zone"
    words += " -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables"
    words += f" -Wl,-Ttext=0x400000,-Tdata={DATA:#x},-Tbss={CONTENT:#x},-z,max-page-size=4096"
    folders = [f"-B{root}/userland/toolchain/", f"-I{root}/kernel", f"-I{root}/userland"]
    command = ["gcc", *words.split(), "-Wl,--build-id=none", *folders, "-o", program, PROGRAMS / "mosaic.c"]
    subprocess.run(command, check=True)
    return program


@pytest.fixture
def lay(tmp_path: Path, build_files: genesis.BuildFiles, mosaic_elf: Path) -> Callable[..., list[Mosaic]]:
    """Makes near.img with Python and so many mosaics."""

    def lay(image: Path, seeds: Sequence[int], tile_count: int) -> list[Mosaic]:
        mosaics = [Mosaic(SPACE_FIRST_USER + 1 + i, seed, tile_count) for i, seed in enumerate(seeds)]
        programs = [m.program(genesis.load_program(mosaic_elf, f"mosaic{m.space}")) for m in mosaics]
        genesis.create_image(image, build_files, 512 << 20, others=programs)
        return mosaics

    return lay


def saved_steps(image: Path, mosaics: Sequence[Mosaic]) -> list[int]:
    """Where they are in the newest generation."""
    return of_newest(image, lambda store: [Generation(store, None, mosaic.space).step for mosaic in mosaics])


@contextmanager
def life(image: Path, mosaics: Sequence[Mosaic], step_count: int, **fields: Any) -> Iterator[Machine]:
    """A machine until each program has saved so many steps more; then it is killed."""
    targets = [step + step_count for step in saved_steps(image, mosaics)]
    with Machine(MachineConfig(image, **fields)) as machine:
        yield machine
        end_s = time.monotonic() + 60
        while any(step < target for step, target in zip(saved_steps(image, mosaics), targets, strict=True)):
            assert machine.process.poll() is None and "(mosaic" not in machine.voice, machine.voice
            assert time.monotonic() < end_s, "the programs do not go on"
            time.sleep(0.05)
        assert "(mosaic" not in machine.voice, machine.voice


def check_image(image: Path, mosaics: Sequence[Mosaic], count: int = 16) -> None:
    """The newest generations, page by page; the program's first generation has nothing yet."""
    with Store(image) as store:
        for generation in [entry.generation for entry in store.generations() if entry.generation > 1][-count:]:
            for mosaic in mosaics:
                check_generation(Generation(store, generation, mosaic.space), mosaic)


def test_each_generation_is_one_moment(tmp_path: Path, lay: Callable[..., list[Mosaic]], rng: Any) -> None:
    """Two programs, so that each is away now and then when the machine is frozen; snapshots all the time."""
    image = tmp_path / "near.img"
    mosaics = lay(image, [rng.getrandbits(60), rng.getrandbits(60)], 256)
    for _ in range(2):
        with life(image, mosaics, 12000, interval_ms=1):
            pass
        check_image(image, mosaics)


COPIED = """\
def after(more):
    target = revenant.stats()['pages_copied'] + more
    while revenant.stats()['pages_copied'] < target: time.sleep_ms(5)
    stats = revenant.stats()
    return stats['frames_free'] + stats['pages_resident']
"""


def test_copies_of_frozen_pages_are_freed(tmp_path: Path, lay: Callable[..., list[Mosaic]], rng: Any) -> None:
    """When the frozen one is on the disk; what else needs frames needs no more of them."""
    image, count = tmp_path / "near.img", 2000
    lay(image, [rng.getrandbits(60)], 256)
    with Machine(MachineConfig(image, interval_ms=1)) as machine:
        wait_for_prompt(machine)
        paste(machine, f"import revenant, time\n{COPIED}")
        assert int(machine.command_at_prompt(f"after(500) - after({count})", 120)) < count / 2


def test_in_less_memory_than_it_needs(tmp_path: Path, lay: Callable[..., list[Mosaic]], rng: Any) -> None:
    """Pages leave and come back all the time."""
    image = tmp_path / "near.img"
    mosaics = lay(image, [rng.getrandbits(60)], 8192)
    for _ in range(2):
        with life(image, mosaics, 6000, interval_ms=20, memory_mib=24):
            pass
        check_image(image, mosaics, 2)


@pytest.mark.parametrize("fill", [None, pytest.param(b"\xff", marks=pytest.mark.slow)], ids=["random", "ones"])
def test_memory_that_is_not_zero_at_the_start(
    fill: bytes | None, tmp_path: Path, lay: Callable[..., list[Mosaic]], rng: Any
) -> None:
    """As after a warm reset: no page, table or queue may begin with what was there before."""
    image, memory = tmp_path / "near.img", tmp_path / "memory"
    mosaics = lay(image, [rng.getrandbits(60)], 1024)
    memory.write_bytes(fill * MEMORY_SIZE if fill else rng.randbytes(MEMORY_SIZE))
    backend = f"memory-backend-file,id=ram,size={MEMORY_SIZE},mem-path={memory},share=on"
    extra = ("-object", backend, "-machine", "memory-backend=ram")
    with life(image, mosaics, 4000, memory_mib=MEMORY_SIZE >> 20, interval_ms=2, extra=extra) as machine:
        wait_for_prompt(machine)
        machine.command_at_prompt("import uctypes, revenant")
        fresh = "all(uctypes.bytearray_at(a, 4096) == bytes(4096) for a in range(0x50000000, 0x50800000, 4096))"
        assert machine.command_at_prompt(fresh) == "True"
        machine.command_at_prompt("ids = [revenant.spawn('pass') for _ in range(9)]")  # records on new pages
        assert machine.command_at_prompt("sum(revenant.wait(id) for id in ids), len(set(ids))") == "(0, 9)"
        paste(machine, "while revenant.generation() < 70: revenant.commit()\n")  # all roots' slots are in use
    memory.write_bytes(fill * MEMORY_SIZE if fill else rng.randbytes(MEMORY_SIZE))
    with life(image, mosaics, 4000, memory_mib=MEMORY_SIZE >> 20, interval_ms=2, extra=extra) as machine:
        wait_for_prompt(machine)  # what was read from those slots lies where pages begin now
        assert machine.command_at_prompt(fresh.replace("0x50", "0x51")) == "True"
    check_image(image, mosaics, 4)
