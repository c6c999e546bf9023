"""Commands about time: tag, diff, rollback, fork. None of them starts a machine, none destroys a state.

A rollback is a new generation with the contents of an old one, a fork an image of its own; in both the
machine record says why the next start is not a plain one. Writing is done by change.py and writer.py.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from revenant.change import Commit, edit, locked
from revenant.difference import differing_pages, summary
from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.format import (
    BLOCK_SIZE,
    SPACE_RECORDS,
    TAG_COUNT_MAX,
    TAG_SIZE_MAX,
    Generation,
    GenerationFlag,
    PageKey,
    Pointer,
    StartFailures,
)
from revenant.images import Far, Image, Json, store_facts
from revenant.inspection import changed_variables
from revenant.output import print_facts, print_rows, say, working
from revenant.publish import Copy, copy_generation
from revenant.record import RECORD_MACHINE_PAGE, ResumeReason
from revenant.state import NEWEST, machine_record, named, retained
from revenant.store import AbsentError, Store

MACHINE_PAGE = PageKey(SPACE_RECORDS, RECORD_MACHINE_PAGE)


# --- tag ---


def check_tag(store: Store, name: str, record: Generation) -> None:
    """StoreError unless the name is fit for a tag, free, and the generation has none."""
    records = retained(store)
    fits = 0 < len(name.encode()) <= TAG_SIZE_MAX and name.isprintable() and name.strip() == name
    if not fits or name.isdigit() or name == NEWEST:
        raise store.fault(f"{name!r} is no name for a tag", f"up to {TAG_SIZE_MAX} bytes, not only digits")
    for other in records:
        if other.tag_text == name:
            raise store.fault(f"generation {other.generation} has the tag {name!r}", f"first --drop {name}")
    if record.tag_text:
        reason = f"generation {record.generation} has the tag {record.tag_text!r}"
        raise store.fault(reason, f"first --drop {record.tag_text}")
    if sum(1 for other in records if other.tag_text) >= TAG_COUNT_MAX:
        raise store.fault(f"it has {TAG_COUNT_MAX} tags", "drop one first")


def tag(
    image: Image,
    name: Annotated[str | None, typer.Argument(help="The tag.")] = None,
    at: Annotated[str | None, typer.Option(help="A retained generation; else the newest.")] = None,
    drop: Annotated[str | None, typer.Option(help="Take this tag away instead.")] = None,
    as_json: Json = False,
) -> None:
    """Give a generation a name, so that it is kept; or take the name away."""
    if (name is None) == (drop is None) or (drop is not None and at is not None):
        raise typer.BadParameter("give either NAME [--at GENERATION] or --drop NAME")
    with locked(image) as fd, Store(image) as store:
        if drop is not None:
            record = next((record for record in retained(store) if record.tag_text == drop), None)
            if record is None:
                raise store.fault(f"it has no tag {drop!r}", "`revenant log` lists them")
            commit = Commit(untag_generation=record.generation)
        else:
            assert name is not None
            record = named(store, at or NEWEST)
            check_tag(store, name, record)
            commit = Commit(tag=name, tag_generation=record.generation)
        edit(store, fd, replace(commit, record_version=store.root.record_version).orders())
    print_facts({"image": str(image), "generation": record.generation, "tag": name or "-"}, as_json)


# --- diff ---


def diff(
    image: Image,
    before: Annotated[str, typer.Argument(help="A generation, its tag, or `newest`.")],
    after: Annotated[str, typer.Argument(help="Another.")],
    far: Far = None,
    pages: Annotated[bool, typer.Option("--pages", help="Every page instead of sums.")] = False,
    python: Annotated[bool, typer.Option("--python", help="The Python variables that changed.")] = False,
    as_json: Json = False,
) -> None:
    """Which spaces and how many pages differ between two generations, or which Python variables."""
    rows: list[dict[str, Any]]
    with Store(image, open_fars(far or [])) as store:
        if python:
            print_rows(changed_variables(store, named(store, before), named(store, after)), as_json)
            return
        a, b = (store.tree_at(named(store, name).generation) for name in (before, after))
        if pages:
            rows = [
                {"space": key.space, "page": key.page, "kind": kind_of(old.present, new.present)}
                for key, old, new in differing_pages(store, a, b)
            ]
        else:
            rows = [asdict(space) for space in summary(store, a, b)]
    if rows or as_json:
        print_rows(rows, as_json)
    else:
        say("revenant: no page differs")


def kind_of(old: bool, new: bool) -> str:
    """What happened to a page that is not the same."""
    return "changed" if old and new else "added" if new else "removed"


# --- rollback ---


def resume_count(store: Store, origin: Generation) -> int:
    """The machine's starts so far; where the newest record is damaged, one that origin's programs do not know."""
    try:
        return machine_record(store, store.root.generation).resume_count
    except AbsentError:
        raise
    except StoreError:
        return machine_record(store, origin.generation).resume_count + 1


def differing(store: Store, origin: Generation) -> dict[PageKey, Pointer]:
    """Every page in which the newest generation differs from origin, with origin's pointer."""
    try:
        pairs = differing_pages(store, store.tree, store.tree_at(origin.generation))
        return {key: new for key, _, new in pairs}
    except AbsentError:
        raise
    except StoreError as error:
        remedy = f"`revenant fork {store.path} OUT --at {origin.generation}` makes an image of that generation"
        raise store.fault(error.reason, remedy) from None


