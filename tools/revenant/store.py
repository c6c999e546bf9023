"""A verifying reader of stores: opens an image, finds its newest root, reads pages. Writes nothing.

Promise: whatever the file contains, only StoreError comes out; nothing unverified is returned.
Used by: every command that looks into an image; check.py builds on it. The format is kernel/store/FORMAT.md.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self, TypeVar

from revenant.errors import StoreError
from revenant.format import (
    BLOCK_SIZE,
    COUNTS_PER_PAGE,
    DIRECTORY_HEIGHT_MAX,
    FORMAT_VERSION_MAX,
    GENERATIONS_PER_PAGE,
    HEADER_BLOCK,
    HEADER_COPY_BLOCK,
    HEADER_MAGIC,
    KERNEL_SIZE_MAX,
    LOADER_BLOCK_COUNT,
    META_GENERATIONS,
    META_PRESENCE,
    MISSING,
    NODE_FANOUT,
    RETAIN_DAILY_MAX,
    RETAIN_HOURLY_MAX,
    RING_COUNT,
    RING_FIRST_BLOCK,
    ROOT_MAGIC,
    SECTOR_SIZE,
    SPACE_HEIGHT_MAX,
    SPACE_RECORDS,
    STORE_BLOCK_COUNT_MAX,
    STORE_BLOCK_COUNT_MIN,
    STORE_ENTRY_COUNT_MAX,
    ZERO_PAGE,
    Generation,
    Header,
    PageKey,
    Pointer,
    Root,
    StoreEntry,
    block_hash,
    node_pointers,
    root_hash,
)

NODE_CACHE_COUNT = 4096
Found = TypeVar("Found")


class AbsentError(StoreError):
    """The block lives in a far store that is not at hand, and near has no copy: not a fault."""


@dataclass(frozen=True)
class Tree:
    """A space directory: its pointer and its height."""

    pointer: Pointer
    height: int


def header_fault(header: Header, data: bytes) -> str:
    """Why a header is not valid, or an empty string."""
    if header.magic != HEADER_MAGIC:
        return "no header magic"
    if root_hash(data[:480]) != header.hash:
        return "the header's hash is wrong"
    if not 1 <= header.version <= FORMAT_VERSION_MAX:
        return f"format version {header.version}, this tool knows {FORMAT_VERSION_MAX}"
    if header.ring_count != RING_COUNT or header.ring_first != RING_FIRST_BLOCK:
        return "the header's ring is not where version 1 has it"
    if not STORE_BLOCK_COUNT_MIN <= header.block_count <= STORE_BLOCK_COUNT_MAX:
        return f"the header says {header.block_count} blocks"
    if not 1 <= header.ring_stride <= (header.block_count - RING_FIRST_BLOCK) // RING_COUNT:
        return f"the header's ring stride is {header.ring_stride}"
    return ""


def root_fault(root: Root, data: bytes, header: Header) -> str:
    """Why a root record of this store is not valid, or an empty string."""
    if root_hash(data[:416]) != root.hash:
        return "the root record's hash is wrong"
    if not 1 <= root.version <= FORMAT_VERSION_MAX:
        return f"the root record has format version {root.version}, this tool knows {FORMAT_VERSION_MAX}"
    if max(root.tree_height, root.meta_height) > DIRECTORY_HEIGHT_MAX:
        return "the root record's heights are too large"
    if root.free_count > root.block_count or root.generation >= 1 << 48 or root.retain_count == 0:
        return "the root record's counts make no sense"
    if root.retain_hourly > RETAIN_HOURLY_MAX or root.retain_daily > RETAIN_DAILY_MAX:
        return "the root record keeps too many hours or days"
    if root.block_count > header.block_count:  # less: it has been grown since
        return f"the root record says {root.block_count} blocks, the header {header.block_count}"
    return ""


def unpacked(pointer: Pointer, block: bytes) -> bytes:
    """What a pointer names, out of the block that it lies in, unverified; nothing if that makes no sense."""
    if not pointer.compressed:
        return block
    import zstandard  # takes longer than all else that a start needs

    frame = block[pointer.offset : pointer.offset + pointer.length]
    try:
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=BLOCK_SIZE)
    except zstandard.ZstdError:
        return b""


class Store:
    """One image, open for reading, with the far stores that were given by path.

    `root` is the newest valid root record; `table` the far stores that it names; `root_faults` says why other
    records, which may have been newer, are not it.
    """

    header: Header
    root: Root

    def __init__(self, path: Path | str, fars: Sequence[Store] = ()) -> None:
        self.path = path
        self.fars: dict[bytes, Store] = {far.header.store_id: far for far in fars}
        self.read = lru_cache(NODE_CACHE_COUNT)(self._read)
        self._finding_copy = False  # in the presence map, which is near's own
        self._fd = self._open()
        try:
            self.header = self._read_header()
            self._open_newest()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def fault(self, reason: str, remedy: str = "") -> StoreError:
        """A StoreError about this file."""
        return StoreError(self.path, reason, remedy)

    def fileno(self) -> int:
        """The open file, read-only."""
        return self._fd

    # --- opening ---

    def _open(self) -> int:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            remedy = "`revenant create` makes an image" if isinstance(error, FileNotFoundError) else ""
            raise StoreError(self.path, error.strerror or "cannot be opened", remedy) from None
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreError(self.path, "is a folder")
        self.file_size = os.lseek(fd, 0, os.SEEK_END)
        return fd

    def _read_header(self) -> Header:
        reasons = []
        for block in (HEADER_BLOCK, HEADER_COPY_BLOCK):
            data = self._pread(block, SECTOR_SIZE)
            header = Header.unpack(data.ljust(SECTOR_SIZE, b"\0"))
            reason = header_fault(header, data)
            if not reason:
                self._check_size(header)
                return header
            reasons.append(reason)
        if not any(self._pread(block, BLOCK_SIZE).strip(b"\0") for block in (0, 1, HEADER_COPY_BLOCK)):
            raise self.fault("blank: there is no store in it yet")
        if reasons == ["no header magic"] * 2:
            raise self.fault("not a Revenant store")
        if self.file_size < STORE_BLOCK_COUNT_MIN * BLOCK_SIZE:
            raise self.fault(f"truncated: {self.file_size} bytes are left of it", "restore the whole file")
        raise self.fault(next(reason for reason in reasons if reason != "no header magic"))

    def _check_size(self, header: Header) -> None:
        if self.file_size < header.block_count * BLOCK_SIZE:
            raise self.fault(
                f"truncated: {self.file_size} bytes of {header.block_count * BLOCK_SIZE}",
                "restore the whole file",
            )

    def _read_ring(self) -> list[Root]:
        """All valid root records of this store, newest first."""
        roots = []
        self.ring_faults: list[tuple[int, str]] = []
        unknown: Root | None = None  # the newest of another version
        for slot in range(RING_COUNT):
            block = self.header.ring_block(slot)
            data = self._pread(block, SECTOR_SIZE).ljust(SECTOR_SIZE, b"\0")
            root = Root.unpack(data)
            if root.magic == ROOT_MAGIC and root.store_id == self.header.store_id:
                reason = root_fault(root, data, self.header)
                if not reason and root.sequence % RING_COUNT != slot:
                    reason = f"a root record with sequence {root.sequence} is in ring slot {slot}"
                if not 1 <= root.version <= FORMAT_VERSION_MAX and root_hash(data[:416]) == root.hash:
                    unknown = max(unknown or root, root, key=lambda root: root.sequence)
                if not reason:
                    roots.append(root)
                else:
                    self.ring_faults.append((block, reason))
            elif data.strip(b"\0") and (root.magic != ROOT_MAGIC or root_hash(data[:416]) != root.hash):
                self.ring_faults.append((block, "neither a root record nor zero"))
        roots.sort(key=lambda root: root.sequence, reverse=True)
        if unknown and (not roots or unknown.sequence > roots[0].sequence):
            reason = f"its newest root record has format version {unknown.version}, this tool knows"
            raise self.fault(f"{reason} {FORMAT_VERSION_MAX}", "use the tool that belongs to its kernel")
        return roots

    def _open_newest(self) -> None:
        """Again while a machine that writes the file is quicker than we."""
        while True:
            self.roots = self._read_ring()
            try:
                self._choose_newest()
                return
            except StoreError:
                if not self.is_overtaken():
                    raise

    def is_overtaken(self) -> bool:
        """Whether the file has a newer root than when it was opened: what is read of ours may be another's by now."""
        return self._read_ring()[:1] != self.roots[:1]

    def _choose_newest(self) -> None:
        """The newest root whose trees' top nodes verify, as far as they are at hand."""
        self.root_faults = [f"block {block}: {reason}" for block, reason in self.ring_faults]
        for root in self.roots:
            self.root = root
            try:
                self.table = self._read_table()
                self._check_top(self.meta)
                self._check_top(self.tree)
            except AbsentError:
                return
            except StoreError as error:
                self.root_faults.append(f"generation {root.generation}: {error.reason}")
                continue
            return
        why = f": {self.root_faults[0]}" if self.root_faults else ""
        raise self.fault(f"no valid root record{why}", "restore the file from a copy")

    def _check_top(self, tree: Tree) -> None:
        if tree.pointer.present and tree.height > 0:
            self._read(tree.pointer, tree.height)

    def _read_table(self) -> list[StoreEntry]:
        """Entry n - 1 is far store n."""
        if not self.root.stores.present:
            return []
        if self.root.stores.store != 0:
            raise self.fault("the table of stores is not in this store")
        try:
            data = self._verified(self.root.stores)
        except StoreError:
            if not self.root.stores_copy.present:
                raise
            data = self._verified(self.root.stores_copy)
        entries = [StoreEntry.unpack(data, i * StoreEntry.SIZE) for i in range(STORE_ENTRY_COUNT_MAX)]
        while entries and not entries[-1].store_id.strip(b"\0"):
            entries.pop()
        return entries

    # --- blocks ---

    def _pread(self, block: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, block * BLOCK_SIZE)
        except (OSError, OverflowError) as error:
            raise self.fault(f"block {block} cannot be read: {error}") from None

    def read_block(self, block: int) -> bytes:
        """The 4096 bytes of a block, unverified."""
        data = self._pread(block, BLOCK_SIZE)
        if len(data) != BLOCK_SIZE:
            raise self.fault(f"block {block} lies beyond the end of the file")
        return data

    def check_pointer(self, pointer: Pointer, level: int) -> None:
        """StoreError unless a present pointer can stand for a block of that level."""
        where = f"a pointer to store {pointer.store}, block {pointer.block}"
        if pointer.compressed and pointer.store == 0 and not self.header.is_compact:
            raise self.fault(f"{where} is compressed, which only published images have")
        if pointer.level != level:
            raise self.fault(f"{where} has level {pointer.level} where {level} must be")
        if pointer.compressed:
            fits = 0 < pointer.length <= BLOCK_SIZE - pointer.offset and level == 0
        else:
            fits = pointer.length == BLOCK_SIZE and pointer.offset == 0
        if not fits:
            raise self.fault(f"{where} has length {pointer.length} or an odd place")
        if pointer.store == 0:
            if self.header.is_fixed(pointer.block) or pointer.block >= self.header.block_count:
                raise self.fault(f"{where} names a place that no block can have")
        elif pointer.store > len(self.table) or pointer.block >= self.table[pointer.store - 1].block_count:
            raise self.fault(f"{where} names a store or place that is not in the table of stores")

    def _verified(self, pointer: Pointer) -> bytes:
        """A block of this very file, held against its pointer."""
        data = unpacked(pointer, self.read_block(pointer.block))
        if block_hash(data) != pointer.hash:
            raise self.fault(f"block {pointer.block} does not have the hash that its pointer says")
        return data

    def copy_of(self, pointer: Pointer) -> int:
        """The near block with a copy of a far block, or 0."""
        if self._finding_copy:
            raise self.fault("the meta tree leaves this store")
        self._finding_copy = True
        try:
            key = self.table[pointer.store - 1].copy_key(pointer)
            page = self.page(self.meta, META_PRESENCE + pointer.store, key // COUNTS_PER_PAGE)
        finally:
            self._finding_copy = False
        copy = int(struct.unpack_from("<I", page, key % COUNTS_PER_PAGE * 4)[0])
        if copy and (copy >= self.header.block_count or self.header.is_fixed(copy)):
            raise self.fault(f"the presence map of store {pointer.store} names block {copy}")
        return copy

    def _read(self, pointer: Pointer, level: int) -> bytes:
        """Verified contents of a present pointer, from near, a near copy or a far store. Cached as `read`."""
        self.check_pointer(pointer, level)
        if pointer.store == 0:
            return self._verified(pointer)
        copy = self.copy_of(pointer)
        if copy:
            data = self.read_block(copy)
            if block_hash(data) != pointer.hash:
                raise self.fault(f"block {copy}, copied from block {pointer.block} of a far store, is bad")
            return data
        entry = self.table[pointer.store - 1]
        far = self.fars.get(entry.store_id)
        if far is None:
            where = f"block {pointer.block} is only in far store {entry.store_id.hex()}"
            raise AbsentError(self.path, where, "give it with --far")
        return far._verified(pointer)

    # --- trees ---

    def entry(self) -> StoreEntry:
        """What the table of one who adopts this store says of it."""
        header, root = self.header, self.root
        return StoreEntry(header.store_id, root.hash, root.generation, header.block_count)

    @property
    def tree(self) -> Tree:
        """The main tree of the newest root."""
        return Tree(self.root.tree, self.root.tree_height)

    @property
    def meta(self) -> Tree:
        """The meta tree of the newest root."""
        return Tree(self.root.meta, self.root.meta_height)

    def children(self, pointer: Pointer, level: int) -> list[tuple[int, Pointer]]:
        """(slot, pointer) of a node's present pointers, store numbers as this store's."""
        data = self.read(pointer, level)
        try:
            return [(slot, child.translated(pointer.store)) for slot, child in node_pointers(data)]
        except ValueError as error:
            raise self.fault(f"node in block {pointer.block}: {error}") from None

    def _descend(self, pointer: Pointer, height: int, key: int) -> Pointer:
        """The pointer at level 0 of a tree of nodes, or MISSING."""
        if key >= NODE_FANOUT**height:
            return MISSING
        for level in range(height, 0, -1):
            if not pointer.present:
                return MISSING
            slot = key // NODE_FANOUT ** (level - 1) % NODE_FANOUT
            pointer = dict(self.children(pointer, level)).get(slot, MISSING)
        return pointer

    def space_root(self, tree: Tree, space: int) -> Pointer:
        """The root pointer of a space: its level is the space's height. MISSING: an empty space."""
        pointer = self._descend(tree.pointer, tree.height, space)
        if pointer.present and pointer.level > SPACE_HEIGHT_MAX:
            raise self.fault(f"space {space} has height {pointer.level}")
        return pointer

    def page(self, tree: Tree, space: int, page: int) -> bytes:
        """4096 verified bytes of a page; zeros where it is missing."""
        root = self.space_root(tree, space)
        pointer = self._descend(root, root.level, page) if root.present else MISSING
        return self.read(pointer, 0) if pointer.present else ZERO_PAGE

    def leaves(
        self, pointer: Pointer, level: int, first: int = 0, met: set[Pointer] | None = None
    ) -> Iterator[tuple[int, Pointer]]:
        """(key, level-0 pointer) of all that is present below a pointer of that level, ascending.

        A node that is met twice is a fault: a few such could stand for more pages than anyone can count.
        """
        if not pointer.present:
            return
        if level == 0:
            yield first, pointer
            return
        met = set() if met is None else met
        if pointer in met:
            raise self.fault(f"the node in block {pointer.block} is met twice in one tree")
        met.add(pointer)
        for slot, child in self.children(pointer, level):
            yield from self.leaves(child, level - 1, (first + slot) * (NODE_FANOUT if level > 1 else 1), met)

    def spaces(self, tree: Tree) -> Iterator[tuple[int, Pointer]]:
        """(space, root pointer) of all spaces that are not empty."""
        for space, pointer in self.leaves(tree.pointer, tree.height):
            if pointer.level > SPACE_HEIGHT_MAX:
                raise self.fault(f"space {space} has height {pointer.level}")
            yield space, pointer

    def pages(self, tree: Tree) -> Iterator[tuple[PageKey, Pointer]]:
        """All present pages of all spaces."""
        for space, root in self.spaces(tree):
            for page, pointer in self.leaves(root, root.level):
                yield PageKey(space, page), pointer

    # --- what a root names ---

    def generations(self) -> list[Generation]:
        """The generation table, oldest first."""
        table: list[Generation] = []
        while True:
            page = self.page(self.meta, META_GENERATIONS, len(table) // GENERATIONS_PER_PAGE)
            for i in range(GENERATIONS_PER_PAGE):
                record = Generation.unpack(page, i * Generation.SIZE)
                if record.generation == 0:
                    return table
                if table and record.generation <= table[-1].generation:
                    raise self.fault("the generation table is not in order")
                table.append(record)

    def tree_at(self, generation: int | None) -> Tree:
        """The main tree of a retained generation (None: the newest)."""
        if generation is None or generation == self.root.generation:
            return self.tree
        for record in self.generations():
            if record.generation == generation:
                if record.tree_height > DIRECTORY_HEIGHT_MAX:
                    raise self.fault(f"generation {generation} has height {record.tree_height}")
                return Tree(record.tree, record.tree_height)
        raise self.fault(f"generation {generation} is not retained", "`revenant log` lists those that are")

    def boot_pages(self, pointer: Pointer) -> dict[int, bytes]:
        """The pages of a boot object that are not zero, by index; zero pages are left out."""
        return {index: self.read(child, 0) for index, child in self.leaves(pointer, pointer.level)}

    def kernel(self) -> bytes:
        """The kernel's ELF file."""
        size = self.root.kernel_size
        if not self.root.kernel.present or not 0 < size <= KERNEL_SIZE_MAX:
            raise self.fault("its root names no kernel")
        pages = self.boot_pages(self.root.kernel)
        return b"".join(pages.get(i, ZERO_PAGE) for i in range(-(-size // BLOCK_SIZE)))[:size]

    def loader_pages(self) -> dict[int, bytes]:
        """Block number to contents, as the loader object has them for blocks 0 and 2 to 17."""
        if not self.root.loader.present:
            return {}
        pages = self.boot_pages(self.root.loader)
        return {(0 if i == 0 else i + 1): pages.get(i, ZERO_PAGE) for i in range(LOADER_BLOCK_COUNT + 1)}

    def resume_keys(self) -> list[PageKey]:
        """The resume list, empty where there is none."""
        pointer, size = self.root.resume, self.root.resume_list_size
        if not pointer.present or pointer.level > 1:
            return []
        pages = self.boot_pages(pointer)
        data = b"".join(pages.get(i, ZERO_PAGE) for i in range(max(pages, default=-1) + 1))
        count = struct.unpack_from("<Q", data)[0] if data else 0
        if 8 + count * 8 > min(size, len(data)):
            raise self.fault(f"the resume list says {count} keys in {size} bytes")
        return [PageKey.unpacked(key) for key in struct.unpack_from(f"<{count}Q", data, 8)]

    def record_page(self, page: int) -> bytes:
        """A page of space 0 of the newest generation."""
        return self.page(self.tree, SPACE_RECORDS, page)


def of_newest(path: Path, look: Callable[[Store], Found], fars: Sequence[Store] = ()) -> Found:
    """What `look` finds in the newest generation, also while a machine writes the file.

    Blocks of a generation that is not kept any more are used again: who was too slow looks at the newest then.
    """
    while True:
        with Store(path, fars) as store:
            try:
                return look(store)
            except StoreError:
                if not store.is_overtaken():
                    raise
