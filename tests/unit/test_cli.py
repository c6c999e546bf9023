"""The command's manners: what `run` and `serve` would start, exit statuses, one line for an error."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from revenant import nbd, qemu
from revenant.errors import MachineError
from revenant.machine import EXIT_PANIC, EXIT_REFUSED, explain_exit
from revenant.script import script_status

Run = Callable[..., subprocess.CompletedProcess[str]]
HASH = "ab" * 32


def dry_run(run_revenant: Run, *words: object) -> list[str]:
    """QEMU's words for a command line of ours."""
    result = run_revenant("run", *words, "--dry-run", "--json")
    assert result.returncode == 0, result.stderr
    command: list[str] = json.loads(result.stdout)
    return command


def after(command: list[str], word: str) -> list[str]:
    """The arguments of an option of QEMU's."""
    return [value for name, value in itertools.pairwise(command) if name == word]


def test_machine(small_image: Path, run_revenant: Run) -> None:
    words = ["--memory", 512, "--interval", 7, "--relaxed", "--accel", "tcg"]
    command = dry_run(run_revenant, "--near", small_image, *words)
    assert after(command, "-machine") == ["q35"] and after(command, "-accel") == ["tcg"]
    assert after(command, "-cpu") == ["max"] and after(command, "-m") == ["512M"]
    assert after(command, "-fw_cfg") == ["name=opt/revenant/options,string=interval_ms=7 relaxed=1 log=1"]
    assert "-nodefaults" in command and "-no-user-config" in command
    near = json.loads(after(command, "-blockdev")[0])
    assert near["filename"] == str(small_image) and near["locking"] == "on" and not near["cache"]["no-flush"]
    devices = [json.loads(word) for word in after(command, "-device") if word.startswith("{")]
    assert devices[0]["serial"] == "near" and devices[0]["werror"] == devices[0]["rerror"] == "report"


