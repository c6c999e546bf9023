"""Crash states on crafted windows: which are enumerated, what their images hold, and what the judge says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from revenant.crash.judge import Judge, roots_in
from revenant.crash.log import Entry
from revenant.crash.record import Sighting
from revenant.crash.states import Image, State, Window, enumerate_states, overlaps, windows_of
from revenant.errors import RevenantError
from revenant.format import BLOCK_SIZE, HEADER_BLOCK, HEADER_COPY_BLOCK, SECTOR_SIZE, SECTORS_PER_BLOCK
from revenant.store import Store

FLUSH = Entry(0, b"", flush=True)


def write(sector: int, sector_count: int, fill: int) -> Entry:
    return Entry(sector, bytes([fill]) * sector_count * SECTOR_SIZE)


def states_of(*windows: list[Entry], samples: int = 4, seed: int = 1) -> list[State]:
    return list(enumerate_states([Window(0, writes) for writes in windows], seed, samples))


@pytest.fixture
def image(tmp_path: Path) -> Image:
    path = tmp_path / "base.img"
    path.write_bytes(b"\xee" * 4 * BLOCK_SIZE)
    return Image(path)


def content(image: Image, state: str, writes: list[Entry]) -> str:
    """The first byte of each sector of the image after a cut, as hexadecimal digits."""
    after = image.with_state(State.parse(state), Window(0, writes))
    return b"".join(after.read(block)[::SECTOR_SIZE] for block in range(4)).hex()[1::2]


# --- windows and ids ---


def test_windows_are_cut_at_flushes() -> None:
    a, b, c = write(0, 1, 1), write(8, 1, 2), write(16, 1, 3)
    assert windows_of([a, b, FLUSH, FLUSH, c]) == [Window(0, [a, b]), Window(3, []), Window(4, [c])]
    both = Entry(0, b"x" * SECTOR_SIZE, flush=True)  # a flush with a write: the flush comes first
    assert windows_of([a, both]) == [Window(0, [a]), Window(2, [both])]


@pytest.mark.parametrize("text", ["w12:s3f", "w0:s0", "w3:s5o", "w3:s5t1.ff", "w3:s5ot1.ff", "w7:r99"])
def test_an_id_names_a_state(text: str) -> None:
    assert str(State.parse(text)) == text


@pytest.mark.parametrize("text", ["", "w1", "w1:", "w1:sg", "w-1:s1", "w1:s1t2", "w1:r", "w1:s1 "])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(RevenantError, match="not a state's id"):
        State.parse(text)


# --- which states there are ---


def test_all_subsets_of_a_small_window_but_the_full_one() -> None:
    first, second = [write(i * 8, 1, i) for i in range(3)], [write(0, 1, 9)]
    states = states_of(first, second, samples=0)
    assert [str(state) for state in states] == [*(f"w0:s{mask:x}" for mask in range(7)), "w1:s0", "w1:s1"]


def test_prefixes_and_single_losses_of_a_large_window() -> None:
    count = 40
    masks = {state.mask for state in states_of([write(i * 8, 1, i) for i in range(count)], samples=0)}
    full = (1 << count) - 1
    assert masks == {(1 << i) - 1 for i in range(count + 1)} | {full & ~(1 << i) for i in range(count)}


def test_states_are_distinct_and_repeat_with_the_seed() -> None:
    windows = [[write(i * 8, 16, i) for i in range(12)], [write(500, 8, 3)]]
    states = states_of(*windows, samples=20)
    assert len(set(states)) == len(states)
    assert [str(state) for state in states_of(*windows, samples=20)] == [str(state) for state in states]
    assert states_of(*windows, samples=20, seed=2) != states
    assert sum(state.torn is not None for state in states) > 20
    assert sum(state.seed is not None for state in states) == 40


def test_other_orders_where_writes_overlap() -> None:
    apart, over = [write(0, 8, 1), write(8, 8, 2)], [write(0, 8, 1), write(7, 8, 2)]
    assert not overlaps(apart) and overlaps(over)
    assert not any(state.opposite for state in states_of(apart))
    assert State(0, 3, opposite=True) in states_of(over)


# --- images ---


def test_writes_of_a_subset(image: Image) -> None:
    writes = [write(0, 8, 1), write(8, 16, 2), write(9, 1, 3), write(30, 2, 4)]
    assert content(image, "w0:s0", writes) == "e" * 32
    assert content(image, "w0:s2", writes) == "e" * 8 + "2" * 16 + "e" * 8
    assert content(image, "w0:sf", writes) == "1" * 8 + "23" + "2" * 14 + "e" * 6 + "44"
    assert content(image, "w0:sfo", writes) == "1" * 8 + "2" * 16 + "e" * 6 + "44"


def test_torn_at_sector_borders(image: Image) -> None:
    writes = [write(0, 8, 1), write(12, 8, 2)]
    assert content(image, "w0:s1t1.a3", writes) == "1" * 8 + "eeee" + "22eee2e2" + "e" * 12


def test_scattered_sectors_repeat(image: Image) -> None:
    writes = [write(0, 32, 1), write(0, 32, 2)]
    found = content(image, "w0:r5", writes)
    assert found == content(image, "w0:r5", writes) != content(image, "w0:r6", writes)
    assert set(found) == {"1", "2", "e"}


def test_images_share_nothing_that_changes(image: Image) -> None:
    content(image, "w0:s1", [write(0, 32, 1)])
    assert image.read(0) == b"\xee" * BLOCK_SIZE
    assert image.read(0) is image.read(0)


def test_saved_over_a_copy(image: Image, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    copy.write_bytes(image.path.read_bytes())
    image.with_state(State.parse("w0:s1"), Window(0, [write(9, 2, 7)])).save(copy)
    assert copy.read_bytes()[::SECTOR_SIZE].hex()[1::2] == "e" * 9 + "77" + "e" * 21


# --- verdicts ---


def block(number: int, data: bytes) -> Entry:
    return Entry(number * SECTORS_PER_BLOCK, data.ljust(BLOCK_SIZE, b"\0"))


def next_root(store: Store) -> Entry:
    """The next root record, over the same tree, as a commit without pages writes it."""
    root = dataclasses.replace(store.root, sequence=store.root.sequence + 1)
    return block(store.header.ring_block(root.sequence), root.sealed())


def judge_of(path: Path, *windows: list[Entry], seen: int = 0) -> Judge:
    return Judge(Image(path), [Window(0, writes) for writes in windows], (), [Sighting(seen, 0)])


def verdict_of(judge: Judge, state: str) -> str:
    return judge.judge(State.parse(state))[1]


def test_a_root_may_be_there_until_its_flush_and_must_be_there_after_it(small_image: Path) -> None:
    with Store(small_image) as store:
        root = next_root(store)
    judge = judge_of(small_image, [root], [block(root.sector // SECTORS_PER_BLOCK, b"")])
    assert [len(roots_in(entry)) for entry in judge.windows[0].writes] == [1]
    for state in ("w0:s0", "w0:s1", "w0:s0t0.1", "w0:s0t0.fe", "w1:s0"):
        assert verdict_of(judge, state) == ""
    assert verdict_of(judge, "w1:s1") == "it recovers to root 1; root 2 was durable"


def test_a_write_over_what_a_root_reaches(small_image: Path) -> None:
    with Store(small_image) as store:
        reached = store.root.tree.block
    judge = judge_of(small_image, [block(1900, b"free"), block(reached, b"wrong")])
    assert verdict_of(judge, "w0:s1") == ""
    assert verdict_of(judge, "w0:s2").startswith("no valid root record")
    assert verdict_of(judge, "w0:s0t1.1").startswith("no valid root record")


def test_a_like_state_is_not_looked_at_again(small_image: Path) -> None:
    with Store(small_image) as store:
        root = next_root(store)
    judge = judge_of(small_image, [block(1900 + index, b"free") for index in range(6)], [root], [])
    assert all(verdict_of(judge, f"w0:s{mask:x}") == "" for mask in range(64))
    before = judge.looks
    assert verdict_of(judge, "w1:s0") == ""
    assert judge.looks == before
    assert verdict_of(judge, "w2:s0") == ""
    assert judge.looks == before + 1


def test_what_was_seen_must_be_there(small_image: Path) -> None:
    assert verdict_of(judge_of(small_image, [], seen=1), "w0:s0") == ""
    assert "generation 1, but a line of generation 2 was seen" in verdict_of(judge_of(small_image, [], seen=2), "w0:s0")


def test_a_blank_disk_until_its_header_is_durable(small_image: Path, tmp_path: Path) -> None:
    blank = tmp_path / "blank.img"
    with blank.open("wb") as file:
        file.truncate(small_image.stat().st_size)
    with Store(small_image) as store:
        count, ring = store.header.block_count, store.header.ring_block(store.root.sequence)
        blocks = {i: data for i in range(count) if (data := store.read_block(i)).strip(b"\0")}
    fixed = (0, ring, HEADER_BLOCK, HEADER_COPY_BLOCK)
    data = [block(i, contents) for i, contents in blocks.items() if i not in fixed]
    root, copy, header = (block(i, blocks[i]) for i in (ring, HEADER_COPY_BLOCK, HEADER_BLOCK))
    judge = judge_of(blank, data, [root], [copy], [block(HEADER_COPY_BLOCK, b"")])
    for state in ("w0:s0", "w0:r1", "w1:s0", "w2:s0", "w2:s1", "w3:s0"):
        assert verdict_of(judge, state) == ""
    assert verdict_of(judge, "w3:s1") == "the disk is blank, but its header was durable"
    early = judge_of(blank, [*data, header])
    assert verdict_of(early, f"w0:s{1 << len(data):x}") .startswith("no valid root record")
