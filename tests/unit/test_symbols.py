"""The symboliser against the symbol tables of what the build made, and the sources that the lines name."""

from __future__ import annotations

from pathlib import Path

import pytest
from revenant import cli
from revenant.errors import MachineError
from revenant.symbols import Symbols, explain


@pytest.mark.parametrize(
    ("file", "function"),
    [
        ("kernel.elf", "kernel_main"),
        ("kernel.elf", "panic"),
        ("kernel.elf", "entry_syscall"),
        ("userland/micropython.elf", "mp_obj_new_str"),
        ("userland/micropython.elf", "mp_hal_stdout_tx_strn"),
    ],
)
def test_start_of_a_function(build: Path, root: Path, file: str, function: str) -> None:
    symbols = Symbols(build / file)
    address = next(address for address, name in symbols.functions if name == function)
    name, _, place = symbols.describe(address).partition("  ")
    path, _, line = place.rpartition(":")
    assert name == f"{function}+0x0"
    folder = build / "src" if path.startswith("micropython/") else root
    lines = (folder / path).read_text().splitlines()
    assert any(function in text for text in lines[int(line) - 3 : int(line)]), place


def test_return_address_behind_a_function(build: Path) -> None:
    symbols = Symbols(build / "kernel.elf")
    index = next(i for i, (_, name) in enumerate(symbols.functions) if name == "panic")
    start, _ = symbols.functions[index]
    end = next(address for address, _ in symbols.functions[index:] if address > start)
    assert symbols.describe(end, is_return=True).startswith(f"panic+{end - start:#x}  kernel/lib/log.c:")


def test_what_is_no_code(build: Path) -> None:
    symbols = Symbols(build / "userland/micropython.elf")
    for address in (0, 0xA00000, 1 << 63):
        assert symbols.describe(address) == "? (no code of micropython.elf)"


def test_no_image(tmp_path: Path) -> None:
    absent = tmp_path / "near.img"
    assert explain("all is well\n", [absent]) == ""
    said = explain("backtrace: ffffffff80101000\n", [absent])
    assert f"no names: {absent}: " in said and "ffffffff80101000  ?" in said


def test_details_come_before_the_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise MachineError("near.img", "the kernel panicked", "", 3, "at:\n  here")

    monkeypatch.setattr(cli, "build_app", lambda _word: fail)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 3
    assert capsys.readouterr().err == "at:\n  here\nrevenant: near.img: the kernel panicked\n"
