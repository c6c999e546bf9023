"""Writes a fresh store of one generation, complete and compact: genesis images and published ones.

Places are settled first, so that the file is laid out in the order of a start: boot objects; nodes from the top
and data pages that a start touches; other nodes and pages; the meta tree. The root is written last: who dies
before, leaves none.
Used by: genesis.py, publish.py.
"""

from __future__ import annotations

import os
import secrets
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from revenant.errors import StoreError
from revenant.format import (
    BITS_PER_PAGE,
    BLOCK_SIZE,
    COUNTS_PER_PAGE,
    DIRECTORY_HEIGHT_MAX,
    FORMAT_VERSION,
    FORMAT_VERSION_MAX,
    HEADER_BLOCK,
    HEADER_COPY_BLOCK,
    KERNEL_SIZE_MAX,
    LOADER_BLOCK,
    LOADER_BLOCK_COUNT,
    META_BITMAP,
    META_GENERATIONS,
    MISSING,
    NODE_FANOUT,
    RETAIN_COUNT_DEFAULT,
    RETAIN_DAILY_DEFAULT,
    RETAIN_HOURLY_DEFAULT,
    RING_COUNT,
    RING_FIRST_BLOCK,
    SECTOR_SIZE,
    SECTORS_PER_BLOCK,
    SPACE_HEIGHT_MAX,
    SPACE_SHARES,
    STORE_BLOCK_COUNT_MAX,
    STORE_BLOCK_COUNT_MIN,
    ZERO_PAGE,
    Generation,
    Header,
    PageKey,
    Pointer,
    Root,
    RootFlag,
    StoreEntry,
    block_hash,
    node_pack,
)

NodeKey = tuple[int, int]  # level, prefix
GAP_COUNT_MAX = 8


def height_for(keys: Sequence[int], least: int) -> int:
    """The height of a tree that has a place for all keys."""
    top = max(keys, default=0)
    height = least
    while top >= NODE_FANOUT**height:
        height += 1
    return height


def by_space(keys: Iterable[PageKey]) -> dict[int, list[int]]:
    """The pages of each space, in their order."""
    spaces: dict[int, list[int]] = {}
    for key in keys:
        spaces.setdefault(key.space, []).append(key.page)
    return spaces


