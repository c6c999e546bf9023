"""The boot record and the loader under SeaBIOS: hand-made stores with a tiny kernel that reports boot_info.

Each damage to a store must have its message on COM2 or an older root's kernel; nothing unverified may run.
Needs build/boot (below $REVENANT_BUILD, or the checkout's build folder), nasm and QEMU.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from revenant.format import (
    BLOCK_SIZE,
    HEADER_BLOCK,
    HEADER_COPY_BLOCK,
    KERNEL_SIZE_MAX,
    LOADER_BLOCK,
    MISSING,
    RING_COUNT,
    RING_FIRST_BLOCK,
    SECTORS_PER_BLOCK,
    Header,
    Pointer,
    PtrFlag,
    Root,
    block_hash,
    node_pack,
)

pytestmark = pytest.mark.qemu

BUILD = Path(os.environ.get("REVENANT_BUILD", Path(__file__).parents[2] / "build"))
BLOCK_COUNT = 2048
STORE_ID = bytes(range(1, 17))
EXIT_KERNEL = 0x10 << 1 | 1
EXIT_LOADER = 0x7E << 1 | 1
TIMEOUT_S = 30
KERNEL_START = 0x100000
BOOT_INFO_MAGIC = int.from_bytes(b"RVNTBOOT", "little")
BOOT_BY_MBR = 2
RAM = 1

# Boot_info and what a kernel sees of itself go to COM1 as raw bytes.
KERNEL_SOURCE = """
WIPED equ 448 * 1024
bits 64
org 0x100000
    dq 0x00010102464c457f, 0
    dw 2, 62
    dd 1
    dq entry, segments - $$, 0
    dd 0
    dw 64, 56, 4, 0, 0, 0
segments:
    dd 1, 7
    dq 0, $$, $$, file_end - $$, file_end - $$ + 0x10000, 4096
    dd 4, 4
    dq 0, 0, 0, 0, 0, 1                         ; not loaded
    dd 1, 6
    dq 0, 0x400000, 0x400000, file_end - $$, WIPED, 4096
    dd 1, 6
    dq 0, 0x400000, 0x400000, 0, WIPED, 4096    ; its zeros must wipe what the one before left
entry:
    mov rbx, rdi
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov [rel tsc], rax
    pushfq
    pop qword [rel flags]
    mov [rel stack], rsp
    mov rsi, $$
    mov ecx, (entry - $$) / 8
    call add_up
    mov [rel head_sum], rax
    mov rsi, tail
    mov ecx, (file_end - tail) / 8
    call add_up
    mov [rel tail_sum], rax
    mov rsi, file_end
    mov ecx, 0x10000 / 8
    call add_up
    mov [rel bss_sum], rax
    mov esi, 0x400000
    mov ecx, WIPED / 8
    call add_up
    mov [rel wiped_sum], rax
    mov rsi, rbx
    mov ecx, 56 + 64 * 24
    mov dx, 0x3f8
    rep outsb
    mov rsi, report
    mov ecx, report_end - report
    rep outsb
    mov dx, 0xf4
    mov al, 0x10
    out dx, al
    cli
    hlt
add_up:
    xor eax, eax
.next:
    add rax, [rsi]
    add rsi, 8
    loop .next
    ret
align 8
report:
tsc:        dq 0
flags:      dq 0
stack:      dq 0
head_sum:   dq 0
tail_sum:   dq 0
bss_sum:    dq 0
wiped_sum:  dq 0
report_end:
align 8
tail:
    %if SIZE
    times (SIZE - ($ - $$)) / 8 dq 0x9e3779b97f4a7c15 ^ (($ - $$) * 0x10001)
    %endif
    dq 1
