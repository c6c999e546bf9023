"""Python and C agree on every size and offset of disk structures and records: the kernel's DWARF says so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from revenant import format as disk
from revenant import genesis, record, trace
from revenant.structure import Structure
from revenant.ui import layout

STRUCTURES = [*disk.DISK_STRUCTURES, *record.RECORD_STRUCTURES, *layout.LIVE_STRUCTURES]


def type_of(die: Any) -> Any:
    """The type of a member, typedefs and qualifiers taken off."""
    while True:
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type"):
            return die


def array_of(die: Any) -> tuple[Any, int | None]:
    """(element type, count) of an array; (type, None) of anything else."""
    if die.tag != "DW_TAG_array_type":
        return die, None
    bound = next(child for child in die.iter_children() if child.tag == "DW_TAG_subrange_type")
    return type_of(die), bound.attributes["DW_AT_upper_bound"].value + 1


@pytest.fixture(scope="module")
def c_structures(build: Path) -> dict[str, Any]:
    """Structure name to DIE, from the kernel with its debug information."""
    kernel = build / "kernel.elf"
    assert kernel.is_file(), f"{kernel} is missing: run `make build`"
    found: dict[str, Any] = {}
    file = kernel.open("rb")
    for unit in ELFFile(file).get_dwarf_info().iter_CUs():
        for die in unit.get_top_DIE().iter_children():
            if die.tag == "DW_TAG_structure_type" and "DW_AT_name" in die.attributes:
                name = die.attributes["DW_AT_name"].value.decode()
                if "DW_AT_byte_size" in die.attributes:
                    found.setdefault(name, die)
    return found


def c_members(die: Any) -> dict[str, Any]:
    """Member name to DIE."""
    members = (child for child in die.iter_children() if child.tag == "DW_TAG_member")
    return {member.attributes["DW_AT_name"].value.decode(): member for member in members}


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.C_NAME)
def test_structure(structure: type[Structure], c_structures: dict[str, Any]) -> None:
    die = c_structures[structure.C_NAME]
    assert die.attributes["DW_AT_byte_size"].value == structure.SIZE
    members = c_members(die)
    assert list(members) == list(structure.PLACES)
    for name, place in structure.PLACES.items():
        assert members[name].attributes["DW_AT_data_member_location"].value == place.offset, name
        element, count = array_of(type_of(members[name]))
        size = element.attributes["DW_AT_byte_size"].value
        assert size * (count or 1) == place.size, name
        if not isinstance(place.kind, str):
            assert element.attributes["DW_AT_name"].value.decode() == place.kind.C_NAME


@pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.C_NAME)
def test_round_trip(structure: type[Structure]) -> None:
    zeros = structure.unpack(bytes(structure.SIZE))
    assert zeros.pack() == bytes(structure.SIZE)
    end = 0
    for name, place in structure.PLACES.items():
        assert place.offset >= end, f"{name} overlaps the field before it"
        end = place.offset + place.size
    assert end <= structure.SIZE


def c_enumerators(path: Path) -> dict[str, int]:
    """NAME = number pairs of a header (plain numbers and shifts only)."""
    pairs = re.findall(r"\b([A-Z][A-Z0-9_]+) = (0x[0-9a-f]+|\d+(?: \* \d+)?)", path.read_text())
    return {name: eval(value, {}) for name, value in pairs}


def test_constants(root: Path) -> None:
    for module, header in ((disk, "store/format.h"), (record, "abi/record.h"), (layout, "abi/live.h")):
        constants = c_enumerators(root / "kernel" / header)
        common = [name for name in constants if hasattr(module, name)]
        assert len(common) >= 3
        for name in common:
            assert getattr(module, name) == constants[name], name
    flags = c_enumerators(root / "kernel/store/format.h")
    assert flags["PTR_PRESENT"] == disk.PtrFlag.PRESENT and flags["PTR_COMPRESSED"] == disk.PtrFlag.COMPRESSED
    assert {flag.value for flag in disk.GenerationFlag} == {
        flags[f"GENERATION_{flag.name}"] for flag in disk.GenerationFlag
    }


def test_frames(root: Path, c_structures: dict[str, Any]) -> None:
    assert c_structures["frame"].attributes["DW_AT_byte_size"].value == layout.FRAME_STATE_SIZE
    fields = (die for die in c_structures["frame"].iter_children() if "DW_AT_name" in die.attributes)
    places = {die.attributes["DW_AT_name"].value: die.attributes["DW_AT_data_member_location"].value for die in fields}
    for name in ("space", "page", "epoch", "kind"):
        assert getattr(layout, f"FRAME_{name.upper()}") == places[name.encode()]
    kinds = re.findall(r"\bFRAME_(\w+),", (root / "kernel/mm/frame.h").read_text())
    assert kinds == [kind.name for kind in layout.FrameKind]


def test_trace_kinds(root: Path) -> None:
    kinds = c_enumerators(root / "kernel/abi/trace.h")
    assert kinds.pop("TRACE_EVENTS_PER_PAGE") == record.TRACE_EVENTS_PER_PAGE
    assert kinds.pop("TRACE_KIND_COUNT") == len(trace.Kind)
    assert kinds == {f"TRACE_{kind.name}": kind.value for kind in trace.Kind}
    names = re.findall(r'\[(TRACE_\w+)\] = "', (root / "kernel/lib/trace.c").read_text())
    assert names == list(kinds)


def test_userland_layout(root: Path) -> None:
    text = (root / "userland/layout.h").read_text()
    layout = {name: int(value, 16) for name, value in re.findall(r"LAYOUT_(\w+)\s+(0x[0-9a-f]+)ul", text)}
    for name in ("EXEC", "STACK", "FILES", "HEAP"):
        assert getattr(genesis, f"{name}_START") == layout[f"{name}_START"]
        assert getattr(genesis, f"{name}_END") == layout[f"{name}_END"]
