"""`revenant doctor` on hosts that lack something: it says what, and the command that mends it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]
TOOLS = ("qemu-img", "nbdkit", "gcc", "make", "objcopy", "gdb")
OLD_QEMU = "#!/bin/sh\necho 'QEMU emulator version 6.1.0'\n"


def test_this_host(run_revenant: Run) -> None:
    result = run_revenant("doctor", "--json")
    assert result.returncode == 0
    checks = {check["what"]: check for check in json.loads(result.stdout)["checks"]}
    assert "runs a boot sector in" in checks["TCG"]["found"]
    assert all(not check["remedy"] for check in checks.values())


def test_what_is_missing(run_revenant: Run, tmp_path: Path) -> None:
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None
        (tmp_path / tool).symlink_to(found)
    (tmp_path / "qemu-system-x86_64").write_text(OLD_QEMU)
    (tmp_path / "qemu-system-x86_64").chmod(0o755)
    environment = {**os.environ, "PATH": str(tmp_path), "REVENANT_BUILD": str(tmp_path / "nothing")}
    result = run_revenant("doctor", "--json", env=environment)
    assert result.returncode == 1
    bad = {check["what"]: check["remedy"] for check in json.loads(result.stdout)["checks"] if not check["ok"]}
    assert bad["nasm"] == "apt-get install nasm"
    assert bad["qemu-system-x86_64"] == "apt-get install qemu-system-x86, of 7.2 or later"
    assert bad["kernel.stripped.elf"] == "make build"
    assert "TCG" in bad, "a QEMU that starts nothing is no accelerator"
    assert "nbdkit" not in bad and "gcc" not in bad
    assert "apt-get install nasm" in run_revenant("doctor", env=environment).stdout
