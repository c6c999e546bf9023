"""`fleet`: machines from one far store have nears, identities and randomness of their own; Ctrl-C leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revenant.publish import publish_image
from revenant.store import Store

COUNT = 3


def children(pid: int) -> list[int]:
    """Processes that a process has started and that live (proc(5))."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def test_machines_from_one_store(image: Path, tmp_path: Path, start_revenant: Callable[..., Any]) -> None:
    far, scratch, nears = tmp_path / "far.img", tmp_path / "scratch", tmp_path / "nears"
    scratch.mkdir()
    with Store(image) as store:
        trust = publish_image(store, far, None).hash.hex()
    words = ["fleet", str(COUNT), "--far", str(far), "--trust", trust, "--near-folder", str(nears), "--hold", "--json"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    process = start_revenant(*words, stdout=subprocess.PIPE, text=True, env=environment)
    facts = json.loads(process.stdout.readline())
    machines = children(process.pid)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert len(machines) == COUNT and not any(Path(f"/proc/{pid}").exists() for pid in machines)
    assert list(scratch.iterdir()) == []
    reports = facts["reports"]
    assert [each["machine"] for each in reports] == [1, 2, 3]
    for word in ("identity", "randomness"):
        assert len({each[word] for each in reports}) == COUNT
    streams = [each["randomness"].split("-") for each in reports]
    assert len({urandom for urandom, _ in streams}) == len({pseudo for _, pseudo in streams}) == COUNT
    assert facts["prompt_worst_s"] == max(each["prompt_s"] for each in reports)
    assert all(0 < each["fetched_bytes"] < far.stat().st_size / 2 for each in reports)
    for number, each in enumerate(reports, start=1):
        with Store(nears / f"near-{number}.img") as store:
            assert store.header.store_id.hex() == each["identity"]
