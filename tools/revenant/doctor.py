"""The command doctor: whether this host has what is needed, and the command that mends what it lacks.

Promise: what is called usable was tried: an accelerator has run a guest's first instructions, a terminal was opened by
its name. Writes nothing outside a temporary folder. Used by: cli.py.
"""

from __future__ import annotations

import importlib.metadata
import os
import pty
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from revenant import genesis, nbd, window
from revenant.children import temporary_folder
from revenant.errors import BuildError
from revenant.images import Json
from revenant.output import in_units, print_facts
from revenant.qemu import DEBUG_EXIT_PORT, MEMORY_MIB_DEFAULT, QEMU, data_file, kvm_is_usable

QEMU_VERSION_MIN = (7, 2)
PACKAGES = {
    "qemu-img": "qemu-utils",
    nbd.NBDKIT: "nbdkit",
    "gcc": "gcc",
    "make": "make",
    "nasm": "nasm",
    "objcopy": "binutils",
    "gdb": "gdb",
}
PYTHON_PACKAGES = (
    "capstone", "cryptography", "jinja2", "littlefs-python", "mpremote", "pexpect", "plotly", "pyelftools", "pyte",
    "qemu.qmp", "textual", "zstandard",
)  # fmt: skip
DISK_FREE_MIN = 2 << 30
ACCELERATOR_TIMEOUT_S = 10
BOOT_SECTOR = bytes.fromhex("baf400b010eef4")  # mov dx, 0xf4; mov al, 0x10; out dx, al; hlt
BOOT_SECTOR_STATUS = 0x10 << 1 | 1
BOOT_IMAGE_SIZE = 1 << 20  # a disk of one sector does not boot


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def version_of(command: str) -> str:
    """First line of --version; empty where there is no such command."""
    if shutil.which(command) is None:
        return ""
    result = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr or "?").splitlines()[0]


def qemu_finding() -> Finding:
    """QEMU itself, and whether it is new enough."""
    found = version_of(QEMU)
    remedy = "apt-get install qemu-system-x86"
    if not found:
        return Finding(QEMU, False, "missing", remedy)
    numbers = re.search(r"version (\d+)\.(\d+)", found)
    new_enough = numbers is not None and (int(numbers[1]), int(numbers[2])) >= QEMU_VERSION_MIN
    return Finding(QEMU, new_enough, found, "" if new_enough else f"{remedy}, of 7.2 or later")


def commands() -> Iterator[Finding]:
    """What the build and far stores need."""
    yield qemu_finding()
    for command, package in PACKAGES.items():
        found = version_of(command)
        yield Finding(command, bool(found), found or "missing", "" if found else f"apt-get install {package}")


def python_packages() -> Iterator[Finding]:
    """This environment."""
    for package in PYTHON_PACKAGES:
        try:
            yield Finding(package, True, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, False, "missing", f"pip install {package}")


def built_files() -> Iterator[Finding]:
    """What `make build` makes."""
    try:
        files = genesis.BuildFiles.locate()
    except BuildError as error:
        yield Finding("build", False, str(error), genesis.build_remedy())
        return
    for path in (files.kernel, files.userland, files.boot_record, files.loader):
        there = path.is_file()
        yield Finding(path.name, there, str(path) if there else "missing", "" if there else genesis.build_remedy())


