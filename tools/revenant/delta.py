"""What a new image has to carry of a generation, and what it may name in other stores instead (`publish --base`).

A page or a whole subtree is named where the base has the very same one at the same place, or where the machine
itself has it from a store that the new table has, too; such a subtree need not even be here. Used by: publish.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from revenant.errors import StoreError
from revenant.format import MISSING, NODE_FANOUT, SPACE_SHARES, PageKey, Pointer, StoreEntry
from revenant.store import Store, Tree
from revenant.writer import NodeKey


def whole(store: Store, tree: Tree) -> dict[PageKey, Pointer]:
    """All pages, for an image that names no other store. Share counts are each store's own."""
    return {key: pointer for key, pointer in store.pages(tree) if key.space != SPACE_SHARES}


@dataclass
class Delta:
    """The difference between a machine's tree and what stores of the table have.

    `base` None: what the machine's own far stores have. `own`: pages to be carried; `named`: by space, pointers as the
    new store says them, by level and prefix, and nothing of `own` lies below; `heights`: of the spaces.
    """

    store: Store
    base: Store | None
    own: dict[PageKey, Pointer] = field(default_factory=dict)
    named: dict[int, dict[NodeKey, Pointer]] = field(default_factory=dict)
    heights: dict[int, int] = field(default_factory=dict)
    table: Sequence[StoreEntry] = ()
    numbers: Mapping[int, int] = field(default_factory=dict)
    """The store's number of a far store to the new store's."""

    @classmethod
    def of(cls, store: Store, tree: Tree, base: Store | None) -> Delta:
        """StoreError if the base is not a published image; AbsentError if a node that is needed is not at hand."""
        if base is None and not store.table:
            raise StoreError(store.path, "it has no far stores", "give the base as a file")
        if base is not None and base.header.ring_stride != 1:
            raise StoreError(base.path, "not a published image, so its blocks change", "publish it first")
        table = store.table if base is None else [base.entry(), *base.table]
        numbers = {
            theirs: ours
            for theirs, entry in enumerate(store.table, 1)
            for ours, other in enumerate(table, 1)
            if (entry.store_id, entry.root_hash) == (other.store_id, other.root_hash)
        }
        delta = cls(store, base, table=table, numbers=numbers)
        for space, root in store.spaces(tree):
            if space != SPACE_SHARES:
                delta.add_space(space, root)
        return delta

    def add_space(self, space: int, root: Pointer) -> None:
        """Compare one space."""
        self.heights[space] = root.level
        self.named[space] = {}
        base = self.base.space_root(self.base.tree, space) if self.base else MISSING
        self.take(space, 0, root.level, root, self.resolve(space, root, base, root.level, 0))

    def take(self, space: int, prefix: int, level: int, pointer: Pointer, named: Pointer | None) -> None:
        """Note what a subtree is in the new store; a node that must be written is what its children are."""
        if named is not None:
            self.named[space][level, prefix] = named
        elif level == 0:
            self.own[PageKey(space, prefix)] = pointer

    def resolve(self, space: int, pointer: Pointer, base: Pointer, level: int, prefix: int) -> Pointer | None:
        """The new store's pointer to a subtree that it need not carry; else None, and its parts are taken."""
        if pointer.store in self.numbers:
            return pointer.renumbered(self.numbers[pointer.store])
        if level == 0:
            return base.translated(1) if base.present and base.hash == pointer.hash else None
        children = dict(self.store.children(pointer, level))
        others = self.children_of_base(base, level, prefix)
        named = {
            slot: self.resolve(space, child, others.get(slot, MISSING), level - 1, prefix * NODE_FANOUT + slot)
            for slot, child in children.items()
        }
        if base.present and named == {slot: child.translated(1) for slot, child in others.items()}:
            return base.translated(1)
        for slot, child in children.items():
            self.take(space, prefix * NODE_FANOUT + slot, level - 1, child, named[slot])
        return None

    def children_of_base(self, base: Pointer, level: int, prefix: int) -> dict[int, Pointer]:
        """By slot; a tree that is less high is the first child of what would be above it."""
        if self.base is None or not base.present or base.level > level:
            return {}
        if base.level < level:
            return {0: base} if prefix == 0 else {}
        return dict(self.base.children(base, level))
