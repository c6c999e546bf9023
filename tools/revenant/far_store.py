"""A far store that is no file here: NBD, web servers, whatever QEMU's block layer reaches; read like a file.

Promise: every block is verified by store.py, against the hash that led to it: what a server says is not believed.
It is asked for a MiB at a time, and each only once. One that is away is named, with what helps.
Used by: commands that look into images (open_fars); firmware.py (before a start).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

from revenant import nbd
from revenant.errors import MachineError, StoreError
from revenant.format import BLOCK_SIZE
from revenant.qemu import far_blockdev, is_file, is_nbd, is_web
from revenant.store import Store

QEMU_IMG = "qemu-img"
TIMEOUT_S = 30
RUN_BLOCK_COUNT = 256
RUNS_KEPT_COUNT = 256
AWAY = "start it again, if it is away"


def qemu_img(uri: str, what: str, *words: str) -> bytes:
    """What it prints about a far store; StoreError with the last of its complaints."""
    try:
        result = subprocess.run([QEMU_IMG, *words], capture_output=True, timeout=TIMEOUT_S, check=False)
    except FileNotFoundError:
        raise MachineError(QEMU_IMG, "not installed", "apt-get install qemu-utils") from None
    except subprocess.TimeoutExpired:
        raise StoreError(uri, f"no answer within {TIMEOUT_S} s", AWAY) from None
    if result.returncode != 0:
        said = result.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise StoreError(uri, f"{what} cannot be read: {said[-1].rpartition(': ')[2]}", AWAY)
    return result.stdout


def disk_of(uri: str) -> dict[str, Any]:
    """The far disk as qemu-img takes it."""
    disk = far_blockdev(uri, "far")
    del disk["node-name"], disk["read-only"]
    return disk


def read_remote(uri: str, block: int, count: int = 1) -> bytes:
    """Blocks of a far store, by qemu-img, which speaks whatever QEMU speaks."""
    window = {"driver": "raw", "offset": block * BLOCK_SIZE, "size": count * BLOCK_SIZE, "file": disk_of(uri)}
    with tempfile.NamedTemporaryFile(prefix="revenant-") as file:
        qemu_img(uri, f"block {block}", "convert", "-O", "raw", "json:" + json.dumps(window), file.name)
        return Path(file.name).read_bytes()


def remote_size(uri: str) -> int:
    """In bytes."""
    place = "json:" + json.dumps({"driver": "raw", "file": disk_of(uri)})
    return int(json.loads(qemu_img(uri, "its size", "info", "--output=json", place))["virtual-size"])


class RemoteStore(Store):
    """One far store by its URI, as `run --far` takes it."""

    def __init__(self, uri: str) -> None:
        if (is_nbd(uri) or is_web(uri)) and not nbd.is_there(uri):
            raise StoreError(uri, *nbd.NOT_THERE)
        bridge = ExitStack()
        weakref.finalize(self, bridge.close)
        self._disk = bridge.enter_context(nbd.bridged([uri])).get(uri, uri)
        self._run = lru_cache(RUNS_KEPT_COUNT)(self._read_run)
        super().__init__(uri)

    def _open(self) -> int:
        try:
            self.file_size = remote_size(self._disk)
        except StoreError as error:
            raise self.fault(error.reason, error.remedy) from None
        return -1

    def close(self) -> None:
        """What is between goes with us."""

    def fileno(self) -> int:
        """It has none."""
        copy = f"make one: {QEMU_IMG} convert -O raw"
        raise self.fault("an image's history is changed with its far stores as files only", copy)

    def _read_run(self, number: int) -> bytes:
        first = number * RUN_BLOCK_COUNT
        count = min(RUN_BLOCK_COUNT, self.file_size // BLOCK_SIZE - first)
        try:
            return read_remote(self._disk, first, count) if count > 0 else b""
        except StoreError as error:
            raise self.fault(error.reason, error.remedy) from None

    def _pread(self, block: int, size: int) -> bytes:
        number, index = divmod(block, RUN_BLOCK_COUNT)
        return self._run(number)[index * BLOCK_SIZE :][:size]


def open_fars(places: Sequence[Path | str]) -> list[Store]:
    """Far images, files or URIs, as stores; they in turn know each other."""
    fars = [Store(Path(place)) if is_file(str(place)) else RemoteStore(str(place)) for place in places]
    for far in fars:
        far.fars = {other.header.store_id: other for other in fars if other is not far}
    return fars
