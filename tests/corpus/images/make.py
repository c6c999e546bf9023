"""Makes images of a machine in the middle of its work, for the corpus of images by earlier versions.

    build/venv/bin/python tests/corpus/images/make.py [NAME]

Run it when the version of the disk format or of the records has changed, and commit what it made; images that are there
are never made again: they are what users have. NAME.toml says what NAME.img.xz is and what it prints when it goes on.
NAME-half is another machine, which began with a blank disk and has fetched what it touched; behind its image (of
near_size bytes) in the same file is that of the far store which has the rest. Of the version with compressed pages
there is only such a pair: whole machines are written without.
Called by: people. tests/qemu/test_earlier_formats.py resumes what it made.
"""

from __future__ import annotations

import datetime
import json
import lzma
import os
import sys
import tempfile
from pathlib import Path

from revenant import genesis
from revenant.check import Checker, check_store
from revenant.format import FORMAT_VERSION, FORMAT_VERSION_MAX
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.qemu import MachineConfig
from revenant.record import RECORD_VERSION
from revenant.script import paste, wait_for_prompt
from revenant.store import Store

FOLDER = Path(__file__).resolve().parent
IMAGE_SIZE = 16 << 20
STEP_COUNT = 3  # that it has made when its power is cut
HALF_STEP_COUNT = STEP_COUNT + 1  # the other machine made one itself
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]

# Between two steps it runs, rather than waits: the cut comes at any instruction.
PROGRAM = """\
import revenant, select, sys
keyboard = select.poll()
keyboard.register(sys.stdin, select.POLLIN)
notes = open('notes.txt', 'w')
squares = (n * n for n in range(1000000))
tree = {'name': 'root', 'leaves': [{'n': n, 'text': str(n) * 20} for n in range(200)]}
def work():
    step = 0
    while True:
        spins = 0
        while spins < 500 or not keyboard.poll(0):
            spins += 1
        if sys.stdin.read(1) == 'q':
            return notes.close()
        step += 1
        leaf = tree['leaves'][step]
        leaf['square'] = next(squares)
        notes.write('%d %s\\n' % (step, leaf['text']))
        revenant.tag('step-%d' % step)
        print('step', step, leaf['square'])
"""


def line(step: int) -> str:
    """What the program prints for a step."""
    return f"step {step} {(step - 1) ** 2}"


def make_image(path: Path) -> None:
    """A machine that has made its steps and goes round between two, cut off."""
    genesis.create_image(path, genesis.BuildFiles.locate(), IMAGE_SIZE)
    with Machine(MachineConfig(path)) as machine:
        wait_for_prompt(machine)
        paste(machine, PROGRAM)
        machine.send(b"work()\r")
        for step in range(1, STEP_COUNT + 1):
            machine.send(b".")
            machine.expect_exact(line(step).encode() + b"\r\n")


def make_half(path: Path, compress: bool) -> bytes:
    """A machine that streams from the one published just before, cut off after a step; the far image's bytes."""
    origin, far = path.with_suffix(".origin"), path.with_suffix(".far")
    make_image(origin)
    with Store(origin) as store:
        trust = publish_image(store, far, None, compress=compress).hash.hex()
    path.touch()
    os.truncate(path, IMAGE_SIZE)
    with Machine(MachineConfig(path, fars=[str(far)], trust=trust, fill=False)) as machine:
        machine.send(b".")
        machine.expect_exact(line(HALF_STEP_COUNT).encode() + b"\r\n")
    return far.read_bytes()


def describe(store: Store, name: str, step_count: int = STEP_COUNT) -> str:
    """The text of NAME.toml; JSON's strings, numbers and arrays are TOML's."""
    tags = [record.tag_text for record in store.generations() if record.tag_text]
    facts = {
        "name": name,
        "made": datetime.date.today().isoformat(),
        "format_version": store.header.version,
        "record_version": store.root.record_version,
        "generation": store.root.generation,
        "generation_count": len(store.generations()),
        "tags": tags,
        "step_count": step_count,
        "next_steps": [line(step_count + 1), line(step_count + 2)],
        "notes": [f"{step} {str(step) * 20}" for step in range(1, step_count + 3)],
    }
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())


def keep(name: str, data: bytes, facts: str) -> None:
    """Put both files where they stay."""
    packed = FOLDER / f"{name}.img.xz"
    packed.write_bytes(lzma.compress(data, format=lzma.FORMAT_XZ, filters=FILTERS))
    (FOLDER / f"{name}.toml").write_text(facts)
    print(f"{packed}: {packed.stat().st_size} bytes\n{facts}", end="")


def name_of(version: int) -> str:
    """What an image of a version of the disk format is called."""
    return f"format-{version}-records-{RECORD_VERSION}"


def keep_half(name: str, path: Path, compress: bool) -> None:
    """Make such a pair and put it where it stays, if it is not there."""
    if (FOLDER / f"{name}.toml").exists():
        return
    far = make_half(path, compress)
    with Store(path) as store:
        Checker(store).check_structure()
        facts = f"{describe(store, name, HALF_STEP_COUNT)}near_size = {IMAGE_SIZE}\n"
        keep(name, path.read_bytes() + far, facts)


def main() -> None:
    """Make those images of this build's versions that are not there."""
    name = sys.argv[1] if len(sys.argv) > 1 else name_of(FORMAT_VERSION)
    with tempfile.TemporaryDirectory(prefix="revenant-corpus-") as folder:
        image = Path(folder) / "machine.img"
        if not (FOLDER / f"{name}.toml").exists():
            make_image(image)
            with Store(image) as store:
                check_store(store)
                keep(name, image.read_bytes(), describe(store, name))
        keep_half(f"{name}-half", Path(folder) / "half.img", compress=False)
        keep_half(f"{name_of(FORMAT_VERSION_MAX)}-half", Path(folder) / "compressed.img", compress=True)


if __name__ == "__main__":
    main()
