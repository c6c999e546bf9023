"""The bitmap is made anew: through failing writes and power cuts, and with blocks that only an old generation reaches.

Damage of every block besides it is tried by native/damage.c, of a node of the bitmap by tests/qemu/test_bad_input.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import checker
import pytest
from store_host import Host

FRESH, WHOLE = "it is made anew from all that is kept", "is whole again"
Start = Callable[..., Host]


def meta_of(host: Host) -> tuple[checker.Image, checker.Root, checker.Tree]:
    """The image and the newest root's meta tree."""
    image = checker.load(host.image())
    assert image.root is not None
    return image, image.root, checker.walk_tree(image, image.root.meta, image.root.meta_height, "meta", None)


def flip_bitmap(host: Host, page: int = 0) -> None:
    """Damage a page of it, and start again."""
    image, root, _ = meta_of(host)
    pointer = dict(checker.pointers(image.block(root.meta.block)))[0]
    if pointer.level == 1:
        pointer = dict(checker.pointers(image.block(pointer.block)))[page]
    host("flip", 0, pointer.block, 100)
    host("crash")
    host("open")


def lived(start: Start) -> Host:
    """A store with a tag and some generations; commits begin anew."""
    host = start(blocks=2048)
    host("set persistent 0 1")
    for turn in range(6):
        host("tag 0", "kept") if turn == 1 else host("tag 0")
        host("puts 16 0", turn * 1000 + 1, 60)
        host("commit 1 0")
    host("tag 0")
    return host


@pytest.mark.parametrize("cut", [1, 2, 4, 8, 12, 20, 40])
@pytest.mark.parametrize("failing", ["", "writes", "flushes"])
def test_cuts_and_errors_meanwhile(start: Start, failing: str, cut: int) -> None:
    host = lived(start)
    flip_bitmap(host)
    if failing:
        host(f"set fail_{failing} 0", 5 if failing == "writes" else 1)
    host("puts 16 0 9001 60")
    if host("commit 1", cut) == "cut":
        host("crash")
        host("open")
        host("puts 16 0 9001 60")
        host("commit 1 0")
    assert FRESH in host.notices() and WHOLE in host.notices()
    assert checker.check(host.image()) == []
    assert host.holds(16, 17, 9018)


def test_what_only_a_tag_reaches_stays_taken(start: Start) -> None:
    """The list that named it was damaged, and is forgotten: the tag's own tree still says what it holds."""
    host = lived(start)
    image, _, meta = meta_of(host)
    records = checker.read_records(meta)
    kept = next(record for record in records if record.flags & checker.TAGGED)
    host("flip", 0, next(record for record in records if record.generation == kept.generation + 1).dead.block, 100)
    for turn in range(16):
        host("puts 16 0", 20000 + turn * 1000, 10)
        host("commit 1 0")
    assert "a list of dead blocks is damaged" in host.notices()
    flip_bitmap(host)
    host("set greedy 0 1")
    for turn in range(20):
        host("puts 16 0", 50000 + turn * 1000, 60)
        host("commit 1 0")
    assert WHOLE in host.notices()
    assert not [problem for problem in checker.check(host.image()) if problem.startswith("free_count")]
    image, *_ = meta_of(host)
    tree = checker.walk_tree(image, kept.tree, kept.height, "kept", {16})
    assert image.problems == []
    words = [struct.unpack_from("<Q", tree.pages[16, page])[0] for page in range(60)]
    assert words == [(1001 + page) * 0x9E3779B97F4A7C15 % 2**64 for page in range(60)]


def test_damage_that_is_met_in_the_middle_of_a_commit(start: Start) -> None:
    """What it had changed is undone: pages in the tree, clones, blocks taken from another page of the bitmap."""
    host = start(blocks=33000)
    host("set persistent 0 1")
    for turn in range(2):
        host("puts 16 0", turn * 1000 + 1, 60)
        host("set next 0 32768")
        host("commit 1 0")
    flip_bitmap(host, 1)
    host("clone 16 17")
    host("puts 16 0 9001 60")
    host("set next 0 32740")
    host("commit 1 0")
    assert FRESH in host.notices() and WHOLE in host.notices()
    assert checker.check(host.image()) == []
    assert host.holds(16, 17, 9018) and host.holds(17, 17, 1018)
