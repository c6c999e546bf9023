"""One generation as a store of its own, complete and compact, in the order of a start: far images, and forks.

The pages of the resume list come first if the image has one, then the kernel's records, then the rest. The
ring of a far image is not spread: nobody writes there again, and a reader gets it in few requests. Used by:
`revenant publish` and `revenant fork`.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pexpect

from revenant.delta import Delta, whole
from revenant.errors import BuildError, StoreError
from revenant.format import FORMAT_VERSION, FORMAT_VERSION_MAX, Generation, PageKey, Root
from revenant.kernel_note import kernel_versions
from revenant.machine import Machine
from revenant.qemu import MachineConfig
from revenant.resume_list import START_S, touched
from revenant.store import Store
from revenant.writer import BootObjects, Contents, StoreWriter

RECORD_QUIET_S = 3
RECORD_TIMEOUT_S = 60
COMPRESSION_LEVEL = 12
RECORD_INPUT = b"6*7\r"
RECORD_ANSWER = b"42\r\n>>> "


def generation_record(store: Store, generation: int | None) -> Generation:
    """The record of a retained generation; the newest may not be in the table yet (adoption)."""
    root = store.root
    if generation in (None, root.generation):
        return Generation(root.generation, root.wall_ns, root.mono_ns)
    store.tree_at(generation)  # says so if it is not retained
    return next(record for record in store.generations() if record.generation == generation)


@dataclass(frozen=True)
class Copy:
    """What of a store is copied, and how: `pages` in place of its own, None: as large as is needed."""

    generation: int | None
    pages: Mapping[PageKey, bytes] = field(default_factory=dict)
    block_count: int | None = None
    ring_stride: int = 1
    resume: Sequence[PageKey] | None = None
    """What a start touches, in its order; None: the store's own list."""
    sign: Callable[[bytes], bytes] | None = None
    """Signs the root hash."""
    store_id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    delta: bool = False
    """Only what differs from `base`; where that is None, from what the store's own far stores have."""
    base: Store | None = None
    compress: Callable[[bytes], bytes] | None = None
    """Makes a zstd frame of a page; equal pages are then stored once."""


def publish_image(
    store: Store,
    out: Path,
    generation: int | None,
    record: bool = False,
    key: Path | None = None,
    resume: Sequence[PageKey] | None = None,
    delta: bool = False,
    base: Store | None = None,
    compress: bool | None = False,
) -> Root:
    """Write a far image; StoreError if a page cannot be had from near or the far stores given.

    `record`: with a new resume list, by a start of a copy in a machine of its own. `key`: a private key's file, to
    sign with; KeyFileError. `compress` None: if the machine's kernel can read it. The others as in Copy.
    """
    sign = load_signer(key) if key else None
    resume = record_start(store, out.parent, generation) if record else resume
    if compress is not False and not kernel_decompresses(store):
        if compress or (base and base.header.is_compact):
            raise StoreError(store.path, "its kernel reads no compressed pages", "`revenant upgrade` it first")
        compress = False
    compressor = load_compressor() if compress is not False else None
    copy = Copy(generation, resume=resume, sign=sign, delta=delta, base=base, compress=compressor)
    return copy_generation(store, out, copy)


def kernel_decompresses(store: Store) -> bool:
    """Whether the machine's own kernel, which goes with it, reads compressed pages."""
    try:
        return kernel_versions(store.path, store.kernel()).format_version >= FORMAT_VERSION_MAX
    except BuildError:
        return False


def load_compressor() -> Callable[[bytes], bytes]:
    """Makes zstd frames of pages."""
    import zstandard

    return zstandard.ZstdCompressor(COMPRESSION_LEVEL, write_checksum=False).compress


def load_signer(key: Path) -> Callable[[bytes], bytes]:
    """What signs with a private key's file; KeyFileError."""
    from revenant import keys

    return keys.load_private_key(key).sign


def record_start(store: Store, folder: Path, generation: int | None) -> list[PageKey]:
    """What a start touches until a line typed to it is answered, in this order.

    A busy machine, which does not answer, has had its start when it touches nothing more for a while; of one that never
    ceases to, START_S count. The copy that is started is thrown away, so it may be typed to, and nothing of it is kept.
    """
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        image = Path(scratch) / "record.img"
        copy_generation(store, image, Copy(generation))
        with Machine(MachineConfig(image, interval_ms=0, relaxed=True, record=True), RECORD_QUIET_S) as machine:
            machine.send(RECORD_INPUT)
            end_s, seen = time.monotonic() + RECORD_TIMEOUT_S, 0
            while True:
                with contextlib.suppress(pexpect.TIMEOUT):
                    machine.expect_exact(RECORD_ANSWER)
                    return touched(machine.voice)
                count = len(touched(machine.voice))
                if 0 < count == seen or time.monotonic() > end_s:
                    return touched(machine.voice, START_S)
                seen = count


def copy_generation(store: Store, out: Path, copy: Copy) -> Root:
    """Write `out`; StoreError if a page cannot be had from near or the far stores given."""
    record = generation_record(store, copy.generation)
    tree = store.tree_at(copy.generation)
    delta = Delta.of(store, tree, copy.base) if copy.delta else None
    pages = delta.own if delta else whole(store, tree)
    listed = store.resume_keys() if copy.resume is None else copy.resume
    resume = list(dict.fromkeys(listed))
    first = [key for key in resume if key in pages]
    keys = list(dict.fromkeys([*first, *sorted(pages)]))
    loader = store.loader_pages()
    if not loader:
        raise StoreError(store.path, "its root names no loader")
    size = store.root.loader_size
    contents = Contents(
        generation=record.generation,
        keys=keys,
        load=lambda key: copy.pages.get(key) or store.read(pages[key], 0),
        boot=BootObjects(
            kernel=store.kernel(),
            boot_record=loader[0],
            loader=b"".join(loader[block] for block in sorted(loader) if block)[:size],
        ),
        wall_ns=record.wall_ns,
        mono_ns=record.mono_ns,
        record_version=store.root.record_version,
        resume=resume,
        retain_count=store.root.retain_wanted or store.root.retain_count,
        retain_hourly=store.root.retain_hourly,
        retain_daily=store.root.retain_daily,
        sign=copy.sign,
        store_id=copy.store_id,
        named=delta.named if delta else {},
        heights=delta.heights if delta else {},
        table=delta.table if delta else (),
        version=max(other.header.version for other in (store, copy.base) if other) if delta else FORMAT_VERSION,
        compress=copy.compress,
    )
    return StoreWriter(out, contents, copy.block_count, copy.ring_stride).write()
