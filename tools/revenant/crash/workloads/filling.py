"""A list that grows until the disk is full. Invariant: what was put in it is still there.

Runs on the machine, and beside it in CPython, which says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_SIZE = 20000


def steps() -> "Iterator[int]":
    """A digest of one old chunk for each new one."""
    chunks: list[bytes] = []
    state = 1
    while True:
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        number = len(chunks)
        chunks.append(bytes(1 + (number * 7 + at // 1000) % 255 for at in range(CHUNK_SIZE)))
        old = (state >> 8) % len(chunks)
        found = sum(chunks[old])
        assert found == sum(1000 * (1 + (old * 7 + at) % 255) for at in range(CHUNK_SIZE // 1000)), "a chunk changed"
        yield (found + number) % 1000003
