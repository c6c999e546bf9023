"""A far image: one generation as an ordinary store, complete and compact, in the order of a start.

The pages of the resume list come first if the image has one, then the kernel's records, then the rest. The
ring is not spread: nobody writes there again, and a reader gets it in few requests. Used by: `revenant
publish`.
"""

from __future__ import annotations

from pathlib import Path

from revenant.errors import StoreError
from revenant.format import SPACE_SHARES, Generation, PageKey, Root
from revenant.store import Store
from revenant.writer import BootObjects, Contents, StoreWriter


def generation_record(store: Store, generation: int | None) -> Generation:
    """The record of a retained generation; the newest may not be in the table yet (adoption)."""
    root = store.root
    if generation in (None, root.generation):
        return Generation(root.generation, root.wall_ns, root.mono_ns)
    store.tree_at(generation)  # says so if it is not retained
    return next(record for record in store.generations() if record.generation == generation)


def publish_image(store: Store, out: Path, generation: int | None) -> Root:
    """Write `out`; StoreError if a page cannot be had from near or the far stores given."""
    record = generation_record(store, generation)
    pointers = dict(store.pages(store.tree_at(generation)))
    pages = {key: pointer for key, pointer in pointers.items() if key.space != SPACE_SHARES}
    first = [key for key in dict.fromkeys(store.resume_keys()) if key in pages]
    keys = list(dict.fromkeys([*first, *sorted(pages)]))
    loader = store.loader_pages()
    if not loader:
        raise StoreError(store.path, "its root names no loader")
    size = store.root.loader_size
    contents = Contents(
        generation=record.generation,
        keys=keys,
        load=lambda key: store.read(pages[key], 0),
        boot=BootObjects(
            kernel=store.kernel(),
            boot_record=loader[0],
            loader=b"".join(loader[block] for block in sorted(loader) if block)[:size],
        ),
        wall_ns=record.wall_ns,
        mono_ns=record.mono_ns,
        record_version=store.root.record_version,
        resume=[PageKey(key.space, key.page) for key in first],
        retain_count=store.root.retain_count,
    )
    return StoreWriter(out, contents, block_count=None, ring_stride=1).write()
