"""What `bench stream` measures: one machine in the middle of its work, published, with and without what it needs.

The machine that it is compared with is ours, too: the same generation and kernel on a qcow2 overlay that QEMU fills
(copy-on-read, clusters of 64 KiB); its kernel is given to it. So only the streaming differs. Used by: stream.py,
misses.py, fill.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from revenant import nbd
from revenant.bench.common import Workshop, ask
from revenant.bench.links import LINK_A, LINK_B, LINK_C, Link, blank_near, overlay
from revenant.format import BLOCK_SIZE, PageKey
from revenant.machine import PROMPT, Machine
from revenant.publish import RECORD_ANSWER, RECORD_INPUT, Copy, copy_generation
from revenant.qemu import MachineConfig
from revenant.resume_list import touched
from revenant.store import Store

DELAYS_MS = (0, 20, 50, 100)
SCATTERED_COUNT = 64
ROOM_SIZE = 16 << 20
PAYLOAD_PROGRAM = """\
import micropython, revenant
@micropython.viper
def scribble(data: ptr32, count: int):
    x = 0x2545f491
    for i in range(count):
        x ^= x << 13
        x ^= (x >> 17) & 0x7fff
        x ^= x << 5
        data[i] = x
payload = bytearray(%d << 20)
scribble(payload, len(payload) >> 2)
def touch(pages):
    return sum([payload[page << 12] for page in pages])
print(revenant.commit())
"""


@dataclass(frozen=True)
class Size:
    """How much is measured: `payload_mib` is what the machine holds besides Python itself."""

    payload_mib: int
    links: Sequence[Link]
    delays_ms: Sequence[int]
    miss_count: int


FULL = Size(62, (LINK_A, LINK_B, LINK_C), DELAYS_MS, 100)
QUICK = Size(4, (LINK_B,), (0, 20), 10)


@dataclass(frozen=True)
class Published:
    """One image of the machine to be streamed, and the resume list in it."""

    path: Path
    trust: str
    resume: Sequence[PageKey]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size


@dataclass(frozen=True)
class Studio:
    """A machine in the middle of its work, published in several ways."""

    shop: Workshop
    size: Size
    source: Path
    kernel: Path
    recorded: Published
    """With the list of a start."""
    scattered: Published
    """With the list of a start that touches the scattered pages, too."""
    roomy: Published
    """As `recorded`, for QEMU's copy-on-read: a store with room to go on in."""

    @classmethod
    def build(cls, shop: Workshop, size: Size) -> Studio:
        """Let the machine work, record its starts, publish it."""
        source, kernel = shop.copy("source.img"), shop.folder / "kernel.elf"
        with Machine(MachineConfig(source), 300) as machine:
            machine.expect_exact(PROMPT)
            ask(machine, PAYLOAD_PROGRAM % size.payload_mib)
        touch = f"touch({scattered_pages(size)})\r".encode()
        start = record(shop, source, RECORD_INPUT, RECORD_ANSWER)
        start_and_touch = record(shop, source, touch + RECORD_INPUT, RECORD_ANSWER)
        with Store(source) as store:
            kernel.write_bytes(store.kernel())

            def publish(name: str, resume: Sequence[PageKey], block_count: int | None = None) -> Published:
                path = shop.folder / name
                root = copy_generation(store, path, Copy(None, resume=resume, block_count=block_count))
                return Published(path, root.hash.hex(), resume)

            recorded = publish("recorded.img", start)
            scattered = publish("scattered.img", start_and_touch)
            roomy = publish("roomy.img", start, (recorded.size + ROOM_SIZE) // BLOCK_SIZE)
        return cls(shop, size, source, kernel, recorded, scattered, roomy)

    def ours(self, image: Published, server: nbd.Server, fill: bool = False) -> MachineConfig:
        """A machine that starts from a blank near."""
        near = blank_near(self.shop.folder / "near.img")
        return MachineConfig(near, fars=(server.uri,), trust=image.trust, fill=fill)

    def copied(self, server: nbd.Server) -> MachineConfig:
        """A machine that QEMU streams."""
        return overlay(self.shop.folder / "near.qcow2", self.roomy.size, server, self.kernel)


def scattered_pages(size: Size) -> list[int]:
    """Pages of the payload, far from each other."""
    return [size.payload_mib * 256 // SCATTERED_COUNT * i for i in range(SCATTERED_COUNT)]


def record(shop: Workshop, source: Path, question: bytes, answer: bytes) -> list[PageKey]:
    """What a start touches until the answer to a question typed at once."""
    image = shop.copy("record.img", source)
    with Machine(MachineConfig(image, interval_ms=0, relaxed=True, record=True)) as machine:
        machine.send(question)
        machine.expect_exact(answer)
        return touched(machine.voice)
