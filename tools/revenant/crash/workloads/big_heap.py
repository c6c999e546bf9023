"""A heap bigger than the memory: pages come from the disk and leave with snapshots all the time.

Invariant: each chunk holds what was last written to it. Runs on the machine, and beside it in CPython, which
says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_SIZE = 1 << 16
CHUNK_COUNT = 512
TOUCHES_PER_STEP = 60


def steps() -> "Iterator[int]":
    """A digest of some chunks, changed afterwards, for each step."""
    chunks = [bytearray(CHUNK_SIZE) for _ in range(CHUNK_COUNT)]
    expected = [0] * CHUNK_COUNT
    for chunk in chunks:
        for page in range(0, CHUNK_SIZE, 4096):
            chunk[page + 1] = 1  # so that no page is zero
    state = 1
    while True:
        digest = 0
        for _ in range(TOUCHES_PER_STEP):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            index, page = (state >> 8) % CHUNK_COUNT, state % (CHUNK_SIZE // 4096) * 4096
            chunk = chunks[index]
            found = sum(chunk[at] for at in range(0, CHUNK_SIZE, 4096)) & 0xFF
            assert found == expected[index], "a chunk has changed"
            chunk[page] = chunk[page] + 1 & 0xFF
            expected[index] = expected[index] + 1 & 0xFF
            digest = (digest * 31 + index + found) % 1000003
        yield digest
