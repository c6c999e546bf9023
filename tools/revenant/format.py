"""The disk format of kernel/store/FORMAT.md, version 1: structures, constants, hashes. Knows no files.

Every class here has its twin in kernel/store/format.h; tests/unit/test_layout.py compares them by DWARF.
Used by: store.py (reads), writer.py (writes), check.py.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntFlag

from revenant.structure import Structure, at

BLOCK_SIZE = 4096
SECTOR_SIZE = 512
SECTORS_PER_BLOCK = BLOCK_SIZE // SECTOR_SIZE
FORMAT_VERSION = 1
FORMAT_VERSION_MAX = 2
"""With compressed pages in far stores."""
NODE_FANOUT = 128
NODE_FANOUT_BITS = 7
SPACE_HEIGHT_MAX = 5
DIRECTORY_HEIGHT_MAX = 3
HEADER_BLOCK = 1
LOADER_BLOCK = 2
LOADER_BLOCK_COUNT = 16
HEADER_COPY_BLOCK = 18
RING_FIRST_BLOCK = 32
RING_COUNT = 64
STORE_BLOCK_COUNT_MIN = 2048
STORE_BLOCK_COUNT_MAX = 2**32 - 1
RETAIN_COUNT_DEFAULT = 16
RETAIN_HOURLY_DEFAULT = 24
RETAIN_DAILY_DEFAULT = 7
RETAIN_COUNT_MIN = 2
RETAIN_COUNT_MAX = 1024
RETAIN_HOURLY_MAX = 168
RETAIN_DAILY_MAX = 366
KERNEL_SIZE_MAX = 448 * 1024
TAG_SIZE_MAX = 47
TAG_COUNT_MAX = 256
HASH_SIZE = 16
ROOT_HASH_SIZE = 32
STORE_ID_SIZE = 16
STORE_ENTRY_COUNT_MAX = BLOCK_SIZE // 64
LIST_ENTRY_COUNT_MAX = 253
GENERATIONS_PER_PAGE = BLOCK_SIZE // 256
BITS_PER_PAGE = BLOCK_SIZE * 8
COUNTS_PER_PAGE = BLOCK_SIZE // 4

HEADER_MAGIC = int.from_bytes(b"RVNTHEAD", "little")
ROOT_MAGIC = int.from_bytes(b"RVNTROOT", "little")

SPACE_RECORDS = 0
SPACE_SHARES = 1
SPACE_FIRST_USER = 16
META_BITMAP = 0
META_GENERATIONS = 1
META_PRESENCE = 2

ZERO_PAGE = bytes(BLOCK_SIZE)


def block_hash(data: bytes) -> bytes:
    """The hash that a block pointer carries: 16 bytes."""
    return hashlib.blake2b(data, digest_size=HASH_SIZE).digest()


def root_hash(data: bytes) -> bytes:
    """The hash that headers and root records carry of themselves: 32 bytes."""
    return hashlib.blake2b(data, digest_size=ROOT_HASH_SIZE).digest()


class PtrFlag(IntFlag):
    """Upper byte of a pointer's first word."""

    LEVEL_MASK = 0x07
    COMPRESSED = 0x08
    PRESENT = 0x80


class GenerationFlag(IntFlag):
    """`generation_disk.flags`."""

    TAGGED = 1
    DROPPED = 2
    ROLLBACK = 4
    ADOPTED = 8
    HOURLY = 16
    DAILY = 32
    AUTOMATIC = 64


class RootFlag(IntFlag):
    """`root_disk.flags`."""

    COMPLETE = 1