file_end:
"""
REPORT = struct.Struct("<7Q")
INFO = struct.Struct("<QIIQQ16sII")
RANGE = struct.Struct("<QQII")


@dataclass
class Store:
    """A store in memory, blocks handed out in order from the first one behind the ring's first slot."""

    data: bytearray = field(default_factory=lambda: bytearray(BLOCK_COUNT * BLOCK_SIZE))
    header: Header = field(
        default_factory=lambda: Header(
            store_id=STORE_ID,
            block_count=BLOCK_COUNT,
            ring_stride=(BLOCK_COUNT - RING_FIRST_BLOCK) // RING_COUNT,
        )
    )
    used: set[int] = field(default_factory=set)
    roots: dict[int, Root] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.put(0, (BUILD / "boot" / "mbr.bin").read_bytes())
        self.put(LOADER_BLOCK, (BUILD / "boot" / "loader.bin").read_bytes())
        self.seal_headers(self.header)

    def seal_headers(self, header: Header) -> None:
        """Writes both copies of a header."""
        self.put(HEADER_BLOCK, header.sealed())
        self.put(HEADER_COPY_BLOCK, header.sealed())

    def put(self, block: int, contents: bytes) -> None:
        """Writes bytes at the start of a block."""
        self.data[block * BLOCK_SIZE : block * BLOCK_SIZE + len(contents)] = contents

    def flip(self, block: int, byte: int = 0) -> None:
        """Changes one bit."""
        self.data[block * BLOCK_SIZE + byte] ^= 4

    def allocate(self, step: int = 1) -> int:
        """The next free block, `step` behind the last one."""
        block = max(self.used, default=RING_FIRST_BLOCK) + step
        while block in self.used or self.header.is_fixed(block):
            block += 1
        if block >= BLOCK_COUNT:
            block = next(b for b in range(RING_FIRST_BLOCK, BLOCK_COUNT)
                         if b not in self.used and not self.header.is_fixed(b))  # fmt: skip
        self.used.add(block)
        return block

    def add_kernel(self, kernel: bytes, step: int = 1) -> Pointer:
        """Writes a kernel as a tree of level 1; blocks of zeros stay missing."""
        pointers: dict[int, Pointer] = {}
        for slot, start in enumerate(range(0, len(kernel), BLOCK_SIZE)):
            page = kernel[start : start + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0")
            if any(page):
                block = self.allocate(step)
                self.put(block, page)
                pointers[slot] = Pointer.make(block, 0, 1, page)
        return self.add_node(node_pack(pointers))

    def add_node(self, node: bytes) -> Pointer:
        """Writes a kernel's node."""
        block = self.allocate()
        self.put(block, node)
        return Pointer.make(block, 1, 1, node)

    def add_root(self, sequence: int, kernel: Pointer, size: int) -> Root:
        """Writes a root record that names a kernel."""
        root = Root(
            record_version=1,
            sequence=sequence,
            generation=sequence,
            store_id=STORE_ID,
            kernel=kernel,
            kernel_size=size,
            block_count=BLOCK_COUNT,
        )
        self.put(self.header.ring_block(sequence), root.sealed())
        self.roots[sequence] = root
        return root

    def kernel_block(self, kernel: Pointer, slot: int) -> int:
        """Where a block of a kernel's lies."""
        place: int = struct.unpack_from("<Q", self.data, kernel.block * BLOCK_SIZE + slot * 32)[0]
        return (place & (1 << 48) - 1) // SECTORS_PER_BLOCK


@dataclass(frozen=True)
class Start:
    """What became of one start."""

    exit_code: int
    console: bytes
    voice: str

    @property
    def info(self) -> tuple[Any, ...]:
        """magic, version, method, entry_tsc, root_sequence, store_id, range_count, zero."""
        return INFO.unpack_from(self.console)

    @property
    def sequence(self) -> int:
        """Of the root whose kernel ran."""
        assert self.exit_code == EXIT_KERNEL, self.voice
        return int(self.info[4])

    @property
    def ranges(self) -> list[tuple[int, ...]]:
        """start, size, type, zero."""
        return [RANGE.unpack_from(self.console, INFO.size + RANGE.size * i) for i in range(self.info[6])]

    @property
    def report(self) -> tuple[int, ...]:
        """tsc, flags, stack, head_sum, tail_sum, bss_sum, wiped_sum."""
        return REPORT.unpack_from(self.console, INFO.size + 64 * RANGE.size)

    @property
    def messages(self) -> list[str]:
        """The loader's lines, without its name."""
        return [line.removeprefix("revenant boot: ") for line in self.voice.splitlines()]


Boot = Callable[..., Start]
Kernels = Callable[[int], bytes]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernels:
    """Assembles test kernels of (about) a size in bytes; 0: as small as it gets."""

    def make(size: int) -> bytes:
        source, output = tmp_path / "kernel.asm", tmp_path / f"kernel{size}.bin"
        source.write_text(KERNEL_SOURCE)
        subprocess.run(["nasm", "-f", "bin", f"-DSIZE={size}", "-o", output, source], check=True)
        return output.read_bytes()

    return make


def blockdev(image: Path, bad_sectors: Sequence[int]) -> dict[str, Any]:
    """The disk for QEMU, with sectors that answer every read with EIO."""
    file = {"driver": "file", "filename": str(image)}
    errors = [{"event": "none", "iotype": "read", "sector": sector, "once": False} for sector in bad_sectors]
    if not errors:
        return {**file, "node-name": "disk"}
    return {"driver": "blkdebug", "node-name": "disk", "image": file, "inject-error": errors}


@pytest.fixture
def boot(tmp_path: Path) -> Boot:
    """Starts QEMU on a store and waits for its end."""

    def start(
        store: Store,
        machine: str = "pc",
        device: str = "virtio-blk-pci",
        memory_mib: int = 64,
        bad_sectors: Sequence[int] = (),
    ) -> Start:
        image, console, voice = tmp_path / "image", tmp_path / "console", tmp_path / "voice"
        image.write_bytes(store.data)
        console.write_bytes(b"")
        voice.write_bytes(b"")
        command = [
            "qemu-system-x86_64", "-machine", machine, "-accel", "tcg", "-cpu", "max", "-m", f"{memory_mib}M",
            "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
            "-blockdev", json.dumps(blockdev(image, bad_sectors)),
            "-device", f"{device},drive=disk,rerror=report",
            "-serial", f"file:{console}", "-serial", f"file:{voice}",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
        ]  # fmt: skip
        done = subprocess.run(command, timeout=TIMEOUT_S, capture_output=True, check=False)
        assert not done.stderr, done.stderr
        return Start(done.returncode, console.read_bytes(), voice.read_text())

    return start


def word_sum(data: bytes) -> int:
    """Of 64-bit words, as the test kernel adds them."""
    return int(sum(struct.unpack(f"<{len(data) // 8}Q", data))) % 2**64


def store_with(kernel: bytes, step: int = 1, sequence: int = 5) -> Store:
    """A store with one root."""
    store = Store()
    store.add_root(sequence, store.add_kernel(kernel, step), len(kernel))
    return store


def assert_kernel_ran(start: Start, kernel: bytes, sequence: int = 5) -> None:
    """The handover contract holds and all of the kernel is in memory."""
    assert start.exit_code == EXIT_KERNEL, (start.exit_code, start.voice)
    assert start.voice == ""
    magic, version, method, entry_tsc, root_sequence, store_id, range_count, zero = start.info
    assert (magic, version, method, root_sequence) == (BOOT_INFO_MAGIC, 1, BOOT_BY_MBR, sequence)
    assert (store_id, zero) == (STORE_ID, 0)
    tsc, flags, stack, head_sum, tail_sum, bss_sum, wiped_sum = start.report
    assert 0 < entry_tsc < tsc
    assert flags & (1 << 9 | 1 << 10) == 0, "interrupts off, direction clear"
    assert 0x1000 + 1024 <= stack < 1 << 20
    head = 64 + 4 * 56
    assert head_sum == word_sum(kernel[:head])
    tail = kernel.index(bytes(8 * 7), head) + 8 * 7
    assert tail_sum == word_sum(kernel[tail:])
    assert (bss_sum, wiped_sum) == (0, 0)
    assert 0 < range_count <= 64
    assert any(low <= KERNEL_START < low + size and kind == RAM for low, size, kind, _ in start.ranges)


@pytest.mark.parametrize("machine", ["pc", "q35"])
@pytest.mark.parametrize("device", ["virtio-blk-pci", "virtio-blk-pci,disable-legacy=on"])
def test_kernel_runs(boot: Boot, kernel: Kernels, machine: str, device: str) -> None:
    image = kernel(150_000)
    assert_kernel_ran(boot(store_with(image), machine, device), image)


def test_other_disk_controllers(boot: Boot, kernel: Kernels) -> None:
    image = kernel(150_000)
    assert_kernel_ran(boot(store_with(image), "pc", "ide-hd"), image)
    assert_kernel_ran(boot(store_with(image), "q35", "ide-hd"), image)


@pytest.mark.parametrize("size", [0, 4096, 440 * 1024, KERNEL_SIZE_MAX - 8])
def test_kernel_sizes(boot: Boot, kernel: Kernels, size: int) -> None:
    image = kernel(size)
    assert len(image) <= KERNEL_SIZE_MAX
    assert_kernel_ran(boot(store_with(image)), image)


@pytest.mark.parametrize("step", [2, 7])
def test_scattered_blocks(boot: Boot, kernel: Kernels, step: int) -> None:
    image = kernel(440 * 1024)
    assert_kernel_ran(boot(store_with(image, step)), image)


def test_missing_pointer_reads_as_zeros(boot: Boot, kernel: Kernels) -> None:
    image = bytearray(kernel(100_000))
    image[2 * BLOCK_SIZE : 5 * BLOCK_SIZE] = bytes(3 * BLOCK_SIZE)
    assert_kernel_ran(boot(store_with(bytes(image))), bytes(image))


def test_newest_root_wins(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    store = Store()
    pointer = store.add_kernel(image)
    for sequence in range(100, 175):
        store.add_root(sequence, pointer, len(image))
    assert_kernel_ran(boot(store), image, 174)


def test_last_slot(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    assert_kernel_ran(boot(store_with(image, sequence=2**40 + 63)), image, 2**40 + 63)


@pytest.mark.parametrize("byte", [0, 8, 16, 20, 48, 100, 415, 416])
def test_torn_newest_root(boot: Boot, kernel: Kernels, byte: int) -> None:
    image = kernel(0)
    store = Store()
    pointer = store.add_kernel(image)
    for sequence in (7, 8, 9):
        store.add_root(sequence, pointer, len(image))
    store.flip(store.header.ring_block(9), byte)
    assert_kernel_ran(boot(store), image, 8)


def test_root_of_another_store_is_ignored(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    store = store_with(image, sequence=5)
    pointer = store.roots[5].kernel
    stranger = Root(sequence=6, store_id=bytes(16), kernel=pointer, kernel_size=len(image))
    store.put(store.header.ring_block(6), stranger.sealed())
    assert_kernel_ran(boot(store), image, 5)


@pytest.mark.parametrize("byte", [0, 8, 20, 481])
def test_second_header_is_used(boot: Boot, kernel: Kernels, byte: int) -> None:
    image = kernel(0)
    store = store_with(image)
    store.flip(HEADER_BLOCK, byte)
    assert_kernel_ran(boot(store), image)


@pytest.mark.parametrize(
    ("byte", "message"),
    [
        (0, "header: bad magic"),
        (8, "header: unknown version"),
        (20, "header: bad hash"),
        (500, "header: bad hash"),
    ],
)
def test_both_headers_bad(boot: Boot, kernel: Kernels, byte: int, message: str) -> None:
    store = store_with(kernel(0))
    store.flip(HEADER_BLOCK, byte)
    store.flip(HEADER_COPY_BLOCK, byte)
    assert_stopped(boot(store), message)


@pytest.mark.parametrize("stride", [0, BLOCK_COUNT, 2**60, (BLOCK_COUNT - 32) // 63 + 1])
def test_header_with_impossible_ring(boot: Boot, kernel: Kernels, stride: int) -> None:
    store = store_with(kernel(0))
    store.seal_headers(Header(store_id=STORE_ID, block_count=BLOCK_COUNT, ring_stride=stride))
    assert_stopped(boot(store), "header: bad ring")


def assert_stopped(start: Start, *messages: str) -> None:
    """The loader stopped and said exactly this."""
    assert start.exit_code == EXIT_LOADER
    assert start.console == b""
    assert start.messages == list(messages)


def test_no_valid_root(boot: Boot, kernel: Kernels) -> None:
    store = store_with(kernel(0))
    store.flip(store.header.ring_block(5), 300)
    assert_stopped(boot(store), "root: no valid one")


NONE_OLDER = "root: no older one to start from"


def test_bad_node(boot: Boot, kernel: Kernels) -> None:
    store = store_with(kernel(0))
    store.flip(store.roots[5].kernel.block, 4000)
    assert_stopped(boot(store), "kernel: node: bad hash", NONE_OLDER)


@pytest.mark.parametrize("slot", [0, 17, 36])
def test_bad_kernel_block(boot: Boot, kernel: Kernels, slot: int) -> None:
    store = store_with(kernel(150_000))
    store.flip(store.kernel_block(store.roots[5].kernel, slot), 4095)
    assert_stopped(boot(store), "kernel: bad hash", NONE_OLDER)


def test_bad_kernel_falls_back(boot: Boot, kernel: Kernels) -> None:
    old, new = kernel(0), kernel(50_000)
    store = Store()
    store.add_root(63, store.add_kernel(old), len(old))
    pointer = store.add_kernel(new)
    for sequence in (64, 65):
        store.add_root(sequence, pointer, len(new))
    store.flip(store.kernel_block(pointer, 3))
    start = boot(store)
    assert start.sequence == 63
    assert start.messages == ["kernel: bad hash"]


@pytest.mark.parametrize(
    ("sequences", "broken", "expected"),
    [((64,), None, 64), ((64, 65), None, 65), ((63, 64), None, 64), ((63, 64), 64, 63), ((65, 127), None, 127)],
)
def test_ring_without_gaps(
    boot: Boot, kernel: Kernels, sequences: Sequence[int], broken: int | None, expected: int
) -> None:
    """A published store's root is taken from two slots; whatever else is there, the newest one is found."""
    image = kernel(0)
    store = Store(header=Header(store_id=STORE_ID, block_count=BLOCK_COUNT, ring_stride=1))
    pointer = store.add_kernel(image)
    for sequence in sequences:
        store.add_root(sequence, pointer, len(image))
    if broken:
        store.flip(store.header.ring_block(broken), 300)
    assert boot(store).sequence == expected


def test_kernel_on_far_store(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    store = Store()
    store.add_root(5, store.add_kernel(image).translated(1), len(image))
    far = "kernel is on the far store: start from it"
    assert_stopped(boot(store), far, NONE_OLDER)


def test_kernel_block_on_far_store(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    store = Store()
    page = image.ljust(BLOCK_SIZE, b"\0")
    node = node_pack({0: Pointer.make(100, 0, 1, page).translated(2)})
    store.add_root(5, store.add_node(node), len(image))
    assert_stopped(boot(store), "kernel is on the far store: start from it", NONE_OLDER)


def bad_pointers(good: Pointer) -> dict[str, Pointer]:
    """Pointers that no writer of version 1 makes."""
    return {
        "missing": MISSING,
        "not present": Pointer(good.where & ~(PtrFlag.PRESENT << 56), good.birth_length, good.hash),
        "level": Pointer(good.where ^ 1 << 56, good.birth_length, good.hash),
        "compressed": Pointer(good.where | PtrFlag.COMPRESSED << 56, good.birth_length, good.hash),
        "unaligned": Pointer(good.where + 1, good.birth_length, good.hash),
        "outside": Pointer(good.where + BLOCK_COUNT * SECTORS_PER_BLOCK, good.birth_length, good.hash),
        "short": Pointer(good.where, good.birth_length - (1 << 48), good.hash),
    }


@pytest.mark.parametrize("kind", list(bad_pointers(MISSING)))
def test_bad_pointer_to_node(boot: Boot, kernel: Kernels, kind: str) -> None:
    image = kernel(0)
    store = Store()
    store.add_root(5, bad_pointers(store.add_kernel(image))[kind], len(image))
    assert_stopped(boot(store), "kernel: bad pointer", NONE_OLDER)


@pytest.mark.parametrize("kind", [kind for kind in bad_pointers(MISSING) if kind != "missing"])
def test_bad_pointer_in_node(boot: Boot, kernel: Kernels, kind: str) -> None:
    image = kernel(0)
    store = Store()
    page = image.ljust(BLOCK_SIZE, b"\0")
    block = store.allocate()
    store.put(block, page)
    node = node_pack({0: Pointer.make(block, 0, 1, page)})
    pointer = bad_pointers(Pointer.make(block, 0, 1, page))[kind]
    node = struct.pack("<QQ16s", pointer.where, pointer.birth_length, block_hash(page)) + node[32:]
    store.add_root(5, store.add_node(node), len(image))
    assert_stopped(boot(store), "kernel: bad pointer", NONE_OLDER)


@pytest.mark.parametrize("size", [0, KERNEL_SIZE_MAX + 1, 2**32 - 1])
def test_bad_kernel_size(boot: Boot, kernel: Kernels, size: int) -> None:
    store = Store()
    store.add_root(5, store.add_kernel(kernel(0)), size)
    assert_stopped(boot(store), "kernel: bad size", NONE_OLDER)


@dataclass(frozen=True)
class ElfDamage:
    """A field of the test kernel's file set to a value that must be refused."""

    offset: int
    format: str
    value: int
    message: str


NOT_ELF, BAD_SEGMENT = "kernel: not an x86-64 ELF file", "kernel: bad segment"
BAD_ENTRY, NO_RAM = "kernel: entry outside its segments", "memory: none where the kernel goes"
PHDR = 64
ELF_DAMAGES = {
    "magic": ElfDamage(0, "<B", 0, NOT_ELF),
    "class": ElfDamage(4, "<B", 1, NOT_ELF),
    "type": ElfDamage(16, "<H", 3, NOT_ELF),
    "machine": ElfDamage(18, "<H", 3, NOT_ELF),
    "phentsize": ElfDamage(54, "<H", 32, NOT_ELF),
    "phoff": ElfDamage(32, "<Q", 2**64 - 56, NOT_ELF),
    "phnum": ElfDamage(56, "<H", 0xFFFF, NOT_ELF),
    "no segments": ElfDamage(56, "<H", 0, BAD_ENTRY),
    "entry low": ElfDamage(24, "<Q", KERNEL_START - 1, BAD_ENTRY),
    "entry high": ElfDamage(24, "<Q", 2**63, BAD_ENTRY),
    "p_offset": ElfDamage(PHDR + 8, "<Q", 2**64 - 8, BAD_SEGMENT),
    "p_paddr low": ElfDamage(PHDR + 24, "<Q", KERNEL_START - 4096, BAD_SEGMENT),
    "p_paddr high": ElfDamage(PHDR + 24, "<Q", 16 << 20, BAD_SEGMENT),
    "p_filesz": ElfDamage(PHDR + 32, "<Q", 2**40, BAD_SEGMENT),
    "p_memsz small": ElfDamage(PHDR + 40, "<Q", 8, BAD_SEGMENT),
    "p_memsz large": ElfDamage(PHDR + 40, "<Q", 16 << 20, BAD_SEGMENT),
    "p_memsz huge": ElfDamage(PHDR + 40, "<Q", 2**64 - 1, BAD_SEGMENT),
}


@pytest.mark.parametrize("name", list(ELF_DAMAGES))
def test_bad_elf(boot: Boot, kernel: Kernels, name: str) -> None:
    damage = ELF_DAMAGES[name]
    image = bytearray(kernel(0))
    struct.pack_into(damage.format, image, damage.offset, damage.value)
    assert_stopped(boot(store_with(bytes(image))), damage.message, NONE_OLDER)


def test_truncated_elf(boot: Boot, kernel: Kernels) -> None:
    assert_stopped(boot(store_with(kernel(0)[:63])), NOT_ELF, NONE_OLDER)


def test_too_little_memory(boot: Boot, kernel: Kernels) -> None:
    image = bytearray(kernel(0))
    struct.pack_into("<Q", image, PHDR + 40, 14 << 20)
    assert_stopped(boot(store_with(bytes(image)), memory_mib=8), NO_RAM, NONE_OLDER)


def test_missing_loader(boot: Boot, kernel: Kernels) -> None:
    store = store_with(kernel(0))
    store.put(LOADER_BLOCK, bytes(16 * BLOCK_SIZE))
    assert_stopped(boot(store), "loader: bad magic")


def test_loader_cannot_be_read(boot: Boot, kernel: Kernels) -> None:
    sector = LOADER_BLOCK * SECTORS_PER_BLOCK + 20
    assert_stopped(boot(store_with(kernel(0)), bad_sectors=[sector]), "loader: read error")


def test_header_cannot_be_read(boot: Boot, kernel: Kernels) -> None:
    store, image = store_with(kernel(0)), kernel(0)
    first, second = HEADER_BLOCK * SECTORS_PER_BLOCK, HEADER_COPY_BLOCK * SECTORS_PER_BLOCK
    assert_kernel_ran(boot(store, bad_sectors=[first]), image)
    assert_kernel_ran(boot(store, bad_sectors=[second]), image)
    assert_stopped(boot(store, bad_sectors=[first, second]), "header: read error")


def test_root_cannot_be_read(boot: Boot, kernel: Kernels) -> None:
    image = kernel(0)
    store = store_with(image)
    store.add_root(6, store.roots[5].kernel, len(image))
    assert_kernel_ran(boot(store, bad_sectors=[store.header.ring_block(6) * SECTORS_PER_BLOCK]), image, 5)


def test_kernel_cannot_be_read(boot: Boot, kernel: Kernels) -> None:
    old, new = kernel(0), kernel(100_000)
    store = store_with(old)
    pointer = store.add_kernel(new)
    store.add_root(6, pointer, len(new))
    for block, message in ((pointer.block, "kernel: node: read error"),
                           (store.kernel_block(pointer, 9), "kernel: read error")):  # fmt: skip
        start = boot(store, bad_sectors=[block * SECTORS_PER_BLOCK])
        assert start.sequence == 5
        assert start.messages == [message]
