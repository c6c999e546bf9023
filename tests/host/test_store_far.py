"""Starting from a far store: adoption, localising, damage on either side, and a far store that goes away.

Far images come from the tools' own writer; near images are checked by checker.py and by the tools' checker.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import checker
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from revenant.check import Checker
from revenant.format import PageKey, Pointer
from revenant.keys import public_bytes
from revenant.store import Store
from revenant.writer import BootObjects, Contents, StoreWriter
from store_host import E_CORRUPT, E_FOREIGN, E_IO, Host, StoreError

Start = Callable[..., Host]
PAGES = {
    (0, 0): 1,
    **{(16, page): 100 + page for page in range(300)},
    **{(300, 7 + 997 * i): 5000 + i for i in range(20)},
}


@dataclass(frozen=True)
class Far:
    """A published image: where it is, its root hash in hex, its boot blocks."""

    path: pathlib.Path
    trust: str
    boot_record: bytes
    loader: bytes
    kernel: bytes


def page_of(value: int) -> bytes:
    """The pattern that the harness knows as `value`."""
    return struct.pack("<512Q", *((value * 0x9E3779B97F4A7C15 + i) % (1 << 64) for i in range(512)))


CONTENTS = Contents(
    generation=7,
    keys=[PageKey(space, page) for space, page in PAGES],
    load=lambda key: page_of(PAGES[key.space, key.page]),
    boot=BootObjects(
        kernel=b"".join(page_of(90000 + i) for i in range(50)) + b"end",
        boot_record=b"\xeb\xfe" + bytes(508) + b"\x55\xaa",
        loader=b"".join(page_of(80000 + i) for i in range(5)),
    ),
    wall_ns=1_700_000_000_000_000_000,
    resume=[PageKey(0, 0), PageKey(16, 3)],
)


@pytest.fixture
def far(tmp_path: pathlib.Path) -> Far:
    """A far image of generation 7 with PAGES."""
    return write_far(tmp_path / "far.img", CONTENTS)


def write_far(path: pathlib.Path, contents: Contents) -> Far:
    """A far image, by the tools' own writer."""
    root = StoreWriter(path, contents, None).write()
    return Far(path, root.hash.hex(), contents.boot.boot_record, contents.boot.loader, contents.boot.kernel)


def assert_good(host: Host, far: Far) -> None:
    """Both checkers find nothing; the far image is attached to the tools' one."""
    image = host.image()
    assert checker.check(image) == []
    with Store(far.path) as far_store, Store(host.directory / "disk0.img", [far_store]) as near:
        Checker(near).check_structure()


def adopt(start: Start, far: Far, blocks: int = 4096, seed: int = 1) -> Host:
    """A blank near that has adopted the far image."""
    host = start(blocks=blocks, seed=seed, formatted=False)
    host("load 1", far.path)
    assert host("open", far.trust) == "7"
    return host


def settle(host: Host, rounds: int = 60) -> None:
    """Idle work, and roots for what it has made, until nothing is left to do."""
    quiet = 0
    for _ in range(rounds):
        unsaved = int(host("idle 2000"))
        if unsaved:
            host("commit 0 0")
        quiet = 0 if unsaved else quiet + 1
        if quiet == 3:
            return


def read_all(host: Host) -> None:
    """Every published page reads back."""
    assert all(host.holds(space, page, value) for (space, page), value in PAGES.items())


def test_adoption_and_a_life_without_far(start: Start, far: Far) -> None:
    host = adopt(start, far)
    assert_good(host, far)
    read_all(host)
    settle(host)
    assert_good(host, far)
    reads = host.facts()["far_reads"]
    host("shrink 100000")
    read_all(host)
    assert host.facts()["far_reads"] == reads
    read_all_without_far(host)
    host("puts 16 0 777 20")
    assert host("commit 1 0").split()[0] == "8"
    host("crash")
    assert host("open") == "8"
    assert host.holds(16, 3, 780) and host.holds(16, 299, 399)
    assert checker.check(host.image()) == []


def test_what_was_not_read_needs_far(start: Start, far: Far) -> None:
    host = adopt(start, far)
    assert host.holds(16, 3, 103)
    host("idle 100")
    host("commit 0 0")
    host("crash")
    host("set dead 1 1")
    assert host("open") == "7"
    assert host.holds(16, 3, 103)
    with pytest.raises(StoreError) as caught:
        host.holds(300, 7 + 997 * 15, 5015)
    assert caught.value.code == E_IO
    host("crash")
    host("set dead 1 0")
    assert host("open") == "7"
    read_all(host)


def test_near_becomes_bootable(start: Start, far: Far) -> None:
    host = adopt(start, far)
    assert not any(host.image()[:4096])
    settle(host, 400)
    image = host.image()
    assert image[: len(far.boot_record)] == far.boot_record
    assert image[2 * 4096 : 2 * 4096 + len(far.loader)] == far.loader
    root = checker.load(image).root
    assert root is not None and root.boot[0].present and root.boot[0].store == 0 and root.boot[1].store == 0
    assert_good(host, far)
    with Store(host.directory / "disk0.img") as near:
        assert near.kernel() == far.kernel


