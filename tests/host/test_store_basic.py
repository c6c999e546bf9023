"""The store's plain promises: what was committed reads back, nothing leaks, damage is an error."""

from __future__ import annotations

import struct
from collections.abc import Callable

import checker
import pytest
from revenant.store import Store
from store_host import E_CORRUPT, E_FOREIGN, E_INVAL, E_IO, E_NOENT, E_NOSPACE, E_VERSION, Host, StoreError

Start = Callable[..., Host]


def assert_good(host: Host) -> None:
    """The image has no problem."""
    assert checker.check(host.image()) == []


def commit(host: Host, new: int = 1) -> int:
    """Commits what is staged; the generation."""
    return int(host("commit", new, 0).split()[0])


def test_pages_read_back(start: Start) -> None:
    host = start()
    host("puts", 0, 0, 100, 40)
    host("put", 16, 20000, 7)
    host("put", 17, (1 << 35) - 1, 8)
    assert commit(host) == 2
    for reopen in (False, True):
        if reopen:
            host("crash")
            assert host("open") == "2"
        assert all(host.holds(0, page, 100 + page) for page in range(40))
        assert host.holds(16, 20000, 7) and host.holds(17, (1 << 35) - 1, 8)
        assert host.holds(16, 0, 0) and host.holds(900000, 5, 0)
    assert_good(host)


def test_zero_pages_take_no_block(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 200)
    commit(host)
    for page in range(200):
        host("put", 16, page, 0)
    commit(host)
    assert host.holds(16, 5, 0)
    image = checker.load(host.image())
    assert image.root is not None and not image.root.tree.present
    assert_good(host)


