"""Bad input through `revenant run`, as a user meets it.

Each is refused, without waiting, with one last line that names the file and the reason, and a status that is
not 0; no file changes, comes or goes. A machine that can go on in spite of damage says what it passed over.
Called by: pytest.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from revenant import genesis
from revenant.check import check_store
from revenant.format import BLOCK_SIZE, META_BITMAP, META_GENERATIONS, Header, PageKey, Root
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.pytest_plugin import FarStore
from revenant.qemu import MachineConfig
from revenant.record import RECORD_THREAD_PAGE
from revenant.script import wait_for_prompt
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
Refuse = Callable[..., str]
Start = Callable[..., Machine]
Serve = Callable[..., FarStore]
SIZE = 16 << 20
HASH = "ab" * 32


@pytest.fixture(scope="module")
def originals(build_files: genesis.BuildFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a genesis image, one that ran (n was 1, then 2), and a published one."""
    folder = tmp_path_factory.mktemp("originals")
    genesis.create_image(folder / "genesis", build_files, SIZE)
    shutil.copy(folder / "genesis", folder / "resumed")
    with Machine(MachineConfig(folder / "resumed")) as machine:
        wait_for_prompt(machine)
        for n in (1, 2):
            machine.command_at_prompt(f"n = {n}; import revenant; revenant.commit() > 0")
    with Store(folder / "genesis") as store:
        publish_image(store, folder / "far", None)
    return folder


@pytest.fixture
def near(originals: Path, tmp_path: Path) -> Path:
    """A genesis image."""
    return Path(shutil.copy(originals / "genesis", tmp_path / "small.img"))


@pytest.fixture
def resumed(originals: Path, tmp_path: Path) -> Path:
    """An image with several generations."""
    return Path(shutil.copy(originals / "resumed", tmp_path / "resumed.img"))


@pytest.fixture
def far(originals: Path, tmp_path: Path) -> Path:
    """A published image."""
    return Path(shutil.copy(originals / "far", tmp_path / "far.img"))


def trust_of(path: Path) -> str:
    """Its root hash."""
    with Store(path) as store:
        return store.root.hash.hex()


@pytest.fixture
def refuse(run_revenant: Run, tmp_path: Path) -> Refuse:
    """`revenant run` refuses with one last line about the subject; no image changes, comes or goes."""

    def images() -> dict[Path, str]:
        files = [path for path in tmp_path.glob("*.img") if path.is_file()]
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    def refuse(subject: object, reason: str, *words: object, status: int = 1, **options: Any) -> str:
        before = images()
        result = run_revenant("run", *words, stdin=subprocess.DEVNULL, timeout=60, **options)
        assert result.returncode == status
        last = (result.stderr.splitlines() or [""])[-1]
        assert last.startswith(f"revenant: {subject}: ") and reason in last, last
        assert "Traceback" not in result.stderr
        assert images() == before
        return last

    return refuse


# --- files that are no stores ---


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        (0, "blank: there is no store in it"),
        (1, "not a Revenant store"),
        (BLOCK_SIZE, "not a Revenant store"),
        (BLOCK_SIZE + 100, "truncated"),
        (33 * BLOCK_SIZE, "truncated"),
        (SIZE // 2, "truncated"),
        (SIZE - 1, "truncated"),
    ],
)
def test_truncated(near: Path, refuse: Refuse, length: int, reason: str) -> None:
    os.truncate(near, length)
    refuse(near, reason, "--near", near)


def foreign(kind: str) -> bytes:
    """What other programs keep in files."""
    if kind == "text":
        return b"important\n" * 100000
    if kind == "elf":
        return genesis.BuildFiles.locate().kernel.read_bytes()
    data = bytearray(SIZE)
    if kind == "file system":
        data[1024:] = random.Random(1).randbytes(SIZE - 1024)
        data[1024 + 56 : 1024 + 58] = b"\x53\xef"  # the magic of ext4
        data[510:512] = b"\x55\xaa"
    else:  # all but blank
        data[18 * BLOCK_SIZE + 100] = 1
    return bytes(data)