class Pointer(Structure):
    """A block pointer: where, who wrote it, and what it must contain."""

    C_NAME = "block_ptr_disk"
    SIZE = 32
    where: int = at(0, "Q")
    birth_length: int = at(8, "Q")
    hash: bytes = at(16, "16s")

    @classmethod
    def make(cls, block: int, level: int, birth: int, contents: bytes) -> Pointer:
        """A pointer to contents, stored uncompressed in the store's own block."""
        where = block * SECTORS_PER_BLOCK | (PtrFlag.PRESENT | level) << 56
        return cls(where, birth | BLOCK_SIZE << 48, block_hash(contents))

    @classmethod
    def make_compressed(cls, sector: int, length: int, birth: int, contents: bytes) -> Pointer:
        """A pointer to a page, stored as a zstd frame of that length."""
        where = sector | (PtrFlag.PRESENT | PtrFlag.COMPRESSED) << 56
        return cls(where, birth | length << 48, block_hash(contents))

    @property
    def present(self) -> bool:
        """False: a missing pointer, which reads as zero pages."""
        return bool(self.where >> 63)

    @property
    def place(self) -> int:
        """First sector in its store."""
        return self.where & (1 << 48) - 1

    @property
    def block(self) -> int:
        """First block in its store."""
        return self.place // SECTORS_PER_BLOCK

    @property
    def store(self) -> int:
        """Number of the store, relative to the store that the pointer was read from."""
        return self.where >> 48 & 0xFF

    @property
    def flags(self) -> PtrFlag:
        """Level, compressed, present."""
        return PtrFlag(self.where >> 56)

    @property
    def level(self) -> int:
        """0: a data page; k: a node over 128**k pages."""
        return self.where >> 56 & PtrFlag.LEVEL_MASK

    @property
    def compressed(self) -> bool:
        """Stored as a zstd frame of `length` bytes."""
        return bool(self.flags & PtrFlag.COMPRESSED)

    @property
    def offset(self) -> int:
        """Where it begins in its block, in bytes."""
        return self.place % SECTORS_PER_BLOCK * SECTOR_SIZE

    @property
    def birth(self) -> int:
        """Generation that wrote the block."""
        return self.birth_length & (1 << 48) - 1

    @property
    def length(self) -> int:
        """Stored length in bytes."""
        return self.birth_length >> 48

    def translated(self, home: int) -> Pointer:
        """The same pointer for a reader to whom the store that it was read from is number `home`."""
        if home == 0 or not self.present:
            return self
        if self.store + home > STORE_ENTRY_COUNT_MAX:
            raise ValueError(f"store number {self.store} of store {home} is beyond {STORE_ENTRY_COUNT_MAX}")
        return Pointer(self.where + (home << 48), self.birth_length, self.hash)

    def renumbered(self, store: int) -> Pointer:
        """The same pointer where that store has another number."""
        return Pointer(self.where & ~(0xFF << 48) | store << 48, self.birth_length, self.hash)


MISSING = Pointer()


def node_pointers(data: bytes) -> list[tuple[int, Pointer]]:
    """(slot, pointer) of the present pointers in a node's 4096 bytes."""
    words = struct.iter_unpack("<QQ16s", data)
    return [(slot, Pointer(*fields)) for slot, fields in enumerate(words) if fields[0] >> 63]


def node_pack(pointers: dict[int, Pointer]) -> bytes:
    """A node's 4096 bytes from its present pointers by slot."""
    data = bytearray(BLOCK_SIZE)
    for slot, pointer in pointers.items():
        struct.pack_into("<QQ16s", data, slot * 32, pointer.where, pointer.birth_length, pointer.hash)
    return bytes(data)


class Header(Structure):
    """First sector of blocks 1 and 18."""

    C_NAME = "header_disk"
    SIZE = SECTOR_SIZE
    magic: int = at(0, "Q", HEADER_MAGIC)
    version: int = at(8, "I", FORMAT_VERSION)
    ring_count: int = at(12, "I", RING_COUNT)
    store_id: bytes = at(16, "16s")
    block_count: int = at(32, "Q")
    ring_first: int = at(40, "Q", RING_FIRST_BLOCK)
    ring_stride: int = at(48, "Q")
    created_wall_ns: int = at(56, "Q")
    zero: bytes = at(64, "416s")
    hash: bytes = at(480, "32s")

    def sealed(self) -> bytes:
        """SIZE bytes with the right hash."""
        body = self.pack()[:480]
        return body + root_hash(body)

    @property
    def is_compact(self) -> bool:
        """Whether it is a published store that may hold compressed and shared pages: nobody can write to it."""
        return self.version > FORMAT_VERSION and self.ring_stride == 1

    def is_fixed(self, block: int) -> bool:
        """Whether a block has a fixed place, so that the allocator never gives it out."""
        if block < RING_FIRST_BLOCK:
            return True
        index, rest = divmod(block - RING_FIRST_BLOCK, self.ring_stride)
        return rest == 0 and index < RING_COUNT

    @property
    def spread_stride(self) -> int:
        """The ring stride of a store of this size that will be written."""
        return (self.block_count - RING_FIRST_BLOCK) // RING_COUNT

    def ring_block(self, sequence: int) -> int:
        """The block of the root record with this sequence."""
        return self.ring_first + sequence % RING_COUNT * self.ring_stride


