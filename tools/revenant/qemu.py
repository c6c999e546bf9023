"""QEMU's command line from a machine's description. Starts nothing.

Promise: the same description gives the same words; nothing passes through a shell. For QEMU 7.2 and later.
Used by: machine.py (runs it), `revenant run --dry-run` (prints it), the tests.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from revenant.errors import MachineError
from revenant.format import RETAIN_COUNT_MAX, RETAIN_COUNT_MIN, RETAIN_DAILY_MAX, RETAIN_HOURLY_MAX
from revenant.trust import KEY_PREFIX

QEMU = "qemu-system-x86_64"
DEBUG_EXIT_PORT = 0xF4
MEMORY_MIB_DEFAULT = 256
ICOUNT = ("-icount", "shift=0,sleep=off")
"""For `extra`: one guest instruction is one virtual nanosecond, idle time is skipped; a stop costs no time."""
ICOUNT_WAITING = ("-icount", "shift=0,sleep=on")
"""The same, but idle time takes its time: a disk is as slow as it is, and nobody waits for it longer than that."""
RECORDING_SHIFT = 3
"""An instruction takes 8 ns: about as long as TCG needs, so that programs find the time they are used to."""
INTERVAL_MS_DEFAULT = 100
NBD_RECONNECT_DELAY_S = 0  # requests fail at once: another store is asked, or this one anew
NBD_OPEN_TIMEOUT_S = 5
JSON_PREFIX = "json:"
GEOMETRY = {"cyls": 1024, "heads": 16, "secs": 63}
"""Nobody uses it; but QEMU would read a sector to guess it, before all else, and that sector may be far away."""
DATA_FOLDERS = ("/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu")


class Boot(StrEnum):
    """How the kernel gets into memory."""

    AUTO = "auto"
    PVH = "pvh"
    MBR = "mbr"


class Accelerator(StrEnum):
    """QEMU's engine."""

    AUTO = "auto"
    TCG = "tcg"
    KVM = "kvm"


@dataclass(frozen=True)
class WriteLog:
    """A file that is there, for every write and flush of the near disk (crash/log.py reads it).

    `writes_per_s` holds back the disk's writes, not its flushes: one that is not waited for shows behind them.
    """

    path: Path
    writes_per_s: int | None = None

    def blockdev(self, blockdev: dict[str, Any]) -> dict[str, Any]:
        """The same disk with the log between."""
        name = blockdev["node-name"]
        file: dict[str, Any] = {**blockdev, "node-name": f"{name}-file"}
        if self.writes_per_s:
            file = {"driver": "throttle", "throttle-group": "slow", "file": file}
        log = {"driver": "file", "filename": str(self.path)}
        return {"driver": "blklogwrites", "node-name": name, "file": file, "log": log}

    def words(self) -> list[str]:
        """What the command line needs besides."""
        if not self.writes_per_s:
            return []
        return ["-object", f"throttle-group,id=slow,x-iops-write={self.writes_per_s}"]


@dataclass(frozen=True)
class Recording:
    """A run that QEMU writes down, or repeats: each instruction and whatever came from outside, where it came.

    What comes from outside has to pass QEMU's log: the disk goes through blkreplay, randomness is QEMU's own. There is
    no isa-debug-exit, which ends QEMU before the log is whole: a panic halts.
    """

    log: Path
    repeats: bool

    def words(self) -> list[str]:
        """For the command line."""
        path = str(self.log).replace(",", ",,")
        return ["-icount", f"shift={RECORDING_SHIFT},rr={'replay' if self.repeats else 'record'},rrfile={path}"]


@dataclass(frozen=True)
class Retention:
    """What is kept without a tag: the newest generations, and the first ones of so many hours and days."""

    count: int
    hourly: int = 0
    daily: int = 0

    @classmethod
    def parse(cls, text: str) -> Retention:
        """From NEWEST[:HOURLY[:DAILY]]; ValueError if it is not that, or out of range."""
        retention = cls(*map(int, text.split(":")))
        if not RETAIN_COUNT_MIN <= retention.count <= RETAIN_COUNT_MAX:
            raise ValueError(f"the newest {RETAIN_COUNT_MIN} to {RETAIN_COUNT_MAX} can be kept")
        if not (0 <= retention.hourly <= RETAIN_HOURLY_MAX and 0 <= retention.daily <= RETAIN_DAILY_MAX):
            raise ValueError(f"up to {RETAIN_HOURLY_MAX} hours and {RETAIN_DAILY_MAX} days can be kept")
        return retention

    def __str__(self) -> str:
        return f"{self.count}:{self.hourly}:{self.daily}"


