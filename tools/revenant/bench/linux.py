"""The peer of `revenant bench python`: Linux with MicroPython as its first process, out of a file system in RAM.

Promise: the same MicroPython source as ours, compiled with the same optimisation, static; Debian's kernel for
virtual machines, fetched by apt-get into the build folder the first time (27 MB, nothing is installed); the same
QEMU, CPU and memory. Used by: python.py beside it.
"""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pexpect.popen_spawn import PopenSpawn

from revenant import genesis
from revenant.children import die_with_parent
from revenant.errors import RevenantError
from revenant.qemu import MEMORY_MIB_DEFAULT, QEMU

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUILD_OPTIONS = (
    "LDFLAGS_EXTRA=-static", "FROZEN_MANIFEST=$(TOP)/extmod/asyncio/manifest.py", "MPY_TOOL_FLAGS=-mmpz-dig-size 32",
    "MICROPY_PY_FFI=0", "MICROPY_PY_BTREE=0", "MICROPY_PY_SSL=0", "MICROPY_SSL_AXTLS=0", "MICROPY_SSL_MBEDTLS=0",
    "MICROPY_PY_BLUETOOTH=0", "MICROPY_MPYCROSS_DEPENDENCY=",
)  # fmt: skip
"""What needs libraries is left out. Threads (MICROPY_PY_THREAD without its GIL) and a frozen asyncio are in both, as in
upstream's standard unix program: mutexes cost it something, frozen names make each search for a string longer."""

SAME_DIGITS = "#undef MPZ_DIG_SIZE\n"
"""For every source file: with frozen modules the unix port's integers have digits of 16 bits, ours have 32."""
KERNEL_OPTIONS = (
    "console=ttyS0 quiet mitigations=off tsc=reliable no_timer_check random.trust_cpu=on "
    "rdinit=/micropython -- /{program}"
)
"""All that makes it faster. The heap has the 2 MiB that it has by itself, as ours is what it is by itself."""


def run(words: Sequence[str | Path], folder: Path, remedy: str) -> str:
    """stdout of a command; RevenantError with its last words."""
    try:
        result = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RevenantError(str(words[0]), "not installed", remedy) from error
    if result.returncode != 0:
        said = (result.stderr + result.stdout).strip().splitlines() or ["it said nothing"]
        raise RevenantError(str(words[0]), f"failed: {said[-1]}", remedy)
    return result.stdout


def kernel_image(folder: Path) -> Path:
    """The bzImage of the package that KERNEL_PACKAGE names; fetched if it is not there yet."""
    found = sorted(folder.glob("kernel/boot/vmlinuz-*"))
    if found:
        return found[-1]
    remedy = "it needs Debian, its lists (apt-get update) and its mirror"
    said = run(["apt-cache", "depends", KERNEL_PACKAGE], folder, remedy)
    package = next((line.split()[-1] for line in said.splitlines() if "Depends: linux-image-" in line), None)
    if package is None:
        raise RevenantError(KERNEL_PACKAGE, "apt does not know it", remedy)
    run(["apt-get", "download", package], folder, remedy)
    archive = next(folder.glob(f"{package}_*.deb"))
    run(["dpkg-deb", "--extract", archive, folder / "kernel"], folder, remedy)
    archive.unlink()
    return kernel_image(folder)


def micropython(folder: Path) -> Path:
    """The unix program, built if it is not there yet (about half a minute of CPU time)."""
    program = folder / "unix-threads/micropython"
    if not program.exists():
        build = genesis.build_folder()
        digits, library = folder / "same_digits.h", folder / "no-library"
        digits.write_text(SAME_DIGITS, encoding="utf-8")
        library.mkdir(exist_ok=True)
        (library / "README.md").touch()  # the rules look for it; the pinned source has no library
        options = [
            f"BUILD={program.parent}", f"COPT=-O2 -DNDEBUG -include {digits}", f"MPY_LIB_DIR={library}",
            f"MICROPY_MPYCROSS={build / 'userland/mpy-cross/mpy-cross'}", *BUILD_OPTIONS,
        ]  # fmt: skip
        words = ["make", "-s", "-C", str(build / "src/micropython/ports/unix"), *options]
        run(words, folder, "it needs gcc and libc6-dev")
    return program


def archive_entry(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    """One file in the format that Linux unpacks at its start (cpio "newc", Documentation/…/initramfs)."""
    path = name.encode() + b"\0"
    fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def initramfs(files: Mapping[str, bytes], program: bytes) -> bytes:
    """MicroPython, a console, and files in the root."""
    entries = [
        archive_entry("dev", stat.S_IFDIR | 0o755),
        archive_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)),
        archive_entry("micropython", stat.S_IFREG | 0o755, program),
        *(archive_entry(name, stat.S_IFREG | 0o644, data) for name, data in files.items()),
        archive_entry("TRAILER!!!", 0),
    ]
    return b"".join(entries)


class Linux:
    """A running one; `console` is its terminal. Everything of it that is not cached lies in `scratch`."""

    def __init__(self, scratch: Path, files: Mapping[str, bytes], program: str, extra: Sequence[str] = ()) -> None:
        """`program`: which of the files MicroPython runs."""
        folder = genesis.build_folder() / "peer"
        folder.mkdir(exist_ok=True)
        archive = scratch / "initramfs"
        archive.write_bytes(initramfs(files, micropython(folder).read_bytes()))
        self.command = [
            QEMU, "-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", f"{MEMORY_MIB_DEFAULT}M",
            "-display", "none", "-nodefaults", "-no-user-config", "-serial", "stdio",
            "-kernel", str(kernel_image(folder)), "-initrd", str(archive),
            "-append", KERNEL_OPTIONS.format(program=program), *extra,
        ]  # fmt: skip

    def __enter__(self) -> Self:
        self.console = PopenSpawn(self.command, timeout=600, preexec_fn=die_with_parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.console.proc.kill()
        self.console.proc.wait()
