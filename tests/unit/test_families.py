"""The command line loads one family of commands: each stands in the table under the module that has it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer
from revenant.cli import FAMILIES, build_app


def commands(word: str | None = None) -> set[str]:
    return set(typer.main.get_command(build_app(word)).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("names", FAMILIES.values(), ids=FAMILIES)
def test_a_family(names: tuple[str, ...]) -> None:
    for name in names:
        assert commands(name) == {*names, "version"}


def test_all_when_none_is_named() -> None:
    assert commands() == commands("no-such") == {name for names in FAMILIES.values() for name in names} | {"version"}


def test_a_command_loads_no_other_family() -> None:
    script = "import sys; sys.argv[1:] = ['check', '--help']; from revenant.cli import main; main()"
    code = f"import atexit, sys; atexit.register(lambda: print(*sys.modules)); {script}"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "revenant.images" in loaded and not {"revenant.debug", "textual", "plotly", "pydantic"} & set(loaded)
