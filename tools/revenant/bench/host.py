"""What the figures were measured on: without it seconds mean nothing. Used by: command.py."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from revenant import genesis
from revenant.bench.common import Row
from revenant.doctor import version_of
from revenant.output import in_units
from revenant.qemu import QEMU, Accelerator, choose_accelerator


def cpu_model() -> str:
    """As the kernel of this host names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def revision() -> str:
    """The commit of the checkout that is measured; empty where it is none."""
    words = ["git", "-C", str(genesis.build_folder().parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def host_facts() -> Row:
    """Machine, tools and load at the beginning of the run."""
    accelerator, reason = choose_accelerator(Accelerator.AUTO)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": revision(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory": in_units(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "qemu": version_of(QEMU),
        "accelerator": f"{accelerator.value} ({reason})",
        "python": platform.python_version(),
    }