def read_all_without_far(host: Host) -> None:
    """A power cut; then every published page reads back though far is dead."""
    host("crash")
    host("set dead 1 1")
    assert host("open") == "7"
    read_all(host)


def fill(host: Host, rounds: int = 200) -> None:
    """Idle time, and roots for what it brings, until near is complete."""
    for _ in range(rounds):
        if int(host("fill 2000")):
            host("commit 0 0")
        if host.facts()["complete"]:
            return
    pytest.fail("near does not become complete")


def test_idle_time_makes_near_complete(start: Start, far: Far) -> None:
    host = adopt(start, far)
    host("put 16 3 9")
    host("commit 1 0")
    assert not host.facts()["complete"]
    fill(host)
    assert "near is complete" in host.notices()
    assert_good(host, far)
    host("crash")
    host("set dead 1 1")
    assert host("open") == "8"
    assert host.facts()["complete"] and host.facts()["far_requests"] == 0
    assert host.holds(16, 3, 9)
    assert all(host.holds(space, page, value) for (space, page), value in PAGES.items() if (space, page) != (16, 3))


@pytest.mark.parametrize("each", [7, 10])
def test_filling_when_memory_is_refused(start: Start, far: Far, each: int) -> None:
    """A copy that could not be made is met by the next walk; complete is said when there is none."""
    host = adopt(start, far)
    host("set starve 0", each)
    fill(host, 1000)
    host("set starve 0", 0)
    read_all_without_far(host)
    assert host.facts()["complete"]


