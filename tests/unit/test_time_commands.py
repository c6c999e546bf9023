"""Tags, difference, rollback, fork, upgrade and grow on images of which no machine runs."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.change import Commit, edit, editor_path, locked
from revenant.check import check_store
from revenant.difference import differing_pages, summary
from revenant.errors import StoreError
from revenant.format import (
    BLOCK_SIZE,
    META_GENERATIONS,
    SPACE_RECORDS,
    GenerationFlag,
    Header,
    PageKey,
)
from revenant.record import MachineRecord, ResumeReason
from revenant.store import Store
from revenant.travel import MACHINE_PAGE

Run = Callable[..., subprocess.CompletedProcess[str]]

PAGE = PageKey(16, 12345)
FAR_PAGE = PageKey(16, 3_000_000)


@pytest.fixture
def image(build_files: genesis.BuildFiles, tmp_path: Path) -> Path:
    """Small, since it is compared byte by byte."""
    path = tmp_path / "near.img"
    genesis.create_image(path, build_files, 16 << 20)
    return path


def write(image: Path, number: int, *keys: PageKey) -> int:
    """A generation in which these pages hold a number; which one it is."""
    page = struct.pack("<Q", number).ljust(BLOCK_SIZE, b"\0")
    with locked(image) as fd, Store(image) as store:
        generation, _ = edit(store, fd, Commit(new=True, pages=keys or (PAGE,), load=lambda _: page).orders())
    return generation


def number_at(image: Path, generation: int | None = None) -> int:
    """What the page holds."""
    with Store(image) as store:
        return int(struct.unpack_from("<Q", store.page(store.tree_at(generation), *PAGE.key))[0])


def machine(image: Path) -> MachineRecord:
    """The newest machine record."""
    with Store(image) as store:
        return MachineRecord.unpack(store.page(store.tree, *MACHINE_PAGE.key))


def sound(image: Path) -> None:
    """The independent reader finds nothing wrong."""
    with Store(image) as store:
        check_store(store)


def facts(run: Run, *words: object) -> Any:
    """What a command prints with --json."""
    result = run(*words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def refused(run: Run, *words: object) -> str:
    """The one line of a command that must fail and change nothing."""
    image = Path(str(words[1]))
    before = image.read_bytes()
    result = run(*words)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert image.read_bytes() == before
    return result.stderr


def tags(run: Run, image: Path) -> dict[int, str]:
    """Tagged generations."""
    return {row["generation"]: row["tag"] for row in facts(run, "log", image) if row["tag"] != "-"}


# --- tags ---


def test_a_tag_keeps_a_generation(run_revenant: Run, image: Path) -> None:
    for number in range(1, 5):
        write(image, number)
    assert facts(run_revenant, "tag", image, "third", "--at", 4)["generation"] == 4
    assert facts(run_revenant, "tag", image, "newest one")["generation"] == 5
    for number in range(5, 30):
        write(image, number)
    assert tags(run_revenant, image) == {4: "third", 5: "newest one"}
    assert number_at(image, 4) == 3
    sound(image)
    facts(run_revenant, "tag", image, "--drop", "third")
    sound(image)
    write(image, 30)
    assert tags(run_revenant, image) == {5: "newest one"}
    with pytest.raises(StoreError, match="not retained"):
        number_at(image, 4)
    sound(image)


@pytest.mark.parametrize("name", ["", "7", "a\nb", "x" * 48, " x", "newest", "ü" * 24])
def test_bad_names_of_tags(run_revenant: Run, image: Path, name: str) -> None:
    assert "is no name for a tag" in refused(run_revenant, "tag", image, name)


def test_what_tag_refuses(run_revenant: Run, image: Path) -> None:
    write(image, 1)
    facts(run_revenant, "tag", image, "x")
    assert "has the tag 'x'" in refused(run_revenant, "tag", image, "x", "--at", 1)
    assert "has the tag 'x'" in refused(run_revenant, "tag", image, "y")
    assert "no generation '9'" in refused(run_revenant, "tag", image, "y", "--at", 9)
    assert "no tag 'y'" in refused(run_revenant, "tag", image, "--drop", "y")
    assert run_revenant("tag", image, "y", "--drop", "x").returncode == 2


# --- difference ---


def test_difference(run_revenant: Run, image: Path) -> None:
    first = write(image, 1)
    second = write(image, 2, PAGE, FAR_PAGE, PageKey(40, 0))
    third = write(image, 0, FAR_PAGE)
    rows = facts(run_revenant, "diff", image, first, second)
    assert rows == [
        {"space": 16, "changed": 1, "added": 1, "removed": 0},
        {"space": 40, "changed": 0, "added": 1, "removed": 0},
    ]
    assert facts(run_revenant, "diff", image, second, third, "--pages") == [
        {"space": 16, "page": FAR_PAGE.page, "kind": "removed"}
    ]
    assert facts(run_revenant, "diff", image, "newest", third) == []
    with Store(image) as store:
        trees = [store.tree_at(generation) for generation in (first, third)]
        keys = [key for key, _, _ in differing_pages(store, *trees)]
        assert keys == [PAGE, PageKey(40, 0)]
        assert [space.space for space in summary(store, *reversed(trees))] == [16, 40]


def test_the_difference_reads_only_what_differs(image: Path) -> None:
    write(image, 1)
    write(image, 2)
    with Store(image) as store:
        before, after = store.tree_at(2), store.tree
        assert len(list(differing_pages(store, before, after))) == 1
        assert store.read.cache_info().misses < 20  # type: ignore[attr-defined]


# --- rollback ---


def test_rollback_is_a_new_generation_and_can_be_undone(run_revenant: Run, image: Path) -> None:
    before = machine(image)
    first, second = write(image, 1), write(image, 2)
    made = facts(run_revenant, "rollback", image, "--to", first)
    assert made == {"image": str(image), "generation": second + 1, "origin": first, "pages": 2}
    assert number_at(image) == 1 and number_at(image, second) == 2
    after = machine(image)
    assert after.resume_reason == ResumeReason.ROLLBACK and after.machine_id == before.machine_id
    with Store(image) as store:
        record = store.generations()[-1]
        assert record.flags == GenerationFlag.ROLLBACK and record.origin == first
        assert record.mono_ns >= max(other.mono_ns for other in store.generations())
    sound(image)
    facts(run_revenant, "rollback", image)  # to the one before the newest
    assert number_at(image) == 2
    sound(image)


def test_rollback_to_a_tag_over_many_generations(run_revenant: Run, image: Path) -> None:
    write(image, 1, *(PageKey(16, 20_000 + i) for i in range(500)))
    write(image, 7)
    facts(run_revenant, "tag", image, "good")
    for number in range(40):
        write(image, 0, *(PageKey(16, 20_000 + i) for i in range(number * 12, number * 12 + 30)))
        write(image, number)
    facts(run_revenant, "rollback", image, "--to", "good")
    assert number_at(image) == 7
    assert facts(run_revenant, "diff", image, "good", "newest") == [
        {"space": 0, "changed": 1, "added": 0, "removed": 0}
    ]
    sound(image)
    assert "no generation 'bad'" in refused(run_revenant, "rollback", image, "--to", "bad")


def test_a_full_image_refuses_a_rollback(run_revenant: Run, image: Path) -> None:
    keys = [PageKey(16, 20_000 + i) for i in range(1300)]
    write(image, 1, *keys)
    facts(run_revenant, "tag", image, "a")
    newest = write(image, 2, *keys)
    result = run_revenant("rollback", image, "--to", "a")
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "the store is full (enlarge it with `revenant grow`)" in result.stderr
    sound(image)
    assert list(tags(run_revenant, image).values()) == ["a"]
    with Store(image) as store:
        assert store.root.generation == newest
    said = refused(run_revenant, "rollback", image, "--to", "a")  # now nothing is left that could be given up
    assert "the store is full" in said
    facts(run_revenant, "grow", image, "32M")
    facts(run_revenant, "rollback", image, "--to", "a")
    sound(image)


# --- fork ---


def test_a_fork_shares_nothing(run_revenant: Run, image: Path, tmp_path: Path) -> None:
    first = write(image, 1)
    write(image, 2)
    before = image.read_bytes()
    out = tmp_path / "fork.img"
    made = facts(run_revenant, "fork", image, out, "--at", first)
    assert made["retain"] == "16:24:7", "as `create` made it"
    assert made["generation"] == first and made["block_count"] * BLOCK_SIZE == len(before)
    sound(out)
    assert number_at(out) == 1 and machine(out).resume_reason == ResumeReason.FORK
    assert machine(out).machine_id != machine(image).machine_id
    with Store(image) as store, Store(out) as other:
        assert store.header.store_id != other.header.store_id
        assert store.kernel() == other.kernel()
    write(out, 3)
    assert image.read_bytes() == before
    assert "exists" in run_revenant("fork", image, out).stderr


# --- lock and crashes of the tool ---


def flip(image: Path, block: int) -> None:
    """One bit of it."""
    with image.open("r+b") as file:
        file.seek(block * BLOCK_SIZE + 100)
        byte = file.read(1)[0]
        file.seek(block * BLOCK_SIZE + 100)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("damage", ["tree", "records", "generations"])
def test_a_fork_of_what_is_whole(run_revenant: Run, image: Path, tmp_path: Path, damage: str) -> None:
    """An older generation where the newest is damaged; the newest where only the history is."""
    for number in (7, 8):
        write(image, number, PAGE, PageKey(SPACE_RECORDS, 100_000))
    with Store(image) as store:
        pointers = {
            "tree": store.root.tree,
            "records": store.space_root(store.tree, SPACE_RECORDS),
            "generations": store.space_root(store.meta, META_GENERATIONS),
        }
    flip(image, pointers[damage].block)
    out = tmp_path / "fork.img"
    if damage == "records":
        assert f"`revenant fork {image} OUT --at 2`" in refused(run_revenant, "rollback", image, "--to", 2)
        assert "does not have the hash" in refused(run_revenant, "fork", image, out)
    words = ["--at", 2] if damage != "generations" else []
    facts(run_revenant, "fork", image, out, *words)
    assert number_at(out) == (7 if words else 8)
    sound(out)


def test_a_locked_image_is_refused(run_revenant: Run, image: Path) -> None:
    with locked(image):
        for words in (("tag", image, "x"), ("rollback", image), ("grow", image, "1G"), ("upgrade", image)):
            assert "in use by a machine" in refused(run_revenant, *words)


def test_a_killed_editor_leaves_the_old_state(image: Path) -> None:
    """It waits for its last page when it dies; all it has written so far is not reachable."""
    write(image, 1)
    pages = [PageKey(16, 20_000 + i) for i in range(200)]
    with locked(image) as fd, Store(image) as store:
        orders = list(Commit(new=True, pages=pages, load=lambda _: b"x" * BLOCK_SIZE).orders())
        generation = store.root.generation
        editor = subprocess.Popen(
            [editor_path(), str(fd)], pass_fds=[fd], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert editor.stdin is not None and editor.stdout is not None
        editor.stdin.write(b"".join(orders[:-1]))
        editor.stdin.flush()
        editor.send_signal(signal.SIGKILL)
        editor.wait()
        editor.stdin.close()
        editor.stdout.close()
    with Store(image) as store:
        assert store.root.generation == generation
    sound(image)
    assert number_at(image) == 1


def test_pages_that_never_come_change_nothing(image: Path) -> None:
    """The reading side fails in the middle of a rollback."""

    def load(key: PageKey) -> bytes:
        if key.page == 20_100:
            raise StoreError(image, "a page cannot be had")
        return b"x" * BLOCK_SIZE

    commit = Commit(new=True, pages=[PageKey(16, 20_000 + i) for i in range(200)], load=load)
    with locked(image) as fd, Store(image) as store:
        generation = store.root.generation
        with pytest.raises(StoreError, match="cannot be had"):
            edit(store, fd, commit.orders())
    with Store(image) as store:
        assert store.root.generation == generation
    sound(image)


def test_what_was_decided_on_an_older_root_is_refused(image: Path) -> None:
    commit = Commit(new=True, pages=[PAGE], load=lambda _: b"x" * BLOCK_SIZE)
    with locked(image) as fd, Store(image) as store:
        generation, _ = edit(store, fd, commit.orders())
        with pytest.raises(StoreError, match="newest root record"):
            edit(store, fd, commit.orders())
    with Store(image) as store:
        assert store.root.generation == generation


# --- retention ---


@pytest.mark.parametrize("words", ["1", "1025", "16:169", "16:0:367", "a", "16:-1", "16:1:1:1", ""])
def test_bad_retention(run_revenant: Run, image: Path, words: str) -> None:
    result = run_revenant("run", "--near", image, "--dry-run", "--retain", words)
    assert result.returncode == 2 and "--retain" in result.stderr


def test_retention_is_given_to_the_kernel(run_revenant: Run, image: Path) -> None:
    for words, option in (("40", "retain=40:0:0"), ("16:24:7", "retain=16:24:7")):
        assert option in run_revenant("run", "--near", image, "--dry-run", "--retain", words).stdout


# --- upgrade ---


def test_upgrade(run_revenant: Run, image: Path, build: Path, tmp_path: Path) -> None:
    assert facts(run_revenant, "upgrade", image)["changed"] is False
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes((build / "kernel.stripped.elf").read_bytes() + b"longer" * 3000)
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "mbr.bin").write_bytes((build / "boot/mbr.bin").read_bytes())
    (boot / "loader.bin").write_bytes((build / "boot/loader.bin").read_bytes() + b"longer" * 1500)
    made = facts(run_revenant, "upgrade", image, "--kernel", kernel, "--boot", boot)
    assert made["changed"] is True and made["generation"] == 2
    sound(image)
    with Store(image) as store:
        assert store.kernel() == kernel.read_bytes()
        assert store.loader_pages()[2] == store.read_block(2)
        assert store.root.loader_size == (boot / "loader.bin").stat().st_size
    assert machine(image).resume_reason == ResumeReason.UPGRADE
    facts(run_revenant, "upgrade", image)  # and back: a shorter loader leaves nothing of the longer one
    sound(image)
    for number in range(20):
        write(image, number)
    sound(image)


@pytest.mark.parametrize(("field", "version", "word"), [(0, 0, "format"), (1, 9, "records")])
def test_a_kernel_of_another_version_is_refused(
    run_revenant: Run, image: Path, build: Path, tmp_path: Path, field: int, version: int, word: str
) -> None:
    data = bytearray((build / "kernel.stripped.elf").read_bytes())
    at = data.index(b"Revenant\0\0\0\0") + 12
    struct.pack_into("<I", data, at + 4 * field, version)
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes(data)
    said = refused(run_revenant, "upgrade", image, "--kernel", kernel)
    assert word in said and f"reads {version} (nothing was changed)" in said


def test_what_is_no_kernel_is_refused(run_revenant: Run, image: Path, build: Path, tmp_path: Path) -> None:
    kernel = tmp_path / "kernel.elf"
    data = (build / "kernel.stripped.elf").read_bytes()
    kernel.write_bytes(data.replace(b"Revenant\0\0\0\0", b"Somebody\0\0\0\0"))
    assert "does not say which versions" in refused(run_revenant, "upgrade", image, "--kernel", kernel)
    assert "not a kernel" in refused(run_revenant, "upgrade", image, "--kernel", build / "boot/mbr.bin")


# --- grow ---


def test_grow(run_revenant: Run, image: Path) -> None:
    write(image, 1)
    with Store(image) as store:
        free = store.root.free_count
    made = facts(run_revenant, "grow", image, "300M")  # the bitmap gets more pages
    assert made["block_count"] == (300 << 20) // BLOCK_SIZE
    assert made["free_count"] > free + (200 << 20) // BLOCK_SIZE
    sound(image)
    write(image, 2, *(PageKey(16, 20_000 + i) for i in range(3000)))
    sound(image)
    assert "it can only grow" in run_revenant("grow", image, "100M").stderr
    assert "already" in run_revenant("grow", image, "300M").stderr


@pytest.mark.parametrize("copies", [(18,), (18, 1)])
def test_grow_cut_short(run_revenant: Run, image: Path, copies: tuple[int, ...]) -> None:
    """Headers say more blocks, the root does not yet: the image is good, and growing goes on."""
    with Store(image) as store:
        header = store.header
    blocks = header.block_count + 100
    os.truncate(image, blocks * BLOCK_SIZE)
    fields = {name: getattr(header, name) for name in Header.PLACES} | {"block_count": blocks}
    with image.open("r+b") as file:
        for copy in copies:
            file.seek(copy * BLOCK_SIZE)
            file.write(Header(**fields).sealed())
    sound(image)
    assert facts(run_revenant, "grow", image, str(blocks * BLOCK_SIZE))["block_count"] == blocks
    sound(image)
    write(image, 1)
    sound(image)
