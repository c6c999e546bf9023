"""A list that grows until the disk is full. Invariant: what was put in it is still there.

Runs on the machine, and beside it in CPython, which says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_SIZE = 150000


def steps() -> "Iterator[int]":
    """A digest of one old chunk for each new one."""
    chunks: list[bytes] = []
    state = 1
    while True:
        chunks.append(bytes((1 + len(chunks) % 255,)) * CHUNK_SIZE)
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        index = (state >> 8) % len(chunks)
        old = chunks[index]
        assert all(old[at] == 1 + index % 255 for at in range(0, CHUNK_SIZE, 1500)), "a chunk has changed"
        yield (index * 1009 + old[0]) % 1000003
