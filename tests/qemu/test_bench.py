"""`bench stream` measures ours and QEMU's copy-on-read, on a small machine and without delays; the page has all."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from revenant.bench import command, common, misses, page, python, stream
from revenant.bench.common import Workshop
from revenant.bench.links import Link
from revenant.bench.studio import Size, Studio
from revenant.errors import RevenantError

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


def test_a_figure_that_cannot_be_measured() -> None:
    """It is a row with the reason, so that the others are not lost."""
    (row,) = common.measured("5 fill", lambda: [{}][1])
    assert row == {"figure": "not measured", "what": "5 fill", "reason": "IndexError: list index out of range"}


@pytest.mark.parametrize("error", [ValueError("lost"), KeyboardInterrupt()])
def test_what_was_measured_is_told(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One family fails, or somebody presses Ctrl-C: the others are there, in JSON and on the page."""

    def fail(_shop: Workshop) -> list[common.Row]:
        raise error

    def work(_shop: Workshop) -> list[common.Row]:
        return [{"benchmark": "resume", "resume_instructions": 42}]

    monkeypatch.setattr(command, "BENCHMARKS", {"resume": work, "start": fail})
    monkeypatch.setattr(command, "workshop", lambda _runs: contextlib.nullcontext())
    out = tmp_path / "bench.html"
    with pytest.raises((RevenantError, KeyboardInterrupt)):
        command.bench(None, 1, True, True, out)
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert rows[0] == {"benchmark": "resume", "resume_instructions": 42} and "resume instructions" in out.read_text()
    assert [row["reason"] for row in rows[1:]] == ["ValueError: lost"] * isinstance(error, ValueError)
    assert "measuring resume" in told.err and "measuring start" in told.err


def test_slope() -> None:
    assert stream.slope((0, 20, 100), (0.3, 0.34, 0.5)) == 2.0


@pytest.mark.slow
def test_python_beside_linux(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the programs, counted and timed, on all four machines."""
    two = dict(list(python.programs().items())[:2])
    monkeypatch.setattr(python, "programs", lambda: two)
    rows = python.bench_python(Workshop(tmp_path, image, run_count=1))
    assert [row["program"] for row in rows] == [*two, "geometric mean"] * 2
    assert {row["measure"] for row in rows} == {"instructions", "us"}
    assert all(0.2 < row["off_to_linux"] < 3 for row in rows if row["measure"] == "instructions")


def test_page(tmp_path: Path) -> None:
    """A chart each for the pause, the commit, the start and kills; times apart from what repeats."""
    freeze = {"benchmark": "freeze", "dirty_pages": 10, "spaces": 1}
    kills = {"benchmark": "crash", "figure": "kills survived", "seed": 7, "kills": 40, "contradicted_answers": 0}
    rows = [
        *({**freeze, "touched_mib": mib, "freeze_instructions": 751} for mib in (4, 1024)),
        {"benchmark": "commit", "dirty_pages": 10, "commit_median_ms": 61.75},
        {"benchmark": "stream", "figure": "2 round trips", "engine": "<us>", "delays_ms": [0],
         "answered_median_s": [3]},
        *({"benchmark": "python", "program": "bm", "measure": measure, "off": off, "every_100_ms": 1}
          for measure, off in (("instructions", 4242), ("us", 2424))),
        *({**kills, "way": way} for way in ("strict", "relaxed")),
    ]
    out = tmp_path / "bench.html"
    page.write_bench_page(out, {"cpu": "a fast one"}, rows)
    text = out.read_text()
    shown = text[text.index("<body>") :]
    for title in ("The pause of a snapshot", "Until a snapshot is durable", "Start from blank", "Kills survived"):
        assert title in shown
    assert "a fast one" in shown and "&lt;us&gt;" in shown and "<us>" not in shown
    counts, _, times = shown.partition("commit, times")
    assert "61.75" not in counts.partition("<script>")[0] and "61.75" in times
    assert "4242" in counts and "4242" not in times and "2424" in times and "2424" not in counts
