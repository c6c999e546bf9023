"""`publish`: a far image holds what its generation held, and the kernel's own store code adopts it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from revenant.check import Checker, check_store
from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.format import SPACE_SHARES, PageKey, RootFlag
from revenant.publish import Copy, copy_generation, load_compressor, publish_image
from revenant.store import Store, Tree
from revenant.trust import KEY_PREFIX, is_trusted, parse_trust

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "host"))
import store_host

Run = Callable[..., subprocess.CompletedProcess[str]]


def contents(store: Store, tree: Tree) -> dict[PageKey, bytes]:
    """All pages of a tree but the share counts, which are its store's own."""
    return {key: store.read(pointer, 0) for key, pointer in store.pages(tree) if key.space != SPACE_SHARES}


def test_same_contents(small_image: Path, tmp_path: Path) -> None:
    out = tmp_path / "far.img"
    with Store(small_image) as near:
        root = publish_image(near, out, None)
        with Store(out) as far:
            check_store(far)
            assert far.root == root and far.root.generation == near.root.generation
            assert contents(far, far.tree) == contents(near, near.tree)
            assert far.kernel() == near.kernel() and far.loader_pages() == near.loader_pages()
            assert far.header.store_id != near.header.store_id


def test_command(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    out = tmp_path / "far.img"
    result = run_revenant("publish", small_image, out)
    assert result.returncode == 0, result.stderr
    with Store(out) as far:
        assert result.stdout.strip() == far.root.hash.hex()
    assert run_revenant("publish", small_image, out).returncode == 1  # does not overwrite
    result = run_revenant("publish", small_image, tmp_path / "other.img", "--at", "9")
    assert result.returncode == 1 and "not retained" in result.stderr
    assert not (tmp_path / "other.img").exists()
    listed = tmp_path / "resume.list"
    listed.write_text("[   0.03] touched 0:0\r\ntouched 16:1025\ntouched 16:1025\nsomething else\n")
    words = ["--at", "1", "--resume-list", listed]
    result = run_revenant("publish", small_image, tmp_path / "listed.img", *words)
    assert "generation 1, " in result.stderr and "; a start needs " in result.stderr
    with Store(tmp_path / "listed.img") as far:
        assert far.resume_keys() == [PageKey(0, 0), PageKey(16, 1025)] and far.root.packed_count > 2
    result = run_revenant("publish", small_image, tmp_path / "json.img", "--json")
    facts = json.loads(result.stdout)
    assert facts["generation"] == 1 and facts["bytes"] > 0 and facts["far_stores"] == [] and not facts["signed"]
    listed.write_text("nothing")
    result = run_revenant("publish", small_image, tmp_path / "no.img", *words)
    assert result.returncode == 1 and f"{listed}: no resume list" in result.stderr


def test_signing(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    """A key of openssl's kind is made once, signs, and is told from others."""
    key, out = tmp_path / "key", tmp_path / "far.img"
    name = run_revenant("keygen", key).stdout.strip()
    assert key.stat().st_mode & 0o777 == 0o600
    assert parse_trust(str(tmp_path / "key.pub")) == name == parse_trust(name.upper())
    again = run_revenant("keygen", key)
    assert again.returncode == 1 and f"{key}: File exists" in again.stderr
    assert run_revenant("publish", small_image, out, "--sign", key).returncode == 0
    with Store(out) as far:
        check_store(far)
        assert is_trusted(far.root, name) and not is_trusted(far.root, KEY_PREFIX + "17" * 32)
    for file, reason in ((tmp_path / "key.pub", "not a private key"), (tmp_path / "none", "No such file")):
        result = run_revenant("publish", small_image, tmp_path / "other.img", "--sign", file)
        assert result.returncode == 1 and f"{file}: {reason}" in result.stderr
    assert not (tmp_path / "other.img").exists()


@pytest.fixture(scope="session")
def harness() -> Path:
    """kernel/store compiled for the host."""
    return store_host.build()


@pytest.fixture
def adopted(small_image: Path, tmp_path: Path, harness: Path) -> tuple[Path, Path]:
    """(near, far): kernel/store has adopted far, worked, and fetched some pages."""
    far, near = tmp_path / "far.img", tmp_path / "near.img"
    with Store(small_image) as store:
        root = publish_image(store, far, None)
    with store_host.Host(harness, tmp_path) as host:
        host("disk", 0, 4096)
        host("load", 1, far)
        host("open", root.hash.hex())
        for page in (0x401, 0x405):
            host("get", 16, page, 0)
        host("put", 16, 9000, 5)
        host("commit", 1, 0)
        host("idle", 50)
        host("commit", 0, 0)
        near.write_bytes(host.image())
    return near, far


def test_adopted_by_the_kernel(adopted: tuple[Path, Path]) -> None:
    near_path, far_path = adopted
    fars = open_fars([far_path])
    with Store(near_path, fars) as near:
        Checker(near).check_structure()
        pages = contents(near, near.tree)
        with Store(far_path) as far:
            original = contents(far, far.tree)
        assert {key: pages[key] for key in original} == original
        assert set(pages) - set(original) == {PageKey(16, 9000)}
    with Store(near_path) as alone:
        report = Checker(alone).check_structure()
        assert report.blocks_absent > 0 and report.blocks_copied > 0


def test_a_root_that_says_complete_and_is_not(adopted: tuple[Path, Path]) -> None:
    near_path, _ = adopted
    with Store(near_path) as near:
        root, at = near.root, near.header.ring_block(near.root.sequence) * 4096
    root = replace(root, flags=root.flags | RootFlag.COMPLETE)
    with near_path.open("r+b") as file:
        file.seek(at)
        file.write(root.sealed())
    with Store(near_path) as near, pytest.raises(StoreError, match="says that near is complete"):
        Checker(near).check_structure()


def test_what_a_start_touches_lies_side_by_side(small_image: Path, tmp_path: Path) -> None:
    """Nodes, then pages in the order of the list; a page of zeros in it makes its node one of them."""
    out, zero = tmp_path / "far.img", PageKey(16, 0x3FFF)
    with Store(small_image) as near:
        listed = sorted(key for key, _ in near.pages(near.tree) if key.space != 1)[3:40:4]
        copy_generation(near, out, Copy(None, resume=[*listed, zero, PageKey(99, 5)]))
    with Store(out) as far:
        check_store(far)
        pages = dict(far.pages(far.tree))
        packed = range(far.root.tree.block, far.root.tree.block + far.root.packed_count)
        assert [pages[key].block for key in listed] == list(packed[-len(listed) :])
        assert far.resume_keys() == [*listed, zero, PageKey(99, 5)]
        assert far.root.sequence == 64


def test_published_again_with_its_far(adopted: tuple[Path, Path], tmp_path: Path) -> None:
    near_path, far_path = adopted
    out = tmp_path / "again.img"
    with Store(near_path) as alone, pytest.raises(StoreError, match="only in far store"):
        publish_image(alone, out, None)
    assert not out.exists()
    with Store(near_path, open_fars([far_path])) as near:
        publish_image(near, out, None)
        with Store(out) as complete:
            check_store(complete)
            assert contents(complete, complete.tree) == contents(near, near.tree)


def open_chain(*paths: Path) -> Store:
    """The first with the others as far stores."""
    fars = open_fars(list(paths[1:]))
    return Store(paths[0], fars)


def assert_adopted_exactly(harness: Path, folder: Path, expected: dict[PageKey, bytes], *fars: Path) -> Path:
    """kernel/store adopts the first with all of them attached, fills near, and needs none of them then; the image."""
    folder.mkdir()
    with open_chain(*fars) as far:
        trust = far.root.hash.hex()
    near = folder / "near.img"
    with store_host.Host(harness, folder) as host:
        host("disk", 0, 4096)
        for disk, path in enumerate(fars, 1):
            host("load", disk, path)
        host("open", trust)
        for _ in range(50):
            host("fill", 2000)
            host("commit", 0, 0)
        assert host.facts()["complete"]
        near.write_bytes(host.image())
    with Store(near) as alone:
        Checker(alone).check_structure()
        assert contents(alone, alone.tree) == expected
    return near


def assert_says_what_is_missing(harness: Path, folder: Path, far: Path, needed: Path) -> None:
    """An image that names another store is adopted without it, which is said."""
    folder.mkdir()
    with Store(far) as store, Store(needed) as other, store_host.Host(harness, folder) as host:
        host("disk", 0, 4096)
        host("load", 1, far)
        host("open", store.root.hash.hex())
        said = f"far store {other.header.store_id[:8].hex()}... of generation {other.root.generation} is needed"
        assert said in host.notices()


def own_count(store: Store) -> int:
    """Pages that an image carries itself."""
    return sum(pointer.store == 0 for key, pointer in store.pages(store.tree))


@pytest.mark.parametrize("by", ["file", "own far stores"])
def test_delta_of_an_incomplete_machine(
    adopted: tuple[Path, Path], tmp_path: Path, harness: Path, by: str
) -> None:
    """Only what it has changed is carried; what it has never fetched need not even be at hand."""
    near_path, far_path = adopted
    out = tmp_path / "delta.img"
    with store_host.Host(harness, tmp_path) as host:
        host("load", 0, near_path)
        host("load", 1, far_path)
        host("open")
        for _ in range(20):  # kernel and loader become its own
            host("idle", 100)
            host("commit", 0, 0)
        near_path.write_bytes(host.image())
    bases = open_fars([far_path] if by == "file" else [])
    with Store(near_path, open_fars([far_path])) as near:
        expected = contents(near, near.tree)
    with Store(near_path, bases) as near:
        publish_image(near, out, None, delta=True, base=bases[0] if bases else None)
    with open_chain(out, far_path) as delta:
        check_store(delta)
        assert contents(delta, delta.tree) == expected
        assert own_count(delta) == 1 and [entry.store_id for entry in delta.table] == [*delta.fars]
    with Store(out) as alone:
        assert Checker(alone).check_structure().blocks_absent > 0
    assert_adopted_exactly(harness, tmp_path / "next", expected, out, far_path)
    assert_says_what_is_missing(harness, tmp_path / "alone", out, far_path)


def live(host: store_host.Host, image: Path) -> None:
    """Generations 2 to 6 on an image of generation 1: pages rewritten and added, spaces cloned."""
    host("load", 0, image)
    assert host("open") == "1"
    for value in range(1, 6):
        host("put", 16, 9000, value)
        host("put", 17, value, value)
        host("puts", 18, value * 1000, 7, 3)
        host("clone", 16, 20 + value)
        host("commit", 1, 0)


def test_delta_against_an_older_image(tmp_path: Path, harness: Path, small_image: Path) -> None:
    """A complete machine, published, changed, and published twice more, each time against the last one.

    The one in the middle is compressed, so the last one names compressed pages.
    """
    grown, images = tmp_path / "grown.img", [tmp_path / f"image{i}.img" for i in range(3)]
    with store_host.Host(harness, tmp_path) as host:
        live(host, small_image)
        host("drop", 17)
        host("put", 18, 4001, 0)
        host("commit", 1, 0)
        grown.write_bytes(host.image())
    counts = []
    for generation, out, bases in ((3, images[0], []), (6, images[1], [0]), (7, images[2], [1, 0])):
        fars = open_fars([images[i] for i in bases])
        with Store(grown, fars) as store:
            copy = Copy(generation, delta=bool(fars), base=next(iter(fars), None))
            copy_generation(store, out, replace(copy, compress=load_compressor()) if generation == 6 else copy)
            expected = contents(store, store.tree_at(generation))
        with open_chain(out, *(images[i] for i in bases)) as delta:
            check_store(delta)
            assert contents(delta, delta.tree) == expected
            counts.append(own_count(delta))
            assert len(delta.table) == len(bases) and delta.header.version == (2 if bases else 1)
    assert counts[0] > 20 and counts[2] == 0
    near = assert_adopted_exactly(harness, tmp_path / "next", expected, *reversed(images))
    with Store(near) as store:
        assert len(store.table) == 3


def test_compression_needs_a_kernel_that_knows_it(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    """Otherwise the machine could not read itself: a stand-in does not."""
    out = tmp_path / "out.img"
    result = run_revenant("publish", small_image, out, "--compress", "zstd")
    assert result.returncode == 1 and "reads no compressed pages" in result.stderr and not out.exists()
    with Store(small_image) as near:
        assert publish_image(near, out, None, compress=None).version == 1


def test_bases_that_are_none(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    out = tmp_path / "out.img"
    for base, reason in ((small_image, "not a published image"), ("far", "has no far stores")):
        result = run_revenant("publish", small_image, out, "--base", base)
        assert result.returncode == 1 and reason in result.stderr and not out.exists()


def test_older_generation(tmp_path: Path, harness: Path, small_image: Path) -> None:
    grown = tmp_path / "grown.img"
    with store_host.Host(harness, tmp_path) as host:
        live(host, small_image)
        grown.write_bytes(host.image())
    with Store(grown) as store:
        check_store(store)
        assert [record.generation for record in store.generations()] == [1, 2, 3, 4, 5, 6]
        for generation in (1, 4, 6):
            out = tmp_path / f"at{generation}.img"
            assert publish_image(store, out, generation).generation == generation
            with Store(out) as far:
                check_store(far)
                expected = contents(store, store.tree_at(generation))
                found = contents(far, far.tree)
                assert found == {key: page for key, page in expected.items() if key.space != 1}
