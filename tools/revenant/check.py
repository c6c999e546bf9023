"""The independent reader: proves FORMAT.md's invariants on an image, or names the place of the first fault.

It walks the tree of every retained generation, the meta tree, boot objects and lists, verifies each block
against its pointer, counts the pointers to each near block, and holds that against share counts, bitmap and
dead lists. Used by: `revenant check`, the tests. Writes nothing.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from revenant.errors import StoreError
from revenant.format import (
    BITS_PER_PAGE,
    COUNTS_PER_PAGE,
    DIRECTORY_HEIGHT_MAX,
    LIST_ENTRY_COUNT_MAX,
    META_BITMAP,
    META_GENERATIONS,
    META_PRESENCE,
    RING_COUNT,
    RING_FIRST_BLOCK,
    SPACE_SHARES,
    Generation,
    GenerationFlag,
    ListBlock,
    Pointer,
    RootFlag,
)
from revenant.record import RECORD_MACHINE_PAGE, RECORD_MAGIC, MachineRecord
from revenant.store import AbsentError, Store, Tree


@dataclass
class Report:
    """What was proven, in numbers; faults are raised."""

    generations: int = 0
    blocks_verified: int = 0
    blocks_allocated: int = 0
    blocks_free: int = 0
    blocks_dead: int = 0
    blocks_copied: int = 0
    blocks_absent: int = 0
    notes: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For printing."""
        return {name: value for name, value in vars(self).items() if name != "notes" or value}


@dataclass
class Death:
    """A block on a dead or held list."""

    birth: int
    death: int | None  # None: on a held list, later than its record's generation
    owner: str