@dataclass(frozen=True)
class MachineConfig:
    """What a machine is, whoever runs it."""

    near: Path
    fars: Sequence[str] = ()
    trust: str | None = None
    """As in trust.py."""
    memory_mib: int = MEMORY_MIB_DEFAULT
    accelerator: Accelerator = Accelerator.AUTO
    interval_ms: int = INTERVAL_MS_DEFAULT
    relaxed: bool = False
    boot: Boot = Boot.AUTO
    pidfile: Path | None = None
    test_spaces: int = 0
    test_resident: int = 0
    record: bool = False
    fill: bool = True
    log_level: int = 1
    write_log: WriteLog | None = None
    near_filter: Mapping[str, Any] | None = None
    """A QEMU filter driver between the guest and near, for tests: blkdebug, throttle."""
    retain: Retention | None = None
    kernel: Path | None = None
    """Entered by PVH in place of the images' own."""
    copied_from: str | None = None
    """Near is a qcow2 file that QEMU itself fills from there, copy-on-read: what `bench stream` compares with."""
    packed: tuple[int, int] | None = None
    """Of the first far store, where that is known already: first and count of the blocks that a start touches."""
    recording: Recording | None = None
    window: str | None = None
    """QEMU's display, as `-display` takes it: the machine has a VGA and its start shows there, too."""
    memory_file: Path | None = None
    """A file, or a name of one that is open, that becomes the machine's RAM: who has it too looks in (ui/live.py)."""
    bridges: Mapping[str, str] = field(default_factory=dict)
    """By the URI of a far store that QEMU cannot read: the one of an NBD server that can (nbd.bridged)."""
    extra: Sequence[str] = ()

    @property
    def reached(self) -> list[str]:
        """The far stores as QEMU reads them."""
        return [self.bridges.get(uri, uri) for uri in self.fars]

    @property
    def options(self) -> str:
        """The words of fw_cfg file opt/revenant/options (kernel/README.md)."""
        words = [f"interval_ms={self.interval_ms}", f"relaxed={int(self.relaxed)}", f"log={self.log_level}"]
        if self.trust:
            key = self.trust.removeprefix(KEY_PREFIX)
            words.append(f"trust={key}" if key == self.trust else f"trust_key={key}")
        if self.retain:
            words.append(f"retain={self.retain}")
        if not self.fill:
            words.append("fill=0")
        if self.record:
            words.append("record=1")
        if self.test_spaces:
            words.append(f"test_spaces={self.test_spaces}")
        if self.test_resident:
            words.append(f"test_resident={self.test_resident}")
        return " ".join(words)


@dataclass(frozen=True)
class Wiring:
    """What the two serial ports and the monitor are connected to: QEMU chardev arguments with an id."""

    console: str = "stdio,id=console,signal=off,mux=off"
    voice: str = "file,id=voice,path=/dev/stderr,append=on"
    monitor: Sequence[str] = ()


def kvm_is_usable() -> tuple[bool, str]:
    """KVM only where the CPU's flags show vmx or svm and the device opens, which alone proves nothing."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    except OSError:
        return False, "/proc/cpuinfo cannot be read"
    if not {"vmx", "svm"} & set(flags):
        return False, "the CPU's flags show neither vmx nor svm"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return False, f"/dev/kvm: {error.strerror}"
    return True, "the CPU's flags show hardware virtualisation and /dev/kvm opens"


def choose_accelerator(wanted: Accelerator) -> tuple[Accelerator, str]:
    """The engine to use and why."""
    if wanted != Accelerator.AUTO:
        return wanted, "as asked"
    usable, reason = kvm_is_usable()
    return (Accelerator.KVM if usable else Accelerator.TCG), reason


def data_file(name: str) -> Path | None:
    """A firmware file of QEMU's, or None."""
    return next((Path(folder, name) for folder in DATA_FOLDERS if Path(folder, name).exists()), None)


