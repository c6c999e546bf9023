"""Images by every earlier version of the formats go on: under the kernel they came with and under today's.

The images are in tests/corpus/images, with what each prints next. Called by: pytest.
"""

from __future__ import annotations

import importlib.util
import lzma
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from revenant import genesis
from revenant.check import Checker, check_store
from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.format import FORMAT_VERSION, FORMAT_VERSION_MAX, HEADER_BLOCK, HEADER_COPY_BLOCK, Header, Root, RootFlag
from revenant.machine import EXIT_REFUSED, PROMPT, Machine
from revenant.qemu import Boot
from revenant.record import RECORD_VERSION
from revenant.store import Store

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., Machine]

CORPUS = Path(__file__).parents[1] / "corpus" / "images"
ALL = {path.stem: tomllib.loads(path.read_text()) for path in sorted(CORPUS.glob("*.toml"))}
HALF = {name: facts for name, facts in ALL.items() if "near_size" in facts}
IMAGES = {name: facts for name, facts in ALL.items() if name not in HALF}


def unpack(name: str, path: Path) -> Path:
    """An image of the corpus."""
    path.write_bytes(lzma.decompress((CORPUS / f"{name}.img.xz").read_bytes()))
    return path


def unpack_half(name: str, near: Path, far: Path) -> None:
    """A machine's image, and that of the far store behind it in the file."""
    size = HALF[name]["near_size"]
    data = lzma.decompress((CORPUS / f"{name}.img.xz").read_bytes())
    near.write_bytes(data[:size])
    far.write_bytes(data[size:])


def sound(image: Path) -> Root:
    """The independent reader finds nothing wrong; the newest root."""
    with Store(image) as store:
        check_store(store)
        return store.root


def take_steps(machine: Start, image: Path, facts: dict[str, Any], **fields: Any) -> None:
    """It makes its next steps, and is cut between them."""
    for line in facts["next_steps"]:
        now = machine(image, **fields)
        now.send(b".")
        before = now.expect_exact(line.encode() + b"\r\n")
        assert b"Traceback" not in before and b"MicroPython" not in before
        now.kill()


def has_all(now: Machine, facts: dict[str, Any]) -> None:
    """Its program, which ends now, has what it had."""
    now.send(b"q")
    now.expect_exact(PROMPT)
    assert now.command_at_prompt("open('notes.txt').read().splitlines()") == str(facts["notes"])
    step_count = len(facts["notes"])
    answer = now.command_at_prompt("[leaf.get('square') for leaf in tree['leaves'][:8]], len(tree['leaves'])")
    squares = [None, *(n * n for n in range(step_count)), *[None] * (7 - step_count)]
    assert answer == str((squares, 200))


def goes_on(machine: Start, run: Run, image: Path, facts: dict[str, Any], **fields: Any) -> None:
    """It makes its next steps, has all that it had, and can go back."""
    take_steps(machine, image, facts, **fields)
    now = machine(image, **fields)
    has_all(now, facts)
    step_count = len(facts["notes"])
    tags = now.command_at_prompt("sorted(h.tag for h in revenant.history() if h.tag and h.tag[:4] == 'step')")
    assert tags == str([f"step-{step}" for step in range(1, step_count + 1)])
    now.kill()
    assert sound(image).generation > facts["generation"]
    assert run("rollback", image, "--to", "step-2").returncode == 0
    now = machine(image, **fields)
    now.expect_exact(b"step 2 1\r\n")  # the tag was set just before
    now.kill()
    sound(image)


@pytest.mark.parametrize(("kernel", "boot"), [("its own", Boot.MBR), ("today's", Boot.PVH)])
@pytest.mark.parametrize("name", IMAGES)
def test_goes_on(
    machine: Start,
    run_revenant: Run,
    build_files: genesis.BuildFiles,
    tmp_path: Path,
    name: str,
    kernel: str,
    boot: Boot,
) -> None:
    image = unpack(name, tmp_path / "machine.img")
    root = sound(image)
    facts = IMAGES[name]
    assert (root.version, root.record_version) == (facts["format_version"], facts["record_version"])
    assert root.generation == facts["generation"]
    if kernel == "today's":
        assert run_revenant("upgrade", image).returncode == 0
        with Store(image) as store:
            assert store.kernel() == build_files.kernel.read_bytes()
    goes_on(machine, run_revenant, image, facts, boot=boot)


