"""A blank near disk: the machine goes on from far, fetches what it touches, once, and outlives far."""

from __future__ import annotations

import ast
import os
import random
import re
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from revenant.check import Checker, check_store
from revenant.far_store import open_fars
from revenant.firmware import BEHIND_RING_BLOCK, BEHIND_RING_COUNT
from revenant.format import BLOCK_SIZE, RING_FIRST_BLOCK, SPACE_SHARES, Root, RootFlag
from revenant.keys import public_bytes
from revenant.machine import EXIT_REFUSED, Machine
from revenant.publish import Copy, copy_generation, publish_image
from revenant.pytest_plugin import FarStore
from revenant.qemu import Boot
from revenant.script import wait_for_prompt
from revenant.store import Store, Tree
from revenant.trust import key_name

Start = Callable[..., Machine]
Serve = Callable[..., FarStore]
MIB = 1 << 20
BALLAST_MIB = 8


@dataclass
class Published:
    """A machine in the middle of its work, as a far image."""

    path: Path
    trust: str
    size: int


@pytest.fixture
def published(machine: Start, image: Path, tmp_path: Path) -> Published:
    """State to recognise, and ballast that a start has no reason to touch."""
    now = machine()
    wait_for_prompt(now)
    now.command_at_prompt("import revenant, gc, random")
    now.command_at_prompt("warm = {'from': 'afar'}; why = []; revenant.on_resume(why.append) and None")
    now.command_at_prompt("import machine; there = machine.unique_id()")
    now.command_at_prompt(f"ballast = bytearray({BALLAST_MIB} << 20)")
    now.command_at_prompt("for i in range(0, len(ballast), 4096): ballast[i] = i // 4096 % 251 + 1\r", 60)
    now.command_at_prompt("revenant.commit() > 0")
    now.kill()
    out = tmp_path / "far.img"
    with Store(image) as store:
        check_store(store)
        root = publish_image(store, out, None, record=True)
    return Published(out, root.hash.hex(), os.path.getsize(out))


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    """A blank near disk of 64 MiB."""
    path = tmp_path / "blank.img"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    return path


def ballast_sum(first_page: int, page_count: int) -> int:
    """What the machine must find in pages of the ballast."""
    return sum(page % 251 + 1 for page in range(first_page, first_page + page_count))


def touch(machine: Machine, first_page: int, page_count: int) -> None:
    """Read pages of the ballast and compare."""
    start, end = first_page * 4096, (first_page + page_count) * 4096
    found = machine.command_at_prompt(f"sum(ballast[i] for i in range({start}, {end}, 4096))")
    assert found == str(ballast_sum(first_page, page_count))


def settle(machine: Machine, far: FarServer) -> None:  # noqa: F821
    """Until a commit has gone by in which nothing was on its way from far: all that came is near."""
    while True:
        answered_count = far.answered_count()
        machine.command_at_prompt("revenant.commit() > 0")
        if far.answered_count() == answered_count == len(far.reads()):
            return


