"""Crafted inputs of the unit tests."""

from __future__ import annotations

import struct

from revenant.format import BLOCK_SIZE

PROGRAM_ENTRY = 0x401000


def elf_program(segments: list[tuple[int, bytes, int, int]], entry: int = PROGRAM_ENTRY) -> bytes:
    """An ELF64 program of (address, contents, size in memory, flags) segments."""
    table = 64 + 56 * len(segments)
    offset = -(-table // BLOCK_SIZE) * BLOCK_SIZE
    headers, body = b"", b""
    for address, contents, memory_size, flags in segments:
        size = len(contents)
        headers += struct.pack("<IIQQQQQQ", 1, flags, offset, address, address, size, memory_size, BLOCK_SIZE)
        padded = contents.ljust(-(-size // BLOCK_SIZE) * BLOCK_SIZE, b"\0")
        body += padded
        offset += len(padded)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    return (head + headers).ljust(-(-table // BLOCK_SIZE) * BLOCK_SIZE, b"\0") + body