def near_blockdev(path: Path) -> dict[str, Any]:
    """The near disk: QEMU's lock keeps a second machine off."""
    return {
        "driver": "file",
        "node-name": "near",
        "filename": str(path),
        "locking": "on",
        "aio": "threads",
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": False},
    }


def filtered(blockdev: dict[str, Any], driver: Mapping[str, Any]) -> dict[str, Any]:
    """The same disk behind a filter driver."""
    name = blockdev["node-name"]
    child = "image" if driver["driver"] in ("blkdebug", "blkreplay") else "file"
    return {**driver, "node-name": name, child: {**blockdev, "node-name": f"{name}-file"}}


def copied_on_read(blockdev: dict[str, Any], uri: str) -> dict[str, Any]:
    """A qcow2 disk over a far one, that keeps what is read."""
    name = blockdev["node-name"]
    file, backing = {**blockdev, "node-name": f"{name}-file"}, far_blockdev(uri, f"{name}-backing")
    overlay = {"driver": "qcow2", "node-name": f"{name}-overlay", "file": file, "backing": backing}
    return {"driver": "copy-on-read", "node-name": name, "file": overlay}


def is_file(uri: str) -> bool:
    """Whether a far store is a file here, which we can look into ourselves."""
    return "://" not in uri and not uri.startswith(JSON_PREFIX)


def is_web(uri: str) -> bool:
    """Whether a far store is a file of a web server."""
    return uri.startswith(("http://", "https://"))


def is_nbd(uri: str) -> bool:
    """Whether a far store is an NBD server."""
    return uri.startswith(("nbd://", "nbd+unix://"))


def far_json(uri: str) -> dict[str, Any]:
    """A block device in QEMU's own words, after "json:"; MachineError where it is none."""
    try:
        blockdev = json.loads(uri.removeprefix(JSON_PREFIX))
    except ValueError as error:
        raise MachineError(uri, f"not JSON: {error}") from None
    if not isinstance(blockdev, dict) or "driver" not in blockdev:
        raise MachineError(uri, "names no driver of QEMU's", 'write json:{"driver": …}')
    return blockdev


def far_blockdev(uri: str, node: str) -> dict[str, Any]:
    """A far disk, read-only: a path, nbd://HOST[:PORT][/EXPORT], nbd+unix:///[EXPORT]?socket=PATH, json:{}."""
    common: dict[str, Any] = {"node-name": node, "read-only": True}
    if uri.startswith(JSON_PREFIX):
        return {**far_json(uri), **common}
    parts = urlsplit(uri)
    if is_nbd(uri):
        return nbd_blockdev(uri, node, NBD_OPEN_TIMEOUT_S)
    if parts.scheme and "://" in uri:
        kinds = "use a path, nbd://, nbd+unix://, http(s):// or json:{…}"
        raise MachineError(uri, "not a far store that QEMU can open", kinds)
    return {"driver": "file", "filename": uri, "locking": "auto", **common}


def nbd_blockdev(uri: str, node: str, open_timeout_s: int) -> dict[str, Any]:
    """A connection to an NBD server."""
    return {
        "driver": "nbd",
        "node-name": node,
        "read-only": True,
        "server": nbd_server(uri),
        "export": urlsplit(uri).path.lstrip("/"),
        "reconnect-delay": NBD_RECONNECT_DELAY_S,
        "open-timeout": open_timeout_s,
    }


def with_connection(node: str, connection: Any) -> dict[str, Any]:
    """The node of a far disk over a connection that may be replaced by another (reconnect.py)."""
    return {"driver": "raw", "node-name": node, "read-only": True, "file": connection}


def far_disk(uri: str, node: str) -> dict[str, Any]:
    """The far disk that a machine has."""
    return with_connection(node, far_blockdev(uri, f"{node}-1")) if is_nbd(uri) else far_blockdev(uri, node)


def nbd_server(uri: str) -> dict[str, str]:
    """QEMU's SocketAddress of an NBD URI."""
    parts = urlsplit(uri)
    if parts.scheme == "nbd+unix":
        paths = parse_qs(parts.query).get("socket")
        if not paths:
            raise MachineError(uri, "names no socket", "write nbd+unix:///?socket=PATH")
        return {"type": "unix", "path": paths[0]}
    try:
        port = parts.port or 10809
    except ValueError:
        raise MachineError(uri, "its port is not a number") from None
    if not parts.hostname:
        raise MachineError(uri, "names no host", "write nbd://HOST:PORT")
    return {"type": "inet", "host": parts.hostname, "port": str(port)}


