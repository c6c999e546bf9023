"""Near full: old generations are given up by themselves, in FORMAT.md's order; tags by name never; then commits end.

A store of 2048 blocks, with generations kept for every reason, is filled to the last commit that it takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import checker
import pytest
from store_host import E_NOSPACE, Host, StoreError

HOUR_NS = 3_600_000_000_000
TAGGED, HOURLY, DAILY, AUTOMATIC = 1, 16, 32, 64
PAGES = 60  # of each commit that fills near


def old_life(start: Callable[..., Host], seed: int = 1) -> Host:
    """17 generations of 100 pages each; six are the newest, others are kept for every reason."""
    host = start(blocks=2048, seed=seed, formatted=False)
    host("format 0")
    for name, value in (("retain", 6), ("hourly", 4), ("daily", 3)):
        host("set", name, 0, value)
    host("open")
    for turn in range(16):
        host("set wall 0", (1000 + turn * 5) * HOUR_NS)
        host("puts 16 0", turn * 1000 + 1, 100)
        if turn in (1, 2, 3):
            host("tag 0", "mine" if turn == 1 else f"reset-{turn}")
            host("set flags 0", 0 if turn == 1 else AUTOMATIC)
        host("commit 1 0")
        host("tag 0")
        host("set flags 0 0")
    return host


def put(host: Host, turn: int) -> None:
    """The pages of one commit that fills near."""
    host("puts 17", turn * PAGES, 9000 + turn * PAGES, PAGES)


def retained(host: Host) -> tuple[int, int, int, int, list[str]]:
    """How many are only among the newest, kept for an hour, a day, tagged by themselves; the tags given by name."""
    records = [word.split(":") for word in host("history").split()]
    flags = [int(record[1]) for record in records]
    named = [tag for _, bits, tag in records if tag and not int(bits) & AUTOMATIC]
    kinds = [sum(1 for bits in flags if bits & kind) for kind in (HOURLY, DAILY, AUTOMATIC)]
    return sum(1 for bits in flags if not bits), kinds[0], kinds[1], kinds[2], named


def commits(host: Host) -> Iterator[int]:
    """Commits until near is full, each looked at; their number so far."""
    for turn in range(100):
        put(host, turn)
        try:
            host("commit 1 0")
        except StoreError as error:
            assert error.code == E_NOSPACE
            return
        assert checker.check(host.image()) == []
        yield turn + 1
    raise AssertionError("near is never full")


def fill(host: Host) -> int:
    """Commits until none goes any more; how many went."""
    return max(commits(host), default=0)


def test_old_generations_go_in_their_order(start: Callable[..., Host]) -> None:
    host = old_life(start)
    assert retained(host) == (6, 4, 3, 2, ["mine"])
    before = [6, 4, 3, 2]
    given_up: list[list[int]] = [[], [], [], []]  # how many of each kind there were after each commit
    for _ in commits(host):
        *kinds, named = retained(host)
        assert named == ["mine"]
        for number in (1, 2, 3):
            if kinds[number] < before[number]:
                assert kinds[0] <= 3 and max(kinds[1:number], default=0) <= 1, "there were others to go first"
        before = kinds
        for kind, count in zip(given_up, kinds, strict=True):
            kind.append(count)
    assert retained(host) == (2, 0, 0, 0, ["mine"])
    assert all(min(kind) < max(kind) for kind in given_up)
    assert len(given_up[0]) * PAGES > 1300
    for page in range(100):
        assert host.holds(16, page, 15001 + page)
    facts = host.facts()
    with pytest.raises(StoreError):
        host("commit 1 0")
    assert host.facts()["near_writes"] == facts["near_writes"], "a refused commit wrote something"


def test_a_tag_that_got_a_name_stays(start: Callable[..., Host]) -> None:
    """It was one that goes by itself; named by somebody it does not, however many others of that kind come."""
    host = start(blocks=2048, formatted=False)
    host("format 0")
    host("set retain 0 2")
    host("open")
    for turn in range(12):
        host("puts 16 0", turn * 1000 + 1, 10)
        host("set flags 0", AUTOMATIC)
        host("tag 0", f"reset-{turn}")
        host("commit 1 0")
        host("set flags 0 0")
        host("tag 2 mine" if turn == 1 else "tag 0")
        host("put 17 0", turn + 1)
        host("commit 1 0")
    *_, automatic, named = retained(host)
    assert automatic in (4, 5) and named == ["mine"]
    assert checker.check(host.image()) == []


@pytest.mark.parametrize("clones", [False, True])
def test_nothing_is_given_up_for_a_commit_that_is_too_large_anyway(
    start: Callable[..., Host], clones: bool
) -> None:
    """Fewer and fewer pages, until old generations could make room for them: then they do."""
    host = old_life(start)
    before = retained(host)
    for pages in range(2100, 0, -50):
        host("puts 17 0 9000", pages)
        if clones:
            host("clone 16 18")
        try:
            host("commit 1 0")
        except StoreError as error:
            assert error.code == E_NOSPACE
            if retained(host) != before:
                break  # so much could be won at most
            host("crash")  # forgets what is staged
            host("open")
        else:
            break
    assert 900 < pages < 1900
    assert retained(host) < before and retained(host)[4] == ["mine"]
    assert checker.check(host.image()) == []


def test_full_near_goes_on_when_it_has_grown(start: Callable[..., Host]) -> None:
    host = old_life(start)
    turn = fill(host)
    host("grow 4096 0")
    host("commit 1 0")
    assert checker.check(host.image()) == []
    assert host.holds(17, turn * PAGES, 9000 + turn * PAGES)
    for value in range(8):
        host("put 18 0", value + 1)
        host("commit 1 0")
    assert retained(host)[0] == 6, "with room, as many are retained as are wanted"


@pytest.mark.parametrize(("count", "distance"), [(20, 1), (60, 128)])
def test_a_full_near_still_takes_roots_without_pages(start: Callable[..., Host], count: int, distance: int) -> None:
    """Filled to the last page that it takes, old generations given up for it; then a tag can be taken away."""
    host = start(blocks=2048, formatted=False)
    host("format 0")
    for name, value in (("retain", 2), ("hourly", 100)):
        host("set", name, 0, value)
    host("open")
    host("tag 0", "mine")
    page = turn = 0
    while count > 0:
        turn += 1
        host("set wall 0", turn * HOUR_NS)
        for number in range(page, page + count):
            host("put 17", number * distance, number + 1)
        try:
            host("commit 1 0")
            page += count
        except StoreError as error:
            assert error.code == E_NOSPACE
            host("crash")
            host("open")
            count //= 2
        host("tag 0")
    assert retained(host) == (2, 0, 0, 0, ["mine"])
    host("set untag 0 2")
    host("commit 0 0")
    assert retained(host)[4] == [] and checker.check(host.image()) == []


@pytest.mark.parametrize("seed", range(6))
def test_cuts_while_generations_are_given_up(start: Callable[..., Host], seed: int) -> None:
    """What is promised is there after each cut; the next start is refused or goes on by the same rule."""
    rng = random.Random(seed)
    host = old_life(start, seed)
    generation, turn, cuts = 17, 0, 0
    while True:
        host("set greedy 0", rng.randrange(2))
        put(host, turn)
        try:
            was_cut = host("commit 1", rng.choice([0, rng.randrange(1, 30)])) == "cut"
        except StoreError as error:
            assert error.code == E_NOSPACE
            break
        if was_cut:
            cuts += 1
            host("crash")
            assert checker.check(host.image()) == []
            host("open")
        now = host.facts()["generation"]
        assert now == generation + 1 or (was_cut and now == generation)
        turn += now - generation
        generation = now
        assert retained(host)[4] == ["mine"]
    assert cuts > 3 and turn * PAGES > 1300
    for page in range(turn * PAGES):
        assert host.holds(17, page, 9000 + page)


def test_first_commit_of_a_full_near_with_many_tags(start: Callable[..., Host]) -> None:
    """After a start it knows, too, what the lists of tags may need; tags that are taken away make room again."""
    host = start(blocks=2048, formatted=False)
    host("format 0")
    host("set retain 0 2")
    host("open")
    tags = []
    for turn in range(200):
        host("puts 16", turn % 7, turn * 100 + 1, 30)
        host("tag 0", f"tag{turn}")
        try:
            host("commit 1 0")
        except StoreError as error:
            assert error.code == E_NOSPACE
            break
        tags.append((turn + 2, f"tag{turn}"))
    assert len(tags) > 20
    while len(tags) > 5:
        host("crash")
        host("open")
        generation, _ = tags.pop(len(tags) * 2 // 3)
        host("set untag 0", generation)
        host("commit 0 0")
        assert checker.check(host.image()) == []
        history = [word.split(":") for word in host("history").split()]
        assert [(int(number), tag) for number, _, tag in history if tag] == tags
    host("set untag 0 0")
    host("put 16 0 1")
    host("commit 1 0")
    assert host.facts()["free"] > 1000
