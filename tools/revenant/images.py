"""Commands about image files: create, info, check, log, publish, keygen. None of them starts a machine."""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from revenant import genesis
from revenant.check import check_store
from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.files import Addition
from revenant.format import BLOCK_SIZE, RING_COUNT, RING_FIRST_BLOCK, GenerationFlag
from revenant.output import in_units, print_facts, print_rows, say, working
from revenant.publish import publish_image
from revenant.record import RECORD_MACHINE_PAGE, MachineRecord
from revenant.resume_list import load as load_list
from revenant.store import Store
from revenant.trust import key_name

Image = Annotated[Path, typer.Argument(help="The image file.")]
Json = Annotated[bool, typer.Option("--json", help="Facts as JSON.")]
Far = Annotated[list[str] | None, typer.Option("--far", help="A far store of it: as `run --far` has it (repeatable).")]

OWN_FARS = "far"
START_BLOCK_COUNT = 6  # boot record, headers, root, the kernel's node, and the ring's second slot
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Compression(StrEnum):
    """Of a far image's pages."""

    ZSTD = "zstd"
    NONE = "none"


COMPRESSES = {None: None, Compression.ZSTD: True, Compression.NONE: False}


def parse_size(text: str) -> int:
    """Bytes from 64M, 1G, …"""
    plain = text.upper().removesuffix("IB")
    number, unit = plain.rstrip("KMGT"), plain.lstrip("0123456789")
    if not number.isdigit() or unit not in UNITS:
        raise typer.BadParameter(f"{text!r} is not a size like 64M or 1G")
    return int(number) * UNITS[unit]


def copy_image(source: Path, target: Path) -> None:
    """A private copy, sparse, sharing blocks where the file system can."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", source, target], check=True)


def create(
    image: Image,
    size: Annotated[str, typer.Option(help="Of the sparse file.")] = "1G",
    kernel: Annotated[Path | None, typer.Option(help="Kernel ELF file, stripped.")] = None,
    userland: Annotated[Path | None, typer.Option(help="The program of genesis, an ELF file.")] = None,
    boot: Annotated[Path | None, typer.Option(help="Folder of mbr.bin and loader.bin.")] = None,
    add: Annotated[list[str] | None, typer.Option(help="FILE[:TARGET] or a folder, into its files.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Make an image whose first generation holds Python, ready to run."""
    files = genesis.BuildFiles.locate(kernel, userland, boot)
    scratch = image.with_name(f".{image.name}.{os.getpid()}") if force else image
    additions = [Addition.parse(text) for text in add or []]
    root = genesis.create_image(scratch, files, parse_size(size), additions=additions)
    if force:
        scratch.replace(image)
    print_facts({"image": str(image), "generation": root.generation, "root_hash": root.hash.hex()}, as_json)


