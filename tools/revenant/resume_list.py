"""The resume list: which pages a start touches, as the machine names them itself (option `record`, kernel/README.md).

Promise: an image's list is replaced only where it is stale, by one durable root, while no machine runs on it.
Used by: running.py and script.py (`run --record`), the benchmarks.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from revenant.change import Commit, edit, locked
from revenant.errors import StoreError
from revenant.far_store import open_fars
from revenant.format import BLOCK_SIZE, NODE_FANOUT, SPACE_SHARES, PageKey
from revenant.output import say
from revenant.qemu import MachineConfig
from revenant.store import Store

START_S = 5.0
"""What is touched later than that after the kernel's entry is work, not the start."""
MISSED_SHARE_MAX = 0.03
UNUSED_SHARE_MAX = 0.1
KEY_COUNT_MAX = NODE_FANOUT * BLOCK_SIZE // 8 - 1
TOUCHED = re.compile(r"^(?:\[ *(\d+\.\d+)\] )?touched (\d+):(\d+)$", re.MULTILINE)

SPACE_COUNT_MAX = 1 << 21
PAGE_COUNT_MAX = 1 << 35


def touched(voice: str, until_s: float = float("inf")) -> list[PageKey]:
    """The pages that a recording machine has named until then, in their order, each once."""
    named = ((float(at or 0), PageKey(int(space), int(page))) for at, space, page in TOUCHED.findall(voice))
    return list(dict.fromkeys(key for at_s, key in named if at_s <= until_s))


def is_stale(listed: Sequence[PageKey], asked: Sequence[PageKey]) -> bool:
    """Whether a start misses too much of what it asks for, or its list brings too much that it does not ask for."""
    have, want = ({key for key in keys if key.space != SPACE_SHARES} for keys in (listed, asked))
    return len(want - have) > MISSED_SHARE_MAX * len(want) or len(have - want) > UNUSED_SHARE_MAX * len(have)


def renew(config: MachineConfig, voice: str) -> None:
    """After a start that was recorded: a new list, if the image's own is stale, or far. Says what was done."""
    near, fars = config.near, open_fars([Path(uri) for uri in config.fars if "://" not in uri])
    asked = touched(voice, START_S)[:KEY_COUNT_MAX]
    with locked(near) as fd, Store(near, fars) as store:
        try:
            listed = store.resume_keys()
        except StoreError:
            listed = []
        if not asked or not is_stale(listed, asked):
            say(f"revenant: {near}: its resume list is good")
            return
        data = struct.pack(f"<{1 + len(asked)}Q", len(asked), *(key.packed for key in asked))
        edit(store, fd, [b"resume %d\n" % len(data), data, *Commit(record_version=store.root.record_version).orders()])
    missed = len(set(asked) - set(listed))
    say(f"revenant: {near}: new resume list of {len(asked)} pages, {missed} of them not in the one before")


def load(path: Path) -> list[PageKey]:
    """From a file with such lines; StoreError if it has none, or one that no page can have."""
    try:
        keys = touched(path.read_text(errors="replace"))
    except OSError as error:
        raise StoreError(path, error.strerror or "cannot be read") from None
    if not keys:
        raise StoreError(path, "no resume list: no line says `touched SPACE:PAGE`")
    if any(key.space >= SPACE_COUNT_MAX or key.page >= PAGE_COUNT_MAX for key in keys):
        raise StoreError(path, "names a space or page that cannot be")
    return keys