class TreePlan:
    """A tree over some keys: which nodes it has and where they go. `named`: subtrees that are elsewhere already."""

    def __init__(
        self, keys: Sequence[int], least_height: int = 0, named: Mapping[NodeKey, Pointer] | None = None
    ) -> None:
        self.keys = keys
        self.named = named or {}
        self.height = height_for(keys, least_height)
        self.nodes: list[NodeKey] = []
        for level in range(self.height, 0, -1):
            prefixes = {key // NODE_FANOUT**level for key in keys}
            prefixes |= {prefix // NODE_FANOUT ** (level - below) for below, prefix in self.named if below < level}
            self.nodes += [(level, prefix) for prefix in sorted(prefixes)]
        self.places: dict[NodeKey, int] = {}

    def place(self, take: Callable[[], int], keys: Iterable[int]) -> None:
        """Settle the places of the nodes above some keys, top first, where they have none yet."""
        wanted = {(level, key // NODE_FANOUT**level) for key in keys for level in range(1, self.height + 1)}
        self._place(take, [node for node in self.nodes if node in wanted])

    def place_rest(self, take: Callable[[], int]) -> None:
        """The same for all other nodes."""
        self._place(take, self.nodes)

    def _place(self, take: Callable[[], int], nodes: Iterable[NodeKey]) -> None:
        for node in nodes:
            if node not in self.places:
                self.places[node] = take()

    def write(self, leaves: Mapping[int, Pointer], birth: int, put: Callable[[int, bytes], None]) -> Pointer:
        """Write the nodes bottom-up over the leaves' pointers; returns the root pointer."""
        children: dict[NodeKey, dict[int, Pointer]] = {}
        top = leaves.get(0, MISSING)

        def adopt(level: int, prefix: int, pointer: Pointer) -> None:
            children.setdefault((level + 1, prefix // NODE_FANOUT), {})[prefix % NODE_FANOUT] = pointer

        for key, pointer in leaves.items():
            adopt(0, key, pointer)
        for (level, prefix), pointer in self.named.items():
            adopt(level, prefix, pointer)
            top = pointer  # if it is the only one
        for level, prefix in reversed(self.nodes):
            data = node_pack(children[level, prefix])
            top = Pointer.make(self.places[level, prefix], level, birth, data)
            put(top.block, data)
            adopt(level, prefix, top)
        return top if self.keys or self.named else MISSING


@dataclass
class BootObjects:
    """What starts the machine: the kernel's ELF file and the two pieces of boot code."""

    kernel: bytes
    boot_record: bytes
    loader: bytes

    def loader_pages(self) -> dict[int, bytes]:
        """The loader object: page 0 is block 0, pages 1 to 16 are blocks 2 to 17; zero pages left out."""
        return {0: self.boot_record.ljust(BLOCK_SIZE, b"\0"), **pages_of(self.loader, 1)}


def pages_of(data: bytes, first: int = 0) -> dict[int, bytes]:
    """Split into pages from index `first` on; zero pages left out."""
    starts = range(0, len(data), BLOCK_SIZE)
    pages = {first + s // BLOCK_SIZE: data[s : s + BLOCK_SIZE].ljust(BLOCK_SIZE, b"\0") for s in starts}
    return {index: page for index, page in pages.items() if page != ZERO_PAGE}


@dataclass
class Contents:
    """A generation to be written: its pages (none zero) in the order of the layout, and how to get each."""

    generation: int
    keys: Sequence[PageKey]
    load: Callable[[PageKey], bytes]
    boot: BootObjects
    wall_ns: int
    mono_ns: int = 0
    record_version: int = 1
    resume: Sequence[PageKey] = ()
    """What a start touches, in its order; pages that are zero may be among it: the nodes above them are touched."""
    clones: Mapping[int, int] = field(default_factory=dict)  # a space with all pages of another: to which
    named: Mapping[int, Mapping[NodeKey, Pointer]] = field(default_factory=dict)
    """By space: subtrees that are in far stores; their pointers, and the far stores."""
    heights: Mapping[int, int] = field(default_factory=dict)  # that spaces have at least
    table: Sequence[StoreEntry] = ()
    compress: Callable[[bytes], bytes] | None = None
    """Makes a zstd frame of a page; where that saves a sector, it is stored so, and equal pages are stored once. Of a
    store that nobody writes to."""
    version: int = FORMAT_VERSION  # at least
    retain_count: int = RETAIN_COUNT_DEFAULT
    retain_hourly: int = RETAIN_HOURLY_DEFAULT
    retain_daily: int = RETAIN_DAILY_DEFAULT
    store_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    sign: Callable[[bytes], bytes] | None = None
    """Makes the 64 bytes of the signature of a root hash."""


@dataclass
class Gap:
    """The rest of a block that holds compressed pages."""

    block: int
    sector_count: int = SECTORS_PER_BLOCK

    def take(self, sector_count: int) -> int:
        """The next sectors of it: the first one's place."""
        sector = (self.block + 1) * SECTORS_PER_BLOCK - self.sector_count
        self.sector_count -= sector_count
        return sector


class StoreWriter:
    """Writes `contents` to a new sparse file of `block_count` blocks (None: as many as are needed)."""

    def __init__(
        self, path: Path, contents: Contents, block_count: int | None, ring_stride: int | None = None
    ) -> None:
        self.path = path
        self.contents = contents
        self.generation = contents.generation
        self._check_boot(contents.boot)
        self.directory, self.plans = self._plan(contents)
        needed = self._bound()
        self.block_count = max(needed if block_count is None else block_count, STORE_BLOCK_COUNT_MIN)
        if not needed <= self.block_count <= STORE_BLOCK_COUNT_MAX:
            raise StoreError(path, f"{self.block_count} blocks do not hold {needed}", "give a larger --size")
        self.is_as_large_as_needed = block_count is None and ring_stride == 1
        self.version = FORMAT_VERSION_MAX if contents.compress else contents.version
        self.header = Header(
            version=self.version,
            store_id=contents.store_id,
            block_count=self.block_count,
            ring_stride=ring_stride or (self.block_count - RING_FIRST_BLOCK) // RING_COUNT,
            created_wall_ns=contents.wall_ns,
        )
        # Slot 0 of a ring that nobody writes again: header and root are found without reading the other slots.
        self.sequence = RING_COUNT if self.header.ring_stride == 1 else 1
        self.next_block = RING_FIRST_BLOCK
        self.taken: list[int] = []
        self.packed_count = 0  # blocks that a start touches, from the tree's top node on
        self.gaps: list[Gap] = []
        self.stored: dict[bytes, Pointer] = {}  # by hash: pages that all who have the same may name

    def _check_boot(self, boot: BootObjects) -> None:
        if not 0 < len(boot.kernel) <= KERNEL_SIZE_MAX:
            raise StoreError(self.path, f"the kernel has {len(boot.kernel)} bytes of {KERNEL_SIZE_MAX}")
        if len(boot.boot_record) > BLOCK_SIZE or len(boot.loader) > LOADER_BLOCK_COUNT * BLOCK_SIZE:
            raise StoreError(self.path, "the boot code is too large")

    def _plan(self, contents: Contents) -> tuple[TreePlan, dict[int, TreePlan]]:
        """The directory and the tree of each space."""
        pages, named, heights = by_space(contents.keys), contents.named, contents.heights
        spaces = sorted(pages.keys() | named.keys())
        shares = [SPACE_SHARES] if contents.clones else []
        directory = TreePlan(sorted([*spaces, *contents.clones, *shares]), least_height=1)
        plans = {
            space: TreePlan(sorted(pages.get(space, [])), heights.get(space, 0), named.get(space)) for space in spaces
        }
        height = max((plan.height for plan in plans.values()), default=0)
        if directory.height > DIRECTORY_HEIGHT_MAX or height > SPACE_HEIGHT_MAX:
            raise StoreError(self.path, "a space or page number is too large for the format")
        return directory, plans

    def _bound(self) -> int:
        """Blocks that are enough."""
        nodes = sum(len(plan.nodes) for plan in (self.directory, *self.plans.values()))
        boot = KERNEL_SIZE_MAX // BLOCK_SIZE + LOADER_BLOCK_COUNT + len(self.contents.resume) // 512 + 10
        sum_without_meta = RING_FIRST_BLOCK + RING_COUNT + boot + nodes + len(self.contents.keys)
        sum_without_meta += SPACE_HEIGHT_MAX * 2 * len(self.contents.clones)
        return sum_without_meta + sum_without_meta // 16384 + 8

    def write(self) -> Root:
        """Write the file and make it durable; returns the root record, whose hash is the root hash."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self.fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise StoreError(self.path, error.strerror or "cannot be made", "choose another name") from None
        try:
            os.ftruncate(self.fd, self.block_count * BLOCK_SIZE)
            root = self._write_all()
        except BaseException:
            os.close(self.fd)
            self.path.unlink(missing_ok=True)
            raise
        os.close(self.fd)
        return root

    def _write_all(self) -> Root:
        contents = self.contents
        resume = struct.pack("<Q", len(contents.resume))
        resume += b"".join(struct.pack("<Q", key.packed) for key in contents.resume)
        table = b"".join(entry.pack() for entry in contents.table).ljust(BLOCK_SIZE, b"\0")
        fields: dict[str, Pointer] = {
            "stores": self._put_page(self._take(), table) if contents.table else MISSING,
            "stores_copy": self._put_page(self._take(), table) if contents.table else MISSING,
            "loader": self._object(contents.boot.loader_pages(), least_height=1),
            "kernel": self._object(pages_of(contents.boot.kernel), least_height=1),
            "resume": self._object(pages_of(resume)) if contents.resume else MISSING,
        }
        fields["tree"] = self._main_tree()
        fields["meta"] = self._meta_tree(fields["tree"])
        self._shrink()
        self._fixed_blocks()
        os.fdatasync(self.fd)
        root = self._root(fields, len(resume) if contents.resume else 0)
        os.pwrite(self.fd, root.pack(), self.header.ring_block(root.sequence) * BLOCK_SIZE)
        os.fdatasync(self.fd)
        return root

    def _shrink(self) -> None:
        """Where the size was a guess, all that is free goes."""
        if self.is_as_large_as_needed:
            self.block_count = max(self.next_block, STORE_BLOCK_COUNT_MIN)
            self.header = replace(self.header, block_count=self.block_count)
            os.ftruncate(self.fd, self.block_count * BLOCK_SIZE)

    # --- blocks ---

    def _take(self) -> int:
        while self.header.is_fixed(self.next_block):
            self.next_block += 1
        if self.next_block >= self.block_count:
            raise StoreError(self.path, "the store is full", "give a larger --size")
        self.taken.append(self.next_block)
        self.next_block += 1
        return self.taken[-1]

    def _put(self, block: int, data: bytes) -> None:
        os.pwrite(self.fd, data, block * BLOCK_SIZE)

    def _put_page(self, block: int, data: bytes) -> Pointer:
        self._put(block, data)
        return Pointer.make(block, 0, self.generation, data)

    def _put_tree_page(self, data: bytes) -> Pointer:
        """A page of the main tree."""
        if self.contents.compress is None:
            return self._put_page(self._take(), data)
        digest = block_hash(data)
        if digest not in self.stored:
            self.stored[digest] = self._put_frame(self.contents.compress(data), data)
        return self.stored[digest]

    def _put_frame(self, frame: bytes, data: bytes) -> Pointer:
        """A page, compressed if that saves a sector: a frame lies in one block, where it leaves the least room."""
        sector_count = -(-len(frame) // SECTOR_SIZE)
        if sector_count >= SECTORS_PER_BLOCK:
            return self._put_page(self._take(), data)
        fitting = [gap for gap in self.gaps if gap.sector_count >= sector_count]
        gap = min(fitting, key=lambda gap: gap.sector_count) if fitting else self._new_gap()
        sector = gap.take(sector_count)
        os.pwrite(self.fd, frame, sector * SECTOR_SIZE)
        return Pointer.make_compressed(sector, len(frame), self.generation, data)

    def _new_gap(self) -> Gap:
        """A block for frames; the fullest one is given up where there are enough."""
        self.gaps.sort(key=lambda gap: gap.sector_count)
        if len(self.gaps) == GAP_COUNT_MAX:
            del self.gaps[0]
        self.gaps.append(Gap(self._take()))
        return self.gaps[-1]

    # --- trees ---

    def _object(self, pages: Mapping[int, bytes], least_height: int = 0) -> Pointer:
        """A boot object: its node (if any), then its pages."""
        plan = TreePlan(sorted(pages), least_height)
        plan.place(self._take, plan.keys)
        leaves = {index: self._put_page(self._take(), data) for index, data in sorted(pages.items())}
        return plan.write(leaves, self.generation, self._put)

    def _main_tree(self) -> Pointer:
        """What a start touches, side by side, then the rest."""
        leaves: dict[int, dict[int, Pointer]] = {space: {} for space in self.plans}
        touched = dict.fromkeys(self.contents.resume)
        first = self.next_block
        self._lay_out(list(touched), [key for key in self.contents.keys if key in touched], leaves)
        if touched and self.header.ring_stride == 1:
            self.packed_count = self.next_block - first
        self._lay_out(self.contents.keys, self.contents.keys, leaves)
        for plan in (self.directory, *self.plans.values()):
            plan.place_rest(self._take)
        roots = {
            space: plan.write(leaves[space], self.generation, self._put) for space, plan in self.plans.items()
        }
        roots |= {space: roots[origin] for space, origin in self.contents.clones.items()}
        if self.contents.clones:
            roots[SPACE_SHARES] = self._shares([roots[space] for space in self.contents.clones])
        return self.directory.write(roots, self.generation, self._put)

    def _lay_out(
        self, above: Sequence[PageKey], keys: Sequence[PageKey], leaves: Mapping[int, dict[int, Pointer]]
    ) -> None:
        """Places for the nodes above some pages (which may be missing), then for pages; what has one keeps it."""
        pages = by_space(above)
        self.directory.place(self._take, pages)
        for space in sorted(pages.keys() & self.plans.keys()):
            self.plans[space].place(self._take, pages[space])
        for key in keys:
            if key.page not in leaves[key.space]:
                leaves[key.space][key.page] = self._put_tree_page(self.contents.load(key))

    def _shares(self, shared: Sequence[Pointer]) -> Pointer:
        """Space 1: how many pointers more than one reach a block."""
        pages: dict[int, bytearray] = {}
        for pointer in shared:
            index, entry = divmod(pointer.block, COUNTS_PER_PAGE)
            page = pages.setdefault(index, bytearray(BLOCK_SIZE))
            count = struct.unpack_from("<I", page, entry * 4)[0]
            struct.pack_into("<I", page, entry * 4, count + 1)
        return self._object({index: bytes(page) for index, page in pages.items()})

    def _meta_tree(self, tree: Pointer) -> Pointer:
        """The generation table with one record, and the bitmap, which covers the meta tree itself."""
        contents = self.contents
        record = Generation(
            generation=self.generation,
            wall_ns=contents.wall_ns,
            mono_ns=contents.mono_ns,
            tree_height=self.directory.height,
            tree=tree,
            dirty_pages=len(contents.keys),
        )
        directory = TreePlan([META_BITMAP, META_GENERATIONS], least_height=1)
        directory.place(self._take, directory.keys)
        table = self._put_page(self._take(), record.pack().ljust(BLOCK_SIZE, b"\0"))
        bitmap_places: list[int] = []
        while True:  # each bitmap page needs a block, which may need a bitmap page
            plan = TreePlan(list(range(len(bitmap_places))))
            last = self.next_block + len(plan.nodes)
            if len(bitmap_places) * BITS_PER_PAGE > last:
                break
            bitmap_places.append(self._take())
        plan.place(self._take, plan.keys)
        pages = {i: self._put_page(place, self._bitmap_page(i)) for i, place in enumerate(bitmap_places)}
        bitmap = plan.write(pages, self.generation, self._put)
        self.meta_height = directory.height
        return directory.write({META_BITMAP: bitmap, META_GENERATIONS: table}, self.generation, self._put)

    def _bitmap_page(self, index: int) -> bytes:
        """Bits of all blocks taken; called when all are."""
        bits = bytearray(BLOCK_SIZE)
        first = index * BITS_PER_PAGE
        for block in self.taken:
            if first <= block < first + BITS_PER_PAGE:
                bits[(block - first) // 8] |= 1 << block % 8
        return bytes(bits)

    # --- what has its place ---

    def _fixed_blocks(self) -> None:
        boot = self.contents.boot
        self._put(0, boot.boot_record)
        self._put(LOADER_BLOCK, boot.loader)
        for block in (HEADER_BLOCK, HEADER_COPY_BLOCK):
            self._put(block, self.header.sealed())

    def _root(self, fields: Mapping[str, Pointer], resume_list_size: int) -> Root:
        contents = self.contents
        root = Root(
            version=self.version,
            record_version=contents.record_version,
            sequence=self.sequence,
            generation=self.generation,
            wall_ns=contents.wall_ns,
            mono_ns=contents.mono_ns,
            store_id=contents.store_id,
            kernel_size=len(contents.boot.kernel),
            loader_size=len(contents.boot.loader),
            tree_height=self.directory.height,
            meta_height=self.meta_height,
            block_count=self.block_count,
            free_count=self.block_count - RING_FIRST_BLOCK - RING_COUNT - len(self.taken),
            alloc_next=self.next_block,
            retain_count=contents.retain_count,
            retain_hourly=contents.retain_hourly,
            retain_daily=contents.retain_daily,
            flags=0 if contents.table else RootFlag.COMPLETE,
            resume_list_size=resume_list_size,
            packed_count=self.packed_count,
            tree=fields["tree"],
            meta=fields["meta"],
            kernel=fields["kernel"],
            loader=fields["loader"],
            resume=fields["resume"],
            stores=fields["stores"],
            stores_copy=fields["stores_copy"],
        )
        root = Root.unpack(root.sealed())
        return replace(root, signature=contents.sign(root.hash)) if contents.sign else root
