"""Suspended things of many kinds: nested generators, closures, a `with` block in a coroutine.

Runs on the machine, and beside it in CPython, which says what each step must print.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

PRIME_COUNT = 60


class Guard:
    """Counts how often its block was entered and left."""

    def __init__(self) -> None:
        self.inside = 0

    def __enter__(self) -> "Guard":
        self.inside += 1
        return self

    def __exit__(self, *what: object) -> None:
        self.inside -= 1


def sieve(numbers: "Iterator[int]", prime: int) -> "Iterator[int]":
    """A filter upon a filter: the more primes, the deeper the chain."""
    for number in numbers:
        if number % prime:
            yield number


def primes() -> "Iterator[int]":
    """Begins anew when the chain is long."""
    while True:
        numbers: Iterator[int] = iter(range(2, 1000000))
        for _ in range(PRIME_COUNT):
            prime = next(numbers)
            yield prime
            numbers = sieve(numbers, prime)


def averages(guard: Guard) -> "Generator[float, float, None]":
    """A coroutine that waits inside a `with` and a `try`."""
    total, count = 0.0, 0
    with guard:
        while True:
            try:
                value = yield total / max(count, 1)
                if value == 0:
                    raise ValueError
                total, count = total + value, count + 1
            except ValueError:
                total, count = total / 2, count // 2


def counter(step: int) -> "Callable[[], int]":
    """A closure with its own cell."""
    value = 0

    def count() -> int:
        nonlocal value
        value += step
        return value

    return count


def steps() -> "Iterator[int]":
    """A digest of what each of them gave."""
    guard = Guard()
    source, mean = primes(), averages(guard)
    counters = [counter(number) for number in range(1, 40)]
    next(mean)
    while True:
        prime = next(source)
        average = mean.send(prime % 11)
        total = sum(count() for count in counters[: prime % 40])
        assert guard.inside == 1, "a `with` block was left or entered twice"
        yield (prime * 1009 + int(average * 1000) + total) % 1000003
