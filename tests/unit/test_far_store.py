"""Far stores that are no files, read block by block: as a file of theirs reads, verified, away with a remedy.

By QEMU's block layer itself, without a server; over NBD and HTTP: tests/qemu/test_report.py, test_http.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from revenant import far_store
from revenant.check import check_store
from revenant.errors import RevenantError, StoreError
from revenant.far_store import open_fars
from revenant.publish import publish_image
from revenant.store import Store


@pytest.fixture(autouse=True)
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images are small: so a few runs, the last of them not a whole one."""
    monkeypatch.setattr(far_store, "RUN_BLOCK_COUNT", 7)


@pytest.fixture
def base(small_image: Path, tmp_path: Path) -> Path:
    """A published image."""
    with Store(small_image) as store:
        publish_image(store, tmp_path / "base.img", None)
    return tmp_path / "base.img"


@pytest.fixture
def delta(small_image: Path, base: Path, tmp_path: Path) -> Path:
    """One with nothing of its own: all pages are in the base."""
    with Store(small_image) as store, Store(base) as whole:
        publish_image(store, tmp_path / "delta.img", None, delta=True, base=whole)
    return tmp_path / "delta.img"


def uri_of(path: Path) -> str:
    """The file as QEMU's block layer is told of it."""
    return "json:" + json.dumps({"driver": "file", "filename": str(path)})


def contents(store: Store) -> list[bytes]:
    """Of all pages."""
    return [store.read(pointer, 0) for _, pointer in store.pages(store.tree)]


def test_reads_as_the_file(base: Path, delta: Path) -> None:
    (far,) = open_fars([uri_of(base)])
    check_store(far)
    with Store(base) as file, Store(delta, [far]) as store:
        assert far.file_size == file.file_size
        assert contents(store) == contents(file) and len(contents(file)) > 5
        check_store(store)


def test_nothing_is_believed(base: Path, delta: Path) -> None:
    with Store(delta, open_fars([base])) as store:
        block = next(pointer.block for _, pointer in store.pages(store.tree))
    with base.open("r+b") as file:
        file.seek(block * 4096 + 50)
        file.write(b"\xaa\x55")
    with Store(delta, open_fars([uri_of(base)])) as store, pytest.raises(StoreError) as caught:
        contents(store)
    assert caught.value.subject == uri_of(base) and "does not have the hash" in caught.value.reason


AWAY = {
    "json:{\"driver\": \"file\", \"filename\": \"none.img\"}": "No such file or directory (start it again",
    "nbd://127.0.0.1:1": "no server answers there (start it; one for NBD: `revenant serve`)",
    "http://127.0.0.1:1/far.img": "no server answers there (start it",
    "ftp://host/far.img": "not a far store that QEMU can open (use a path, nbd://",
}


@pytest.mark.parametrize("uri", AWAY)
def test_one_that_is_away_has_a_remedy(uri: str) -> None:
    with pytest.raises(RevenantError) as caught:
        open_fars([uri])
    assert str(caught.value).startswith(f"{uri}: ") and AWAY[uri] in str(caught.value)


def test_one_that_goes_away_has_a_remedy(base: Path, delta: Path) -> None:
    (far,) = open_fars([uri_of(base)])
    base.unlink()
    with Store(delta, [far]) as store, pytest.raises(StoreError, match=r"cannot be read: .*start it again"):
        contents(store)


def test_history_is_changed_with_files_only(base: Path) -> None:
    """What changes an image is the kernel's own code, which reads files."""
    (far,) = open_fars([uri_of(base)])
    with pytest.raises(StoreError, match=r"files only .*qemu-img convert"):
        far.fileno()
