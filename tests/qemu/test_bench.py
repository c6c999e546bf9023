"""`bench stream` measures what it says, ours and QEMU's copy-on-read, on a small machine and without delays."""

from __future__ import annotations

from pathlib import Path

import pytest
from revenant.bench import misses, stream
from revenant.bench.common import Workshop
from revenant.bench.links import Link
from revenant.bench.studio import Size, Studio

NEAR_BY = Link("near by", 0)


@pytest.fixture
def studio(image: Path, tmp_path: Path) -> Studio:
    """A machine with a little more than Python in it, published."""
    return Studio.build(Workshop(tmp_path, image, run_count=1), Size(1, (NEAR_BY,), (0,), 3))


def test_streaming_figures(studio: Studio) -> None:
    rows = stream.first_answers(studio, NEAR_BY)
    assert [row["engine"] for row in rows] == ["revenant", "copy-on-read"]
    size = studio.recorded.size
    for row in rows:
        assert row["requests"] > 0 and 0.01 * size < row["fetched_bytes"] < 0.5 * size
    (worth,) = misses.list_worth(studio)
    assert worth["asked"] > 50 and worth["misses_removed_percent"] >= 97 and worth["unused_percent"] <= 10


def test_slope() -> None:
    assert stream.slope((0, 20, 100), (0.3, 0.34, 0.5)) == 2.0