def rollback_commit(store: Store, origin: Generation) -> Commit:
    """A new generation with the contents of an old one; only what differs is written."""
    machine = replace(
        machine_record(store, origin.generation),
        resume_reason=ResumeReason.ROLLBACK,
        resume_count=resume_count(store, origin),
    )
    pages = {key: pointer for key, pointer in differing(store, origin).items() if key != MACHINE_PAGE}

    def load(key: PageKey) -> bytes:
        if key == MACHINE_PAGE:
            return machine.page
        return store.read(pages[key], 0) if pages[key].present else bytes(BLOCK_SIZE)

    return Commit(
        new=True,
        record_version=store.root.record_version,
        flags=GenerationFlag.ROLLBACK,
        origin=origin.generation,
        pages=[MACHINE_PAGE, *pages],
        load=load,
        failures=StartFailures(),
    )


def rollback(
    image: Image,
    to: Annotated[str | None, typer.Option(help="Generation or tag; else the one before the newest.")] = None,
    far: Far = None,
    as_json: Json = False,
) -> None:
    """Make a new generation with the contents of an old one: the next start goes on from there."""
    with working(f"rolling back {image}"), locked(image) as fd, Store(image, open_fars(far or [])) as store:
        origin = named(store, to) if to is not None else before_newest(store)
        commit = rollback_commit(store, origin)
        generation, _ = edit(store, fd, commit.orders())
    facts = {"image": str(image), "generation": generation, "origin": origin.generation}
    print_facts({**facts, "pages": len(commit.pages)}, as_json)


def before_newest(store: Store) -> Generation:
    """The last retained generation that is not the newest."""
    records = [record for record in retained(store) if record.generation < store.root.generation]
    if not records:
        raise store.fault("it retains no generation but the newest")
    return records[-1]


# --- fork ---


def fork(
    image: Image,
    out: Annotated[Path, typer.Argument(help="The image to make.")],
    at: Annotated[str | None, typer.Option(help="A retained generation or a tag; else the newest.")] = None,
    far: Far = None,
    as_json: Json = False,
) -> None:
    """Make another machine out of a generation: an image that shares nothing, with an identity of its own."""
    with working(f"forking {image}"), Store(image, open_fars(far or [])) as store:
        record = named(store, at or NEWEST)
        machine = replace(
            machine_record(store, record.generation),
            machine_id=secrets.token_bytes(16),
            resume_reason=ResumeReason.FORK,
        )
        scratch = out.with_name(f".{out.name}.{os.getpid()}")
        if out.exists():
            raise StoreError(out, "exists", "choose another name")
        if not out.absolute().parent.is_dir():
            raise StoreError(out, "its folder does not exist", "choose another name")
        header = store.header
        copy = Copy(
            record.generation, {MACHINE_PAGE: machine.page}, header.block_count, header.spread_stride,
            store_id=machine.machine_id,
        )  # fmt: skip
        copy_generation(store, scratch, copy)
        scratch.rename(out)
        sync_folder(out.absolute().parent)
    with Store(out) as made:
        print_facts(store_facts(made), as_json)


def sync_folder(folder: Path) -> None:
    """Make the names in it durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (tag, diff, rollback, fork):
        app.command()(command)
