"""Builds and talks to the store's host harness (harness.c): one command a line, one answer a line.

``StoreError`` carries the kernel's error number; a harness that dies (sanitizer, broken invariant) raises
``HarnessDied`` with what it said. Every answer that a run gave is a function of its seed and its commands.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from types import TracebackType

import native
from native import ROOT

MONOCYPHER = ROOT / "build" / "src" / "monocypher"
SIGNATURES = [ROOT / "kernel/lib/ed25519.c", ROOT / "kernel/lib/sha512.c", MONOCYPHER / "monocypher.c"]
INCLUDES = [f"-I{ROOT / 'kernel'}", f"-isystem{MONOCYPHER}", f"-isystem{ROOT / 'build/src/zstd/lib'}"]
FLAGS = [
    "-std=gnu17", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
]  # fmt: skip

E_AGAIN, E_NOMEM, E_IO, E_CORRUPT, E_NOSPACE, E_INVAL, E_NOENT, E_VERSION, E_FOREIGN = range(1, 10)


class StoreError(Exception):
    """The store said a negative number; ``code`` is its magnitude (kernel/lib/error.h)."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"{command}: error {code}")
        self.code = code


class HarnessDied(Exception):
    """A sanitizer or a broken invariant ended the harness."""


def build() -> pathlib.Path:
    """Compiles what of the harness is out of date; returns its path."""
    return native.build("store_host")


def compile_program(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Compiles tests/host/NAME.c, which includes what it tests; the host's C library has memset and the like."""
    program = folder / name
    source = ROOT / "tests" / "host" / f"{name}.c"
    subprocess.run(["gcc", *FLAGS, *INCLUDES, str(source), "-o", str(program)], check=True)
    return program


class Host:
    """One running harness; a context manager."""

    def __init__(self, program: pathlib.Path, directory: pathlib.Path, seed: int = 1) -> None:
        self.directory = directory
        self.log: list[str] = []
        self._errors = (directory / "harness.err").open("w+")
        self._process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
        )
        self("set seed 0", seed)

    def __call__(self, command: str, *words: object) -> str:
        """Runs a command; returns what follows "ok"."""
        line = " ".join([command, *map(str, words)])
        self.log.append(line)
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            answer = self._process.stdout.readline().split(maxsplit=1)
        except BrokenPipeError:
            answer = []
        if not answer or answer[0] not in ("ok", "err"):
            raise HarnessDied(self.notices()[-4000:] + "\nafter:\n" + "\n".join(self.log[-40:]))
        if answer[0] == "err":
            raise StoreError(line, int(answer[1]))
        return answer[1].strip() if len(answer) > 1 else ""

    def holds(self, space: int, page: int, value: int) -> bool:
        """True when the page reads back with this value's pattern (0: zeros)."""
        return self("get", space, page, value).split()[0] == "same"

    def facts(self) -> dict[str, int]:
        """The store's counters."""
        return {name: int(value) for name, value in (word.split("=") for word in self("facts").split())}

    def image(self, disk: int = 0) -> bytes:
        """The bytes of a disk as a read would give them."""
        path = self.directory / f"disk{disk}.img"
        self("save", disk, path)
        return path.read_bytes()

    def exchange_near(self, data: bytes | bytearray) -> None:
        """A power cut; then the near disk has this contents."""
        path = self.directory / "edited.img"
        path.write_bytes(data)
        self("crash")
        self("load 0", path)

    def notices(self) -> str:
        """What the store has told people, and what a sanitizer said."""
        self._errors.flush()
        return (self.directory / "harness.err").read_text(errors="replace")

    def close(self) -> None:
        """Ends the harness; its exit status must be 0."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        status = self._process.wait(timeout=30)
        self._process.stdout.close()
        self._errors.close()
        if status != 0:
            raise HarnessDied(f"exit status {status}")

    def __enter__(self) -> Host:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._process.kill()
            self._process.wait()