def test_starts_from_far_and_fetches_little_once(
    machine: Start, serve: Serve, published: Published, blank: Path
) -> None:
    far = serve(published.path)
    first = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
    wait_for_prompt(first)
    assert first.command_at_prompt("warm") == "{'from': 'afar'}"
    assert first.command_at_prompt("why") == "['other machine']"
    assert first.command_at_prompt("here = machine.unique_id(); len(here), here != there") == "(16, True)"
    reads = far.reads()
    fetched = sum(size for _, size in reads)
    print(f"{len(reads)} requests, {fetched} bytes of {published.size}")
    assert fetched < published.size / 2
    touch(first, 100, 50)
    settle(first, far)
    first.kill()
    before = {offset for offset, _ in far.reads()}
    far.forget()
    second = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
    wait_for_prompt(second)
    touch(second, 100, 50)
    assert second.command_at_prompt("warm") == "{'from': 'afar'}"
    assert second.command_at_prompt("why, machine.unique_id() == here") == "(['other machine', 'restart'], True)"
    again = {offset for offset, _ in far.reads()} & before
    with Store(published.path) as store:
        allowed = start_blocks(store)
    assert {offset // 4096 for offset in again} <= allowed, "fetched again"
    second.kill()
    with Store(blank, open_fars([published.path])) as store:
        Checker(store).check_structure()


def start_blocks(store: Store) -> set[int]:
    """What tells one store from another, and what firmware boots from: read at every start."""
    fixed = {0, 1, 18, *range(2, 18), *(store.header.ring_block(slot) for slot in range(64))}
    fixed |= set(range(BEHIND_RING_BLOCK, BEHIND_RING_BLOCK + BEHIND_RING_COUNT))
    for pointer in (store.root.kernel, store.root.loader):
        fixed |= {pointer.block, *(child.block for _, child in store.leaves(pointer, pointer.level))}
    return fixed | {store.root.tree.block}


def blocks_of(reads: list[tuple[int, int]]) -> list[int]:
    """Every block that was read, as often as it was."""
    return [offset // 4096 + i for offset, size in reads for i in range(-(-size // 4096))]


def test_a_start_is_few_requests(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    """Root and kernel; headers and what a start touches, in large requests: two round trips, all else is there."""
    with Store(published.path) as store:
        root = store.root
        assert root.kernel.block + -(-root.kernel_size // 4096) < BEHIND_RING_BLOCK + BEHIND_RING_COUNT
    packed = set(range(root.tree.block, root.tree.block + root.packed_count))
    far = serve(published.path, delay_ms=400)  # longer than what is asked together may take to be asked
    now = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
    now.send(b"6*7\r")
    now.expect_exact(b"42\r\n>>> ")
    reads, depths = far.reads(), far.depths()
    print(len(reads), "requests", list(zip(reads, depths, strict=True)))
    assert sorted(offset // 4096 for offset, _ in reads[:2]) == [RING_FIRST_BLOCK, BEHIND_RING_BLOCK]
    blocks = blocks_of(reads[2:])
    assert sorted(blocks[: 4 + len(packed)]) == sorted([0, 1, 18, 32, *packed])
    assert not set(blocks[4 + len(packed) :]) & packed, "fetched again"
    assert len(packed) > 50
    last = max(i for i, (offset, _) in enumerate(reads) if offset // 4096 in packed)
    assert max(depths[: last + 1]) == 2
    assert root.packed_count < published.size / 4096 / 5
    assert "stale" not in now.voice


def test_a_recorded_start_leaves_few_misses(
    machine: Start, serve: Serve, published: Published, blank: Path
) -> None:
    """The list takes at least 97 of 100 misses away, and at most a tenth of what it fetches is not used."""
    with Store(published.path) as store:
        listed = store.resume_keys()
        packed_count = store.root.packed_count
    now = machine(blank, fars=[str(published.path)], trust=published.trust, record=True)
    now.send(b"6*7\r")
    now.expect_exact(b"42\r\n>>> ")
    touched = [tuple(map(int, key)) for key in re.findall(r"touched (\d+):(\d+)", now.voice)]
    keys = {(key.space, key.page) for key in listed}
    missed = [key for key in dict.fromkeys(touched) if key not in keys and key[0] != SPACE_SHARES]
    print(len(keys), "in the list,", packed_count, "blocks packed,", len(set(touched)), "touched, missed", missed)
    assert len(missed) <= 0.03 * len(set(touched))
    assert len(keys - set(touched)) <= 0.1 * len(keys)


def test_the_loader_makes_few_requests(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    far = serve(published.path)
    now = machine(blank, fars=[far.uri], trust=published.trust, fill=False, boot=Boot.MBR)
    wait_for_prompt(now)
    reads = far.reads()
    with Store(published.path) as store:
        kernel_count = -(-store.root.kernel_size // 4096)
    first_of_kernel = next(i for i, (offset, size) in enumerate(reads) if offset <= 18 * 4096 < offset + size)
    # Host: header, root. Firmware: boot record, twice. Loader: itself, header, ring, node, the file by 32 KiB. Kernel.
    assert first_of_kernel <= 1 + 2 + 4 + -(-kernel_count // 8) + 1 + 2, reads[:first_of_kernel]


def test_idle_time_makes_near_complete(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    far = serve(published.path)
    now = machine(blank, fars=[far.uri], trust=published.trust)
    wait_for_prompt(now)
    now.expect_voice("near is complete")
    with Store(published.path) as store:
        fixed = start_blocks(store)
    once = [block for block in blocks_of(far.reads()) if block not in fixed]
    assert len(once) == len(set(once)), "fetched twice"
    assert now.command_at_prompt("turn = 'complete'; turn") == "'complete'"
    now.command_at_prompt("import revenant; stats = revenant.stats()")
    assert now.command_at_prompt("stats['complete'], stats['far_remaining']") == "(1, 0)"
    fetched, verified, unused = ast.literal_eval(now.command_at_prompt("stats['far'][1]"))
    assert len(once) <= fetched and BALLAST_MIB * 256 < verified <= fetched and unused < fetched / 10
    progress = re.findall(r"progress: far1 (\d+) fetched, (\d+) verified, \d+ unused; (\d+) remain", now.voice)
    assert progress[-1] == (str(fetched), str(verified), "0"), "the last line of progress says that all is here"
    now.kill()
    far.forget()
    now = machine(blank, fars=[far.uri], trust=published.trust)
    wait_for_prompt(now)
    touch(now, 0, BALLAST_MIB * 256)
    assert far.reads() == []
    now.kill()
    far.kill()
    with Store(blank) as store:
        assert check_store(store).blocks_absent == 0
    now = machine(blank)
    wait_for_prompt(now)
    assert now.command_at_prompt("warm, turn") == "({'from': 'afar'}, 'complete')"
    touch(now, 0, BALLAST_MIB * 256)


def test_the_fill_keeps_the_queue_short(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    """On a link that is slow, little is under way, since a program may want a page; on one that is long, much.

    It goes on while a program computes.
    """
    under_way = {}
    for link, fields in {"slow": {"delay_ms": 5, "rate": "40M"}, "long": {"delay_ms": 60}}.items():
        far = serve(published.path, **fields)
        blank.write_bytes(b"")
        os.truncate(blank, 64 * MIB)
        now = machine(blank, fars=[far.uri], trust=published.trust)
        now.send(b"while True: pass\r")
        now.expect_voice("near is complete")
        now.kill()
        sums = far.bytes_under_way()
        under_way[link] = max(sums[len(sums) // 2 :])
        far.kill()
    print(under_way)
    assert under_way["slow"] <= 192 << 10  # a request of somebody else included
    assert under_way["long"] >= 256 << 10


def assert_whole(near: Path, published: Published) -> None:
    """All that the published root reaches is in near alone, block by block as the root's tree hash says it."""
    with Store(published.path) as far:
        tree = Tree(far.root.tree.translated(1), far.root.tree_height)
    with Store(near) as store:
        assert check_store(store).blocks_absent == 0
        assert store.table[0].root_hash.hex() == published.trust
        for _, pointer in store.pages(tree):
            store.read(pointer, 0)


@pytest.mark.parametrize("kill_count", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_while_it_fills(
    machine: Start, serve: Serve, published: Published, blank: Path, rng: random.Random, kill_count: int
) -> None:
    """Whatever a kill leaves, nothing is thought present that is not; in the end nothing is missing, far not needed."""
    far = serve(published.path, delay_ms=3)
    for kill in range(kill_count + 1):
        if is_complete(blank, published):
            assert_whole(blank, published)
            blank.write_bytes(b"")
            os.truncate(blank, 64 * MIB)
        now = machine(blank, fars=[far.uri], trust=published.trust)
        enough = far.answered_count() + rng.randrange(8, 120)
        while kill < kill_count and far.answered_count() < enough and "near is complete" not in now.voice:
            assert now.process.poll() is None
            select.select([], [], [], 0.01)
        if kill == kill_count:
            now.expect_voice("near is complete")
        now.kill()
        far.forget()
    assert_whole(blank, published)
    for _ in range(max(1, kill_count // 10)):
        now = machine(blank, fars=[far.uri], trust=published.trust)
        wait_for_prompt(now)
        touch(now, 0, BALLAST_MIB * 256)
        now.kill()
    assert far.reads() == []


def is_complete(near: Path, published: Published) -> bool:
    """What a killed machine's image says; it is sound, or still blank."""
    with near.open("rb") as file:
        head = file.read(19 * 4096)
    if not any(head[4096:8192]) and not any(head[18 * 4096 :]):
        return False
    with Store(near, open_fars([published.path])) as store:
        Checker(store).check_structure()
        return bool(store.root.flags & RootFlag.COMPLETE)


def test_far_dies_and_comes_back(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    far = serve(published.path)
    now = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
    wait_for_prompt(now)
    touch(now, 0, 20)
    for page in (980, 1040):  # the node of one of these is that of page 1010, which no neighbour brings
        touch(now, page, 1)
    far.kill()
    touch(now, 0, 20)  # what is near is near
    assert now.command_at_prompt("1 + 1") == "2"
    now.send(b"print('sum', sum(ballast[i] for i in range(1010 * 4096, 1110 * 4096, 4096)))\r")
    now.expect_voice("it is in no store that answers; the program that touched it waits")
    far.start()
    now.expect_exact(b"sum %d\r\n>>> " % ballast_sum(1010, 100), 60)
    assert now.voice.count("the program that touched it waits") == 1  # not for what was read ahead
    assert now.command_at_prompt("warm") == "{'from': 'afar'}"


def test_a_near_smaller_than_far(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    """It keeps what is used and what is its own; all the rest can be had again and again, through cuts, too."""
    far = serve(published.path)
    os.truncate(blank, 8 * MIB)
    assert published.size > 9 * MIB
    for turn in range(3):
        now = machine(blank, fars=[far.uri], trust=published.trust, memory_mib=64)
        wait_for_prompt(now)
        if turn:
            assert now.command_at_prompt("own == bytes(range(256)) * 256, turn") == f"(True, {turn - 1})"
        now.command_at_prompt(f"own = bytes(range(256)) * 256; turn = {turn}")
        for first in range(0, BALLAST_MIB * 256, 256):
            touch(now, first, 256)
            touch(now, 0, 20)
        assert "near store is full" not in now.voice and "near is complete" not in now.voice
        now.kill()
        with Store(blank, open_fars([published.path])) as store:
            Checker(store).check_structure()
            assert store.root.free_count > 0


def test_killed_while_incomplete(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    far = serve(published.path)
    for turn in range(4):
        now = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
        wait_for_prompt(now)
        if turn:
            assert now.command_at_prompt("turn") == str(turn - 1)
        touch(now, turn * 100, 100)
        assert now.command_at_prompt(f"turn = {turn}; turn") == str(turn)
        now.kill()
        with Store(blank, open_fars([published.path])) as store:
            Checker(store).check_structure()
    assert published.path.stat().st_size == published.size


def test_from_a_file(machine: Start, published: Published, blank: Path) -> None:
    now = machine(blank, fars=[str(published.path)], trust=published.trust)
    wait_for_prompt(now)
    touch(now, 5, 5)


def test_a_far_that_is_not_trusted(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    far = serve(published.path)
    now = machine(blank, fars=[far.uri], trust="00" * 32)
    assert now.wait() == EXIT_REFUSED
    assert "far1: its root does not have the trusted hash" in now.voice
    assert not blank.read_bytes().strip(b"\0")


def write_root(image: Path, root: Root) -> None:
    """In place of a published image's root record."""
    with image.open("r+b") as file:
        file.seek(RING_FIRST_BLOCK * BLOCK_SIZE)
        file.write(root.pack())


def test_signed_by_its_publisher(
    machine: Start, serve: Serve, published: Published, blank: Path, tmp_path: Path
) -> None:
    """The key is enough to adopt; a store that another has signed, or has gone back, is named; others are asked."""
    key = Ed25519PrivateKey.generate()
    trust = key_name(public_bytes(key.public_key()))
    with Store(published.path) as store:
        root = store.root
    bad = tmp_path / "bad.img"
    bad.write_bytes(published.path.read_bytes())
    write_root(bad, replace(root, signature=Ed25519PrivateKey.generate().sign(root.hash)))
    write_root(published.path, replace(root, signature=key.sign(root.hash)))
    fars = [serve(bad), serve(published.path)]
    first = machine(blank, fars=[far.uri for far in fars], trust=trust, fill=False)
    wait_for_prompt(first)
    assert "far1: its root is not signed by the trusted key" in first.voice
    assert first.command_at_prompt("warm") == "{'from': 'afar'}"
    first.kill()
    older = Root.unpack(replace(root, generation=root.generation - 1).sealed())
    write_root(bad, replace(older, signature=key.sign(older.hash)))
    for far in fars:
        far.forget()
    second = machine(blank, fars=[far.uri for far in fars], trust=trust, fill=False)
    wait_for_prompt(second)
    assert "far1: its signed root is older than the one that was adopted: refused" in second.voice
    touch(second, 100, 20)
    assert max(offset for offset, _ in fars[0].reads()) <= BEHIND_RING_BLOCK * BLOCK_SIZE, "more than its head"
    assert fars[1].reads()[4:]


def test_published_again_while_incomplete(
    machine: Start, published: Published, blank: Path, tmp_path: Path
) -> None:
    """What is published against the image that it came from is small, and with that image goes on exactly."""
    first = machine(blank, fars=[str(published.path)], trust=published.trust, fill=False)
    wait_for_prompt(first)
    first.command_at_prompt("warm['to'] = 'elsewhere'")
    first.command_at_prompt("ballast[300 * 4096] = 77; pattern = bytearray(bytes(range(256)) * 4096)")
    first.command_at_prompt("revenant.commit() > 0")
    first.kill()
    small = tmp_path / "small.img"
    bases = open_fars([published.path])
    with Store(blank, bases) as near:
        assert Checker(near).check_structure().blocks_absent == 0
        root = publish_image(near, small, None, delta=True, base=bases[0], compress=True)
    with Store(small, bases) as store:
        own = [pointer for _, pointer in store.pages(store.tree) if pointer.store == 0]
    assert any(pointer.compressed for pointer in own)
    print(f"{len(own)} pages carried, {small.stat().st_blocks * 512} bytes of {published.size}")
    assert len(set(own)) < 200 and len(own) - len(set(own)) > 250  # equal pages once: those of the pattern
    other = tmp_path / "other.img"
    other.write_bytes(b"")
    os.truncate(other, 64 * MIB)
    now = machine(other, fars=[str(small), str(published.path)], trust=root.hash.hex())
    wait_for_prompt(now)
    assert now.command_at_prompt("warm") == "{'to': 'elsewhere', 'from': 'afar'}"
    assert now.command_at_prompt("sum(ballast[i] for i in range(0, len(ballast), 4096))") == str(
        ballast_sum(0, BALLAST_MIB * 256) - (300 % 251 + 1) + 77
    )
    assert now.command_at_prompt("pattern[5 * 4096] ^= 1; one = bytes(range(256)); pattern.count(one)") == "4095"
    now.expect_voice("near is complete")


def test_a_far_with_a_flipped_bit(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    """Nothing unverified is mapped: the program that needs the page waits, the console says why."""
    with Store(published.path) as store:
        pages = [pointer for key, pointer in store.pages(store.tree) if key.space == 16]
        ballast = [page.block for page in pages if store.read(page, 0).count(0) == 4095]
    assert len(ballast) > BALLAST_MIB * 250
    with published.path.open("r+b") as file:
        file.seek(ballast[701] * 4096 + 77)
        file.write(b"\xff\xfe")
    far = serve(published.path)
    now = machine(blank, fars=[far.uri], trust=published.trust, fill=False)
    wait_for_prompt(now)
    now.send(b"print(sum(ballast[i] for i in range(0, len(ballast), 4096)))\r")
    now.expect_voice("does not have its hash")


def test_a_far_that_hangs(machine: Start, serve: Serve, published: Published, blank: Path) -> None:
    """Who waits for it is served by the next one, and the console names it."""
    fars = [serve(published.path), serve(published.path)]
    now = machine(blank, fars=[far.uri for far in fars], trust=published.trust, fill=False)
    wait_for_prompt(now)
    touch(now, 0, 20)
    fars[0].process.send_signal(signal.SIGSTOP)
    touch(now, 1000, 100)
    now.expect_voice("far1: does not answer in time")
    assert fars[1].reads()[4:]
    fars[0].process.send_signal(signal.SIGCONT)
    touch(now, 1200, 100)


def test_a_far_with_bad_blocks_and_a_good_one(
    machine: Start, serve: Serve, published: Published, blank: Path, tmp_path: Path
) -> None:
    """Every block that a start touches is bad in the first store: all of it comes from the second."""
    bad = tmp_path / "bad.img"
    bad.write_bytes(published.path.read_bytes())
    with Store(published.path) as store, bad.open("r+b") as file:
        for block in range(store.root.tree.block, store.root.tree.block + store.root.packed_count):
            file.seek(block * 4096 + 1234)
            file.write(b"wrong")
    fars = [serve(bad), serve(published.path)]
    now = machine(blank, fars=[far.uri for far in fars], trust=published.trust)
    wait_for_prompt(now)
    assert now.command_at_prompt("warm") == "{'from': 'afar'}"
    assert re.search("far1: (a block does not have its hash|does not answer in time)", now.voice)  # on a busy host
    touch(now, 0, BALLAST_MIB * 256)


def test_a_stale_list_is_told_and_renewed(
    machine: Start, published: Published, blank: Path, tmp_path: Path, run_revenant: Callable[..., Any]
) -> None:
    """A start that misses much of its list says so; `run --record` writes the list of what it has touched, once."""
    stale, script = tmp_path / "stale.img", tmp_path / "script.py"
    script.write_text("print(6 * 7)\n")
    with Store(published.path) as store:
        trust = copy_generation(store, stale, Copy(None, resume=store.resume_keys()[-5:])).hash.hex()
    words = ["run", "--near", blank, "--far", stale, "--trust", trust, "--no-fill", "--record", "--", script]
    first = run_revenant(*words)
    assert first.stdout == "42\n" and "the resume list is stale" in first.stderr
    assert "new resume list of" in first.stderr
    with Store(blank, open_fars([stale])) as store:
        Checker(store).check_structure()
        listed = store.resume_keys()
        assert len(listed) > 50 and store.root.resume.store == 0
    second = run_revenant(*words)
    assert "its resume list is good" in second.stderr
    with Store(blank, open_fars([stale])) as store:
        assert store.resume_keys() == listed
        root = publish_image(store, tmp_path / "again.img", None)
    assert root.packed_count > 50