@pytest.mark.parametrize("kernel", ["its own", "today's"])
@pytest.mark.parametrize("name", HALF)
def test_half_streamed_goes_on(
    machine: Start, build_files: genesis.BuildFiles, tmp_path: Path, name: str, kernel: str
) -> None:
    """Until all is near; then without the far store, by the loader that it has brought."""
    near, far, facts = tmp_path / "near.img", tmp_path / "far.img", HALF[name]
    unpack_half(name, near, far)
    with Store(near, open_fars([far])) as store:
        check_store(store)
        assert store.root.generation == facts["generation"] and not store.root.flags & RootFlag.COMPLETE
    with Store(near) as store:
        assert Checker(store).check_structure().blocks_absent > 50
    fields = {"kernel": build_files.kernel, "boot": Boot.PVH} if kernel == "today's" else {"boot": Boot.PVH}
    take_steps(machine, near, facts, fars=[str(far)], fill=False, **fields)
    now = machine(near, fars=[str(far)], **fields)
    now.expect_voice("near is complete")
    now.kill()
    far.unlink()
    has_all(machine(near, boot=Boot.MBR), facts)
    assert sound(near).flags & RootFlag.COMPLETE


def test_each_version_has_an_image() -> None:
    """Who changes a version keeps an image of the old one, and makes one of the new one."""
    versions = {(facts["format_version"], facts["record_version"]) for facts in IMAGES.values()}
    half_versions = {(facts["format_version"], facts["record_version"]) for facts in HALF.values()}
    assert versions | {(FORMAT_VERSION_MAX, RECORD_VERSION)} == half_versions
    remedy = "run tests/corpus/images/make.py and commit what it made"
    assert (FORMAT_VERSION, RECORD_VERSION) in versions, remedy
    assert {(number, 1) for number in range(1, FORMAT_VERSION)} <= {(number, 1) for number, _ in versions}, remedy
    assert set(range(1, RECORD_VERSION)) <= {number for _, number in versions}, remedy


@pytest.fixture
def make() -> ModuleType:
    """The script that makes the images."""
    spec = importlib.util.spec_from_file_location("make_corpus_image", CORPUS / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_image_can_be_made(machine: Start, run_revenant: Run, tmp_path: Path, make: ModuleType) -> None:
    image = tmp_path / "machine.img"
    make.make_image(image)
    with Store(image) as store:
        facts = tomllib.loads(make.describe(store, "new"))
    assert {name: type(value) for name, value in facts.items()} == {
        name: type(value) for name, value in next(iter(IMAGES.values())).items()
    }
    goes_on(machine, run_revenant, image, facts)


@pytest.mark.parametrize("part", ["header", "root", "newest root", "records"])
def test_a_kernel_leaves_a_newer_version_alone(machine: Start, image: Path, tmp_path: Path, part: str) -> None:
    """The kernel itself, not the tool before it: it comes from a second image, which only lends it."""
    other = tmp_path / "other.img"
    other.write_bytes(image.read_bytes())
    with Store(image) as store:
        header, root = (
            {name: getattr(structure, name) for name in structure.PLACES} for structure in (store.header, store.root)
        )
        sequence = store.root.sequence + (part == "newest root")  # an older one that it could read is no way out
        ring_block = store.header.ring_block(sequence)
    field, known = ("record_version", RECORD_VERSION) if part == "records" else ("version", FORMAT_VERSION_MAX)
    newer = {"sequence": sequence, field: known + 1}
    with image.open("r+b") as file:
        if part == "header":
            for block in (HEADER_BLOCK, HEADER_COPY_BLOCK):
                file.seek(block * 4096)
                file.write(Header(**{**header, "version": FORMAT_VERSION_MAX + 1}).sealed())
        else:
            file.seek(ring_block * 4096)
            file.write(Root(**{**root, **newer}).sealed())
    before = image.read_bytes()
    now = machine(image, fars=[str(other)], boot=Boot.PVH)
    now.expect_voice("nothing was changed")
    assert now.wait() == EXIT_REFUSED
    assert ("a record layout" if part == "records" else "another format version than 1") in now.voice
    assert image.read_bytes() == before
    if part != "records":
        with pytest.raises(StoreError, match=f"format version {known + 1}, this tool knows {known}"):
            Store(image)