@pytest.mark.parametrize("steps", [10, 30, 50, 70])
def test_a_copy_that_goes_bad_while_near_becomes_complete(start: Start, far: Far, steps: int) -> None:
    """Behind the walk that decides: complete is not said before it was fetched again."""
    host = adopt(start, far)
    while int(host("fill 20")):
        host("commit 0 0")
    host("fill", steps)  # nothing is unsaved any more: that walk has begun
    assert not host.facts()["complete"]
    host("flip", 0, host.image().index(page_of(105)) // 4096, 5)
    host("set dead 1 1")
    with pytest.raises(StoreError):
        host.holds(16, 5, 105)
    host("set dead 1 0")
    fill(host)
    read_all_without_far(host)


def deciding(host: Host) -> None:
    """All is near and durable, but that is not said: the walk that decides whether it is has begun."""
    while int(host("fill 20")):
        host("commit 0 0")
    assert not host.facts()["complete"]


def test_complete_is_said_although_commits_run(start: Start, far: Far) -> None:
    """Were it found out beside a commit, whose root does not say it, no later root would have a reason to."""
    for rounds in range(56, 88, 2):
        host = adopt(start, far)
        deciding(host)
        host("fill", rounds)
        host("put 17 1 1")
        host("commit 1 0")
        fill(host)


@pytest.mark.parametrize("rounds", [88, 94, 100, 106, 120])
def test_a_commit_that_is_undone_takes_copies_that_were_counted(start: Start, far: Far, rounds: int) -> None:
    """The walk that decides has come by one of them, or has just ended: complete is not said without it."""
    host = adopt(start, far)
    host("set persistent 0", 1)
    deciding(host)
    host("flip", 0, host.image().index(page_of(399)) // 4096, 5)
    host("set dead 1 1")
    with pytest.raises(StoreError):
        host.holds(16, 299, 399)  # so its copy is forgotten
    host("fill 300")  # the walk comes to it, and ends
    host("commit 0 0")
    host("idle 1200")  # ms, after which the fill tries again
    host("set dead 1 0")
    host("fill 1")
    assert host.holds(16, 299, 399) and not host.facts()["complete"]
    assert int(host("idle 20"))  # it is near again, but not for good
    host("fill", rounds)
    host("set fail_flushes 0 1")
    host("commit 0 0")
    fill(host)
    read_all_without_far(host)


def test_a_damaged_block_is_not_kept(start: Start, far: Far) -> None:
    """Of what nobody asks for, too: it comes from the next store, and near is whole without either."""
    host = start(formatted=False)
    host("load 1", far.path)
    host("load 2", far.path)
    assert host("open", far.trust) == "7"
    for page in (20, 200, 299):
        host("flip", 1, far.path.read_bytes().index(page_of(100 + page)) // 4096, 99)
    fill(host)
    assert host.facts()["hash_failures"] >= 1 and "does not have its hash" in host.notices()
    host("set dead 2 1")
    read_all_without_far(host)


def test_without_its_kernel_near_is_not_complete(start: Start, far: Far) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    host("flip", 1, far.path.read_bytes().index(page_of(90040)) // 4096, 9)  # a page of the kernel
    assert host("open", far.trust) == "7"
    for _ in range(20):
        if int(host("fill 2000")):
            host("commit 0 0")
    assert not host.facts()["complete"]
    read_all(host)


def test_the_last_page_comes_alone(start: Start, far: Far) -> None:
    """The resume list, which is walked last, while all else is durable: its copy is written though nobody calls.

    That is for the harness to see, here as everywhere (check_wakes).
    """
    host = adopt(start, far)
    read_all(host)
    settle(host)
    host("crash")  # it may have come with its neighbours
    assert host("open") == "7"
    host("set delay_ms 1 20")
    fill(host)
    read_all_without_far(host)


def cut_a_commit(host: Host, steps: int, seed: int) -> None:
    """A power cut that many steps into a commit; the next life begins, with other chances, from a sound image."""
    host("commit 0", steps)
    host("crash")
    host("set seed 0", seed)
    assert host("open") == "7"
    assert checker.check(host.image()) == []


@pytest.mark.parametrize("seed", range(3))
def test_cuts_while_it_fills(start: Start, far: Far, seed: int) -> None:
    """Complete is said only of what is durable: after any cut that leaves it said, far is not needed."""
    host = adopt(start, far, seed=seed + 50)
    for turn in range(100):
        host("fill", 20 + turn * 37 % 300)
        cut_a_commit(host, 3 + turn % 40, seed * 1000 + turn)
        if host.facts()["complete"]:
            break
    fill(host)
    read_all_without_far(host)


@pytest.mark.parametrize("failing", ["writes", "flushes"])
def test_localising_while_near_fails(start: Start, far: Far, failing: str) -> None:
    """Copies whose commit is begun anew are written anew: a flush that failed has forgotten some."""
    host = adopt(start, far)
    host("set persistent 0", 1)
    for turn in range(1, 16):
        host("fill", 20 + turn * 37 % 300)
        host(f"set fail_{failing} 0", 1 + turn % 3)
        host("commit 0 0")
        if turn % 2:
            host("crash")
            assert host("open") == "7"
        assert_good(host, far)
    host(f"set fail_{failing} 0", 1)
    fill(host)
    read_all_without_far(host)


@pytest.mark.parametrize("seed", [1, 5, 8])
def test_localising_while_a_page_cannot_be_written(start: Start, far: Far, seed: int) -> None:
    """A copy written beside a commit that is begun anew has lost its block, and gets another: these seeds meet that."""
    host = adopt(start, far, seed=seed)
    host("set persistent 0", 1)
    for turn in range(1, 100):
        host("fill", 12)
        host("put 17", turn, turn)
        host("set fail_writes 0", 4)  # one write, as often as it is tried
        host("commit 1 0")
        assert checker.check(host.image()) == []
    fill(host)
    host("crash")
    host("set dead 1 1")
    host("open")
    read_all(host)


def test_a_bad_copy_ends_completeness(start: Start, far: Far) -> None:
    host = adopt(start, far)
    fill(host)
    host("crash")
    assert host("open") == "7"
    host("flip", 0, host.image().index(page_of(105)) // 4096, 5)
    with pytest.raises(StoreError):
        host.holds(16, 5, 105)  # complete: far was not even looked at when it was opened
    settle(host)
    assert not host.facts()["complete"]
    host("crash")
    assert host("open") == "7"
    assert host.holds(16, 5, 105)
    fill(host)


@pytest.mark.parametrize("seed", range(3))
def test_every_cut_of_an_adoption(start: Start, far: Far, seed: int) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    outcomes = set()
    for cut in range(60, 400):
        host("disk 0 4096")
        host("set seed 0", 1000 * seed + cut)
        if host("open", far.trust, cut) != "cut":
            break
        host("crash")
        image = host.image()
        outcomes.add(any(image[4096:8192]) or any(image[18 * 4096 : 19 * 4096]))
        assert host("open", far.trust) == "7"
        assert host.holds(16, 3, 103)
        host("put 16 3 9")
        host("commit 1 0")
        assert checker.check(host.image()) == []
        host("crash")
    else:
        pytest.fail("the adoption did not end")
    assert outcomes == {False, True}


@pytest.mark.parametrize("seed", range(2))
def test_cuts_while_becoming_bootable(start: Start, far: Far, seed: int) -> None:
    host = adopt(start, far, seed=seed + 5)
    for turn in range(60):
        host("idle", 40 + turn * 13 % 200)
        cut_a_commit(host, 5 + turn % 25, seed * 100 + turn)
        assert host.holds(16, turn, 100 + turn)
    settle(host, 400)
    assert host.image()[: len(far.boot_record)] == far.boot_record
    assert_good(host, far)


def test_an_untrusted_far_is_refused(start: Start, far: Far) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    for words in ((), ("00" * 32,)):
        with pytest.raises(StoreError) as caught:
            host("open", *words)
        assert caught.value.code == E_FOREIGN
        assert not any(host.image())


@dataclass(frozen=True)
class Signer:
    """A publisher's key."""

    key: Ed25519PrivateKey

    @property
    def trust(self) -> str:
        """For the harness's open."""
        return f"key:{public_bytes(self.key.public_key()).hex()}"

    def publish(self, path: pathlib.Path, generation: int, store_id: bytes = b"i" * 16) -> pathlib.Path:
        """A small signed image, laid out as `publish` does."""
        contents = replace(
            CONTENTS, generation=generation, store_id=store_id, sign=self.key.sign, wall_ns=generation
        )
        StoreWriter(path, contents, None, ring_stride=1).write()
        return path


@pytest.fixture
def signer() -> Signer:
    """A new one."""
    return Signer(Ed25519PrivateKey.generate())


def change_root(path: pathlib.Path, at: int) -> None:
    """Flip a bit of a published image's root record."""
    data = bytearray(path.read_bytes())
    data[32 * 4096 + at] ^= 4
    path.write_bytes(data)


def refused(host: Host, trust: str) -> str:
    """A blank near stays blank; what the store says."""
    with pytest.raises(StoreError):
        host("open", trust)
    assert not any(host.image())
    return host.notices()


def test_a_signed_far_is_adopted_by_its_key(start: Start, signer: Signer, tmp_path: pathlib.Path) -> None:
    host = start(formatted=False)
    host("load 1", signer.publish(tmp_path / "far.img", 7))
    assert host("open", signer.trust) == "7"
    read_all(host)


@pytest.mark.parametrize("what", ["wrong key", "unsigned", "signature", "root"])
def test_a_far_without_a_good_signature_is_refused(
    start: Start, far: Far, signer: Signer, tmp_path: pathlib.Path, what: str
) -> None:
    """And named; the next store is asked, whichever it is."""
    path = signer.publish(tmp_path / "bad.img", 7)
    if what == "wrong key":
        Signer(Ed25519PrivateKey.generate()).publish(tmp_path / "other.img", 7).replace(path)
    elif what == "unsigned":
        path = far.path
    else:
        change_root(path, 448 + 17 if what == "signature" else 24)
    host = start(formatted=False)
    host("load 1", path)
    expected = "far1: no valid root" if what == "root" else "far1: its root is not signed by the trusted key"
    assert expected in refused(host, signer.trust)
    host("crash")
    host("load 2", signer.publish(tmp_path / "good.img", 8))
    assert host("open", signer.trust) == "8"
    assert host.notices().count(expected) == 2
    read_all(host)


def test_an_older_signed_root_is_refused(start: Start, signer: Signer, tmp_path: pathlib.Path) -> None:
    """Near goes on from what it has adopted; a store that went back is not asked, one that went on is."""
    host = start(formatted=False)
    host("load 1", signer.publish(tmp_path / "far.img", 7))
    assert host("open", signer.trust) == "7"
    settle(host)
    for generation, code in ((6, E_IO), (8, E_CORRUPT)):
        host("crash")
        host("load 1", signer.publish(tmp_path / f"far{generation}.img", generation))
        assert host("open", signer.trust) == "7"
        with pytest.raises(StoreError) as caught:
            read_all(host)
        assert caught.value.code == code
    assert host.notices().count("far1: its signed root is older than the one that was adopted: refused") == 1
    host("crash")
    host("load 2", tmp_path / "far.img")
    assert host("open", signer.trust) == "7"
    read_all(host)


def test_a_damaged_far_block_comes_from_the_next_store(start: Start, far: Far) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    host("load 2", far.path)
    assert host("open", far.trust) == "7"
    data = far.path.read_bytes()
    for page in (20, 200):  # page 3 came with the adoption: the resume list has it
        at = data.index(page_of(100 + page))
        host("flip", 1, at // 4096, 99)
        host("flip", 2, data.index(page_of(100 + page + 1)) // 4096, 99)
    read_all(host)
    facts = host.facts()
    assert facts["hash_failures"] >= 2 and facts["far_failures"] >= 2
    host("crash")
    host("set dead 1 1")
    host("open")
    assert host.holds(16, 100, 200)


def test_every_block_of_a_far_damaged_in_turn(start: Start, tmp_path: pathlib.Path) -> None:
    """Whatever it is, nothing of it is accepted, and all comes from the second store: the start, too."""
    pages = {(0, 0): 1, **{(16, page * 50): 100 + page for page in range(12)}, (300, 7): 5000}
    far = write_far(tmp_path / "small.img", replace(
        CONTENTS, keys=[PageKey(space, page) for space, page in pages], resume=[PageKey(0, 0)],
        load=lambda key: page_of(pages[key.space, key.page]), boot=replace(CONTENTS.boot, kernel=page_of(90000)),
    ))  # fmt: skip
    data = far.path.read_bytes()
    blocks = [at // 4096 for at in range(0, len(data), 4096) if any(data[at : at + 4096])]
    assert len(blocks) > len(pages) + 10
    host = start(formatted=False)
    host("load 2", far.path)
    for block in blocks:
        host("disk 0 2048")
        host("load 1", far.path)
        host("flip 1", block, 99)
        assert host("open", far.trust) == "7", block
        assert all(host.holds(space, page, value) for (space, page), value in pages.items()), block
        host("crash")
    assert host.notices().count("far1: a block does not have its hash") > len(pages)
    assert "far1: its root does not have the trusted hash" not in host.notices()


def test_a_far_that_hangs(start: Start, far: Far) -> None:
    """Before the adoption, in the middle, at a later start: the other one serves; and it is of use once it answers."""
    host = start(formatted=False)
    host("load 1", far.path)
    host("load 2", far.path)
    host("set hangs 1 1")
    assert host("open", far.trust) == "7"
    assert "far1: does not answer in time" in host.notices()
    assert host.holds(16, 20, 120)
    host("set hangs 1 0")
    host("idle 50")
    host("set hangs 2 1")
    assert host.holds(16, 100, 200)  # the first is preferred again
    host("commit 0 0")
    host("crash")
    assert host("open") == "7"  # near's own, and far1
    assert host.holds(16, 150, 250)
    host("crash")
    host("set hangs 1 1")
    assert host("open") == "7"
    assert host.holds(16, 20, 120)
    host("set hangs 2 0")
    host("idle 20")
    assert host.holds(300, 7 + 997 * 15, 5015)


def test_one_hangs_and_the_other_comes_back(start: Start, far: Far) -> None:
    """Who waits for the one gets from the other what he wants, as soon as that gives anything again."""
    host = start(formatted=False)
    host("load 1", far.path)
    host("load 2", far.path)
    assert host("open", far.trust) == "7"
    host("set fail_reads 1 4")
    host("set hangs 2 1")
    assert host.holds(16, 200, 300)
    assert host.facts()["far_failures"] == 4


def test_a_far_that_fails_now_and_then(start: Start, far: Far) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    host("load 2", far.path)
    assert host("open", far.trust) == "7"
    aside = range(100, 140)  # more than what comes with a neighbour
    for (space, page), value in PAGES.items():
        if page in aside:
            continue
        if page % 5 == 0:
            host("set fail_reads 1 1")
        assert host.holds(space, page, value)
    assert host.facts()["far_failures"] > 0
    assert host.notices().count("far1: a read failed") == 1
    host("set fail_reads 1 0")
    host("idle 12000")  # ms, in which it is asked last
    assert host.holds(16, 120, 220)
    assert "answers again" in host.notices()


def test_scattered_pages_cost_a_round_trip_each(start: Start, tmp_path: pathlib.Path) -> None:
    """Each lies below a node of its own; the nodes come ahead of who walks over them."""
    delay_ms, node_count = 20, 96
    pages = [PageKey(16, 128 * node + page) for node in range(node_count) for page in range(20)]
    contents = replace(CONTENTS, keys=pages, load=lambda key: page_of(1 + key.page), resume=[])
    host = adopt(start, write_far(tmp_path / "scattered.img", contents))
    host("set delay_ms 1", delay_ms)
    waits_ms = []
    for node in range(node_count):
        host("idle 2")
        before_ms = host.facts()["time_ms"]
        assert host.holds(16, 128 * node, 1 + 128 * node)
        waits_ms.append(host.facts()["time_ms"] - before_ms)
    assert min(waits_ms) >= delay_ms
    assert sum(wait_ms >= 2 * delay_ms for wait_ms in waits_ms) <= 2, "for nodes, too"


@pytest.fixture
def large_far(tmp_path: pathlib.Path) -> Far:
    """A far image with more pages than are read at once, side by side."""
    pages = [PageKey(16, page) for page in range(3000)]
    return write_far(
        tmp_path / "large.img", replace(CONTENTS, keys=pages, load=lambda key: page_of(1 + key.page), resume=[])
    )


def test_a_quick_link_is_asked_for_more_at_once(start: Start, large_far: Far) -> None:
    """Each request costs the host; who wants a page meanwhile waits for what comes in a few milliseconds."""
    blocks_per_request = {}
    for delay_ms in (1, 20):
        host = start(formatted=False)
        host("load 1", large_far.path)
        host("set delay_ms 1", delay_ms)
        host("open", large_far.trust)
        before = host.facts()
        host("fill 60")
        after = host.facts()
        asked, requests = (after[name] - before[name] for name in ("far_reads", "far_requests"))
        blocks_per_request[delay_ms] = asked / requests
    assert blocks_per_request[1] > 10 and blocks_per_request[20] < 6, blocks_per_request


def test_the_fill_goes_on_while_near_flushes(start: Start, large_far: Far) -> None:
    """What comes meanwhile waits in memory, and is kept: none of it is asked for twice."""
    host = adopt(start, large_far)
    host("set delay_ms 1", 1)
    host("fill 50")
    before = host.facts()
    host("set delay_ms 0", 200)
    host("commit 0 0")
    host("set delay_ms 0", 0)
    assert host.facts()["far_reads"] - before["far_reads"] > 700
    fill(host)
    assert host.facts()["far_reads"] < large_far.path.stat().st_size // 4096


def test_who_has_missed_a_page_goes_on_before_the_fill_does(start: Start, large_far: Far) -> None:
    """He is likely to miss others; where he does not, it goes on."""
    host = adopt(start, large_far)
    host("set delay_ms 1", 20)
    host("fill 300")  # kernel and loader are near by then
    for page in range(2000, 3000, 100):
        assert host.holds(16, page, 1 + page)
        asked = host.facts()["far_requests"]
        host("fill 1")
        assert host.facts()["far_requests"] == asked
        host("fill 30")
        assert host.facts()["far_requests"] > asked


def publish_compressed(path: pathlib.Path) -> str:
    """CONTENTS with every page compressed, none of them alone in its block; its root hash."""
    contents = replace(CONTENTS, compress=zstandard.ZstdCompressor(12).compress, store_id=b"c" * 16)
    return StoreWriter(path, contents, None, ring_stride=1).write().hash.hex()


def compressed_pages(path: pathlib.Path) -> dict[int, Pointer]:
    """Pages of space 16 of an image."""
    with Store(path) as store:
        found = {key.page: pointer for key, pointer in store.pages(store.tree) if key.space == 16}
    assert all(pointer.compressed for pointer in found.values())
    return found


def test_compressed_pages(start: Start, tmp_path: pathlib.Path) -> None:
    """They are verified, kept as what they are, changed and forgotten like others; near then needs no far store."""
    path = tmp_path / "far.img"
    trust = publish_compressed(path)
    with Store(path) as store:
        Checker(store).check_structure()
        assert store.header.version == 2 and store.header.block_count == 2048
    host = start(formatted=False)
    host("load 1", path)
    assert host("open", trust) == "7"
    assert host.holds(16, 3, 103) and host.holds(16, 4, 104)
    host("puts 16 5 900 2")
    host("clone 16 17")
    host("commit 1 0")
    settle(host)
    host.image()
    with Store(path) as far_store, Store(host.directory / "disk0.img", [far_store]) as near:
        assert near.header.version == near.root.version == 2
        Checker(near).check_structure()
    fill(host)
    host("crash")
    host("set dead 1 1")
    assert host("open") == "8"
    assert host.holds(16, 5, 900) and host.holds(17, 6, 106)
    for (space, page), value in PAGES.items():
        assert host.holds(space, page, value) or (space == 16 and page in (5, 6))
    assert checker.check(host.image()) == []


def test_damaged_compressed_pages(start: Start, tmp_path: pathlib.Path) -> None:
    """A frame that is none, and one with another page in it, come from the next store; others of its block do not."""
    path = tmp_path / "far.img"
    trust = publish_compressed(path)
    pages = compressed_pages(path)
    host = start(formatted=False)
    host("load 1", path)
    host("load 2", path)
    host("set memory 0 90")  # little is read ahead
    assert host("open", trust) == "7"
    for page in (200, 250):
        host("flip", 1, pages[page].block, pages[page].offset + (1 if page == 200 else pages[page].length // 2))
    assert all(host.holds(16, page, 100 + page) for page in (199, 200, 201, 250, 251))
    assert host.facts()["hash_failures"] >= 1
    for page in (20, 21):
        host("flip", 1, pages[page].block, pages[page].offset + 9)
        host("flip", 2, pages[page].block, pages[page].offset + 9)
    with pytest.raises(StoreError) as caught:
        host.holds(16, 20, 120)
    assert caught.value.code == E_CORRUPT


SHARED_PAGES = {
    **{(space, page): 1 + page % 6 for space in (16, 17) for page in range(120)},
    **{(16, page): 1000 + page for page in range(200, 220)},
}


def publish_shared(path: pathlib.Path) -> str:
    """Six pages, each of them at forty places, every other one compressed, and some that lie about; its root hash."""
    compress = zstandard.ZstdCompressor(12).compress
    contents = replace(
        CONTENTS, keys=[PageKey(*key) for key in SHARED_PAGES], store_id=b"s" * 16, resume=[PageKey(17, 50)],
        load=lambda key: page_of(SHARED_PAGES[key.space, key.page]),
        compress=lambda page: page if page in (page_of(1), page_of(3), page_of(5)) else compress(page),
    )  # fmt: skip
    return StoreWriter(path, contents, None, ring_stride=1).write().hash.hex()


def reads_shared(host: Host) -> bool:
    """Every page of SHARED_PAGES reads back."""
    return all(host.holds(space, page, value) for (space, page), value in SHARED_PAGES.items())


def test_equal_pages_are_stored_once(start: Start, tmp_path: pathlib.Path) -> None:
    """They share a block and its copy; who writes to one leaves the others; near then needs no far store."""
    path = tmp_path / "far.img"
    trust = publish_shared(path)
    with Store(path) as store:
        Checker(store).check_structure()
        pointers = dict(store.pages(store.tree))
        assert len(pointers) == len(SHARED_PAGES) and len(set(pointers.values())) == 6 + 20
        assert {pointer.compressed for pointer in pointers.values()} == {True, False}
    host = start(formatted=False)
    host("load 1", path)
    assert host("open", trust) == "7"
    assert reads_shared(host)
    settle(host)
    fetched_count = host.facts()["far_reads"]
    host("put 17 6 900")
    host("put 17 7 901")
    host("clone 17 18")
    host("commit 1 0")
    settle(host)
    assert host.holds(17, 6, 900) and host.holds(18, 7, 2) and host.holds(17, 12, 1) and host.holds(16, 6, 1)
    assert host.facts()["far_reads"] == fetched_count
    fill(host)
    host("crash")
    host("set dead 1 1")
    assert host("open") == "8" and host.facts()["complete"]
    assert host.holds(17, 6, 900) and host.holds(17, 7, 901)
    host("put 17 6 1")
    host("put 17 7 2")
    host("commit 1 0")
    assert reads_shared(host)
    assert checker.check(host.image()) == []
    with Store(path) as far_store, Store(host.directory / "disk0.img", [far_store]) as near:
        copied_count = Checker(near).check_structure().blocks_copied
        assert len({pointer.hash for pointer in pointers.values()}) <= copied_count < 50


def test_damaged_shared_pages(start: Start, tmp_path: pathlib.Path) -> None:
    """In far, or the copy in near: another store gives it, to all; where none does, none of them is accepted."""
    path = tmp_path / "far.img"
    trust = publish_shared(path)
    with Store(path) as store:
        pointers = {store.read(pointer, 0): pointer for _, pointer in store.pages(store.tree)}
    host = start(formatted=False)
    host("load 1", path)
    host("load 2", path)
    assert host("open", trust) == "7"
    for value in (2, 3):
        host("flip", 1, pointers[page_of(value)].block, pointers[page_of(value)].offset + 9)
    assert reads_shared(host) and host.facts()["hash_failures"] >= 1
    settle(host)
    host("flip", 0, host.image().index(page_of(2)) // 4096, 99)
    host("crash")
    host("open")
    assert reads_shared(host) and "does not have its hash" in host.notices()
    settle(host)
    host("crash")
    host("flip", 0, host.image().index(page_of(3)) // 4096, 99)
    host("flip", 2, pointers[page_of(3)].block, 9)
    host("open")
    for (space, page), value in SHARED_PAGES.items():
        if value != 3:
            assert host.holds(space, page, value)
            continue
        with pytest.raises(StoreError) as caught:
            host.holds(space, page, value)
        assert caught.value.code == E_CORRUPT


def test_a_compressed_image_is_no_near(start: Start, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "far.img"
    publish_compressed(path)
    host = start()
    host("crash")
    host("load 0", path)
    with pytest.raises(StoreError) as caught:
        host("open")
    assert caught.value.code == E_FOREIGN and "can only be a far store" in host.notices()


def test_a_damaged_copy_is_forgotten(start: Start, far: Far) -> None:
    host = adopt(start, far)
    read_all(host)
    settle(host)
    image = host.image()
    copy = image.index(page_of(105)) // 4096
    host("flip", 0, copy, 5)
    assert host.holds(16, 5, 105)
    settle(host)
    assert host.facts()["hash_failures"] == 1
    assert_good(host, far)
    host("crash")
    host("set dead 1 1")
    host("open")
    assert host.holds(16, 5, 105)


def table_blocks(host: Host) -> list[int]:
    """The blocks of the table of stores and of its copy, as the newest root names them."""
    image = checker.load(host.image())
    assert image.root is not None
    return [pointer.block for pointer in image.root.boot[3:] if pointer.present]


@pytest.mark.parametrize("index", [0, 1])
def test_a_damaged_table_of_stores(start: Start, far: Far, index: int) -> None:
    """Either of the two is enough; once the first is bad, the next root has two good ones again."""
    host = adopt(start, far)
    damaged = table_blocks(host)[index]
    host("flip", 0, damaged, 100)
    host("crash")
    assert host("open") == "7"
    read_all(host)
    assert ("its table of stores is damaged" in host.notices()) == (index == 0)
    host("put 16 0 777")
    host("commit 1 0")
    if index == 0:
        assert damaged not in table_blocks(host) and len(table_blocks(host)) == 2
        assert_good(host, far)
        host("crash")
        assert host("open") == "8"
        assert host.notices().count("its table of stores is damaged") == 1


def test_a_table_of_stores_without_a_copy_gets_one(start: Start, far: Far) -> None:
    """As in images that were adopted before there was one."""
    host = adopt(start, far)
    data = bytearray(host.image())
    at = checker.newest_root_place(data)
    data[at + 384 : at + 416] = bytes(32)
    checker.seal_root(data, at)
    host.exchange_near(data)
    assert host("open") == "7" and len(table_blocks(host)) == 1
    read_all(host)
    host("commit 0 0")
    assert len(table_blocks(host)) == 2
    host("flip", 0, table_blocks(host)[0], 100)
    host("crash")
    assert host("open") == "7"
    read_all(host)


def test_clones_of_far_spaces_share_copies(start: Start, far: Far) -> None:
    host = adopt(start, far)
    host("clone 16 17")
    host("clone 16 18")
    host("commit 1 0")
    host("puts 17 3 900 5")
    host("drop 16")
    host("commit 1 0")
    assert host.holds(17, 3, 900) and host.holds(18, 3, 103)
    assert host.holds(17, 200, 300) and host.holds(16, 3, 0)
    settle(host)
    assert_good(host, far)
    for turn in range(20):
        host("put 0 0", turn + 5)
        host("commit 1 0")
    assert_good(host, far)


def assert_copies_good(host: Host, far: Far) -> None:
    """Every copy that the newest root names has the contents of its block."""
    host.image()
    with Store(far.path) as far_store, Store(host.directory / "disk0.img", [far_store]) as near:
        for _, pointer in near.pages(near.tree):
            near.read(pointer, 0)


def wide_far(path: pathlib.Path) -> Far:
    """12 MiB of pages."""
    return write_far(path, replace(
        CONTENTS, keys=[PageKey(16, page) for page in range(3000)], resume=[],
        load=lambda key: page_of(1000 + key.page), boot=replace(CONTENTS.boot, kernel=page_of(90000)),
    ))  # fmt: skip


def test_copies_go_while_commits_run(start: Start, tmp_path: pathlib.Path) -> None:
    """Near is full of copies, and programs want others at any moment of a commit."""
    host = adopt(start, wide_far(tmp_path / "large.img"), blocks=2048)
    assert all(host.holds(16, page, 1000 + page) for page in range(2200))
    host("set wanted 0 3000")
    for turn in range(800):
        host("puts 300", turn % 7, turn, 3)
        host("commit 1 0")
    assert host.holds(300, 799 % 7 + 2, 801)
    host("set wanted 0 0")
    settle(host)
    assert checker.check(host.image()) == []


def test_near_is_a_cache(start: Start, tmp_path: pathlib.Path) -> None:
    """A near of 8 MiB, a far of 12: all can be read, again and again; what is wanted often stays, and near's own."""
    rng = random.Random(1)
    far = wide_far(tmp_path / "large.img")
    host = adopt(start, far, blocks=2048)
    host("set greedy 0 1")  # what is free is used at once
    missed = 0  # requests for pages that are wanted often
    host("puts 300 0 77 20")
    assert host("commit 1 0").split()[0] == "8"
    for turn in range(60):
        first = rng.randrange(2900)
        assert all(host.holds(16, page, 1000 + page) for page in range(first, first + 100))
        before = host.facts()["far_requests"]
        assert all(host.holds(16, page, 1000 + page) for page in range(500, 540))
        if turn % 4 != 0:  # that is after a start: marks of use, and nodes in memory, are gone
            missed += host.facts()["far_requests"] - before
        host("idle 300")
        host("put 300 50", turn + 1)
        if turn % 4 == 3:
            host("commit 1", rng.randrange(1, 20))  # the power fails, mostly
            host("crash")
            host("set seed 0", turn)
            assert_copies_good(host, far)
            host("open")
            assert checker.check(host.image()) == []
        else:
            host("commit 1 0")
    assert missed == 0
    host("fill 3000")
    assert not host.facts()["complete"]
    host("set dead 1 1")
    assert all(host.holds(300, page, 77 + page) for page in range(20))
    free = host.facts()["free"]
    for page in range(2000, 2100):  # no far store can be asked: nothing is dropped for what cannot come
        with contextlib.suppress(StoreError):
            host("get 16", page, 1000 + page)
    host("idle 300")
    assert host.facts()["free"] == free
    assert_good(host, far)
    assert "does not have its hash" not in host.notices()


def test_little_memory(start: Start, far: Far) -> None:
    host = start(formatted=False)
    host("load 1", far.path)
    host("set memory 0 70")
    assert host("open", far.trust) == "7"
    host("set memory 0 20")
    read_all(host)
    for turn in range(20):
        host("puts 16", turn * 10, 3000 + turn * 10, 10)
        host("commit 1 0")
    assert host.holds(16, 199, 3199) and host.holds(16, 299, 399)
    settle(host)
    assert_good(host, far)
