"""Walks a whole store image and says what is wrong with it, by kernel/store/FORMAT.md alone.

Independent of the C code and of tools/revenant. Sizes are in blocks of 4096 bytes; a problem is one line
of text, no problem an empty list. Raises ``Damaged`` only when there is nothing to walk at all.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 4096
FIXED_BELOW = 32
RING_COUNT = 64
FANOUT = 128
SPACE_SHARES = 1
FIRST_USER_SPACE = 16
TAGGED, DROPPED, HOURLY, DAILY = 1, 2, 16, 32  # flags of a generation


class Damaged(Exception):
    """The image has no valid header or root."""


@dataclass(frozen=True)
class Pointer:
    """A block pointer; ``present`` is false for a missing one."""

    place: int
    store: int
    flags: int
    birth: int
    length: int
    digest: bytes

    @property
    def present(self) -> bool:
        return bool(self.flags & 0x80)

    @property
    def level(self) -> int:
        return self.flags & 7

    @property
    def block(self) -> int:
        return self.place // 8

    @staticmethod
    def parse(raw: bytes) -> Pointer:
        where, birth_length = struct.unpack_from("<QQ", raw)
        low = (1 << 48) - 1
        return Pointer(
            where & low, where >> 48 & 0xFF, where >> 56, birth_length & low, birth_length >> 48, raw[16:32]
        )


@dataclass
class Record:
    """One entry of the generation table."""

    generation: int
    flags: int
    height: int
    tree: Pointer
    dead: Pointer
    held: Pointer
    dead_count: int
    held_count: int


@dataclass
class Root:
    """The fields of a root record that the walk needs."""

    sequence: int
    generation: int
    tree: Pointer
    meta: Pointer
    boot: list[Pointer]
    tree_height: int
    meta_height: int
    block_count: int
    free_count: int
    retain_count: int
    digest: bytes


@dataclass
class Image:
    """A store image in memory and what a walk finds in it."""

    data: bytes
    problems: list[str] = field(default_factory=list)
    block_count: int = 0
    stride: int = 1
    root: Root | None = None
    verified: set[tuple[int, bytes]] = field(default_factory=set)

    def block(self, index: int) -> bytes:
        return self.data[index * BLOCK : (index + 1) * BLOCK]

    def say(self, text: str) -> None:
        self.problems.append(text)

    def is_fixed(self, block: int) -> bool:
        offset = block - FIXED_BELOW
        return offset < 0 or (offset % self.stride == 0 and offset // self.stride < RING_COUNT)

    def read(self, pointer: Pointer, what: str) -> bytes | None:
        """The contents of a near block; None (and a problem) when they are not what the pointer says."""
        if pointer.store != 0:
            return None
        if pointer.block >= self.block_count or pointer.length != BLOCK or pointer.place % 8:
            self.say(f"{what}: impossible pointer {pointer}")
            return None
        data = self.block(pointer.block)
        if (pointer.block, pointer.digest) in self.verified:
            return data
        if hashlib.blake2b(data, digest_size=16).digest() != pointer.digest:
            self.say(f"{what}: block {pointer.block} does not have its hash")
            return None
        self.verified.add((pointer.block, pointer.digest))
        return data


def pointers(node: bytes) -> Iterator[tuple[int, Pointer]]:
    """The present pointers of a node, with their slots."""
    for slot in range(FANOUT):
        if node[slot * 32 + 7] & 0x80:
            yield slot, Pointer.parse(node[slot * 32 : slot * 32 + 32])


def load(data: bytes) -> Image:
    """Finds the header and the newest root."""
    image = Image(data)
    for place in (1, 18):
        header = image.block(place)[:512]
        digest = hashlib.blake2b(header[:480], digest_size=32).digest()
        if header[:8] == b"RVNTHEAD" and digest == header[480:]:
            break
    else:
        raise Damaged("no valid header")
    store_id = header[16:32]
    image.block_count, _, image.stride = struct.unpack_from("<QQQ", header, 32)
    slots = [FIXED_BELOW + slot * image.stride for slot in range(RING_COUNT)]
    roots = [parse_root(image.block(block)[:512], store_id) for block in slots]
    valid = [root for root in roots if root is not None]
    if not valid:
        raise Damaged("no valid root")
    image.root = max(valid, key=lambda root: root.sequence)
    return image


def newest_root_place(data: bytes | bytearray) -> int:
    """Where the newest root is, in bytes."""
    image = load(bytes(data))
    assert image.root is not None
    return (FIXED_BELOW + image.root.sequence % RING_COUNT * image.stride) * 4096


def seal_root(data: bytearray, place: int) -> None:
    """Makes the hash of a changed root right."""
    data[place + 416 : place + 448] = hashlib.blake2b(data[place : place + 416], digest_size=32).digest()


def seal_block(data: bytearray, pointer_place: int) -> None:
    """Makes the hash in a pointer that of the block it names."""
    block = Pointer.parse(bytes(data[pointer_place : pointer_place + 32])).block
    contents = data[block * 4096 : block * 4096 + 4096]
    data[pointer_place + 16 : pointer_place + 32] = hashlib.blake2b(contents, digest_size=16).digest()


def patch(data: bytearray, pointer_at: int, path: list[int], edit: Callable[[int], None]) -> None:
    """Edits the block at the end of a path of slots, and every hash on the way, in place."""
    block = Pointer.parse(bytes(data[pointer_at : pointer_at + 32])).block
    if path:
        patch(data, block * 4096 + path[0] * 32, path[1:], edit)
    else:
        edit(block * 4096)
    seal_block(data, pointer_at)


def parse_root(raw: bytes, store_id: bytes) -> Root | None:
    """A valid root of this store, or None."""
    if raw[:8] != b"RVNTROOT" or raw[48:64] != store_id:
        return None
    if hashlib.blake2b(raw[:416], digest_size=32).digest() != raw[416:448]:
        return None
    sequence, generation = struct.unpack_from("<QQ", raw, 16)
    tree_height, meta_height = struct.unpack_from("<II", raw, 296)
    block_count, free_count = struct.unpack_from("<QQ", raw, 304)
    return Root(
        sequence,
        generation,
        Pointer.parse(raw[96:128]),
        Pointer.parse(raw[128:160]),
        [Pointer.parse(raw[at : at + 32]) for at in (160, 192, 224, 256, 384)],
        tree_height,
        meta_height,
        block_count,
        free_count,
        struct.unpack_from("<I", raw, 328)[0],
        raw[416:448],
    )


@dataclass
class Tree:
    """What one walk found: near blocks with the number of pointers to each, and the pages of some spaces."""

    count: Counter[int] = field(default_factory=Counter)
    birth: dict[int, int] = field(default_factory=dict)
    space_of: dict[int, set[int]] = field(default_factory=dict)
    pages: dict[tuple[int, int], bytes] = field(default_factory=dict)


def walk_tree(image: Image, top: Pointer, height: int, what: str, keep: set[int] | None) -> Tree:
    """Walks a directory and all its spaces; keeps the pages of the spaces in `keep` (None: of all)."""
    tree = Tree()
    if top.present:
        if top.level != height:
            image.say(f"{what}: top has level {top.level}, height is {height}")
        _walk_directory(image, tree, top, height, 0, what, keep)
    return tree


def _enter(tree: Tree, pointer: Pointer, space: int) -> bool:
    """Counts a pointer; true when its block is met for the first time."""
    if pointer.store != 0:
        return False
    first = pointer.block not in tree.count
    tree.count[pointer.block] += 1
    tree.birth[pointer.block] = pointer.birth
    tree.space_of.setdefault(pointer.block, set()).add(space)
    return first


def _walk_directory(
    image: Image, tree: Tree, pointer: Pointer, level: int, prefix: int, what: str, keep: set[int] | None
) -> None:
    if level == 0:
        _walk_space(image, tree, pointer, pointer.level, prefix, 0, what, keep)
        return
    _enter(tree, pointer, -1)
    node = image.read(pointer, f"{what} directory level {level}")
    for slot, child in pointers(node) if node else ():
        _walk_directory(image, tree, child, level - 1, prefix * FANOUT + slot, what, keep)


def _walk_space(
    image: Image,
    tree: Tree,
    pointer: Pointer,
    level: int,
    space: int,
    prefix: int,
    what: str,
    keep: set[int] | None,
) -> None:
    first = _enter(tree, pointer, space)
    if pointer.level != level:
        image.say(f"{what} space {space}: level {pointer.level} where {level} is due")
    if not first and keep is not None and space not in keep:
        return
    if not first and level > 0 and keep is None:
        return
    data = image.read(pointer, f"{what} space {space} level {level} prefix {prefix}")
    if data is None:
        return
    if level == 0:
        if keep is None or space in keep:
            tree.pages[space, prefix] = data
        return
    if not any(data):
        image.say(f"{what} space {space}: an empty node is stored")
    for slot, child in pointers(data):
        _walk_space(image, tree, child, level - 1, space, prefix * FANOUT + slot, what, keep)


def read_records(meta: Tree) -> list[Record]:
    """The generation table."""
    records = []
    for index in range(1 << 20):
        page = meta.pages.get((1, index // 16))
        raw = page[index % 16 * 256 : index % 16 * 256 + 256] if page else bytes(256)
        generation, _, _, flags, height = struct.unpack_from("<QQQII", raw)
        if generation == 0:
            break
        dead_count, held_count = struct.unpack_from("<QQ", raw, 128)
        ptr = [Pointer.parse(raw[at : at + 32]) for at in (32, 64, 96)]
        records.append(Record(generation, flags, height, ptr[0], ptr[1], ptr[2], dead_count, held_count))
    return records


def read_list(image: Image, head: Pointer, what: str) -> tuple[list[int], list[tuple[int, int]]]:
    """The blocks of a chain, and its (block, birth) entries."""
    blocks, entries = [], []
    while head.present:
        data = image.read(head, what)
        if data is None:
            break
        blocks.append(head.block)
        count = struct.unpack_from("<I", data, 32)[0]
        entries += [struct.unpack_from("<QQ", data, 48 + i * 16) for i in range(count)]
        head = Pointer.parse(data[:32])
    return blocks, entries


def _walk_boot(image: Image, pointer: Pointer, what: str) -> list[int]:
    """Near blocks of a boot object, fixed places aside."""
    if not pointer.present or pointer.store != 0:
        return []
    data = image.read(pointer, what)
    blocks = [pointer.block]
    if data and pointer.level:
        for _, child in pointers(data):
            blocks += _walk_boot(image, child, what)
    return [block for block in blocks if not image.is_fixed(block)]


class Ownership:
    """Who owns each near block; two owners of different kinds are a problem."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.owner: dict[int, str] = {}

    def own(self, block: int, who: str) -> None:
        other = self.owner.setdefault(block, who)
        if other != who:
            self.image.say(f"block {block} belongs to {other} and to {who}")


