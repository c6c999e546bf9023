"""A long life with tags, rollbacks, forks and retention: no block leaks, none is free too early.

After each step the table of generations is what the model says; every so many steps the checker walks the
whole image, and a retained generation's pages are held against what they were when it was made.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import checker
import pytest
from revenant.difference import differing_pages
from revenant.format import PageKey
from revenant.publish import Copy, copy_generation
from revenant.store import Store
from revenant.writer import BootObjects, Contents, StoreWriter
from store_host import Host

TAGGED, DROPPED, ROLLBACK, HOURLY, DAILY, AUTOMATIC = 1, 2, 4, 16, 32, 64
HOUR_NS = 3_600_000_000_000
FIRST = (16, 0)
Pages = dict[tuple[int, int], int]


def word_of(value: int) -> int:
    """The first word of the harness's pattern."""
    return value * 0x9E3779B97F4A7C15 % 2**64


def pattern(value: int) -> bytes:
    """The harness's page of a value."""
    return struct.pack("<512Q", *((word_of(value) + i) % 2**64 for i in range(512)))


@dataclass
class Life:
    """A store and its model: what every generation held when it was made, and which tags there are."""

    host: Host
    rng: random.Random
    blocks: int = 3000
    generation: int = 1
    held: dict[int, Pages] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    wall_ns: int = HOUR_NS * 1000
    next_value: int = 2
    options: dict[str, int] = field(default_factory=lambda: {"retain": 16, "hourly": 3, "daily": 2})
    staged_tag: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    cut_since: bool = False  # it has been cut since the image was verified
    kernel: int = 0  # the value of its first page; 0: that of genesis

    def begin(self) -> None:
        """An image with boot objects, as `create` makes them."""
        path = self.host.directory / "genesis.img"
        boot = BootObjects(kernel=b"kernel" * 2000, boot_record=b"record", loader=b"loader" * 900)
        contents = Contents(1, [PageKey(*FIRST)], lambda _: pattern(1), boot, wall_ns=self.wall_ns)
        StoreWriter(path, contents, self.blocks).write()
        self.held = {1: {FIRST: 1}}
        self.host("load 0", path)
        self.reopen()

    def reopen(self) -> None:
        """A restart, perhaps with other options. Greedy: what is freed is taken again at once."""
        self.host("set greedy 0", int(self.rng.random() < 0.7))
        for name, value in self.options.items():
            self.host("set", name, 0, value)
        self.generation = int(self.host("open"))

    @property
    def pages(self) -> Pages:
        """What the newest generation holds."""
        return self.held[self.generation]

    def store(self) -> Store:
        """The image as the tools see it."""
        self.host.image()
        return Store(self.host.directory / "disk0.img")

    # --- commits ---

    def commit(
        self, after: Pages, new: bool = True, cut: int = 0, tagged: int = 0, untagged: int = 0
    ) -> None:
        """A root; after a cut, the machine starts again and the model is told which generation it has."""
        name = self.staged_tag
        self.wall_ns += self.rng.choice([0, HOUR_NS // 7, HOUR_NS, 9 * HOUR_NS])
        self.host("set wall 0", self.wall_ns)
        if name:
            self.host("tag", tagged, name)
        self.host("set untag 0", untagged)
        was_cut = self.host("commit", int(new), cut) == "cut"
        self.staged_tag = ""
        self.host("tag 0")
        self.host("set untag 0 0")
        self.host("set flags 0 0")
        before = self.generation
        if was_cut:
            self.host("crash")
            self.reopen()
            self.cut_since = True
            done = self.generation == before + 1 if new else self.tag_is_there(name, tagged, untagged)
        else:
            self.generation += int(new)
            done = True
        if done:
            self.held[self.generation] = after
            if name:
                self.tags[tagged or self.generation] = name
            self.tags.pop(untagged, None)
        assert self.generation in (before, before + int(new))

    def tag_is_there(self, name: str, tagged: int, untagged: int) -> bool:
        """After a cut of a root without pages: whether it had become durable."""
        tags = {generation: tag for generation, _, tag in self.history()}
        return tags.get(tagged) == name if name else not tags.get(untagged)

    def put(self, after: Pages, key: tuple[int, int], value: int) -> None:
        """A page of the next commit."""
        self.host("put", *key, value)
        after.pop(key, None)
        if value:
            after[key] = value

    # --- steps ---

    def some_cut(self) -> int:
        """Mostly none."""
        return self.rng.randrange(1, 60) if self.rng.random() < 0.15 else 0

    def step_write(self) -> None:
        after = dict(self.pages)
        for _ in range(self.rng.randrange(2)):
            origin, space = self.rng.sample([16, 17, 18, 200], 2)
            self.host("clone", origin, space)
            after = {key: value for key, value in after.items() if key[0] != space} | {
                (space, page): value for (owner, page), value in after.items() if owner == origin
            }
        for _ in range(self.rng.randrange(1, 12)):
            page = self.rng.choice([0, 1, 5, 127, 128, 300, 17000, 3_000_000]) + self.rng.randrange(3)
            self.put(after, (self.rng.choice([0, 16, 17, 18, 200]), page), self.value())
        if self.rng.random() < 0.1:
            self.staged_tag = f"new{self.generation}"
        self.commit(after, cut=self.some_cut())

    def value(self) -> int:
        """A new one, or zero."""
        self.next_value += 1
        return 0 if self.rng.random() < 0.2 else self.next_value

    def step_drop_space(self) -> None:
        space = self.rng.choice([17, 18, 200])
        self.host("drop", space)
        after = {key: value for key, value in self.pages.items() if key[0] != space}
        self.commit(after, cut=self.some_cut())

    def step_tag(self) -> None:
        free = [generation for generation in self.retained() if generation not in self.tags]
        if len(self.tags) < 8 and free:
            self.staged_tag = f"old{self.next_value}x{self.generation}"
            self.commit(self.pages, new=False, cut=self.some_cut(), tagged=self.rng.choice(free))

    def step_untag(self) -> None:
        if self.tags:
            gone = self.rng.choice(sorted(self.tags))
            self.commit(self.pages, new=self.rng.random() < 0.3, cut=self.some_cut(), untagged=gone)

    def step_rollback(self) -> None:
        """As the tool does it: what differs is written; the tool's difference must be the model's."""
        target = self.rng.choice(self.retained())
        wanted = self.held[target]
        with self.store() as store:
            keys = [key.key for key, _, _ in differing_pages(store, store.tree, store.tree_at(target))]
        differing = {
            key for key in wanted.keys() | self.pages.keys() if wanted.get(key) != self.pages.get(key)
        }
        assert set(keys) == differing and len(keys) == len(differing)
        for key in keys:
            self.host("put", *key, wanted.get(key, 0))
        self.host("set flags 0", ROLLBACK)
        self.commit(dict(wanted), cut=self.some_cut())

    def step_fork(self) -> None:
        """The fork has the same pages; sometimes the life goes on in it."""
        target = self.rng.choice(self.retained())
        path = self.host.directory / f"fork{self.next_value}.img"
        self.next_value += 1
        with self.store() as store:
            copy_generation(store, path, Copy(target, {}, self.blocks, store.header.ring_stride))
        data = path.read_bytes()
        assert checker.check(data) == []
        assert pages_of(data, target) == self.held[target]
        if self.rng.random() < 0.2:
            self.host("crash")
            self.host("load 0", path)
            self.reopen()
            assert self.generation == target
            self.held = {target: self.held[target]}
            self.tags = {}
        path.unlink()

    def step_boot(self) -> None:
        """Another kernel, and sometimes another loader and resume list; each whole at any time."""
        self.next_value += 1000
        loader_count = self.rng.choice([0, 0, 3, 17])
        kernels = {self.kernel, self.next_value}
        resume_count = self.rng.choice([0, 0, 1, 9])
        self.host("boot", self.rng.randrange(1, 100), loader_count, self.next_value, resume_count)
        self.commit(self.pages, new=True, cut=self.some_cut())
        with self.store() as store:
            first = struct.unpack_from("<Q", store.kernel())[0]
        self.kernel = next(value for value in kernels if word_of(value) == first or value == 0)
        self.host("idle 400")

    def step_grow(self) -> None:
        """More blocks, cut in the middle or not; the root that says so comes with the next commit."""
        if self.blocks < 6000:
            self.blocks += self.rng.randrange(1, 200)
            if self.host("grow", self.blocks, self.rng.choice([0, 1, 2, 3, 4])) == "cut":
                self.host("crash")
                self.reopen()
                self.blocks = self.host.facts()["total"]
                assert checker.check(self.host.image()) == []

    def step_root_only(self) -> None:
        self.commit(self.pages, new=False)

    def step_restart(self) -> None:
        self.host("crash")
        self.options = {
            "retain": self.rng.choice([2, 4, 16, 16]),
            "hourly": self.rng.choice([0, 3, 3]),
            "daily": self.rng.choice([0, 2, 2]),
        }
        self.reopen()

    def step(self) -> None:
        """One of them."""
        steps = {
            "write": 50, "drop_space": 5, "tag": 10, "untag": 9, "rollback": 10, "fork": 2, "root_only": 5,
            "restart": 5, "boot": 2, "grow": 1,
        }  # fmt: skip
        name = self.rng.choices([*steps], [*steps.values()])[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        getattr(self, f"step_{name}")()

    # --- what must hold ---

    def history(self) -> list[tuple[int, int, str]]:
        """(generation, flags, tag) of the retained generations, as the store tells them."""
        words = (word.split(":") for word in self.host("history").split())
        return [(int(generation), int(flags), tag) for generation, flags, tag in words]

    def retained(self) -> list[int]:
        """Their numbers."""
        return [generation for generation, _, _ in self.history()]

    def verify_table(self) -> None:
        """The newest ones and the tagged ones are there; others only for their hour or day."""
        history = self.history()
        assert {generation: tag for generation, _, tag in history if tag} == self.tags
        assert history[-1][0] == self.generation
        old = [entry for entry in history if entry[0] + 16 <= self.generation]
        extra = [flags for _, flags, tag in old if not tag]
        assert all(flags & (HOURLY | DAILY) for flags in extra)
        assert sum(1 for flags in extra if flags & HOURLY) <= 3
        assert sum(1 for flags in extra if flags & DAILY) <= 2

    def verify_image(self) -> None:
        """Nothing leaks, nothing is free too early; retained generations hold what they held."""
        self.cut_since = False
        data = self.host.image()
        assert checker.check(data) == []
        assert pages_of(data, self.generation) == self.pages
        retained = self.retained()
        for generation in self.rng.sample(retained, min(3, len(retained))):
            assert pages_of(data, generation) == self.held[generation]

    def end(self) -> None:
        """With everything let go, only the newest pages have blocks."""
        self.host("crash")
        self.options = {"retain": 4, "hourly": 0, "daily": 0}
        self.reopen()
        after = dict(self.pages)
        for space in (16, 17, 18, 200):
            self.host("drop", space)
        for key in [key for key in after if key[0] == 0]:
            self.host("put", *key, 0)
        self.host("boot 1 2 5")
        self.commit({})
        for generation in sorted(self.tags):
            self.commit({}, untagged=generation)
        for _ in range(24):
            self.commit({})
        self.verify_image()
        assert self.retained() == list(range(self.generation - 3, self.generation + 1))
        taken = self.blocks - 96 - self.host.facts()["free"]
        assert taken < 50, f"{taken} blocks are taken by an empty machine"


def pages_of(data: bytes, generation: int) -> Pages:
    """The pages of a retained generation, as values."""
    image = checker.load(data)
    assert image.root is not None
    meta = checker.walk_tree(image, image.root.meta, image.root.meta_height, "meta", None)
    record = next(record for record in checker.read_records(meta) if record.generation == generation)
    spaces = {0, 16, 17, 18, 200}
    tree = checker.walk_tree(image, record.tree, record.height, "old", spaces)
    assert image.problems == []
    inverse = pow(0x9E3779B97F4A7C15, -1, 2**64)
    return {
        key: struct.unpack_from("<Q", page)[0] * inverse % 2**64
        for key, page in tree.pages.items()
        if key[0] in spaces
    }


def live(host: Host, seed: int, step_count: int) -> Life:
    """So many random steps."""
    life = Life(host, random.Random(seed))
    life.begin()
    for number in range(step_count):
        life.step()
        life.verify_table()
        if number % 20 == 19 or life.cut_since:
            life.verify_image()
    life.end()
    return life


def raise_retain_count(host: Host, count: int) -> None:
    """Sets N in the newest root, as kernels did that raised it at once."""
    data = bytearray(host.image())
    at = checker.newest_root_place(data)
    struct.pack_into("<I", data, at + 328, count)
    checker.seal_root(data, at)
    host.exchange_near(data)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_tag_goes_while_its_generation_is_among_the_newest_again(
    start: Callable[..., Host], cut: int
) -> None:
    """Kept when it was old, newest again as N was raised at once, then untagged: its blocks go two roots later."""
    host = start(formatted=False, seed=cut)
    host("format 0")
    host("set retain 0 2")
    host("open")
    for generation in range(2, 9):
        host("put 16 0", generation)
        host("tag 0", *(["kept"] if generation == 4 else []))
        host("commit 1 0")
    raise_retain_count(host, 8)
    host("set retain 0 8")
    host("open")
    host("set untag 0 4")
    for generation in range(9, 12):
        host("put 16 0", generation)
        host("commit 1 0")
        host("set untag 0 0")
    host("set greedy 0 1")
    host("puts 17 0 12 40")
    host("commit 1", cut)
    host("crash")
    assert checker.check(host.image()) == []
    host("open")
    for value in range(13, 17):
        host("put 16 0", value)
        host("commit 1 0")
        assert checker.check(host.image()) == []
    assert len(host("history").split()) == 8


@pytest.mark.parametrize("seed", [1, 2])
def test_a_long_history(start: Callable[..., Host], seed: int) -> None:
    host = start(formatted=False, seed=seed)
    life = live(host, seed, 700)
    assert all(life.counts.get(name, 0) > 5 for name in ("tag", "untag", "rollback", "fork", "restart"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_very_long_history(start: Callable[..., Host], seed: int) -> None:
    live(start(formatted=False, seed=seed), seed, 3000)
