"""Whatever is in a file, the reader says StoreError and nothing else."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from revenant.check import Checker, check_store
from revenant.errors import StoreError
from revenant.format import BLOCK_SIZE, PageKey, Pointer, Root, node_pack, node_pointers
from revenant.store import Store

SLOW = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # fmt: skip


def read_everything(path: Path) -> None:
    """All that the commands would do."""
    with Store(path) as store:
        list(store.pages(store.tree))
        store.generations()
        store.kernel()
        store.loader_pages()
        store.resume_keys()
        store.record_page(0)
        check_store(store)


def blocks_in_use(path: Path) -> list[int]:
    """Headers, the root, and all that is allocated."""
    with Store(path) as store:
        checker = Checker(store)
        checker.check_structure()
        return [0, 1, 18, store.header.ring_block(store.root.sequence), *sorted(checker.owner)]


@SLOW
@given(data=st.data())
def test_any_bytes_anywhere(small_image: Path, data: st.DataObject) -> None:
    original = small_image.read_bytes()
    blocks = blocks_in_use(small_image)
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.sampled_from(blocks))
        offset = data.draw(st.integers(0, BLOCK_SIZE - 1))
        junk = data.draw(st.binary(min_size=1, max_size=64))
        start = block * BLOCK_SIZE + offset
        damaged[start : start + len(junk)] = junk
    path = small_image.with_name("damaged.img")
    path.write_bytes(damaged)
    with contextlib.suppress(StoreError):
        read_everything(path)


@SLOW
@given(field=st.sampled_from(sorted(Root.PLACES)), value=st.integers(0, 2**64 - 1), seed=st.integers())
def test_a_root_with_a_right_hash_that_lies(small_image: Path, field: str, value: int, seed: int) -> None:
    """An adversary can hash: sizes, heights and pointers of a sealed root are still checked."""
    with Store(small_image) as store:
        block = store.header.ring_block(store.root.sequence)
        data = bytearray(store.read_block(block))
    place = Root.PLACES[field]
    junk = random.Random(seed).randbytes(place.size) if place.size > 8 else value.to_bytes(8, "little")
    data[place.offset : place.offset + place.size] = junk[: place.size]
    sealed = Root.unpack(bytes(data)).sealed()
    path = small_image.with_name("lying.img")
    path.write_bytes(small_image.read_bytes())
    with path.open("r+b") as file:
        file.seek(block * BLOCK_SIZE)
        file.write(sealed)
    with contextlib.suppress(StoreError):
        read_everything(path)


@SLOW
@given(contents=st.binary(max_size=BLOCK_SIZE), level=st.integers(0, 7), height=st.integers(0, 3))
def test_any_tree_node(small_image: Path, contents: bytes, level: int, height: int) -> None:
    """The directory's top node is anything at all, rightly hashed."""
    with Store(small_image) as store:
        root, header = store.root, store.header
        slots = dict(node_pointers(store.read_block(root.tree.block)))
    node = contents.ljust(BLOCK_SIZE, b"\xa5") if level % 2 else node_pack({**slots, level: root.tree})
    top = Pointer.make(root.tree.block, height, root.generation, node)
    places = {name: getattr(root, name) for name in Root.PLACES}
    path = small_image.with_name("node.img")
    path.write_bytes(small_image.read_bytes())
    with path.open("r+b") as file:
        file.seek(root.tree.block * BLOCK_SIZE)
        file.write(node)
        file.seek(header.ring_block(root.sequence) * BLOCK_SIZE)
        file.write(Root(**{**places, "tree": top, "tree_height": height}).sealed())
    with contextlib.suppress(StoreError):
        read_everything(path)


@given(space=st.integers(0, 2**21 - 1), page=st.integers(0, 2**35 - 1))
def test_keys(space: int, page: int) -> None:
    assert PageKey.unpacked(PageKey(space, page).packed) == PageKey(space, page)