def boots_by_itself(near: Path) -> bool:
    """Whether block 0 of the near file has boot code. SeaBIOS tries only the first disk."""
    try:
        with near.open("rb") as file:
            return file.read(512)[510:] == b"\x55\xaa"
    except OSError:
        return False


def disk_words(blockdev: dict[str, Any], boots: bool) -> list[str]:
    """A block device and the virtio disk on it; its serial is its name. `boots`: firmware takes this one."""
    name = blockdev["node-name"]
    device: dict[str, Any] = {
        "driver": "virtio-blk-pci",
        "id": f"disk-{name}",
        "drive": name,
        "serial": name,
        "disable-legacy": "on",
        "werror": "report",
        "rerror": "report",
    }
    if boots:
        device["bootindex"] = 1
    if blockdev.get("read-only"):
        device |= GEOMETRY | {"request-merging": False}  # one after the other on a long link, not all in one
    return ["-blockdev", json.dumps(blockdev), "-device", json.dumps(device)]


def boot_words(kernel: str | None, window: bool) -> list[str]:
    """PVH with a kernel file, by the small firmware where QEMU has it; else SeaBIOS and the disk's loader.

    A VGA is set up by its own firmware, which only SeaBIOS starts.
    """
    if kernel is None:
        return []
    firmware = ["-bios", "qboot.rom"] if data_file("qboot.rom") and not window else []
    return [*firmware, "-kernel", kernel]


def command_line(config: MachineConfig, wiring: Wiring, kernel: str | None) -> list[str]:
    """QEMU's words. `kernel`: the file to enter by PVH, None: SeaBIOS boots the near disk (or far1)."""
    accelerator, _ = choose_accelerator(config.accelerator)
    words = [
        QEMU, "-name", "revenant", "-machine", "q35", "-accel", accelerator.value, "-cpu", "max",
        "-m", f"{config.memory_mib}M", "-display", config.window or "none", "-nodefaults", "-no-user-config",
        "-rtc", "base=utc",
    ]  # fmt: skip
    if config.memory_file:
        memory = f"memory-backend-file,id=memory,size={config.memory_mib}M,mem-path={config.memory_file},share=on"
        words += ["-object", memory, "-machine", "memory-backend=memory"]
    words += boot_words(kernel, config.window is not None)
    if config.window:
        words += ["-device", "VGA"]
    words += ["-fw_cfg", f"name=opt/revenant/options,string={config.options}"]
    if config.packed:
        words += ["-fw_cfg", "name=opt/revenant/packed,string={}:{}".format(*config.packed)]
    if config.recording:
        words += [*config.recording.words(), "-object", "rng-builtin,id=entropy"]
    else:
        words += ["-device", f"isa-debug-exit,iobase={DEBUG_EXIT_PORT:#x},iosize=4"]
        words += ["-object", "rng-random,id=entropy,filename=/dev/urandom"]
    words += ["-device", "virtio-rng-pci,rng=entropy,disable-legacy=on"]
    words += ["-chardev", wiring.console, "-serial", "chardev:console"]
    words += ["-chardev", wiring.voice, "-serial", "chardev:voice"]
    words += wiring.monitor
    from_near = not config.fars or boots_by_itself(config.near)
    near = near_blockdev(config.near)
    if config.copied_from:
        near = copied_on_read(near, config.copied_from)
    if config.near_filter:
        near = filtered(near, config.near_filter)
    if config.recording:
        near = filtered(near, {"driver": "blkreplay"})
    if config.write_log:
        words += config.write_log.words()
        near = config.write_log.blockdev(near)
    words += disk_words(near, from_near)
    for number, uri in enumerate(config.reached, start=1):
        words += disk_words(far_disk(uri, f"far{number}"), number == 1 and not from_near)
    if config.pidfile:
        words += ["-pidfile", str(config.pidfile)]
    return [*words, *config.extra]


def require_qemu() -> None:
    """MachineError where QEMU is not installed."""
    if shutil.which(QEMU) is None:
        raise MachineError(QEMU, "not installed", "apt-get install qemu-system-x86")
