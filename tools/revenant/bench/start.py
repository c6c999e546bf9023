"""`bench start` and `bench resume`: QEMU's start to an answered prompt, and the start after a crash.

Used by: command.py; tests/qemu/test_start.py counts instructions by it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from revenant import genesis
from revenant.bench.common import MIB, TIMEOUT_S, Row, Workshop, answered_s, ask, median
from revenant.machine import PROMPT, Machine
from revenant.qemu import ICOUNT, Boot, MachineConfig
from revenant.script import wait_for_prompt


def boot_instructions(config: MachineConfig) -> int:
    """Guest instructions from the kernel's entry to the first time a program waits for input."""
    with Machine(replace(config, extra=ICOUNT), TIMEOUT_S) as machine:
        machine.expect_exact(PROMPT)
        return int(ask(machine, "import json, revenant; print(json.dumps(revenant.stats()['boot_cycles']))"))


def bench_start(shop: Workshop) -> list[Row]:
    """QEMU's start to an answered prompt: by PVH and MBR, from genesis and resumed."""
    resumed = shop.copy("resumed.img")
    with Machine(MachineConfig(resumed)) as machine:
        machine.expect_exact(PROMPT)
        ask(machine, "import revenant; print(revenant.commit())")
    rows = []
    for boot in (Boot.PVH, Boot.MBR):
        for state, image in (("genesis", shop.genesis), ("resumed", resumed)):
            seconds = [
                answered_s(MachineConfig(shop.copy("start.img", image), boot=boot))
                for _ in range(shop.run_count)
            ]
            count = boot_instructions(MachineConfig(shop.copy("start.img", image), boot=boot))
            rows.append({
                "benchmark": "start", "boot": boot.value, "image": state, "runs": len(seconds),
                "answered_median_s": median(seconds), "answered_min_s": round(min(seconds), 4),
                "answered_max_s": round(max(seconds), 4), "entry_to_prompt_instructions": count,
            })  # fmt: skip
    return rows


RESUME_CASES = (
    {"image_mib": 16, "heap_mib": 0, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 0, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 512, "memory_mib": 256},
    {"image_mib": 4096, "heap_mib": 0, "memory_mib": 4096},
)


def crashed_image(path: Path, image_mib: int, heap_mib: int, memory_mib: int) -> None:
    """A machine with a history and so much more heap, cut off while it runs."""
    genesis.create_image(path, genesis.BuildFiles.locate(), image_mib * MIB)
    with Machine(MachineConfig(path, memory_mib=memory_mib), TIMEOUT_S) as machine:
        machine.expect_exact(PROMPT)
        ask(machine, f"import gc, revenant; gc.disable(); data = b'x' * ({heap_mib} << 20); print(0)")
        ask(machine, "for _ in range(20): last = revenant.commit()\nprint(last)")


def resume_instructions(config: MachineConfig) -> int:
    """Guest instructions from the kernel's entry to the first program, waiting for devices left out."""
    with Machine(replace(config, extra=ICOUNT), TIMEOUT_S) as machine:
        wait_for_prompt(machine)
        return int(ask(machine, "import json, revenant; print(json.dumps(revenant.stats()['resume_cycles']))"))


def bench_resume(shop: Workshop) -> list[Row]:
    """The start after a crash, against the size of image, heap and memory."""
    rows = []
    for case in RESUME_CASES:
        image = shop.folder / "crashed.img"
        image.unlink(missing_ok=True)
        crashed_image(image, **case)
        config = MachineConfig(image, memory_mib=case["memory_mib"])
        seconds = [answered_s(config) for _ in range(shop.run_count)]
        rows.append({
            "benchmark": "resume", **case, "resume_instructions": resume_instructions(config), "runs": len(seconds),
            "answered_median_s": median(seconds), "answered_min_s": round(min(seconds), 4),
        })  # fmt: skip
    return rows
