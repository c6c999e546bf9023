"""Starts that fail: what counts as one, the note of them in the image, and the way back to an older generation.

Invariants:
 1. A start has failed when the machine ended by itself, badly, within PROVEN_S: a panic, or no program left of which
    one died. A power cut, a kill, a far store that is silent, another kernel's version never count: three quick
    cuts must not cost anyone what they saw. So who sees how it ended counts, which is not the kernel. Two states
    need no count: one without a living program, and one that the kernel refuses as damaged; that one is not changed.
 2. The note (`start_failures_disk` in the root record) is one durable root, written only when a start failed, or
    when one lived after others had failed; whoever commits carries it on. So it survives power cuts, and a healthy
    machine is never written. It counts as long as the machine has run less than PROVEN_S since.
 3. Healing is a rollback: a new generation, undone by another; what it leaves gets the tag `failed-GENERATION`.
 4. Each further try goes twice as far back, and never to a generation without a living program; so it ends.
Used by: running.py, around every start.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from revenant.change import Commit, edit, locked
from revenant.errors import MachineError, RefusedError, StoreError
from revenant.far_store import open_fars
from revenant.format import TAG_COUNT_MAX, Generation, Root, StartFailures
from revenant.output import say
from revenant.qemu import is_file
from revenant.state import read_state, retained
from revenant.store import Store
from revenant.travel import rollback_commit

PROVEN_S = 10.0
FAILED_STARTS = 3
"""In a row: then an older generation is offered. After a healing, the first failed start is enough."""


def standing(root: Root) -> StartFailures:
    """The note as far as it still counts: nothing ran for long since."""
    young = root.mono_ns - root.failures.mono_ns < PROVEN_S * 1e9
    return root.failures if young else StartFailures()


def is_due(note: StartFailures) -> bool:
    """Whether starts have failed often enough."""
    return note.start_count >= (1 if note.heal_count else FAILED_STARTS)


def is_dead(store: Store) -> bool:
    """Whether the newest generation has no program that would go on, and one of them died."""
    try:
        state = read_state(store)
    except StoreError:
        return False  # the kernel says what is wrong with it
    return not state.alive and bool(state.died)


def lives(store: Store, record: Generation) -> bool:
    """Whether a generation has readable records and a program that would go on."""
    try:
        return read_state(store, record.generation).alive
    except StoreError:
        return False


def target(store: Store) -> Generation | None:
    """The generation that healing would go back to; None: there is none, or all of this kind were tried."""
    note, newest = standing(store.root), store.root.generation
    limit = note.generation if is_due(note) else newest
    living = [record for record in retained(store) if record.generation < newest and lives(store, record)]
    older = [record for record in living if record.generation < limit] or living
    distance = 1 << note.heal_count
    if not older or distance // 2 >= len(older):
        return None
    return older[max(len(older) - distance, 0)]


# --- noting ---


def note_of(start: Root, end: Root, failed: bool, clean: bool, seconds: float) -> StartFailures:
    """What is known after a start that went on from `start`, left `end`, and lasted so long."""
    before = standing(start)
    if failed and seconds < PROVEN_S:
        goes_on = before.start_count > 0 or before.heal_count > 0
        generation = before.generation if goes_on else start.generation
        return StartFailures(before.start_count + 1, before.heal_count, generation, end.mono_ns)
    if failed or clean or seconds >= PROVEN_S:
        return StartFailures()
    return start.failures


def write_note(near: Path, start: Root, failed: bool, clean: bool, seconds: float) -> bool:
    """Put what is known into the image, if it is not there yet; False, and a word about it, if that cannot be."""
    try:
        with Store(near) as store:
            note, before = note_of(start, store.root, failed, clean, seconds), store.root.failures
            if note == before or not (note.start_count or before.start_count or before.heal_count):
                return True
            with locked(near) as fd:
                edit(store, fd, Commit(record_version=store.root.record_version, failures=note).orders())
            return True
    except StoreError as error:
        say(f"revenant: how this start ended cannot be noted: {error}")
        return False


# --- healing ---


def opened(near: Path, fars: Sequence[str]) -> Store:
    """The image, with those far images that are files."""
    return Store(near, open_fars([Path(uri) for uri in fars if is_file(uri)]))


def age(store: Store, record: Generation) -> str:
    """How much older a generation is than the newest, in time of the machine."""
    return f"{max(store.root.mono_ns - record.mono_ns, 0) / 1e9:.1f} s older"


def times(note: StartFailures) -> str:
    """How often starts have failed."""
    return f"{note.start_count} times right after its start" if note.start_count > 1 else "right after its start"


def offer(near: Path, fars: Sequence[str]) -> str:
    """What to do about an image that fails at its start, for people."""
    try:
        with opened(near, fars) as store:
            found = target(store)
            if found is None:
                return "no older generation that could go on is retained; `revenant log` lists them"
            command = shlex.join(["revenant", "run", "--heal", "--near", str(near)])
            return f"`{command}` goes on from generation {found.generation}, {age(store, found)}"
    except StoreError as error:
        return f"an older generation cannot be looked for: {error}"


def heal(near: Path, fars: Sequence[str]) -> None:
    """Roll a failing image back, and say so; MachineError where there is nothing to go back to."""
    with locked(near) as fd, opened(near, fars) as store:
        note, newest, found = standing(store.root), store.root.generation, target(store)
        if found is None:
            reason = f"generation {newest} fails at its start, and no older one that could go on is retained"
            raise MachineError(near, reason, "`revenant log` lists those that are", 4)
        limit = note.generation if is_due(note) or note.heal_count else newest
        commit = replace(
            rollback_commit(store, found),
            tag=tag_left(store),
            tag_generation=newest,
            failures=StartFailures(0, note.heal_count + 1, limit, store.root.mono_ns),
        )
        older = age(store, found)
        made, _ = edit(store, fd, commit.orders())
    why = f"has failed {times(note)}" if note.start_count else "cannot go on"
    undo = shlex.join(["revenant", "rollback", str(near), "--to", str(newest)])
    back = f"going on from generation {found.generation}, {older}, as generation {made}"
    say(f"revenant: {near}: generation {newest} {why}: {back} (`{undo}` undoes it)")


def tag_left(store: Store) -> str:
    """A tag for the newest generation, so that healing makes nobody lose it; empty where it cannot have one."""
    records = retained(store)
    tags = {record.tag_text for record in records} - {""}
    name = f"failed-{records[-1].generation}"
    return "" if records[-1].tag_text or name in tags or len(tags) >= TAG_COUNT_MAX else name


# --- watching ---


def watched(near: Path, fars: Sequence[str], healing: bool, run: Callable[[], int]) -> int:
    """Run the machine and note how that ended. `healing`: start again, and go back, until a start does not fail."""
    while True:
        start = prepare(near, fars, healing)
        began_s = time.monotonic()
        try:
            status = run()
        except MachineError as error:
            if start is None:
                raise
            seconds = time.monotonic() - began_s
            refused = isinstance(error, RefusedError)
            noted = refused or write_note(near, start, error.blames_state, False, seconds)
            if not error.blames_state:
                raise
            if not healing or not noted or seconds >= PROVEN_S:
                raise explained(error, near, fars) from None
            say(f"revenant: {error.subject}: {error.reason}")
            if refused:
                heal(near, fars)
        else:
            if start is not None:
                write_note(near, start, False, True, time.monotonic() - began_s)
            return status


def prepare(near: Path, fars: Sequence[str], healing: bool) -> Root | None:
    """Heal where that is due and asked for; the root that this start goes on from. None: near is still blank."""
    try:
        with opened(near, fars) as store:
            root, dead = store.root, is_dead(store)
    except StoreError:
        return None
    due = is_due(standing(root))
    if healing and (due or dead):
        heal(near, fars)
        with Store(near) as store:
            return store.root
    if due:
        say(f"revenant: {near}: generation {root.generation} has failed {times(root.failures)}: {offer(near, fars)}")
    return root


def explained(error: MachineError, near: Path, fars: Sequence[str]) -> MachineError:
    """The error of a failed start, with what can be done about it where that is due."""
    try:
        with opened(near, fars) as store:
            note, generation, dead = standing(store.root), store.root.generation, is_dead(store)
    except StoreError:
        return error  # it says enough
    reason = error.reason
    if is_due(note):
        reason += f"; generation {generation} has failed {times(note)}"
    due = is_due(note) or dead or isinstance(error, RefusedError)
    remedy = offer(near, fars) if due else error.remedy
    return type(error)(error.subject, reason, remedy, error.exit_status, error.details)