def seconds_to_run(accelerator: str) -> float | None:
    """How long QEMU takes from its start to the end of a boot sector; None: it never gets there."""
    with temporary_folder() as folder:
        disk = folder / "disk"
        disk.write_bytes((BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa").ljust(BOOT_IMAGE_SIZE, b"\0"))
        words = [
            QEMU, "-machine", "pc", "-accel", accelerator, "-m", "32M", "-display", "none", "-nodefaults",
            "-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4",
            "-drive", f"file={disk},format=raw,if=virtio",
        ]  # fmt: skip
        start_s = time.monotonic()
        try:
            result = subprocess.run(words, capture_output=True, check=False, timeout=ACCELERATOR_TIMEOUT_S)
        except (subprocess.TimeoutExpired, OSError):
            return None
        return time.monotonic() - start_s if result.returncode == BOOT_SECTOR_STATUS else None


def accelerators() -> Iterator[Finding]:
    """TCG must run a guest. KVM is tried where the CPU can have it: it opens in places where it is useless."""
    taken_s = seconds_to_run("tcg")
    found = "does not run a boot sector" if taken_s is None else f"runs a boot sector in {taken_s:.2f} s"
    yield Finding("TCG", taken_s is not None, found, "" if taken_s else "apt-get install --reinstall qemu-system-x86")
    usable, reason = kvm_is_usable()
    if not usable:
        yield Finding("KVM", True, f"not used: {reason}")
        return
    taken_s = seconds_to_run("kvm")
    found = f"runs a boot sector in {taken_s:.2f} s" if taken_s else f"{reason}, but it runs no boot sector"
    yield Finding("KVM", taken_s is not None, found, "" if taken_s else "start with --accel tcg")


def disk_finding(folder: Path) -> Finding:
    """Room for images."""
    free = shutil.disk_usage(folder).free
    enough = free >= DISK_FREE_MIN
    remedy = "" if enough else f"make room: {in_units(DISK_FREE_MIN)} are wanted"
    return Finding("disk space", enough, f"{in_units(free)} free in {folder.resolve()}", remedy)


def memory_finding() -> Finding:
    """Free memory for one machine of the usual size, and as much again for QEMU and the rest."""
    words = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    free = int(words.get("MemAvailable", 0)) * 1024
    enough = free >= 2 * MEMORY_MIB_DEFAULT << 20
    remedy = "" if enough else "end other programs, or start with --memory 64"
    return Finding("memory", enough, f"{in_units(free)} available", remedy)


def pty_finding() -> Finding:
    """Whether a terminal can be made and opened by its name, as `run --console pty` and its clients do."""
    try:
        leader, follower = pty.openpty()
        name = os.ttyname(follower)
        os.close(os.open(name, os.O_RDWR | os.O_NOCTTY))
    except OSError as error:
        remedy = "mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts"
        return Finding("pty", False, str(error), remedy)
    os.close(leader)
    os.close(follower)
    return Finding("pty", True, f"opens by its name, {name}")


def window_finding() -> Finding:
    """What `run --window` would open."""
    kinds = window.window_kinds()
    if not window.has_desktop():
        return Finding("window", True, "no desktop here: `run --window` serves VNC on a socket beside the image")
    missing = f"none in this QEMU ({window.REMEDY}): `run --window` serves VNC on a socket beside the image"
    return Finding("window", True, f"{kinds[0]}, on this desktop" if kinds else missing)


def findings() -> Iterator[Finding]:
    """All of them, in the order in which one mends them."""
    yield from commands()
    yield from python_packages()
    yield from built_files()
    if shutil.which(QEMU):
        yield from accelerators()
        yield window_finding()
    firmware = data_file("qboot.rom")
    yield Finding("qboot.rom", True, str(firmware or "missing: PVH starts are slower"))
    yield disk_finding(Path.cwd())
    yield memory_finding()
    yield pty_finding()


def doctor(as_json: Json = False) -> None:
    """Whether this host has what is needed, and what mends it; exit 1 if something is missing."""
    found = list(findings())
    ok = all(finding.ok for finding in found)
    if as_json:
        print_facts({"ok": ok, "checks": [asdict(finding) for finding in found]}, True)
    else:
        width = max(len(finding.what) for finding in found)
        for finding in found:
            print(f"{'ok' if finding.ok else '--':2}  {finding.what:{width}}  {finding.found}")
            if finding.remedy:
                print(f"    {'':{width}}  {finding.remedy}")
    if not ok:
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
