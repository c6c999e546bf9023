"""Transfers between the accounts of a bank, in a dictionary. Invariant: the sum of all balances.

Runs on the machine, and beside it in CPython, which says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT_COUNT = 500
OPENING_BALANCE = 1000
TRANSFERS_PER_STEP = 40


def steps() -> "Iterator[int]":
    """One digest of all balances for each step."""
    balances = {number: OPENING_BALANCE for number in range(ACCOUNT_COUNT)}
    total = ACCOUNT_COUNT * OPENING_BALANCE
    state = 1
    while True:
        for _ in range(TRANSFERS_PER_STEP):
            state = state * 1103515245 + 12345 & 0x7FFFFFFF
            source, target = state >> 8 & 0xFFFF, state >> 12 & 0xFFFF
            amount = min(state % 97, balances[source % ACCOUNT_COUNT])
            balances[source % ACCOUNT_COUNT] -= amount
            balances[target % ACCOUNT_COUNT] += amount
        assert sum(balances.values()) == total, "money was made or lost"
        yield sum(number * balance for number, balance in balances.items()) % 1000003