def test_boot(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    by_pvh = dry_run(run_revenant, "--near", small_image)
    assert after(by_pvh, "-kernel") == [f"<kernel of generation 1 of {small_image}>"]
    assert "-kernel" not in dry_run(run_revenant, "--near", small_image, "--boot", "mbr")
    assert "-kernel" not in dry_run(run_revenant, "--near", tmp_path / "none.img")


def test_fars(small_image: Path, run_revenant: Run) -> None:
    rbd = 'json:{"driver": "rbd", "pool": "p", "image": "far"}'
    uris = ["/far.img", "nbd://host:1234/name", "nbd+unix:///?socket=/run/s", "https://host/far.img", rbd]
    words = [word for uri in uris for word in ("--far", uri)]
    command = dry_run(run_revenant, "--near", small_image, *words, "--trust", HASH)
    far = {node["node-name"]: node for node in map(json.loads, after(command, "-blockdev"))}
    assert all(far[f"far{n}"]["read-only"] for n in range(1, 6))
    assert far["far1"]["driver"] == "file" and far["far1"]["filename"] == "/far.img"
    by_tcp, by_socket, web = (far[f"far{n}"]["file"] for n in (2, 3, 4))
    assert by_tcp["server"] == {"type": "inet", "host": "host", "port": "1234"}
    assert by_tcp["export"] == "name" and "reconnect-delay" in by_tcp
    assert by_socket["server"] == {"type": "unix", "path": "/run/s"} and by_socket["export"] == ""
    assert web["server"] == {"type": "unix", "path": "web1.sock"}
    assert far["far5"]["driver"] == "rbd" and far["far5"]["image"] == "far"
    assert f"trust={HASH}" in after(command, "-fw_cfg")[0]


@pytest.mark.parametrize("console", ["stdio", "pty", "unix:/tmp/x,y"])
def test_consoles(small_image: Path, run_revenant: Run, console: str) -> None:
    command = dry_run(run_revenant, "--near", small_image, "--console", console)
    expected = {
        "stdio": "stdio,id=console,signal=off,mux=off",
        "pty": "pty,id=console",
        "unix:/tmp/x,y": "socket,id=console,path=/tmp/x,,y,server=on,wait=off",
    }
    assert expected[console] in command


@pytest.mark.parametrize(
    "words",
    [
        ["--console", "tty"], ["--trust", "abc"], ["--interval", "-1"], ["--interval", "60001"],
        ["--memory", "1"], ["--accel", "xen"], ["--boot", "uefi"], ["--", "a.py", "b.py"],
    ],
)  # fmt: skip
def test_wrong_usage(small_image: Path, run_revenant: Run, words: list[str]) -> None:
    result = run_revenant("run", "--near", small_image, "--dry-run", *words)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_near_and_far_that_do_not_fit(small_image: Path, tmp_path: Path, run_revenant: Run) -> None:
    blank, foreign, far = tmp_path / "blank.img", tmp_path / "foreign.img", tmp_path / "far.img"
    key, public = tmp_path / "key", tmp_path / "key.pub"
    assert run_revenant("keygen", key).returncode == 0
    blank.write_bytes(bytes(8 << 20))
    foreign.write_bytes(b"important" * 1000)
    assert run_revenant("publish", small_image, far).returncode == 0
    cases = [
        (["--near", blank], blank, "blank"),
        (["--near", blank, "--far", far], blank, "trust"),
        (["--near", blank, "--far", far, "--trust", HASH], far, "root hash"),
        (["--near", blank, "--far", far, "--trust", public], far, "its root is not signed"),
        (["--near", blank, "--far", far, "--trust", key], key, "not a public key"),
        (["--near", blank, "--far", far, "--trust", "none.pub"], "none.pub", "No such file"),
        (["--near", blank, "--far", foreign, "--trust", HASH], foreign, "not a Revenant store"),
        (["--near", blank, "--far", "nbd+unix:///?socket=/nowhere", "--trust", HASH], "nowhere", "no server"),
        (["--near", blank, "--far", "nbd+unix:///", "--trust", HASH], "nbd+unix", "socket"),
        (["--near", foreign], foreign, "not a Revenant store"),
        (["--near", small_image, "--far", "ftp://x/y"], "ftp", "not a far store"),
        (["--near", tmp_path], tmp_path, "folder"),
    ]
    before = {path: path.read_bytes() for path in (blank, foreign, far, small_image)}
    for words, subject, reason in cases:
        result = run_revenant("run", *words)
        last = result.stderr.splitlines()[-1]
        assert result.returncode == 1 and str(subject) in last and reason in last, result.stderr
        assert "Traceback" not in result.stderr
    assert {path: path.read_bytes() for path in before} == before


def test_exits(tmp_path: Path) -> None:
    config = qemu.MachineConfig(tmp_path / "near.img")
    assert explain_exit(config, 0, "") is None
    for status, stderr, reason, exit_status in [
        (EXIT_PANIC, "panic: no\n", "panic: no", 3),
        (EXIT_REFUSED, "no generation\n", "no generation", 1),
        (-9, "", "SIGKILL", 137),
        (1, 'x: Failed to get "write" lock\n', "in use by another machine", 1),
        (1, "qemu-system-x86_64: no such file\n", "no such file", 1),
    ]:
        error = explain_exit(config, status, stderr)
        assert isinstance(error, MachineError) and reason in str(error) and error.exit_status == exit_status


def test_script_status() -> None:
    assert script_status("") == (0, "")
    assert script_status("Traceback (most recent call last):\nRevenantScriptExit: 7\n") == (7, "")
    trace = "Traceback (most recent call last):\nValueError: 3\n"
    assert script_status(trace) == (1, trace)


def test_accelerator() -> None:
    chosen, reason = qemu.choose_accelerator(qemu.Accelerator.AUTO)
    assert chosen in (qemu.Accelerator.TCG, qemu.Accelerator.KVM) and reason
    assert qemu.choose_accelerator(qemu.Accelerator.TCG) == (qemu.Accelerator.TCG, "as asked")
    usable, _ = qemu.kvm_is_usable()
    assert (chosen == qemu.Accelerator.KVM) == usable


def test_serve(small_image: Path, run_revenant: Run) -> None:
    result = run_revenant(
        "serve", small_image, "--unix", "/run/s", "--delay", 20, "--rate", "100M", "--log", "/l", "--dry-run"
    )
    assert result.returncode == 0
    for word in ("--readonly", "--filter=delay", "rdelay=20ms", "rate=100M", "burstiness=", "logfile=/l"):
        assert word in result.stdout
    assert run_revenant("serve", small_image).returncode == 2
    assert nbd.ServerConfig(small_image, port=5).uri == "nbd://localhost:5"


def test_help_and_version(run_revenant: Run) -> None:
    result = run_revenant("--help")
    assert result.returncode == 0
    for command in ("create", "run", "serve", "publish", "info", "check", "log", "demo", "doctor"):
        assert f" {command} " in result.stdout
    assert run_revenant("version").returncode == 0
    assert run_revenant("nonsense").returncode == 2
