"""What the firmware is about to run, looked at first: it verifies nothing, and hangs where it finds nothing.

Or nothing for the firmware to do: the kernel of a far store, verified here.

Promise: reads only, a few milliseconds for a file; an error names the file and what helps. The loader that
passes verifies all that it loads, and says so itself if something is wrong.
Used by: machine.py, before QEMU starts without a kernel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from revenant.errors import StoreError
from revenant.far_store import read_remote
from revenant.format import (
    BLOCK_SIZE,
    HEADER_BLOCK,
    HEADER_COPY_BLOCK,
    KERNEL_SIZE_MAX,
    RING_COUNT,
    RING_FIRST_BLOCK,
    SECTOR_SIZE,
    ZERO_PAGE,
    Header,
    Pointer,
    Root,
    block_hash,
    node_pointers,
)
from revenant.qemu import MachineConfig, boots_by_itself, is_file
from revenant.store import Store, header_fault
from revenant.trust import is_trusted

BEHIND_RING_BLOCK = RING_FIRST_BLOCK + RING_COUNT
BEHIND_RING_COUNT = 72
"""There a published store has loader and kernel: they are read with the root, which alone says where they are."""


def boot_disk(config: MachineConfig) -> str:
    """The disk that the firmware boots from: near, or what --far says."""
    return str(config.near) if boots_by_itself(config.near) or not config.fars else config.fars[0]


def require_bootable(config: MachineConfig) -> None:
    """StoreError unless there is a store's loader to boot."""
    disk = boot_disk(config)
    if not is_file(disk):
        check_remote(config.bridges.get(disk, disk))
    else:
        check_loader(Path(disk))


def check_loader(path: Path) -> None:
    """The blocks that the firmware reads are those that the store's root names."""
    with Store(path) as store:
        if not boots_by_itself(path):
            store.kernel()  # the likely reason: kernel and loader are still far
            raise store.fault("no boot loader in it", "start it without --boot mbr")
        for block, data in store.loader_pages().items():
            if store.read_block(block) != data:
                raise store.fault(f"boot loader: block {block} is damaged", "restore the file from a copy")


def check_remote(uri: str) -> None:
    """StoreError unless a header copy behind a URI is valid. All that it promises, the machine verifies."""
    faults = []
    for block in (HEADER_BLOCK, HEADER_COPY_BLOCK):
        data = read_remote(uri, block)
        fault = header_fault(Header.unpack(data), data)
        if not fault:
            return
        faults.append(fault)
    known = [fault for fault in faults if fault != "no header magic"]
    raise StoreError(uri, known[0] if known else "not a Revenant store")


@dataclass(frozen=True)
class FoundKernel:
    """A kernel to enter by PVH, and where it comes from; `packed`: blocks of that far store to be read at once."""

    data: bytes
    origin: str
    packed: tuple[int, int] | None = None


def remote_kernel(uri: str, trust: str) -> FoundKernel | None:
    """The kernel of a published root that is trusted, by two or three reads; None: it is not to be had so.

    A firmware reads one block after the other, each a round trip. Every byte is verified, up to what is trusted.
    """
    try:
        with ThreadPoolExecutor(2) as pool:
            behind = pool.submit(read_remote, uri, BEHIND_RING_BLOCK, BEHIND_RING_COUNT)
            root = Root.unpack(read_remote(uri, RING_FIRST_BLOCK)[:SECTOR_SIZE])
        head = behind.result()
        if root.sealed() != root.pack() or not is_trusted(root, trust) or not 0 < root.kernel_size <= KERNEL_SIZE_MAX:
            return None
        count = -(-root.kernel_size // BLOCK_SIZE)
        data = head[(root.kernel.block - BEHIND_RING_BLOCK) * BLOCK_SIZE :][: (1 + count) * BLOCK_SIZE]
        if len(data) < (1 + count) * BLOCK_SIZE:
            data = read_remote(uri, root.kernel.block, 1 + count)
    except StoreError:
        return None  # who starts from the disk instead says why it does not work

    def block(pointer: Pointer) -> bytes:
        at = (pointer.block - root.kernel.block) * BLOCK_SIZE
        found = data[at : at + BLOCK_SIZE] if at >= 0 else b""
        return found if block_hash(found) == pointer.hash else b""

    pages = {slot: block(pointer) for slot, pointer in node_pointers(block(root.kernel))}
    if not pages or not all(pages.values()):
        return None
    kernel = b"".join(pages.get(slot, ZERO_PAGE) for slot in range(count))[: root.kernel_size]
    packed = (root.tree.block, root.packed_count) if root.packed_count else None
    return FoundKernel(kernel, f"trusted root of {uri}", packed)
