"""`revenant report`: one page that needs nothing but a browser, of a machine that has a history and a far store."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.pytest_plugin import FarStore
from revenant.script import wait_for_prompt
from revenant.store import Store

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
NAME = "</script><b>x"


@pytest.fixture
def page(
    machine: Callable[..., Machine],
    image: Path,
    tmp_path: Path,
    serve: Callable[..., FarStore],
    run_revenant: Callable[..., subprocess.CompletedProcess[str]],
) -> Path:
    """Of a machine that streamed what it needed, was cut and went on; what is not near is read over NBD."""
    far, near, out = (tmp_path / name for name in ("far.img", "streamed.img", "report.html"))
    with Store(image) as store:
        root = publish_image(store, far, None)
    with near.open("wb") as file:
        file.truncate(64 << 20)
    for _ in range(2):
        running = machine(near, fars=(str(far),), trust=root.hash.hex(), fill=False)
        wait_for_prompt(running)
        running.command_at_prompt(f"import revenant; large = {NAME!r} * 5000")
        running.command_at_prompt("revenant.commit()")
        running.kill()
    assert "give it with --far" in run_revenant("report", near, out).stderr
    result = run_revenant("report", near, out, "--far", serve(far).uri)
    assert result.returncode == 0, result.stderr
    return out


def figures_in(text: str) -> list[dict[str, Any]]:
    """What the page gives to plotly."""
    found = re.search(r"const figures = (\[.*\]);\n", text)
    assert found is not None
    figures: list[dict[str, Any]] = json.loads(found[1])
    return figures


def test_page_is_whole(page: Path) -> None:
    text = page.read_text()
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)=|url\(|@import""", own), "it needs another file"
    assert NAME not in own and html.escape(NAME) in own
    charts = {figure["layout"]["title"]["text"].split(":")[0]: figure for figure in figures_in(text)}
    lives = set(charts["pages written"]["data"][0]["text"])
    assert any("life 1" in line for line in lives) and any("life 2" in line for line in lives)
    maps = [figure for figure in figures_in(text) if figure["layout"]["title"]["text"].startswith("place:")]
    assert {place for figure in maps for row in figure["data"][0]["z"] for place in row} == {None, 0, 1, 2, 3}
    assert 0 < sum(map(sum, charts["copied blocks"]["data"][0]["z"])) < 1000
    assert "1: large" in charts["kept in the heap"]["data"][0]["y"]


@pytest.mark.slow
def test_page_in_a_browser(page: Path, tmp_path: Path) -> None:
    """Slow because the browser is 64 MB of packages that nothing else needs."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser is not None, "no browser: apt-get install chromium-headless-shell"
    picture = tmp_path / "report.png"
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--window-size=1240,4000"]
    command = [browser, *words, f"--screenshot={picture}", "--dump-dom", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout
    body = re.search(r"<body[^>]*>", shown)
    assert body is not None
    assert f'data-plots="{len(figures_in(page.read_text()))}"' in body[0] and "data-error" not in body[0], body[0]
    assert shown.count('class="main-svg"') >= len(figures_in(page.read_text()))
    assert picture.read_bytes().startswith(b"\x89PNG")
