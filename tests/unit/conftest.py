"""Small stand-ins for a kernel and a program, so that unit tests need no build; crafted images."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from crafted import elf_program
from revenant import genesis
from revenant.format import BLOCK_SIZE, PageKey, Root
from revenant.writer import BootObjects, Contents, StoreWriter


@pytest.fixture
def program_bytes() -> bytes:
    """Text, data with a zero page inside, and bss."""
    data = b"\1" * BLOCK_SIZE + bytes(BLOCK_SIZE) + b"\2" * 100
    return elf_program([(0x401000, b"\xeb\xfe", 2, 5), (0x403000, data, 5 * BLOCK_SIZE, 6)])


@pytest.fixture
def stand_in_files(tmp_path: Path, program_bytes: bytes) -> genesis.BuildFiles:
    """Files as the build would make them."""
    rng = random.Random(1)
    contents = {
        "kernel.elf": rng.randbytes(50_000),
        "user.elf": program_bytes,
        "mbr.bin": rng.randbytes(510) + b"\x55\xaa",
        "loader.bin": rng.randbytes(9_000),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return genesis.BuildFiles(*(tmp_path / name for name in contents))


@pytest.fixture
def small_image(stand_in_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """A genesis image of 8 MiB."""
    path = tmp_path / "small.img"
    genesis.create_image(path, stand_in_files, 8 << 20)
    return path


@pytest.fixture
def write_store(tmp_path: Path) -> Callable[..., tuple[Path, Root]]:
    """Writes a store with given pages through a writer class, which may be one that does wrong."""

    def write(
        pages: dict[PageKey, bytes], writer: type[StoreWriter] = StoreWriter, name: str = "crafted.img"
    ) -> tuple[Path, Root]:
        boot = BootObjects(b"kernel" * 1000, b"boot", b"loader" * 1000)
        contents = Contents(1, sorted(pages), pages.__getitem__, boot, wall_ns=1)
        path = tmp_path / name
        return path, writer(path, contents, None).write()

    return write