@pytest.mark.parametrize("kind", ["text", "elf", "file system", "nearly blank"])
def test_foreign(tmp_path: Path, refuse: Refuse, far: Path, kind: str) -> None:
    path = tmp_path / "foreign.img"
    path.write_bytes(foreign(kind))
    refuse(path, "not a Revenant store", "--near", path)
    refuse(path, "not a Revenant store", "--near", path, "--far", far, "--trust", trust_of(far))


# --- stores that lie or are damaged ---


def rewrite(path: Path, block: int, data: bytes) -> None:
    """Put bytes at the beginning of a block."""
    with path.open("r+b") as file:
        file.seek(block * BLOCK_SIZE)
        file.write(data)


def flip(path: Path, block: int) -> None:
    """Flip one bit, in the middle of a header or a root record."""
    with path.open("r+b") as file:
        data = os.pread(file.fileno(), 1, block * BLOCK_SIZE + 100)
        os.pwrite(file.fileno(), bytes([data[0] ^ 8]), block * BLOCK_SIZE + 100)


@pytest.mark.parametrize("version", [0, 3])
def test_other_header_version(near: Path, refuse: Refuse, version: int) -> None:
    with Store(near) as store:
        fields = {name: getattr(store.header, name) for name in Header.PLACES}
    for block in (1, 18):
        rewrite(near, block, Header(**{**fields, "version": version}).sealed())
    refuse(near, f"format version {version}, this tool knows 2", "--near", near)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("version", 0, "format version 0, this tool knows 2"),
        ("version", 3, "format version 3, this tool knows 2"),
        ("record_version", 99, "a record layout that this kernel does not know"),
    ],
)
def test_other_root_version(near: Path, refuse: Refuse, field: str, value: int, reason: str) -> None:
    with Store(near) as store:
        fields = {name: getattr(store.root, name) for name in Root.PLACES}
        block = store.header.ring_block(store.root.sequence)
    rewrite(near, block, Root(**{**fields, field: value}).sealed())
    refuse(near, reason, "--near", near)


def blocks_of(path: Path, part: str) -> list[int]:
    """Where a part of an image lies."""
    with Store(path) as store:
        root, ring = store.root, [store.header.ring_block(root.sequence) for root in store.roots]
        pages = dict(store.pages(store.tree))
        return {
            "boot record": [0],
            "loader": [3],
            "header": [1],
            "header copy": [18],
            "headers": [1, 18],
            "newest root": ring[:1],
            "roots": ring,
            "tree": [root.tree.block],
            "meta": [root.meta.block],
            "bitmap": [store.space_root(store.meta, META_BITMAP).block],
            "generations": [store.space_root(store.meta, META_GENERATIONS).block],
            "kernel node": [root.kernel.block],
            "kernel": [store.children(root.kernel, 1)[7][1].block],
            "records node": [store.space_root(store.tree, 0).block],
            "machine record": [pages[PageKey(0, 0)].block],
            "thread record": [pages[PageKey(0, RECORD_THREAD_PAGE)].block],
        }[part]


def damage(path: Path, part: str) -> None:
    """Flip a bit in each block of a part."""
    for block in blocks_of(path, part):
        flip(path, block)


NO_ROOT = "no valid root record"
RECORDS = "a page of the machine's records is damaged in every copy"


@pytest.mark.parametrize(
    ("part", "reason", "boot"),
    [
        ("headers", "the header's hash is wrong", "auto"),
        ("roots", NO_ROOT, "auto"),
        ("tree", NO_ROOT, "auto"),
        ("meta", NO_ROOT, "auto"),
        ("kernel node", "kernel: node: bad hash", "auto"),
        ("kernel", "kernel: bad hash", "auto"),
        ("kernel", "does not have the hash that its pointer says", "pvh"),
        ("kernel", "kernel: bad hash", "mbr"),
        ("records node", RECORDS, "auto"),
        ("machine record", RECORDS, "auto"),
        ("machine record", RECORDS, "mbr"),
        ("thread record", RECORDS, "auto"),
        ("boot record", "boot loader: block 0 is damaged", "mbr"),
        ("loader", "boot loader: block 3 is damaged", "mbr"),
    ],
)
def test_flipped_bit(near: Path, refuse: Refuse, part: str, reason: str, boot: str) -> None:
    damage(near, part)
    refuse(near, reason, "--near", near, "--boot", boot)


