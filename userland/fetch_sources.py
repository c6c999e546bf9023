#!/usr/bin/env python3
"""Fetch the third-party sources that the build needs into BUILD_DIR/src, checked against pinned hashes.

    python3 userland/fetch_sources.py BUILD_DIR [--micropython-src DIR] [--only NAME]

Promise: afterwards the folders micropython, zstd and monocypher in BUILD_DIR/src hold exactly the pinned sources;
nothing is written outside BUILD_DIR; a second run does nothing. Works as an ordinary user with the standard
library only. MicroPython (from the path given or from MICROPYTHON_SRC, if so) and zstd come from Debian's source
packages over the mirror that apt already uses, else from upstream's git; Monocypher from PyPI.
Exit: 0, or 1 with one line on stderr.
Called by: the top Makefile and `revenant doctor`.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEBIAN_SUITE = "trixie"


@dataclass(frozen=True)
class Upstream:
    """A source that Debian has as a tarball, and upstream in git."""

    name: str
    debian_source: str
    debian_sha256: str  # of the .orig tarball
    git: str
    tag: str
    commit: str

    @property
    def origins(self) -> list[str]:
        """What the stamp of a folder that holds it says."""
        return [f"debian {self.debian_sha256}", f"git {self.commit}"]


MICROPYTHON = Upstream(
    "micropython",
    "micropython=1.25.0+ds-1",
    "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea",
    "https://github.com/micropython/micropython",
    "v1.25.0",
    "f498a16c7db6d4b2de200b3e0856528dfe0613c3",
)
ZSTD = Upstream(
    "zstd",
    "libzstd=1.5.7+dfsg-1",
    "0c092ef267edce57ba7f3f2645c861f72eaf5e76273c6c3632869423464b90a5",
    "https://github.com/facebook/zstd",
    "v1.5.7",
    "f8745da6ff1ad1e7bab384bd1f9d742439278e99",
)

MONOCYPHER_PACKAGE = "pymonocypher==4.0.3.4"
MONOCYPHER_SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"

STAMP = ".revenant-source"


class FetchError(Exception):
    """A source cannot be had; the message is the one line that the user sees."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command quietly and return its stdout; FetchError with its last line of output if it fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{words[0]} is not installed") from error
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines() or ["no output"]
        raise FetchError(f"{words[0]} failed: {lines[-1]}")
    return done.stdout


def check_hash(path: Path, sha256: str) -> None:
    """FetchError unless the file has the pinned hash."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise FetchError(f"{path.name}: sha256 is {found}, pinned is {sha256}")


def unpack(tarball: Path, target: Path) -> None:
    """Unpack a tarball with one top folder so that its contents are target's contents."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        # not tarfile: Debian 12's Python lacks the filters that later ones insist on
        run("tar", "--extract", "--no-same-owner", "--file", tarball, "--directory", scratch)
        tops = list(Path(scratch).iterdir())
        if len(tops) != 1:
            raise FetchError(f"{tarball.name}: expected one top folder, found {len(tops)}")
        adopt(tops[0], target)


def adopt(folder: Path, target: Path) -> None:
    """Put folder in target's place."""
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def debian_mirror() -> str | None:
    """The first Debian archive (main, not security) among the indexes that apt uses; None without apt."""
    try:
        wanted = "$(REPO_URI) $(ORIGIN) $(COMPONENT)"
        lines = run("apt-get", "indextargets", "--format", wanted, "Created-By: Packages")
    except FetchError:
        return None
    for line in lines.splitlines():
        uri, _, rest = line.partition(" ")
        if rest == "Debian main" and "security" not in uri:
            return uri
    return None