@pytest.mark.parametrize("synchronous", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_thousand_commits_leak_nothing(start: Start, seed: int, synchronous: int) -> None:
    host = start(seed=seed)
    host("set synchronous 0", synchronous)
    free = []
    for turn in range(600 if seed else 1500):
        host("puts", 16, turn * 7 % 300, turn * 100 + 1, 5)
        host("put", 0, 0, turn + 1)
        commit(host)
        if turn % 97 == 0 or turn > 1480:
            assert_good(host)
        if turn > 300:
            free.append(host.facts()["free"])
    image = checker.load(host.image())
    assert image.root is not None
    meta = checker.walk_tree(image, image.root.meta, image.root.meta_height, "meta", None)
    records = checker.read_records(meta)
    newest = image.root.generation
    assert [record.generation for record in records] == list(range(newest - 15, newest + 1))
    assert max(free) - min(free) < 100
    assert max(free[-100:]) >= max(free[:100]) - 20


def test_root_without_pages(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 10)
    commit(host)
    before = host.facts()
    for _ in range(200):
        assert commit(host, new=0) == 2
        host("idle", 3)
    after = host.facts()
    assert after["sequence"] == before["sequence"] + 200
    assert_good(host)
    host("crash")
    assert host("open") == "2"
    assert host.holds(16, 9, 10)


def test_clone_shares_and_drop_gives_back(start: Start) -> None:
    host = start(blocks=8192)
    host("puts", 16, 0, 1, 1000)
    commit(host)
    free = host.facts()["free"]
    for space in range(17, 40):
        host("clone", 16, space)
    commit(host)
    assert free - host.facts()["free"] < 20
    assert host.holds(30, 999, 1000)
    host("puts", 30, 500, 9000, 3)
    host("drop", 16)
    commit(host)
    assert_good(host)
    assert host.holds(30, 501, 9001) and host.holds(31, 501, 502) and host.holds(16, 501, 0)
    for space in range(17, 40):
        host("drop", space)
    commit(host)
    assert_good(host)
    for turn in range(20):
        host("put", 0, 0, turn + 1)
        commit(host)
    assert_good(host)
    assert host.facts()["free"] > free + 900


def test_lookup_of_a_queued_clone(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 10)
    commit(host)
    host("clone", 16, 17)
    host("clone", 17, 18)
    assert host.holds(18, 3, 4)
    host("put", 18, 3, 99)
    commit(host)
    assert host.holds(18, 3, 99) and host.holds(17, 3, 4)
    assert_good(host)


def test_clone_of_the_wrong_spaces(start: Start) -> None:
    host = start()
    for words in (("clone", 0, 17), ("clone", 16, 3), ("clone", 16, 16), ("drop", 1), ("clone", 16, 1 << 21)):
        with pytest.raises(StoreError) as caught:
            host(*words)
        assert caught.value.code == E_INVAL


def test_full_store_changes_nothing(start: Start) -> None:
    host = start(blocks=2048)
    host("puts", 16, 0, 1, 800)
    commit(host)
    host("puts", 16, 0, 5000, 1500)
    with pytest.raises(StoreError) as caught:
        commit(host)
    assert caught.value.code == E_NOSPACE
    assert host.holds(16, 5, 6)
    host("crash")
    assert host("open") == "2"
    assert host.holds(16, 799, 800)
    assert_good(host)


def test_little_memory(start: Start) -> None:
    host = start(blocks=16384)
    host("set memory 0", 24)
    for turn in range(60):
        for page in range(12):
            host("put", 16 + page % 3, page * 5000 + turn, turn * 100 + page + 1)
        commit(host)
    for turn in range(60):
        for page in range(12):
            assert host.holds(16 + page % 3, page * 5000 + turn, turn * 100 + page + 1)
    assert_good(host)


def test_a_write_that_fails_is_made_again(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 300)
    host("set fail_writes 0", 3)
    commit(host)
    assert host.holds(16, 100, 101)
    assert_good(host)


@pytest.mark.parametrize("failing", ["writes", "flushes"])
@pytest.mark.parametrize("count", range(1, 12))
def test_a_commit_that_fails_is_made_anew(start: Start, failing: str, count: int) -> None:
    """All of it, since a flush that failed has forgotten what was written before: a power cut proves it."""
    host = start()
    host("set persistent 0", 1)
    for turn in range(4):
        host("puts", 16, 0, turn * 1000 + 1, 300)
        host(f"set fail_{failing} 0", count * 6 if failing == "writes" else count)
        assert commit(host) == turn + 2
        assert host.holds(16, 100, turn * 1000 + 101)
        assert "is durable now" in host.notices()
        assert_good(host)
        host("crash")
        assert int(host("open")) == turn + 2
        assert all(host.holds(16, page, turn * 1000 + 1 + page) for page in range(0, 300, 7))
        assert_good(host)


@pytest.mark.parametrize("count", range(1, 9))
def test_clones_and_drops_of_a_commit_that_fails(start: Start, count: int) -> None:
    """They are made anew with it, once each."""
    host = start()
    host("set persistent 0", 1)
    host("puts", 16, 0, 1, 300)
    commit(host)
    for turn in range(1, 5):
        host("clone", 16, 16 + turn)
        host("drop", 16 + turn - 1 if turn > 1 else 100)
        host("put", 16, turn, turn * 1000)
        host(f"set fail_{'writes' if count % 2 else 'flushes'} 0", count)
        assert commit(host) == turn + 2
        assert_good(host)
    host("crash")
    assert host("open") == "6"
    assert host.holds(20, 4, 5) and host.holds(20, 3, 3000) and host.holds(16, 4, 4000)
    assert host.holds(19, 3, 0) and host.holds(16, 299, 300)
    assert_good(host)


@pytest.mark.parametrize("failing", ["writes", "flushes"])
def test_boot_objects_of_a_commit_that_fails(start: Start, failing: str) -> None:
    host = start()
    host("set persistent 0", 1)
    for turn in range(2):
        host("boot", 3, 2, 500 + turn, 1)
        host(f"set fail_{failing} 0", 1)
        commit(host)
        assert_good(host)
        with Store(host.directory / "disk0.img") as store:
            assert store.kernel()[:8] == struct.pack("<Q", (500 + turn) * 0x9E3779B97F4A7C15 % (1 << 64))


@pytest.mark.parametrize("seed", range(4))
def test_cuts_while_a_root_is_written_anew(start: Start, seed: int) -> None:
    """The flush behind it failed, yet it may be on the disk: what it names has to stay."""
    host = start(seed=seed)
    host("set persistent 0", 1)
    host("set greedy 0", 300)
    held = {page: 1 + page for page in range(60)}
    host("puts", 16, 0, 1, 60)
    generation = commit(host)
    for turn in range(1, 25):
        host("puts", 16, turn % 20, turn * 1000, 40)
        host("set pass_flushes 0", 1)
        host("set fail_flushes 0", 1 + turn % 3)
        host("commit", 1, 50 + turn)
        host("crash")
        new = int(host("open"))
        assert new - generation in (0, 1)
        if new > generation:
            held |= {turn % 20 + i: turn * 1000 + i for i in range(40)}
        generation = new
        assert_good(host)
        assert all(host.holds(16, page, value) for page, value in held.items())


def test_bad_blocks_are_passed_over(start: Start) -> None:
    host = start()
    host("set persistent 0", 1)
    host("puts", 16, 0, 1, 10)
    commit(host)
    host("set greedy 0", 1)
    host("set bad_first 0", 400)
    host("set bad_count 0", 9)
    for turn in range(2, 30):
        host("puts", 16, 0, turn * 1000, 100)
        assert commit(host) == turn + 1
    assert host.holds(16, 99, 29099)
    assert_good(host)


def test_a_dead_near_ends_commits_but_not_reads(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 30)
    commit(host)
    assert host.holds(16, 3, 4)
    host("puts", 16, 0, 100, 30)
    host("set fail_flushes 0", 1)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            commit(host)
        assert caught.value.code == E_IO
    host("crash")
    assert host("open") in ("2", "3")
    assert_good(host)


def test_damaged_page_and_node(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 300)
    commit(host)
    image = checker.load(host.image())
    assert image.root is not None
    tree = checker.walk_tree(image, image.root.tree, image.root.tree_height, "t", None)
    first = struct.pack("<Q", 6 * 0x9E3779B97F4A7C15 % (1 << 64))
    mine = [block for block in tree.count if tree.space_of[block] == {16}]
    leaf = next(block for block in mine if image.block(block)[:8] == first)
    host("flip", 0, leaf, 100)
    with pytest.raises(StoreError) as caught:
        host.holds(16, 5, 6)
    assert caught.value.code == E_CORRUPT
    host("flip", 0, leaf, 100)
    assert host.holds(16, 5, 6)
    host("crash")
    node = next(block for block in mine if image.block(block)[7] & 0x80)
    host("open")
    host("flip", 0, node, 100)
    failed = 0
    for page in range(0, 300, 50):
        try:
            assert host.holds(16, page, page + 1)
        except StoreError as error:
            assert error.code == E_CORRUPT
            failed += 1
    assert failed


@pytest.mark.parametrize("tree", ["tree", "meta"])
def test_falls_back_to_the_older_root(start: Start, tree: str) -> None:
    host = start()
    host("puts", 16, 0, 1, 30)
    commit(host)
    host("puts", 16, 0, 101, 30)
    commit(host)
    image = checker.load(host.image())
    assert image.root is not None
    host("flip", 0, getattr(image.root, tree).block, 7)
    host("crash")
    assert host("open") == "2"
    assert host.holds(16, 3, 4)
    assert "trying an older one" in host.notices()
    host("puts", 16, 0, 201, 30)
    assert commit(host) == 3
    assert_good(host)


def test_header_copies(start: Start) -> None:
    host = start()
    host("puts", 16, 0, 1, 3)
    commit(host)
    for block in (1, 18):
        host("flip", 0, block, 40)
        host("crash")
        assert host("open") == "2"
        assert_good(host)
    host("flip", 0, 1, 40)
    host("flip", 0, 18, 40)
    host("crash")
    with pytest.raises(StoreError) as caught:
        host("open")
    assert caught.value.code == E_FOREIGN


def test_blank_near_without_far(start: Start) -> None:
    host = start(formatted=False)
    with pytest.raises(StoreError) as caught:
        host("open")
    assert caught.value.code == E_NOENT
    assert not any(host.image())


def test_a_root_of_a_later_format(start: Start) -> None:
    host = start()
    data = bytearray(host.image())
    stride = checker.load(bytes(data)).stride
    at = (32 + stride) * 4096
    struct.pack_into("<I", data, at + 8, 3)
    checker.seal_root(data, at)
    host.exchange_near(data)
    with pytest.raises(StoreError) as caught:
        host("open")
    assert caught.value.code == E_VERSION
    assert host.image() == bytes(data)


def test_a_compressed_page_in_near(start: Start) -> None:
    """Only who crafts a store makes one: near's blocks are whole."""
    host = start()
    host("puts", 16, 0, 1, 30)
    commit(host)
    data = bytearray(host.image())
    at = checker.newest_root_place(data)

    def compress(leaf: int) -> None:
        data[leaf + 3 * 32 + 7] |= 0x08

    checker.patch(data, at + 96, [16], compress)
    checker.seal_root(data, at)
    host.exchange_near(data)
    host("open")
    assert host.holds(16, 4, 5)
    with pytest.raises(StoreError) as caught:
        host.holds(16, 3, 4)
    assert caught.value.code == E_VERSION


def multiply(data: bytearray, pointer_at: int, path: list[int], level: int) -> None:
    """In the nodes of a path from `level` down all slots get what is in the path's; every hash on the way is right."""
    block = checker.Pointer.parse(bytes(data[pointer_at : pointer_at + 32])).block
    if path:
        slot = block * 4096 + path[0] * 32
        multiply(data, slot, path[1:], level - 1)
        if level <= 0:
            data[block * 4096 : block * 4096 + 4096] = data[slot : slot + 32] * 128
    checker.seal_block(data, pointer_at)


def test_drop_of_a_tree_that_leads_to_itself(start: Start) -> None:
    """128^4 pages in five blocks: the drop ends, and the machine goes on."""
    host = start()
    host("put 16 3000000 5")
    host("put 17 0 6")
    host("commit 1 0")
    host("commit 1 0")
    data = bytearray(host.image())
    image = checker.load(bytes(data))
    assert image.root is not None and image.root.tree_height == 1
    at = checker.newest_root_place(data)
    page = 3000000
    multiply(data, at + 96, [16, *(page >> 7 * level & 127 for level in (3, 2, 1, 0))], 1)
    checker.seal_root(data, at)
    host.exchange_near(data)
    host("open")
    assert host.holds(16, 0, 5)
    host("drop 16")
    host("put 17 1 7")
    host("commit 1 0")
    assert "more blocks than near" in host.notices()
    assert host.holds(17, 0, 6) and host.holds(17, 1, 7) and host.holds(16, 0, 0)