def when(wall_ns: int) -> str:
    """A wall clock time for people, in UTC."""
    try:
        return datetime.datetime.fromtimestamp(wall_ns / 1e9, datetime.UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return f"{wall_ns} ns"


def store_facts(store: Store) -> dict[str, Any]:
    """What `info` says."""
    root, header = store.root, store.header
    facts: dict[str, Any] = {
        "image": str(store.path),
        "store_id": header.store_id.hex(),
        "format_version": header.version,
        "generation": root.generation,
        "sequence": root.sequence,
        "time": when(root.wall_ns),
        "mono_ns": root.mono_ns,
        "root_hash": root.hash.hex(),
        "signed": any(root.signature),
        "block_count": header.block_count,
        "free_count": root.free_count,
        "size": in_units(header.block_count * BLOCK_SIZE),
        "on_disk": in_units(os.stat(store.path).st_blocks * 512),
        "kernel_size": root.kernel_size,
        "generations": len(store.generations()),
        "retain": f"{root.retain_wanted or root.retain_count}:{root.retain_hourly}:{root.retain_daily}",
        "complete": not any(entry.store_id.strip(b"\0") for entry in store.table) or bool(root.flags & 1),
        "far_stores": [entry.store_id.hex() for entry in store.table],
    }
    try:
        machine = MachineRecord.unpack(store.record_page(RECORD_MACHINE_PAGE))
        facts |= {"record_version": machine.version, "resume_count": machine.resume_count}
    except StoreError as error:
        facts |= {"record_version": error.reason}
    return facts


def info(image: Image, far: Far = None, as_json: Json = False) -> None:
    """What an image holds."""
    with Store(image, open_fars(far or [])) as store:
        print_facts(store_facts(store), as_json)


def check(image: Image, far: Far = None, as_json: Json = False) -> None:
    """Verify every hash, every pointer and the allocation state; exit 1 with the place of the first fault."""
    with working(f"checking {image}"), Store(image, open_fars(far or [])) as store:
        report = check_store(store)
    print_facts({"image": str(image), "result": "sound", **report.facts()}, as_json)


def flag_names(flags: int) -> str:
    """The names of a generation's flags, or -."""
    return " ".join(str(flag.name).lower() for flag in GenerationFlag if flags & flag) or "-"


def log(image: Image, as_json: Json = False) -> None:
    """The generations that an image retains, newest first.

    When an image is nearly full, old ones are given up by themselves: of the newest those beyond 2, then those kept
    for their hour, for their day, with automatic tags. Never those that were tagged by name.
    """
    with Store(image) as store:
        rows = [
            {
                "generation": record.generation,
                "time": when(record.wall_ns),
                "mono_ms": record.mono_ns // 1_000_000,
                "pages": record.dirty_pages,
                "flags": flag_names(record.flags),
                "tag": record.tag_text or "-",
            }
            for record in reversed(store.generations())
        ]
    print_rows(rows, as_json)


def publish(
    image: Image,
    out: Annotated[Path, typer.Argument(help="The far image to write.")],
    generation: Annotated[int | None, typer.Option("--at", help="A retained one; else the newest.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Start a copy, note what it touches; that is laid out and fetched first.")
    ] = False,
    resume_list: Annotated[Path | None, typer.Option(help="The same from a file: lines `touched SPACE:PAGE`.")] = None,
    sign: Annotated[Path | None, typer.Option(help="Sign its root with this private key (`revenant keygen`).")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Only what differs from this published image; `far`: from the machine's own far stores."),
    ] = None,
    compress: Annotated[
        Compression | None, typer.Option(help="Of pages; zstd, unless the machine's kernel is too old for it.")
    ] = None,
    far: Far = None,
    as_json: Json = False,
) -> None:
    """Write a far image of one generation, and print its root hash, which is what its users trust."""
    if record and resume_list:
        raise typer.BadParameter("--record makes a list of its own", param_hint="--resume-list")
    resume = load_list(resume_list) if resume_list else None
    bases = [Path(base)] if base not in (None, OWN_FARS) else []
    fars = open_fars([*bases, *(far or [])])
    with working(f"publishing {image}"), Store(image, fars) as store:
        root = publish_image(
            store, out, generation, record, sign, resume,
            delta=base is not None, base=fars[0] if bases else None, compress=COMPRESSES[compress],
        )  # fmt: skip
    with Store(out) as published:
        facts = publication_facts(published)
    assert root.hash.hex() == facts["root_hash"]
    if as_json:
        print_facts(facts, as_json)
    else:
        say(publication_text(facts))
        print(facts["root_hash"])


def publication_facts(store: Store) -> dict[str, Any]:
    """What `publish` says of what it has written: blocks in all, and those that a start fetches before any miss."""
    root = store.root
    block_count = root.block_count - root.free_count - RING_FIRST_BLOCK - RING_COUNT
    start_count = root.packed_count + len(store.boot_pages(root.kernel)) + START_BLOCK_COUNT
    return {
        "image": str(store.path),
        "generation": root.generation,
        "root_hash": root.hash.hex(),
        "signed": any(root.signature),
        "block_count": root.block_count,
        "bytes": block_count * BLOCK_SIZE,
        "packed_count": root.packed_count,
        "start_bytes": start_count * BLOCK_SIZE if root.packed_count else None,
        "far_stores": [entry.store_id.hex() for entry in store.table],
    }


def publication_text(facts: Mapping[str, Any]) -> str:
    """The same for people, in a line."""
    text = f"revenant: {facts['image']}: generation {facts['generation']}, {in_units(facts['bytes'])}"
    if facts["start_bytes"] is not None:
        share = facts["start_bytes"] / facts["bytes"]
        text += f"; a start needs {in_units(facts['start_bytes'])} of it ({share:.1%})"
    if facts["far_stores"]:
        text += f"; needs {len(facts['far_stores'])} other far store{'s' * (len(facts['far_stores']) > 1)}, too"
    return text + ("; signed" if facts["signed"] else "")


def keygen(
    key: Annotated[Path, typer.Argument(help="The private key's file; the public one gets .pub behind its name.")],
    as_json: Json = False,
) -> None:
    """Make an Ed25519 key and print its public half. `publish --sign KEY` signs, `run --trust KEY.pub` trusts it."""
    from revenant import keys

    path, public = keys.make_key_files(key)
    name = key_name(public)
    if as_json:
        print_facts({"private_key": str(key), "public_key": str(path), "trust": name}, as_json)
    else:
        print(name)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (create, info, check, log, publish, keygen):
        app.command()(command)


