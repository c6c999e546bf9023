"""A machine starts, by every way in, new or resumed, and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from revenant.bench import start as bench
from revenant.check import check_store
from revenant.machine import Machine
from revenant.qemu import Boot, MachineConfig
from revenant.script import wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]


@pytest.mark.parametrize("boot", [Boot.PVH, Boot.MBR])
def test_prompt_and_resume(machine: Start, image: Path, boot: Boot) -> None:
    first = machine(boot=boot)
    banner = first.expect_exact(b">>> ")
    assert b"MicroPython v1.25.0" in banner
    assert first.command_at_prompt("6 * 7") == "42"
    assert first.command_at_prompt("kept = [1, 'two', 3.0, 10 ** 30]") == ""
    first.kill()
    second = machine(boot=boot)
    second.expect_exact(b">>> ")
    second.send(b"kept\r")
    second.expect_exact(b"\r\n[1, 'two', 3.0, 1000000000000000000000000000000]\r\n>>> ")
    assert b"MicroPython" not in second.transcript.getvalue()  # it did not start, it went on
    assert second.command_at_prompt("import revenant; revenant.stats()['resume_count']") == "2"
    second.kill()
    with Store(image) as store:
        check_store(store)


def test_a_way_in_may_change(machine: Start) -> None:
    for turn, boot in enumerate([Boot.PVH, Boot.MBR, Boot.PVH, Boot.MBR]):
        now = machine(boot=boot)
        wait_for_prompt(now)
        assert now.command_at_prompt(f"turns = globals().get('turns', 0) + 1; turns == {turn + 1}") == "True"
        now.kill()


def test_memory_size_may_change(machine: Start) -> None:
    first = machine(memory_mib=256)
    wait_for_prompt(first)
    first.command_at_prompt("block = bytes(range(256)) * 8192")
    first.command_at_prompt("import revenant; revenant.commit() > 0")
    first.kill()
    for memory_mib in (64, 1024):
        other = machine(memory_mib=memory_mib)
        wait_for_prompt(other)
        assert other.command_at_prompt("block == bytes(range(256)) * 8192") == "True"
        other.kill()


def test_power_off(machine: Start) -> None:
    now = machine()
    wait_for_prompt(now)
    assert now.command_at_prompt("mark = 'before'") == ""
    now.send(b"import revenant; revenant.power_off(); print('after')\r")
    assert now.wait() == 0
    again = machine()
    again.expect_exact(b"after\r\n>>> ")  # it goes on behind the call
    assert again.command_at_prompt("mark") == "'before'"


def test_kvm_is_chosen_only_if_usable(machine: Start) -> None:
    now = machine()
    now.expect_exact(b">>> ")
    assert "tcg" in now.command or "kvm" in now.command
    assert now.qmp("query-status")["running"]


def test_an_idle_machine_does_not_write(machine: Start) -> None:
    now = machine(interval_ms=20)
    wait_for_prompt(now)
    now.command_at_prompt("import revenant, time")
    before = now.command_at_prompt("revenant.commit() and revenant.stats()['near_writes']")
    written = []
    for _ in range(2):
        now.command_at_prompt("time.sleep_ms(300)")
        written.append(int(now.command_at_prompt("revenant.stats()['near_writes']")))
    # typing and answering cost snapshots; 15 intervals of sleep must not
    assert written[1] - written[0] < 300, (before, written)
    asleep = "g = revenant.generation(); time.sleep_ms(400); revenant.generation() - g"
    assert int(now.command_at_prompt(asleep)) <= 5  # of the line's own echo, and not one in each interval


def test_a_start_does_not_grow(tmp_path: Path) -> None:
    """After a crash: with neither the image, nor the heap, nor memory. In guest instructions, which repeat."""
    counts = []
    for image_mib, heap_mib, memory_mib in ((16, 0, 256), (4096, 0, 256), (4096, 64, 256), (4096, 0, 4096)):
        image = tmp_path / f"crashed-{len(counts)}.img"
        bench.crashed_image(image, image_mib, heap_mib, memory_mib)
        counts.append(bench.resume_instructions(MachineConfig(image, memory_mib=memory_mib)))
    assert min(counts) > 100_000 and max(counts) < 1.2 * min(counts), counts
