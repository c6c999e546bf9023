"""Eviction: second chance in the order of loading, and never what the running system call has made ready.

The last promise cannot be seen from outside: a machine whose memory is almost nothing but those pages does not run.
"""

from __future__ import annotations

import pathlib
import subprocess

import pytest
from store_host import compile_program

BATCH = 32
DIRTY = 2
Page = tuple[int, int]


@pytest.fixture(scope="module")
def evict(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The compiled program."""
    return compile_program("evict", tmp_path_factory.mktemp("evict"))


def dropped(evict: pathlib.Path, prepared: range, pages: list[tuple[int, int, int]]) -> list[Page]:
    """What two batches take, in order; space 16 runs."""
    lines = [(16, prepared.start, prepared.stop), *((space, page, int(state)) for space, page, state in pages)]
    text = "\n".join(" ".join(map(str, line)) for line in lines)
    result = subprocess.run([evict], input=text, capture_output=True, text=True, check=True)
    numbers = [tuple(map(int, line.split())) for line in result.stdout.splitlines()]
    return [(space, page) for space, page in numbers]


def test_pages_that_were_used_get_a_second_chance(evict: pathlib.Path) -> None:
    pages = [(16 + n % 2, n, n % 3 == 0) for n in range(120)]
    unused = [(space, page) for space, page, used in pages if not used]
    assert dropped(evict, range(0), pages) == unused[: 2 * BATCH]


def test_dirty_pages_stay(evict: pathlib.Path) -> None:
    pages = [(16, n, DIRTY if n % 2 else 0) for n in range(20)]
    assert dropped(evict, range(0), pages) == [(16, n) for n in range(0, 20, 2)]


@pytest.mark.parametrize("used", [False, True])
def test_what_a_system_call_is_using_stays(evict: pathlib.Path, used: bool) -> None:
    """Also when nothing else is left; the same pages of another space do not."""
    pages = [(16 + n % 2, n // 2, used) for n in range(60)]
    went = dropped(evict, range(5, 25), pages)
    assert set(went) == {(17, n) for n in range(30)} | {(16, n) for n in range(30) if not 5 <= n < 25}
    assert dropped(evict, range(0, 30), [(16, n, used) for n in range(30)]) == []
