"""Tagged generations outlive the newest ones; what only they held is free once the tag is gone.

The store has no call for tags yet: the test sets flags in the image, as a tool would in a root of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import checker
from store_host import Host

TAGGED, DROPPED = 1, 2
Contents = dict[int, int]


def edit_record(host: Host, generation: int, edit: Callable[[bytearray, int], None]) -> None:
    """Changes the record of a generation, whose place in the image is given, and opens the store again."""
    data = bytearray(host.image())
    image = checker.load(bytes(data))
    assert image.root is not None and image.root.meta_height == 1
    meta = checker.walk_tree(image, image.root.meta, 1, "meta", None)
    index = [record.generation for record in checker.read_records(meta)].index(generation)
    node = image.block(image.root.meta.block)
    height = checker.Pointer.parse(node[32:64]).level
    path = [1] + ([index // 16] if height else [])
    at = checker.newest_root_place(data)
    checker.patch(data, at + 128, path, lambda page: edit(data, page + index % 16 * 256))
    checker.seal_root(data, at)
    host.exchange_near(data)
    host("open")


def set_flags(host: Host, generation: int, flags: int) -> None:
    """Of a generation's record."""
    edit_record(host, generation, lambda data, record: struct.pack_into("<I", data, record + 24, flags))


def contents_of(host: Host, generation: int) -> Contents:
    """The first word of each page of space 16 in a retained generation."""
    image = checker.load(host.image())
    assert image.root is not None
    meta = checker.walk_tree(image, image.root.meta, image.root.meta_height, "meta", None)
    record = next(record for record in checker.read_records(meta) if record.generation == generation)
    tree = checker.walk_tree(image, record.tree, record.height, "old", {16})
    assert image.problems == []
    return {
        page: struct.unpack_from("<Q", data)[0] for (space, page), data in tree.pages.items() if space == 16
    }


def live(host: Host, turns: int) -> None:
    """Commits that change a few pages each; the image is good all the time."""
    for turn in range(turns):
        generation = host.facts()["generation"]
        host("puts 16", generation * 7 % 90, generation * 1000, 5)
        host("commit 1 0")
        if turn % 4 == 0:
            assert checker.check(host.image()) == []


def test_tags_hold_and_let_go(start: Callable[..., Host]) -> None:
    host = start(blocks=6000, seed=3)
    host("puts 16 0 1 100")
    host("commit 1 0")
    live(host, 40)
    free = host.facts()["free"]
    expected = {}
    for age in (3, 9, 0):
        generation = host.facts()["generation"] - age
        expected[generation] = contents_of(host, generation)
        set_flags(host, generation, TAGGED)
        live(host, 11)
    live(host, 40)
    for generation, contents in expected.items():
        assert contents_of(host, generation) == contents
    for generation in sorted(expected, key=lambda g: (g * 7919) % 13):
        set_flags(host, generation, DROPPED)
        del expected[generation]
        live(host, 3)
        for other, contents in expected.items():
            assert contents_of(host, other) == contents
    live(host, 20)
    assert abs(host.facts()["free"] - free) < 20
    assert checker.check(host.image()) == []


def test_many_tags(start: Callable[..., Host]) -> None:
    host = start(blocks=16000, seed=4)
    host("puts 16 0 1 100")
    host("commit 1 0")
    tagged = []
    for _ in range(12):
        live(host, 2)
        tagged.append(host.facts()["generation"])
        set_flags(host, tagged[-1], TAGGED)
    live(host, 30)
    for generation in tagged[::2]:
        set_flags(host, generation, DROPPED)
    live(host, 3)
    for generation in tagged[1::2]:
        assert len(contents_of(host, generation)) == 100
    assert checker.check(host.image()) == []


def test_a_held_list_is_dense(start: Callable[..., Host]) -> None:
    """A little that dies in each of many commits takes no block of the list each time."""
    host = start(blocks=4096)
    host("puts 16 0 1 400")
    host("tag 0 kept")
    host("commit 1 0")
    host("tag 0")
    for page in range(350):
        host("put 16", page, page + 1000)
        host("commit 1 0")
    image = checker.load(host.image())
    assert image.root is not None
    records = checker.read_records(checker.walk_tree(image, image.root.meta, image.root.meta_height, "meta", None))
    kept = next(record for record in records if record.flags & TAGGED)
    blocks, entries = checker.read_list(image, kept.held, "held")
    assert len(entries) > 330 and len(blocks) == 2
    assert checker.check(host.image()) == []


def test_a_list_that_names_a_free_block(start: Callable[..., Host]) -> None:
    """Only who crafts a store makes one: the block is not freed again, and that is said."""
    host = start()
    for turn in range(4):
        host("puts", 16, 0, turn * 100 + 1, 20)
        host("commit 1 0")
    free_block = 4000

    def edit(data: bytearray, record: int) -> None:
        block = checker.Pointer.parse(bytes(data[record + 64 : record + 96])).block
        struct.pack_into("<Q", data, block * 4096 + 48, free_block)
        checker.seal_block(data, record + 64)

    edit_record(host, 5, edit)
    for turn in range(40):
        host("put 16 0", turn + 1)
        host("commit 1 0")
    assert "names a block that is free" in host.notices()
    assert not any("free" in problem for problem in checker.check(host.image()))