def _check_counts(image: Image, newest: Tree) -> None:
    stored: dict[int, int] = {}
    for (space, page), data in newest.pages.items():
        if space == SPACE_SHARES:
            for entry, count in enumerate(struct.unpack("<1024I", data)):
                if count:
                    stored[page * 1024 + entry] = count
    actual = {block: count - 1 for block, count in newest.count.items() if count > 1}
    for block in sorted(stored.keys() | actual.keys()):
        if stored.get(block, 0) != actual.get(block, 0):
            more = actual.get(block, 0)
            image.say(f"block {block}: share count {stored.get(block, 0)}, pointers more than one {more}")
    for block in actual:
        if any(space < FIRST_USER_SPACE for space in newest.space_of[block]):
            image.say(f"block {block} of spaces {newest.space_of[block]} is shared")


def _check_lists(
    image: Image, records: list[Record], newest: Tree, owners: Ownership
) -> dict[int, tuple[int, int]]:
    """Owns list blocks; the entries by block: (birth, death or 0 for a held one)."""
    named: dict[int, tuple[int, int]] = {}
    for record in records:
        lists = (("dead", record.dead, record.dead_count), ("held", record.held, record.held_count))
        for kind, head, count in lists:
            blocks, entries = read_list(image, head, f"{kind} list of {record.generation}")
            for block in blocks:
                owners.own(block, "list")
            if len(entries) != count:
                image.say(f"{kind} list of {record.generation}: {len(entries)} entries, count {count}")
            for block, birth in entries:
                if block in named:
                    image.say(f"block {block} is named twice")
                if block in newest.count:
                    image.say(f"block {block} is on a {kind} list of {record.generation} and alive")
                named[block] = (birth, record.generation if kind == "dead" else 0)
    return named


