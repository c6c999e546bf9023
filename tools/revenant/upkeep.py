"""Commands that change what is below the programs: upgrade (kernel and loader), grow.

No machine runs meanwhile. Both are one durable root: the image is as before or as after. Writing is done by
change.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from revenant import genesis
from revenant.change import Commit, edit, locked
from revenant.errors import BuildError
from revenant.format import BLOCK_SIZE, KERNEL_SIZE_MAX, STORE_BLOCK_COUNT_MAX, ZERO_PAGE, StartFailures
from revenant.images import Image, Json, parse_size
from revenant.kernel_note import KernelVersions, kernel_versions
from revenant.output import in_units, print_facts
from revenant.record import ResumeReason
from revenant.state import machine_record
from revenant.store import Store
from revenant.travel import MACHINE_PAGE
from revenant.writer import BootObjects


def check_versions(store: Store, path: Path, versions: KernelVersions) -> None:
    """StoreError unless the kernel reads what is in the image."""
    if versions.format_version < store.header.version:
        reason = f"it has format {store.header.version}, {path} reads {versions.format_version}"
        raise store.fault(reason, "nothing was changed")
    if versions.record_version != store.root.record_version:
        raise store.fault(
            f"its records have version {store.root.record_version}, {path} reads {versions.record_version}",
            "nothing was changed",
        )


def same_loader(store: Store, boot: BootObjects) -> bool:
    """Whether the image has this boot code already."""
    pages = store.loader_pages()
    new = boot.loader_pages()
    blocks = {0 if index == 0 else index + 1: page for index, page in new.items()}
    return bool(pages) and all(blocks.get(block, ZERO_PAGE) == page for block, page in pages.items())


def upgrade(
    image: Image,
    kernel: Annotated[Path | None, typer.Option(help="Kernel ELF file, stripped.")] = None,
    boot: Annotated[Path | None, typer.Option(help="Folder of mbr.bin and loader.bin.")] = None,
    as_json: Json = False,
) -> None:
    """Install the build's kernel and boot code; the programs go on under it at the next start."""
    files = genesis.BuildFiles.locate(kernel, None, boot)
    objects = files.boot_objects()
    if len(objects.kernel) > KERNEL_SIZE_MAX:
        raise BuildError(files.kernel, f"{len(objects.kernel)} bytes, {KERNEL_SIZE_MAX} fit", "strip it")
    versions = kernel_versions(files.kernel, objects.kernel)
    with locked(image) as fd, Store(image) as store:
        check_versions(store, files.kernel, versions)
        new_loader = not same_loader(store, objects)
        changed = new_loader or store.kernel() != objects.kernel
        generation = store.root.generation
        if changed:
            generation, _ = edit(store, fd, upgrade_orders(store, objects, new_loader))
    facts = {"image": str(image), "generation": generation, "kernel_size": len(objects.kernel)}
    print_facts({**facts, "changed": changed}, as_json)


def upgrade_orders(store: Store, objects: BootObjects, new_loader: bool) -> Iterator[bytes]:
    """The boot objects, then a generation that tells the programs."""
    record, loader = (objects.boot_record, objects.loader) if new_loader else (b"", b"")
    yield f"boot {len(objects.kernel)} {len(record)} {len(loader)}\n".encode()
    yield objects.kernel + record + loader
    machine = machine_record(store, store.root.generation)
    if machine.resume_reason == ResumeReason.RESTART:
        machine = replace(machine, resume_reason=ResumeReason.UPGRADE)
    page = machine.page
    yield from Commit(
        new=True,
        record_version=store.root.record_version,
        pages=[MACHINE_PAGE],
        load=lambda _: page,
        failures=StartFailures(),  # another kernel may get further
    ).orders()


def grow(
    image: Image,
    size: Annotated[str, typer.Argument(help="The new size, like 2G.")],
    as_json: Json = False,
) -> None:
    """Enlarge an image; what is in it stays where it is."""
    block_count = parse_size(size) // BLOCK_SIZE
    with locked(image) as fd, Store(image) as store:
        before = store.header.block_count
        if before == block_count == store.root.block_count:
            raise store.fault(f"it has {in_units(before * BLOCK_SIZE)} already")
        if not before <= block_count <= STORE_BLOCK_COUNT_MAX:
            reason = f"it has {in_units(before * BLOCK_SIZE)}; it can only grow, up to 16 TiB"
            raise store.fault(reason, "give a larger size")
        orders = [f"grow {block_count}\n".encode()] if block_count > before else []
        orders += Commit(record_version=store.root.record_version).orders()
        edit(store, fd, orders)
    with Store(image) as store:
        facts = {"block_count": store.root.block_count, "free_count": store.root.free_count}
    print_facts({"image": str(image), **facts}, as_json)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (upgrade, grow):
        app.command()(command)