@pytest.mark.parametrize("size", [SIZE, 10 * SIZE])  # one page of it; two, and the node above them
def test_allocation_state_with_a_flipped_bit(
    build_files: genesis.BuildFiles, tmp_path: Path, run_revenant: Run, size: int
) -> None:
    """Nothing at start reads it: the first snapshot does, and makes it anew. The next machine finds nothing."""
    image, script = tmp_path / "image.img", tmp_path / "script.py"
    genesis.create_image(image, build_files, size)
    damage(image, "bitmap")
    script.write_text("import revenant\nfor n in range(20): a = bytearray(n * 5000); revenant.commit()\nprint(n)")
    for turn in range(2):
        result = run_revenant("run", "--near", image, "--", script)
        assert (result.returncode, result.stdout) == (0, "19\n")
        assert ("its map of free blocks is damaged: it is made anew" in result.stderr) == (turn == 0)
        assert ("its map of free blocks is whole again" in result.stderr) == (turn == 0)
        with Store(image) as store:
            check_store(store)


def test_allocation_state_and_history_with_flipped_bits(
    near: Path, refuse: Refuse, run_revenant: Run, tmp_path: Path
) -> None:
    """What generations hold is not known, so no map of free blocks can be made; the newest is whole all the same."""
    damage(near, "bitmap")
    result = run_revenant("tag", near, "here")
    assert result.returncode == 1 and "is made anew by the next start of the machine" in result.stderr
    damage(near, "generations")
    last = refuse(near, "does not have its hash; no snapshot can be written", "--near", near, status=3)
    assert "revenant check" in last and "revenant fork" in last
    assert run_revenant("fork", near, tmp_path / "whole").returncode == 0
    with Store(tmp_path / "whole") as store:
        check_store(store)


def test_all_roots_with_flipped_bits(resumed: Path, refuse: Refuse) -> None:
    damage(resumed, "roots")
    refuse(resumed, NO_ROOT, "--near", resumed)


@pytest.mark.parametrize("part", ["header", "header copy"])
def test_one_header_is_enough(resumed: Path, tmp_path: Path, run_revenant: Run, part: str) -> None:
    damage(resumed, part)
    (tmp_path / "script.py").write_text("print('n is', n)")
    result = run_revenant("run", "--near", resumed, "--", tmp_path / "script.py")
    assert (result.returncode, result.stdout) == (0, "n is 2\n")
    assert "near: " in result.stderr and "header" in result.stderr and "rewritten" in result.stderr
    with Store(resumed) as store:
        check_store(store)
        for block in (1, 18):
            assert Header.unpack(store.read_block(block)).hash == store.header.hash


@pytest.mark.parametrize("boot", ["auto", "mbr"])
@pytest.mark.parametrize("part", ["newest root", "tree", "meta"])
def test_generation_before_the_damaged_one(
    resumed: Path, tmp_path: Path, run_revenant: Run, part: str, boot: str
) -> None:
    with Store(resumed) as store:
        newest = store.root.generation
    damage(resumed, part)
    with Store(resumed) as store:
        before = store.root.generation
    assert before < newest
    (tmp_path / "script.py").write_text("print('n is', n)")
    result = run_revenant("run", "--near", resumed, "--boot", boot, "--", tmp_path / "script.py")
    assert result.returncode == 0 and result.stdout in ("n is 1\n", "n is 2\n")
    told = [line for line in result.stderr.splitlines() if f"going on from generation {before}" in line]
    assert len(told) == 1 and told[0].startswith(f"revenant: {resumed}: ")
    assert ("hash is wrong" if part == "newest root" else f"generation {newest}: block") in told[0]
    assert f"generation {before} goes on" in result.stderr


# --- far stores ---

FAR_DAMAGE = {
    # by file, over NBD
    "foreign": ("not a Revenant store", "not a Revenant store"),
    "blank": ("blank", "not a Revenant store"),
    "truncated": ("truncated", "truncated: the store has"),
    "other trust": ("its root hash is", "its root does not have the trusted hash"),
    "headers": ("the header's hash is wrong", "both its headers are damaged"),
    "roots": (NO_ROOT, "root: no valid one"),
    "tree": (NO_ROOT, "a block does not have its hash"),
    "kernel": ("kernel: bad hash", "kernel: bad hash"),
    "machine record": (RECORDS, RECORDS),
}