class Generation(Structure):
    """A record of the generation table."""

    C_NAME = "generation_disk"
    SIZE = 256
    generation: int = at(0, "Q")
    wall_ns: int = at(8, "Q")
    mono_ns: int = at(16, "Q")
    flags: int = at(24, "I")
    tree_height: int = at(28, "I")
    tree: Pointer = at(32, Pointer)
    dead: Pointer = at(64, Pointer)
    held: Pointer = at(96, Pointer)
    dead_count: int = at(128, "Q")
    held_count: int = at(136, "Q")
    dirty_pages: int = at(144, "Q")
    origin: int = at(152, "Q")
    zero: bytes = at(160, "48s")
    tag: bytes = at(208, "48s")

    @property
    def tag_text(self) -> str:
        """The tag, or an empty string."""
        return self.tag.rstrip(b"\0").decode(errors="replace")


class ListEntry(Structure):
    """A block on a dead or held list."""

    C_NAME = "list_entry_disk"
    SIZE = 16
    block: int = at(0, "Q")
    birth: int = at(8, "Q")


class ListBlock(Structure):
    """A block of a dead or held list."""

    C_NAME = "list_block_disk"
    SIZE = BLOCK_SIZE
    next: Pointer = at(0, Pointer)
    count: int = at(32, "I")
    zero: int = at(36, "I")
    zero2: int = at(40, "Q")
    entry: tuple[ListEntry, ...] = at(48, ListEntry, count=LIST_ENTRY_COUNT_MAX)


class StartFailures(Structure):
    """Starts that ended by themselves, badly and at once (heal.py)."""

    C_NAME = "start_failures_disk"
    SIZE = 24
    start_count: int = at(0, "I")
    heal_count: int = at(4, "I")
    generation: int = at(8, "Q")
    mono_ns: int = at(16, "Q")


class Root(Structure):
    """A root record: the first sector of its ring slot."""

    C_NAME = "root_disk"
    SIZE = SECTOR_SIZE
    magic: int = at(0, "Q", ROOT_MAGIC)
    version: int = at(8, "I", FORMAT_VERSION)
    record_version: int = at(12, "I")
    sequence: int = at(16, "Q")
    generation: int = at(24, "Q")
    wall_ns: int = at(32, "Q")
    mono_ns: int = at(40, "Q")
    store_id: bytes = at(48, "16s")
    previous_hash: bytes = at(64, "32s")
    tree: Pointer = at(96, Pointer)
    meta: Pointer = at(128, Pointer)
    kernel: Pointer = at(160, Pointer)
    loader: Pointer = at(192, Pointer)
    resume: Pointer = at(224, Pointer)
    stores: Pointer = at(256, Pointer)
    kernel_size: int = at(288, "I")
    loader_size: int = at(292, "I")
    tree_height: int = at(296, "I")
    meta_height: int = at(300, "I")
    block_count: int = at(304, "Q")
    free_count: int = at(312, "Q")
    alloc_next: int = at(320, "Q")
    retain_count: int = at(328, "I", RETAIN_COUNT_DEFAULT)
    flags: int = at(332, "I")
    resume_list_size: int = at(336, "Q")
    retain_hourly: int = at(344, "I")
    retain_daily: int = at(348, "I")
    failures: StartFailures = at(352, StartFailures)
    retain_wanted: int = at(376, "I")
    packed_count: int = at(380, "I")
    stores_copy: Pointer = at(384, Pointer)
    hash: bytes = at(416, "32s")
    signature: bytes = at(448, "64s")

    def sealed(self) -> bytes:
        """SIZE bytes with the right hash (the root hash) and the signature as it is."""
        data = self.pack()
        return data[:416] + root_hash(data[:416]) + data[448:]


class StoreEntry(Structure):
    """Entry n - 1 of the table of stores describes far store n."""

    C_NAME = "store_entry_disk"
    SIZE = 64
    store_id: bytes = at(0, "16s")
    root_hash: bytes = at(16, "32s")
    generation: int = at(48, "Q")
    block_count: int = at(56, "Q")

    def copy_key(self, pointer: Pointer) -> int:
        """What the presence map has a page of that store under: its block; behind those, a compressed one's sector."""
        first_sector_key = -(-self.block_count // COUNTS_PER_PAGE) * COUNTS_PER_PAGE
        return first_sector_key + pointer.place if pointer.compressed else pointer.block


@dataclass(frozen=True, order=True)
class PageKey:
    """A page of the main tree."""

    space: int
    page: int

    @property
    def key(self) -> tuple[int, int]:
        """(space, page)."""
        return self.space, self.page

    @property
    def packed(self) -> int:
        """As in the resume list."""
        return self.space << 35 | self.page

    @classmethod
    def unpacked(cls, key: int) -> PageKey:
        """From the resume list."""
        return cls(key >> 35, key & (1 << 35) - 1)


DISK_STRUCTURES: tuple[type[Structure], ...] = (
    Pointer, Header, Generation, ListEntry, ListBlock, StartFailures, Root, StoreEntry,
)  # fmt: skip
