"""Fixtures of the host tests: the harness, built once, and a fresh store on it."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest
from store_host import ROOT, Host, build

sys.path.insert(0, str(ROOT / "tools"))


@pytest.fixture(scope="session")
def program() -> pathlib.Path:
    """The compiled harness."""
    return build()


@pytest.fixture
def start(program: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[Callable[..., Host]]:
    """Starts harnesses that end with the test."""
    hosts: list[Host] = []

    def starter(blocks: int = 4096, seed: int = 1, formatted: bool = True) -> Host:
        directory = tmp_path / f"host{len(hosts)}"
        directory.mkdir()
        host = Host(program, directory, seed)
        hosts.append(host)
        host("disk", 0, blocks)
        if formatted:
            host("format", 0)
            host("open")
        return host

    yield starter
    for host in hosts:
        host.close()