def damage_far(path: Path, kind: str) -> None:
    """Make a published image one that must not be adopted."""
    if kind == "foreign":
        path.write_bytes(foreign("file system"))
    elif kind == "blank":
        path.write_bytes(bytes(path.stat().st_size))
    elif kind == "truncated":
        os.truncate(path, path.stat().st_size * 9 // 10)
    elif kind != "other trust":
        damage(path, kind)


@pytest.mark.parametrize("by", ["file", "nbd"])
@pytest.mark.parametrize("kind", FAR_DAMAGE)
def test_bad_far(far: Path, tmp_path: Path, refuse: Refuse, serve: Serve, kind: str, by: str) -> None:
    """A near file that is not there yet is not there afterwards."""
    trust = HASH if kind == "other trust" else trust_of(far)
    damage_far(far, kind)
    uri = serve(far).uri if by == "nbd" else str(far)
    reason = FAR_DAMAGE[kind][by == "nbd"]
    refuse(uri, reason, "--near", tmp_path / "new.img", "--far", uri, "--trust", trust)


@pytest.mark.parametrize("kind", ["foreign", "other trust"])
def test_blank_near_with_a_bad_far(
    far: Path, tmp_path: Path, refuse: Refuse, serve: Serve, kind: str
) -> None:
    near = tmp_path / "blank.img"
    near.touch()
    os.truncate(near, SIZE)
    trust = HASH if kind == "other trust" else trust_of(far)
    damage_far(far, kind)
    uri = serve(far).uri
    refuse(uri, FAR_DAMAGE[kind][1], "--near", near, "--far", uri, "--trust", trust)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("missing.img", "No such file"),
        ("nbd://127.0.0.1:1", "no server answers"),
        ("http://127.0.0.1:1/far.img", "no server answers"),
        ("ftp://host/far.img", "not a far store"),
    ],
)
def test_no_far(tmp_path: Path, refuse: Refuse, uri: str, reason: str) -> None:
    refuse(uri, reason, "--near", tmp_path / "new.img", "--far", uri, "--trust", HASH, cwd=tmp_path)


def test_near_that_needs_its_far(far: Path, tmp_path: Path, refuse: Refuse, machine: Start) -> None:
    """It has adopted a store and been cut off at once; without that store it says so."""
    near = tmp_path / "adopted.img"
    near.touch()
    os.truncate(near, SIZE)
    now = machine(near, fars=[str(far)], trust=trust_of(far))
    now.expect_voice("goes on")
    now.kill()
    with Store(near) as store:
        if store.root.kernel.store == 0:
            pytest.skip("the kernel was here already")
    refuse(near, "is only in far store", "--near", near)


# --- near files that cannot be used ---


def test_near_in_use(near: Path, machine: Start, run_revenant: Run) -> None:
    now = machine(near)
    now.expect_exact(b">>> ")
    result = run_revenant("run", "--near", near, timeout=60)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(f"revenant: {near}: in use by another machine")
    assert now.command_at_prompt("1 + 1") == "2"


def test_folders(tmp_path: Path, refuse: Refuse, far: Path) -> None:
    refuse(tmp_path, "is a folder", "--near", tmp_path)
    path = tmp_path / "nowhere" / "near.img"
    refuse(path, "No such file", "--near", path)
    refuse(path, "No such file", "--near", path, "--far", far, "--trust", trust_of(far))


@pytest.mark.parametrize(("mode", "reason"), [(0o000, "Permission denied"), (0o444, "cannot be written")])
def test_near_that_is_not_allowed(near: Path, run_revenant: Run, mode: int, reason: str) -> None:
    before = near.read_bytes()
    near.chmod(mode)
    # root may do all things, unless it renounces
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    result = run_revenant("run", "--near", near, prefix=prefix, timeout=60)
    near.chmod(0o644)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and last.startswith(f"revenant: {near}: {reason}")
    assert "Traceback" not in result.stderr and near.read_bytes() == before
