#!/usr/bin/env python3
"""Fetch the third-party sources that the build needs into BUILD_DIR/src, checked against pinned hashes.

    python3 userland/fetch_sources.py BUILD_DIR [--micropython-src DIR] [--only NAME]

Promise: afterwards BUILD_DIR/src/micropython and BUILD_DIR/src/monocypher hold exactly the pinned sources;
nothing is written outside BUILD_DIR; a second run does nothing. Works as an ordinary user with the standard
library only. MicroPython comes from the path given (or from MICROPYTHON_SRC), else from Debian's source
package over the mirror that apt already uses, else from upstream's git.
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
from pathlib import Path

MICROPYTHON_VERSION = "1.25.0"
DEBIAN_SUITE = "trixie"
DEBIAN_SOURCE = "micropython=1.25.0+ds-1"
DEBIAN_TARBALL_SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"
UPSTREAM_GIT = "https://github.com/micropython/micropython"
UPSTREAM_TAG = "v1.25.0"
UPSTREAM_COMMIT = "f498a16c7db6d4b2de200b3e0856528dfe0613c3"

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


def micropython_from_debian(mirror: str, scratch: Path, target: Path) -> None:
    """Debian's .orig tarball through apt-get (10 MB of index, 6 MB of source)."""
    options = apt_options(scratch, mirror)
    run("apt-get", *options, "update")
    run("apt-get", *options, "source", "--download-only", "--tar-only", DEBIAN_SOURCE, cwd=scratch)
    tarballs = list(scratch.glob("micropython_*.orig.tar.xz"))
    if len(tarballs) != 1:
        raise FetchError("apt-get source did not leave one micropython .orig tarball")
    check_hash(tarballs[0], DEBIAN_TARBALL_SHA256)
    unpack(tarballs[0], target)


def micropython_from_git(scratch: Path, target: Path) -> None:
    """Upstream's tag, shallow, its commit checked; submodules are not needed by the port."""
    clone = scratch / "git"
    run("git", "clone", "--quiet", "--depth", "1", "--branch", UPSTREAM_TAG, UPSTREAM_GIT, clone)
    commit = run("git", "-C", clone, "rev-parse", "HEAD").strip()
    if commit != UPSTREAM_COMMIT:
        raise FetchError(f"upstream's {UPSTREAM_TAG} is commit {commit}, pinned is {UPSTREAM_COMMIT}")
    shutil.rmtree(clone / ".git")
    adopt(clone, target)


def micropython_from_path(source: Path, target: Path) -> None:
    """A copy of a folder that the user vouches for; only its version is looked at."""
    if not (source / "py/py.mk").is_file():
        raise FetchError(f"{source} is not a MicroPython source folder")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(".git", "build", "build-*"))


def fetch_micropython(source: Path | None, scratch: Path, target: Path) -> str:
    """Fill target; returns where it came from, for the stamp."""
    if source is not None:
        micropython_from_path(source, target)
        return f"path {source}"
    mirror = debian_mirror()
    if mirror is not None:
        micropython_from_debian(mirror, scratch, target)
        return f"debian {DEBIAN_TARBALL_SHA256}"
    micropython_from_git(scratch, target)
    return f"git {UPSTREAM_COMMIT}"


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
    micropython, monocypher = folder / "micropython", folder / "monocypher"
    pinned = [f"debian {DEBIAN_TARBALL_SHA256}", f"git {UPSTREAM_COMMIT}"]
    wanted = pinned if source is None else [f"path {source}"]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if only in (None, "micropython") and not is_current(micropython, wanted):
            origin = fetch_micropython(source, Path(scratch), micropython)
            (micropython / STAMP).write_text(origin + "\n")
        if only in (None, "monocypher") and not is_current(monocypher, [f"pypi {MONOCYPHER_SHA256}"]):
            origin = fetch_monocypher(Path(scratch), monocypher)
            (monocypher / STAMP).write_text(origin + "\n")


def main() -> int:
    """Parse arguments, fetch, and say in one line what went wrong if something did."""
    parser = argparse.ArgumentParser(description="Fetch the pinned third-party sources into BUILD_DIR/src.")
    parser.add_argument("build", type=Path, metavar="BUILD_DIR")
    parser.add_argument("--micropython-src", type=Path, default=os.environ.get("MICROPYTHON_SRC") or None)
    parser.add_argument("--only", choices=("micropython", "monocypher"))
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
