"""Time travel as the programs see it: tags from inside, history, rollback, fork, soft reset, upgrade."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from revenant.check import check_store
from revenant.far_store import open_fars
from revenant.machine import Machine
from revenant.qemu import Boot, Retention
from revenant.script import wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]
Run = Callable[..., subprocess.CompletedProcess[str]]

REASONS = "import revenant; why = []; revenant.on_resume(why.append) and None"


def facts(run: Run, *words: object) -> Any:
    """What a command prints with --json."""
    result = run(*words, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def at_prompt(machine: Start, image: Path | None = None, **fields: Any) -> Machine:
    """A machine that answers."""
    now = machine(image, **fields)
    wait_for_prompt(now)
    return now


def sound(image: Path) -> None:
    """The independent reader finds nothing wrong."""
    with Store(image) as store:
        check_store(store)


def test_rollback_to_a_tag_of_the_program(machine: Start, image: Path, run_revenant: Run) -> None:
    now = at_prompt(machine)
    now.command_at_prompt(REASONS)
    now.command_at_prompt("x = 'early'; g = revenant.tag('early')")
    assert now.command_at_prompt("x = 'late'; len(revenant.history()) > 2") == "True"
    entry = now.command_at_prompt("[h for h in revenant.history() if h.tag][0]")
    assert "tag='early'" in entry and "origin=None" in entry
    now.kill()
    assert facts(run_revenant, "rollback", image, "--to", "early")["generation"] > 2
    sound(image)
    now = at_prompt(machine)
    assert now.command_at_prompt("x, why") == "('early', ['rollback'])"
    assert now.command_at_prompt("[h.tag for h in revenant.history() if h.origin == g]") == "[None]"
    now.kill()
    now = at_prompt(machine)
    assert now.command_at_prompt("x, why") == "('early', ['rollback', 'restart'])"
    now.kill()
    sound(image)


def test_a_running_loop_goes_on_from_its_tag(machine: Start, image: Path, run_revenant: Run) -> None:
    """The program is in the middle of a loop, and inside of tag() itself."""
    now = at_prompt(machine)
    now.command_at_prompt("import revenant")
    now.send(b"for i in range(3): print('at', revenant.tag('t%d' % i) > 0, i)\r\r")
    now.expect_exact(b"at True 2")
    now.kill()
    facts(run_revenant, "rollback", image, "--to", "t1")
    now = machine()
    now.expect_exact(b"at True 1")
    now.expect_exact(b"EEXIST")  # t2 is there already: the past knows of its future
    now.kill()
    sound(image)


def test_what_tag_refuses(machine: Start) -> None:
    now = at_prompt(machine)
    now.command_at_prompt("import revenant")
    assert now.command_at_prompt("revenant.tag('a') > 1") == "True"
    assert "EEXIST" in now.command_at_prompt("revenant.tag('a')")
    for name in ("''", "'12'", "'x' * 48", "'a\\nb'"):
        assert "ValueError" in now.command_at_prompt(f"revenant.tag({name})")
    assert "TypeError" in now.command_at_prompt("revenant.tag(1)")
    assert now.command_at_prompt("[h.tag for h in revenant.history() if h.tag]") == "['a']"
    assert now.command_at_prompt("revenant.tag('x' * 47) > 1") == "True"


def test_a_durable_tag_survives_a_cut(machine: Start, image: Path, run_revenant: Run) -> None:
    for turn in range(3):
        now = at_prompt(machine)
        now.send(f"import revenant; print('tagged', revenant.tag('cut{turn}'))\r".encode())
        now.expect(rb"tagged \d+")
        now.kill()
    tags = {row["tag"] for row in facts(run_revenant, "log", image)}
    assert {"cut0", "cut1", "cut2"} <= tags
    sound(image)


def test_a_soft_reset_can_be_undone(machine: Start, image: Path, run_revenant: Run) -> None:
    now = at_prompt(machine)
    now.command_at_prompt(REASONS + "; x = 'dear'")
    now.send(b"\x04")
    now.expect_exact(b"MPY: soft reboot")
    wait_for_prompt(now)
    assert "NameError" in now.command_at_prompt("x")
    now.kill()
    tag = next(row["tag"] for row in facts(run_revenant, "log", image) if row["tag"].startswith("reset-"))
    facts(run_revenant, "rollback", image, "--to", tag)
    now = at_prompt(machine)
    assert now.command_at_prompt("x, why") == "('dear', ['rollback'])"
    now.send(b"\x04")  # and it still works
    now.expect_exact(b"MPY: soft reboot")
    now.kill()
    sound(image)


def test_only_the_last_automatic_tags_are_kept(machine: Start, image: Path, run_revenant: Run) -> None:
    now = at_prompt(machine)
    now.command_at_prompt("import revenant; revenant.tag('mine') and None")
    for _ in range(7):
        now.send(b"\x04")
        now.expect_exact(b"MPY: soft reboot")
        wait_for_prompt(now)
    now.kill()
    tags = [row["tag"] for row in facts(run_revenant, "log", image) if row["tag"] != "-"]
    assert len(tags) == 5 and tags[-1] == "mine"
    sound(image)


def test_a_fork_is_another_machine(machine: Start, image: Path, run_revenant: Run, tmp_path: Path) -> None:
    now = at_prompt(machine)
    now.command_at_prompt(REASONS + "; import machine, random; x = 6")
    now.command_at_prompt("revenant.tag('here') and None")
    now.kill()
    out = tmp_path / "fork.img"
    facts(run_revenant, "fork", image, out, "--at", "here")
    answers, ids = [], []
    for path in (image, out):
        now = at_prompt(machine, path)
        answers.append(now.command_at_prompt("why, [random.getrandbits(30) for _ in range(4)]"))
        ids.append(now.command_at_prompt("machine.unique_id()"))
        assert now.command_at_prompt("x * 7") == "42"
        now.kill()
        sound(path)
    assert answers[0].startswith("(['restart']") and answers[1].startswith("(['fork']")
    assert ids[0] != ids[1]
    assert answers[0].partition("],")[2] != answers[1].partition("],")[2]


def test_programs_go_on_under_another_kernel(
    machine: Start, image: Path, run_revenant: Run, build: Path, tmp_path: Path
) -> None:
    now = at_prompt(machine)
    now.command_at_prompt(REASONS + "; x = 'kept'")
    now.kill()
    kernel = tmp_path / "kernel.elf"
    kernel.write_bytes((build / "kernel.stripped.elf").read_bytes() + bytes(5000))
    boot = tmp_path / "boot"
    boot.mkdir()
    (boot / "mbr.bin").write_bytes((build / "boot/mbr.bin").read_bytes())
    (boot / "loader.bin").write_bytes((build / "boot/loader.bin").read_bytes() + bytes(4000))
    facts(run_revenant, "upgrade", image, "--kernel", kernel, "--boot", boot)
    now = at_prompt(machine, boot=Boot.MBR)
    assert now.command_at_prompt("x, why") == "('kept', ['upgrade'])"
    now.kill()
    with Store(image) as store:
        assert store.kernel() == kernel.read_bytes()
    sound(image)


def test_an_upgrade_cut_before_its_loader(machine: Start, image: Path) -> None:
    """Block 0 is empty, as while a loader is being installed: the next start by PVH sees to it."""
    with image.open("r+b") as file:
        record = file.read(4096)
        file.seek(0)
        file.write(bytes(4096))
    now = at_prompt(machine, boot=Boot.PVH)
    now.expect_voice("near starts by itself now")
    now.kill()
    assert image.read_bytes()[:4096] == record
    sound(image)


def test_retention_is_an_option_that_stays(machine: Start, image: Path, run_revenant: Run) -> None:
    now = at_prompt(machine, retain=Retention(40, 2, 2))
    for _ in range(12):
        now.command_at_prompt("1")
    now.kill()
    for _ in range(2):  # the second run does not say it again
        rows = facts(run_revenant, "log", image)
        assert len(rows) > 25
        now = at_prompt(machine)
        for _ in range(12):
            now.command_at_prompt("1")
        now.kill()
    rows = facts(run_revenant, "log", image)
    assert len(rows) in (41, 42)  # 40, and one that stands for hour and day; two at the turn of an hour
    assert facts(run_revenant, "info", image)["retain"] == "40:2:2"
    assert "hourly daily" in rows[-1]["flags"] and rows[-1]["generation"] == 1
    sound(image)


def test_a_nearly_full_image_goes_on(machine: Start, tmp_path: Path, run_revenant: Run) -> None:
    """The program writes more, within the retained generations, than the image holds: old ones go, not its tag."""
    image = tmp_path / "small.img"
    assert run_revenant("create", image, "--size", "16M").returncode == 0
    now = at_prompt(machine, image, retain=Retention(1024))  # however many generations the writing takes
    now.command_at_prompt("import revenant; ballast = bytearray(4 << 20); revenant.tag('early') > 0")
    for turn in range(1, 11):
        now.command_at_prompt(f"for i in range(0, len(ballast), 4096): ballast[i] = {turn}\r")
        assert now.command_at_prompt("revenant.commit() > 0, ballast[-4096]") == f"(True, {turn})"
    now.kill()
    sound(image)
    rows = facts(run_revenant, "log", image)
    assert len(rows) < rows[0]["generation"] and rows[-1]["tag"] == "early"
    assert facts(run_revenant, "info", image)["retain"] == "1024:0:0"


def test_a_streaming_machine_goes_back(machine: Start, image: Path, run_revenant: Run, tmp_path: Path) -> None:
    """Near has only what was touched; what else a change of the past needs comes from the far image."""
    now = at_prompt(machine)
    now.command_at_prompt(REASONS + "; x = 'far'; ballast = bytes(3 << 20)")
    now.command_at_prompt("ballast = bytearray(ballast)")
    now.command_at_prompt("for i in range(0, len(ballast), 4096): ballast[i] = i >> 12 & 127 | 1\r")
    now.command_at_prompt("revenant.commit() > 0")
    now.kill()
    far = tmp_path / "far.img"
    trust = facts(run_revenant, "publish", image, far)["root_hash"]
    near = tmp_path / "blank.img"
    with near.open("wb") as file:
        file.truncate(32 << 20)
    now = at_prompt(machine, near, fars=[str(far)], trust=trust, fill=False)
    now.command_at_prompt("revenant.tag('streamed') and None")
    now.command_at_prompt("x = 'near'; ballast[0] = 99")
    now.kill()
    assert "give it with --far" in run_revenant("fork", near, tmp_path / "fork.img").stderr
    facts(run_revenant, "rollback", near, "--to", "streamed", "--far", far)
    with Store(near, open_fars([far])) as store:
        check_store(store)
    now = at_prompt(machine, near, fars=[str(far)], trust=trust)
    assert now.command_at_prompt("x, ballast[0], why[-1]") == "('far', 1, 'rollback')"
    assert now.command_at_prompt("sum(ballast[i] for i in range(0, len(ballast), 4096))", 60) == str(
        sum(i & 127 | 1 for i in range(768))
    )
    now.kill()
    facts(run_revenant, "fork", near, tmp_path / "fork.img", "--far", far)
    now = at_prompt(machine, tmp_path / "fork.img")
    assert now.command_at_prompt("x, why[-1]") == "('far', 'fork')"
    now.kill()
    sound(tmp_path / "fork.img")
