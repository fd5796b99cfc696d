"""An S3 server that checks signatures and keeps data on disk: OpenStack Swift with its S3 interface.

Its programs (`pip install swift`, in an environment of their own) are looked for on PATH and in `MYXTTS_SWIFT`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ACCESS, SECRET = "voices:trainer", "hunter2hunter2"
PARTS = ("account", "container", "object")

COMMON = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/disks
mount_check = false
disable_fallocate = true
log_address = {folder}/no-log
"""

STORAGE = """
[pipeline:main]
pipeline = {part}-server
[app:{part}-server]
use = egg:swift#{part}
"""

PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats bulk s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{name} = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
"""

HASHES = "[swift-hash]\nswift_hash_path_suffix = tests\n[storage-policy:0]\nname = gold\ndefault = yes\n"


@contextlib.contextmanager
def swift_server(folder: Path) -> Iterator[str]:
    """Serves S3 and yields the address; skips the test where Swift is not installed."""
    search = os.pathsep.join([os.environ.get("MYXTTS_SWIFT", ""), os.environ.get("PATH", os.defpath)])
    programs = {name: shutil.which(f"swift-{name}", path=search) for name in ("ring-builder", "proxy-server")}
    if not all(programs.values()):
        pytest.skip("OpenStack Swift is not installed (pip install swift; MYXTTS_SWIFT=<its bin folder>)")
    home = Path(programs["proxy-server"]).parent
    ports = _configure(folder, programs["ring-builder"])
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log.txt").open("w"))
        for part, port in ports.items():
            command = [home / f"swift-{part}-server", folder / f"{part}-server.conf", "-v"]
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            _wait_for(port, process, folder / "log.txt")
        yield f"http://127.0.0.1:{ports['proxy']}"


def _configure(folder: Path, builder: str) -> dict[str, int]:
    (folder / "disks" / "one").mkdir(parents=True)
    (folder / "swift.conf").write_text(HASHES)
    ports = {name: _free_port() for name in (*PARTS, "proxy")}
    user = os.environ.get("USER") or ("root" if not os.geteuid() else str(os.geteuid()))
    account, _, name = ACCESS.partition(":")
    for part, port in ports.items():
        common = COMMON.format(port=port, user=user, folder=folder)
        own = PROXY.format(account=account, name=name, secret=SECRET) if part == "proxy" else STORAGE.format(part=part)
        (folder / f"{part}-server.conf").write_text(common + own)
    for part in PARTS:
        device = f"r1z1-127.0.0.1:{ports[part]}/one"
        for step in (["create", "6", "1", "1"], ["add", device, "1"], ["rebalance"]):
            subprocess.run([builder, f"{part}.builder", *step], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return ports


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for(port: int, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