def _check_record_order(image: Image, root: Root, records: list[Record]) -> None:
    generations = [record.generation for record in records]
    if generations != sorted(set(generations)):
        image.say("the generation table is not ascending")
    if records and generations[-1] != root.generation:
        image.say(f"the newest record is {generations[-1]}, the root's generation {root.generation}")
    for record in records:
        old = record.generation + root.retain_count <= root.generation
        if old and not record.flags & (TAGGED | DROPPED | HOURLY | DAILY):
            image.say(f"generation {record.generation} has a record but is not retained")


def check(data: bytes) -> list[str]:
    """All problems of an image."""
    image = load(bytes(data))
    root = image.root
    assert root is not None
    meta = walk_tree(image, root.meta, root.meta_height, "meta", None)
    records = read_records(meta)
    _check_record_order(image, root, records)
    newest = walk_tree(image, root.tree, root.tree_height, "newest", {SPACE_SHARES})
    _check_counts(image, newest)
    owners = Ownership(image)
    for block in newest.count:
        owners.own(block, "tree")
    named = _check_lists(image, records, newest, owners)
    for record in records:
        if record.generation == root.generation or record.flags & DROPPED:
            continue
        old = walk_tree(image, record.tree, record.height, f"generation {record.generation}", set())
        for block in old.count:
            owners.own(block, "tree")
            if old.birth[block] > record.generation:
                image.say(f"block {block} of generation {record.generation} was born in {old.birth[block]}")
            if block not in newest.count and block not in named:
                image.say(f"block {block} of generation {record.generation} is dead and on no list: a leak")
            if block in named and 0 < named[block][1] <= record.generation:
                image.say(f"block {block} of {record.generation} died in {named[block][1]}")
    for block, count in meta.count.items():
        owners.own(block, "meta")
        if count != 1:
            image.say(f"meta block {block} has {count} pointers")
        if block in named:
            image.say(f"meta block {block} is on a list")
    for number, pointer in enumerate(root.boot):
        for block in _walk_boot(image, pointer, f"boot object {number}"):
            owners.own(block, f"boot object {number}")
    for (space, page), map_page in meta.pages.items():
        for entry, block in enumerate(struct.unpack("<1024I", map_page) if space >= 3 else ()):
            if block:
                owners.own(block, f"copy of {space - 2}:{page * 1024 + entry}")
    for block in named:
        owners.owner.setdefault(block, "dead")
    _check_bitmap(image, meta, root, owners)
    return image.problems


def _check_bitmap(image: Image, meta: Tree, root: Root, owners: Ownership) -> None:
    bits = bytearray()
    for page in range(image.block_count // 32768 + 1):
        bits += meta.pages.get((0, page), bytes(BLOCK))
    taken = {block for block in range(len(bits) * 8) if bits[block // 8] >> block % 8 & 1}
    for block in sorted(taken - owners.owner.keys()):
        image.say(f"block {block} is taken and nobody's: a leak")
    for block in sorted(owners.owner.keys() - taken):
        image.say(f"block {block} belongs to {owners.owner[block]} and is not taken")
    for block in sorted(block for block in taken if image.is_fixed(block) or block >= image.block_count):
        image.say(f"block {block} has a fixed place or none and is taken")
    free = root.block_count - FIXED_BELOW - RING_COUNT - len(taken)
    if root.free_count != free:
        image.say(f"free_count {root.free_count}, free {free}")


if __name__ == "__main__":
    import pathlib
    import sys

    found = check(pathlib.Path(sys.argv[1]).read_bytes())
    print("\n".join(found) or "good")
    sys.exit(1 if found else 0)