class Checker:
    """One run over one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.report = Report()
        self.seen: dict[Pointer, str] = {}  # every pointer that was followed, and from where
        self.owner: dict[int, str] = {}  # near block: what reaches it
        self.pointer_of: dict[int, Pointer] = {}
        self.deaths: dict[int, Death] = {}

    def fault(self, place: str, reason: str) -> StoreError:
        """A fault at a place."""
        return self.store.fault(f"{place}: {reason}")

    def own(self, block: int, owner: str) -> None:
        """A near block belongs to something."""
        self.owner.setdefault(block, owner)

    # --- walking ---

    def follow(self, pointer: Pointer, level: int, place: str) -> bool:
        """Verify a block and note its owner; False if it was seen before or cannot be had."""
        if pointer in self.seen:
            return False
        self.seen[pointer] = place
        if pointer.store == 0 and not pointer.compressed:
            other = self.pointer_of.setdefault(pointer.block, pointer)
            if other != pointer:
                raise self.fault(place, f"block {pointer.block} is also {self.owner[pointer.block]}")
        if pointer.store == 0:
            self.own(pointer.block, place)
        try:
            self.store.check_pointer(pointer, level)
            self.store.read(pointer, level)
        except AbsentError:
            self.report.blocks_absent += 1
            return False
        except StoreError as error:
            raise self.fault(place, error.reason) from None
        self.report.blocks_verified += 1
        return True

    def walk(
        self, pointer: Pointer, level: int, newest: int, place: str, counts: Counter[int] | None
    ) -> None:
        """All of a tree of nodes, no block born after `newest`. `counts`: pointers to each near block."""
        if not pointer.present:
            return
        is_shared = level == 0 and self.store.header.is_compact  # without being counted
        if counts is not None and pointer.store == 0 and not is_shared:
            counts[pointer.block] += 1
            if counts[pointer.block] > 1:
                return
        if pointer.birth > newest and pointer.store == 0:
            raise self.fault(place, f"a pointer born in generation {pointer.birth} is in generation {newest}")
        fresh = self.follow(pointer, level, place)
        if level == 0 or not (fresh or counts is not None):
            return
        try:
            children = self.store.children(pointer, level)
        except AbsentError:
            return
        if not children:
            raise self.fault(place, f"the node in block {pointer.block} is empty, so it should not be there")
        for slot, child in children:
            self.walk(child, level - 1, newest, f"{place}.{slot}", counts)

    def walk_directory(self, tree: Tree, newest: int, place: str, counts: Counter[int] | None) -> None:
        """A space directory and all its spaces."""
        if tree.height > DIRECTORY_HEIGHT_MAX:
            raise self.fault(place, f"height {tree.height}")
        self.walk_directory_node(tree.pointer, tree.height, 0, newest, place, counts)

    def walk_directory_node(
        self, pointer: Pointer, level: int, first: int, newest: int, place: str, counts: Counter[int] | None
    ) -> None:
        """One node of a directory; at level 0 a space."""
        if not pointer.present:
            return
        if level == 0:
            self.walk(pointer, pointer.level, newest, f"{place}, space {first}", counts)
            return
        self.follow(pointer, level, place)
        if counts is not None and pointer.store == 0:
            counts[pointer.block] += 1
            if counts[pointer.block] > 1:
                raise self.fault(place, f"the directory node in block {pointer.block} is met twice")
        try:
            children = self.store.children(pointer, level)
        except AbsentError:
            return
        for slot, child in children:
            step = 128 if level > 1 else 1
            self.walk_directory_node(child, level - 1, (first + slot) * step, newest, place, counts)

    # --- the parts of a store ---

    def check_ring(self) -> None:
        """Every slot holds nothing, a root record, or another store's leftover."""
        for block, reason in self.store.ring_faults:
            raise self.fault(f"root ring, block {block}", reason)
        if self.store.roots[0] is not self.store.root:
            raise self.fault("root ring", f"sequence {self.store.roots[0].sequence} has a bad tree")

    def check_meta(self) -> None:
        """The meta tree and the blocks that its presence maps name."""
        store = self.store
        self.walk_directory(store.meta, store.root.generation, "meta tree", Counter())
        for space, root in store.spaces(store.meta):
            if space in (META_BITMAP, META_GENERATIONS):
                continue
            number = space - META_PRESENCE
            if not 1 <= number <= len(store.table):
                raise self.fault("meta tree", f"space {space} belongs to no far store")
            for page, pointer in store.leaves(root, root.level):
                self.check_copies(number, page, store.read(pointer, 0))

    def check_copies(self, number: int, page: int, data: bytes) -> None:
        """One page of a presence map."""
        for index, copy in enumerate(struct.unpack(f"<{COUNTS_PER_PAGE}I", data)):
            if copy == 0:
                continue
            place = f"presence map of far store {number}, block {page * COUNTS_PER_PAGE + index}"
            if copy >= self.store.header.block_count or self.store.header.is_fixed(copy):
                raise self.fault(place, f"names block {copy}, which no copy can have")
            if copy in self.owner:
                raise self.fault(place, f"names block {copy}, which is {self.owner[copy]}")
            self.own(copy, place)
            self.report.blocks_copied += 1

    def check_newest(self) -> Counter[int]:
        """The newest tree, with share counts; returns the pointers to each near block."""
        store = self.store
        counts: Counter[int] = Counter()
        self.walk_directory(store.tree, store.root.generation, f"generation {store.root.generation}", counts)
        shares: dict[int, int] = {}
        root = store.space_root(store.tree, SPACE_SHARES)
        for page, pointer in store.leaves(root, root.level):
            values = struct.unpack(f"<{COUNTS_PER_PAGE}I", store.read(pointer, 0))
            shares |= {page * COUNTS_PER_PAGE + i: value for i, value in enumerate(values) if value}
        for block in counts.keys() | shares.keys():
            expected = max(counts[block] - 1, 0)
            if shares.get(block, 0) != expected:
                where = f"share count of block {block}"
                raise self.fault(where, f"is {shares.get(block, 0)}, {counts[block]} pointers reach it")
        return counts

    def check_boot(self) -> None:
        """Kernel, loader, resume list, both tables of stores; the boot blocks are as the loader object has them."""
        store, root = self.store, self.store.root
        for name, limit in (("kernel", 1), ("loader", 1), ("resume", 1), ("stores", 0), ("stores_copy", 0)):
            pointer: Pointer = getattr(root, name)
            if not pointer.present:
                continue
            if pointer.level > limit:
                raise self.fault(name, f"has level {pointer.level}")
            self.walk(pointer, pointer.level, root.generation, name, None)
        try:
            if root.kernel.present:
                store.kernel()
            pages = store.loader_pages()
            store.resume_keys()
        except AbsentError:
            return
        if not root.kernel.present or not store.read_block(0).strip(b"\0"):
            self.report.notes.append("it does not start by itself: it has no kernel, or block 0 is empty")
            return
        for block, data in pages.items():
            if store.read_block(block) != data:
                raise self.fault(f"block {block}", "does not have the boot code that the root names")

    def check_generations(self, newest: Counter[int]) -> None:
        """Every retained tree; what the newest does not reach must have died since."""
        for record in self.store.generations():
            self.check_lists(record)
        for record in self.store.generations():
            self.report.generations += 1
            if record.generation > self.store.root.generation:
                raise self.fault("generation table", f"has generation {record.generation} after the newest")
            if record.flags & GenerationFlag.DROPPED:
                continue
            reached: Counter[int] = Counter()
            place = f"generation {record.generation}"
            self.walk_directory(Tree(record.tree, record.tree_height), record.generation, place, reached)
            for block in reached.keys() - newest.keys():
                self.check_death(block, record.generation, place)
        for block, death in self.deaths.items():
            if block in newest:
                raise self.fault(death.owner, f"names block {block}, which the newest generation reaches")

    def check_death(self, block: int, generation: int, place: str) -> None:
        """A block that only an older generation reaches is on a list, and lived then."""
        death = self.deaths.get(block)
        if death is None:
            raise self.fault(place, f"block {block} is not in the newest tree and on no dead list")
        if death.birth > generation or (death.death is not None and death.death <= generation):
            raise self.fault(death.owner, f"block {block} did not live in {generation}, which reaches it")

    def check_lists(self, record: Generation) -> None:
        """The dead and held lists of a record."""
        name = f"dead list of generation {record.generation}"
        count = self.check_list(record.dead, name, record.generation, record.generation)
        if count != record.dead_count:
            raise self.fault(name, f"has {count} entries, its record says {record.dead_count}")
        name = f"held list of generation {record.generation}"
        count = self.check_list(record.held, name, None, record.generation)
        if count != record.held_count:
            raise self.fault(name, f"has {count} entries, its record says {record.held_count}")

    def check_list(self, pointer: Pointer, name: str, death: int | None, generation: int) -> int:
        """A chain of list blocks; returns how many entries it has."""
        total = 0
        while pointer.present:
            if pointer.store != 0 or not self.follow(pointer, 0, name):
                raise self.fault(name, "leaves this store or meets another list")
            block = ListBlock.unpack(self.store.read(pointer, 0))
            if block.count > LIST_ENTRY_COUNT_MAX:
                raise self.fault(name, f"block {pointer.block} says {block.count} entries")
            for entry in block.entry[: block.count]:
                self.check_entry(entry.block, Death(entry.birth, death, name), generation)
            total += block.count
            pointer = block.next
        return total

    def check_entry(self, block: int, death: Death, generation: int) -> None:
        """One entry: a block that can be allocated, named once, born before it died."""
        if block >= self.store.header.block_count or self.store.header.is_fixed(block):
            raise self.fault(death.owner, f"names block {block}, which cannot be allocated")
        if block in self.deaths:
            raise self.fault(death.owner, f"names block {block}, as does the {self.deaths[block].owner}")
        if death.birth > generation:
            raise self.fault(death.owner, f"block {block} was born in {death.birth}, after it died")
        self.deaths[block] = death
        self.report.blocks_dead += 1

    def check_allocation(self) -> None:
        """Invariant 4: a bit is set exactly for what is owned; the root's free count agrees."""
        store = self.store
        for block, death in self.deaths.items():
            self.own(block, death.owner)
        root = store.space_root(store.meta, META_BITMAP)
        taken: set[int] = set()
        for page, pointer in store.leaves(root, root.level):
            bits = int.from_bytes(store.read(pointer, 0), "little")
            first = page * BITS_PER_PAGE
            if first >= store.header.block_count:
                raise self.fault("bitmap", f"has a page for block {first}, which does not exist")
            while bits:
                low = bits & -bits
                run = (~(bits // low) & (bits // low) + 1).bit_length() - 1
                start = first + low.bit_length() - 1
                taken.update(range(start, start + run))
                bits &= ~((1 << run) - 1 << low.bit_length() - 1)
        for block in sorted(taken ^ self.owner.keys()):
            if block in self.owner:
                raise self.fault(f"bitmap, block {block}", f"is marked free, but it is {self.owner[block]}")
            raise self.fault(f"bitmap, block {block}", "is marked taken, but nothing reaches or names it")
        free = store.root.block_count - RING_FIRST_BLOCK - RING_COUNT - len(taken)
        if free != store.root.free_count:
            raise self.fault("root record", f"says {store.root.free_count} free blocks, there are {free}")
        self.report.blocks_allocated = len(taken)
        self.report.blocks_free = free

    def check_records(self) -> None:
        """Space 0 begins with a machine record."""
        try:
            record = MachineRecord.unpack(self.store.record_page(RECORD_MACHINE_PAGE))
        except AbsentError:
            return
        if record.magic != RECORD_MAGIC or record.version != self.store.root.record_version:
            raise self.fault("machine record", "has no magic, or not the version that the root names")

    def check_complete(self) -> None:
        """Who says that no far store is needed has all of it; where far stores are at hand, this proves nothing."""
        absent = self.report.blocks_absent
        if self.store.root.flags & RootFlag.COMPLETE and absent:
            raise self.fault("newest root", f"says that near is complete, but {absent} blocks are not here")

    def check_structure(self) -> Report:
        """All that FORMAT.md says, whatever the pages contain."""
        self.check_ring()
        newest = self.check_newest()
        self.check_generations(newest)
        self.check_boot()
        self.check_meta()
        self.check_allocation()
        self.check_complete()
        return self.report


def check_store(store: Store) -> Report:
    """Prove a machine's image sound, or raise StoreError with the place of the first fault."""
    checker = Checker(store)
    report = checker.check_structure()
    checker.check_records()
    return report


