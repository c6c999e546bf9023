"""Far stores behind HTTP with ranges: nginx, asked through nbdkit's curl plugin, which the tool starts."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from revenant import nbd
from revenant.check import check_store
from revenant.children import die_with_parent
from revenant.machine import Machine
from revenant.publish import publish_image
from revenant.script import wait_for_prompt
from revenant.store import Store

Start = Callable[..., Machine]
Run = Callable[..., subprocess.CompletedProcess[str]]
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
CONFIG = """daemon off; master_process off; error_log stderr; pid {folder}/nginx.pid;
events {{}}
http {{
    log_format range '$http_range $status $body_bytes_sent'; access_log {folder}/access.log range;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


@dataclass
class WebServer:
    """nginx, serving one folder on the loopback interface."""

    folder: Path
    port: int

    @property
    def files(self) -> Path:
        """What is put there is served."""
        return self.folder / "files"

    def forget(self) -> None:
        """What was read so far does not count."""
        os.truncate(self.folder / "access.log", 0)

    def sent(self) -> list[tuple[int, int]]:
        """(first byte asked for, bytes sent) of every ranged read so far."""
        lines = (self.folder / "access.log").read_text()
        return [(int(a), int(b)) for a, b in re.findall(r"bytes=(\d+)-\d* 206 (\d+)", lines)]


@pytest.fixture
def web(tmp_path: Path, free_port: int) -> Iterator[WebServer]:
    """nginx until the test ends."""
    assert NGINX is not None, "nginx is missing: run tools/install_packages.sh"
    server = WebServer(tmp_path / "web", free_port)
    server.files.mkdir(parents=True)
    config = server.folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=server.folder, port=server.port))
    process = subprocess.Popen([NGINX, "-e", "stderr", "-p", server.folder, "-c", config], preexec_fn=die_with_parent)
    end = time.monotonic() + 20
    while not nbd.is_there(f"http://127.0.0.1:{server.port}"):
        assert process.poll() is None and time.monotonic() < end, "nginx does not serve"
        select.select([], [], [], 0.01)
    yield server
    process.kill()
    process.wait()


def test_far_over_http(machine: Start, image: Path, web: WebServer, tmp_path: Path, run_revenant: Run) -> None:
    """It starts, streams, becomes complete; what was read, was read once and little more."""
    now = machine()
    wait_for_prompt(now)
    now.command_at_prompt("warm = bytes(range(256)) * 4096")
    now.command_at_prompt("import revenant; revenant.commit() > 0")
    now.kill()
    with Store(image) as store:
        root = publish_image(store, web.files / "far.img", None, record=True)
    url = f"http://127.0.0.1:{web.port}/far.img"
    blank, script = tmp_path / "blank.img", tmp_path / "ask.py"
    script.write_text("print('warm is here:', len(warm))\n")
    trust = ("--trust", root.hash.hex())
    ran = run_revenant("run", "--near", blank, "--size", "64M", "--far", url, *trust, "--no-fill", "--", script)
    assert ran.returncode == 0 and ran.stdout.endswith("warm is here: 1048576\n")
    looked = run_revenant("inspect", blank, "--python", "--far", url, "--json")
    variables = {row["name"]: row["type"] for row in json.loads(looked.stdout)}
    assert variables["warm"] == "bytes", "its head, or the object itself, is behind the web server"
    web.forget()
    with nbd.bridged([url]) as bridges:
        now = machine(blank, fars=[url], bridges=bridges)
        wait_for_prompt(now)
        assert now.command_at_prompt("warm == bytes(range(256)) * 4096") == "True"
        now.expect_voice("near is complete")
        now.kill()
    with Store(blank) as store:
        assert check_store(store).blocks_absent == 0
    sent = sum(size for _, size in web.sent())
    assert sent < 1.3 * os.path.getsize(web.files / "far.img")


def test_web_servers_need_nbdkit(run_revenant: Run, image: Path) -> None:
    """A near that has what it needs starts without a dead server, but not without nbdkit before one that lives."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/far.img"
        ran = run_revenant("run", "--near", image, "--far", url, env={**os.environ, "PATH": "/nonexistent"})
    assert ran.returncode == 1 and "nbdkit: not installed" in ran.stderr and "apt-get install nbdkit" in ran.stderr
