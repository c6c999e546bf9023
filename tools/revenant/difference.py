"""What two generations of one image have different: spaces and pages.

Equal subtrees are found by their hashes and never entered, so the cost is that of the difference. Share
counts (space 1) are the store's bookkeeping and no difference.
Used by: travel.py (`diff`, `rollback`), the tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from revenant.format import MISSING, NODE_FANOUT, SPACE_SHARES, PageKey, Pointer
from revenant.store import Store, Tree

Pair = tuple[int, Pointer, Pointer]  # key, pointer before, pointer after


@dataclass
class SpaceDifference:
    """How many pages of a space differ."""

    space: int
    changed: int = 0
    added: int = 0
    removed: int = 0


def same(a: Pointer, b: Pointer) -> bool:
    """Whether two pointers name the same contents, wherever they are."""
    return a.hash == b.hash and a.level == b.level and a.present == b.present


def slots(store: Store, pointer: Pointer, height: int, level: int) -> dict[int, Pointer]:
    """The children at `level` - 1 of a tree of `height`, as if it were as high as `level`."""
    if not pointer.present:
        return {}
    return {0: pointer} if height < level else dict(store.children(pointer, level))


def pairs(
    store: Store, a: Pointer, a_height: int, b: Pointer, b_height: int, level: int, first: int
) -> Iterator[Pair]:
    """The leaves that differ, ascending; keys of this subtree begin at `first`."""
    if a_height == b_height and same(a, b):
        return
    if level == 0:
        yield first, a, b
        return
    before, after = slots(store, a, a_height, level), slots(store, b, b_height, level)
    for slot in sorted(before.keys() | after.keys()):
        key = (first + slot) * (NODE_FANOUT if level > 1 else 1)
        yield from pairs(
            store,
            before.get(slot, MISSING), min(a_height, level - 1),
            after.get(slot, MISSING), min(b_height, level - 1),
            level - 1, key,
        )  # fmt: skip


def differing_spaces(store: Store, a: Tree, b: Tree) -> Iterator[Pair]:
    """Spaces whose root pointers differ, share counts left out."""
    level = max(a.height, b.height)
    for space, before, after in pairs(store, a.pointer, a.height, b.pointer, b.height, level, 0):
        if space != SPACE_SHARES:
            yield space, before, after


def differing_pages(store: Store, a: Tree, b: Tree) -> Iterator[tuple[PageKey, Pointer, Pointer]]:
    """All pages that differ, with their pointers before and after (MISSING: zeros)."""
    for space, before, after in differing_spaces(store, a, b):
        level = max(before.level, after.level)
        for page, old, new in pairs(store, before, before.level, after, after.level, level, 0):
            yield PageKey(space, page), old, new


def summary(store: Store, a: Tree, b: Tree) -> list[SpaceDifference]:
    """The difference by space."""
    found: dict[int, SpaceDifference] = {}
    for key, old, new in differing_pages(store, a, b):
        space = found.setdefault(key.space, SpaceDifference(key.space))
        if not old.present:
            space.added += 1
        elif not new.present:
            space.removed += 1
        else:
            space.changed += 1
    return list(found.values())
