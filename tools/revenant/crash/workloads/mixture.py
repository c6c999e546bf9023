"""Numbers of all kinds, texts, lists, a table: registers, floating point, the collector and pages are always busy.

Runs on the machine, in two twins; invariant: what CPython makes of it, too.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS_PER_STEP = 20
KEPT_COUNT = 400
TABLE_SIZE = 1 << 19


def steps() -> "Iterator[int]":
    """A digest of everything for each step."""
    chaos, power, texts = 0.3, 3, [""] * KEPT_COUNT
    table = bytearray(TABLE_SIZE)
    waves = [0.1 * number for number in range(40)]
    state = 1
    while True:
        digest = 0
        for _ in range(ROUNDS_PER_STEP):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            chaos = 3.99 * chaos * (1.0 - chaos)
            waves = [0.5 * (wave + waves[index - 1]) + chaos / 7.0 for index, wave in enumerate(waves)]
            waves = [wave if wave < 100.0 else wave - 99.5 for wave in waves]
            table[state % TABLE_SIZE] = table[state // 7 % TABLE_SIZE] + 1 & 0xFF
            power = power * power % 170141183460469231731687303715884105727
            texts[state % KEPT_COUNT] = "-".join([str(power % 1000003), str(state)])
            digest = digest * 31 + table[power % TABLE_SIZE] + len(texts[power % KEPT_COUNT])
            digest = (digest + int(chaos * 1e12) + int(sum(waves) * 1e6)) % 1000003
        yield digest