def apt_options(scratch: Path, mirror: str) -> list[str]:
    """Options that make apt-get use a private list and private folders only."""
    (scratch / "lists/partial").mkdir(parents=True, exist_ok=True)
    (scratch / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    # trusted: an older system may lack the newer suite's key; what counts is the pinned hash, checked later.
    (scratch / "sources.list").write_text(f"deb-src [trusted=yes] {mirror} {DEBIAN_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def fetch_from_debian(upstream: Upstream, mirror: str, scratch: Path, target: Path) -> None:
    """Debian's .orig tarball through apt-get (10 MB of index, once)."""
    options = apt_options(scratch, mirror)
    if not any((scratch / "lists").glob("*Sources*")):
        run("apt-get", *options, "update")
    run("apt-get", *options, "source", "--download-only", "--tar-only", upstream.debian_source, cwd=scratch)
    source, _, version = upstream.debian_source.partition("=")
    tarballs = list(scratch.glob(f"{source}_{version.rpartition('-')[0]}.orig.tar.*"))
    if len(tarballs) != 1:
        raise FetchError(f"apt-get source did not leave one .orig tarball of {upstream.name}")
    check_hash(tarballs[0], upstream.debian_sha256)
    unpack(tarballs[0], target)


def fetch_from_git(upstream: Upstream, scratch: Path, target: Path) -> None:
    """Upstream's tag, shallow, its commit checked; submodules are not needed."""
    clone = scratch / "git"
    run("git", "clone", "--quiet", "--depth", "1", "--branch", upstream.tag, upstream.git, clone)
    commit = run("git", "-C", clone, "rev-parse", "HEAD").strip()
    if commit != upstream.commit:
        raise FetchError(f"upstream's {upstream.tag} is commit {commit}, pinned is {upstream.commit}")
    shutil.rmtree(clone / ".git")
    adopt(clone, target)


def fetch_upstream(upstream: Upstream, scratch: Path, target: Path) -> str:
    """Fill target; returns where it came from, for the stamp."""
    mirror = debian_mirror()
    if mirror is not None:
        fetch_from_debian(upstream, mirror, scratch, target)
        return upstream.origins[0]
    fetch_from_git(upstream, scratch, target)
    return upstream.origins[1]


def micropython_from_path(source: Path, target: Path) -> None:
    """A copy of a folder that the user vouches for; only its version is looked at."""
    if not (source / "py/py.mk").is_file():
        raise FetchError(f"{source} is not a MicroPython source folder")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "build", "build-*"))


def fetch_monocypher(scratch: Path, target: Path) -> str:
    """The source distribution of PyPI's pymonocypher, which holds Monocypher's C files."""
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
        "--no-cache-dir", "--dest", scratch, MONOCYPHER_PACKAGE)
    tarballs = list(scratch.glob("pymonocypher-*.tar.gz"))
    if len(tarballs) != 1:
        raise FetchError("pip did not leave one pymonocypher tarball")
    check_hash(tarballs[0], MONOCYPHER_SHA256)
    unpack(tarballs[0], target)
    return f"pypi {MONOCYPHER_SHA256}"


def is_current(target: Path, wanted: list[str]) -> bool:
    """Whether target was filled by an earlier run from one of the wanted origins."""
    stamp = target / STAMP
    return stamp.is_file() and stamp.read_text().strip() in wanted


def fetch(build: Path, source: Path | None, only: str | None) -> None:
    """Bring BUILD_DIR/src up to date; FetchError if something cannot be had."""
    folder = build.resolve() / "src"
    folder.mkdir(parents=True, exist_ok=True)

    def bring(name: str, wanted: list[str], get: Callable[[Path], str]) -> None:
        target = folder / name
        if only in (None, name) and not is_current(target, wanted):
            (target / STAMP).write_text(get(target) + "\n")

    def copy_micropython(target: Path) -> str:
        assert source is not None
        micropython_from_path(source, target)
        return f"path {source}"

    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        if source is not None:
            bring("micropython", [f"path {source}"], copy_micropython)
        else:
            bring("micropython", MICROPYTHON.origins, lambda target: fetch_upstream(MICROPYTHON, scratch, target))
        bring("zstd", ZSTD.origins, lambda target: fetch_upstream(ZSTD, scratch, target))
        bring("monocypher", [f"pypi {MONOCYPHER_SHA256}"], lambda target: fetch_monocypher(scratch, target))


def main() -> int:
    """Parse arguments, fetch, and say in one line what went wrong if something did."""
    parser = argparse.ArgumentParser(description="Fetch the pinned third-party sources into BUILD_DIR/src.")
    parser.add_argument("build", type=Path, metavar="BUILD_DIR")
    parser.add_argument("--micropython-src", type=Path, default=os.environ.get("MICROPYTHON_SRC") or None)
    parser.add_argument("--only", choices=("micropython", "zstd", "monocypher"))
    arguments = parser.parse_args()
    source: Path | None = Path(arguments.micropython_src).resolve() if arguments.micropython_src else None
    try:
        fetch(arguments.build, source, arguments.only)
    except (FetchError, OSError) as error:
        print(f"fetch_sources: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
