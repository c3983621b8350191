"""A run on several hosts over TLS; they share only a folder, a network and a certificate."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from distributed.security import Security
from support.runs import CHUNKS, WORKERS, Kit, Uninterrupted, assert_same

from catalogproc.cluster.dask_cluster import cores
from catalogproc.rundir.receipts import read_receipts
from catalogproc.rundir.verify import verify

pytestmark = pytest.mark.slow
PORT = "18786"
IP = shutil.which("ip") or ""
# A host sees only the shared one of the tests' folders, and has its own name.
SCRIPT = """
set -e
hostname "$NAME"
mount --bind "$SHARED" "$HOLD"
mount -t tmpfs none "$PRIVATE"
mkdir -p "$SHARED"
mount --move "$HOLD" "$SHARED"
exec "$@"
"""


@dataclass(frozen=True)
class Host:
    """A host made of namespaces: its name, its address, and the command that enters it."""

    name: str
    address: str
    prefix: tuple[str, ...]
    environment: Mapping[str, str]

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        python = [sys.executable, "-m", *words]
        return subprocess.Popen(
            [*self.prefix, *python], env={**self.environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip


@contextmanager
def hosts(count: int, shared: Path, private: Path, hold: Path) -> Iterator[list[Host]]:
    """Make hosts on one network: each has namespaces of network, files and host name."""
    token = secrets.token_hex(3)
    wire = f"cp-{token}"

    def ip(*words: str) -> None:
        subprocess.run([IP, *words], check=True, capture_output=True)

    names = [f"{wire}-{number}" for number in range(count)]
    base = {key: value for key, value in os.environ.items() if not key.startswith("DASK")}
    base |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        ip("netns", "add", wire)
        ip("-n", wire, "link", "add", "br0", "type", "bridge")
        ip("-n", wire, "link", "set", "br0", "up")
        made = []
        for number, name in enumerate(names):
            address = f"10.77.0.{number + 1}"
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
            ip(
                "-n",
                name,
                "link",
                "add",
                "eth0",
                "type",
                "veth",
                "peer",
                f"p{number}",
                "netns",
                wire,
            )
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", wire, "link", "set", f"p{number}", "master", "br0", "up")
            own = {"NAME": f"host{number}", "SHARED": str(shared), "PRIVATE": str(private),
                   "HOLD": str(hold), "HOME": "/nowhere"}  # fmt: skip
            prefix = (
                IP,
                "netns",
                "exec",
                name,
                "unshare",
                "--mount",
                "--uts",
                "sh",
                "-c",
                SCRIPT,
                "sh",
            )
            made.append(Host(own["NAME"], address, prefix, base | own))
        yield made
    finally:
        for name in [*names, wire]:
            subprocess.run([IP, "netns", "del", name], check=False, capture_output=True)


def may_make_namespaces() -> bool:
    """Return whether this user may make namespaces."""
    if not IP or not shutil.which("unshare") or not hasattr(os, "getuid") or os.getuid():
        return False
    tried = ["unshare", "--net", "--mount", "--uts", "true"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def settings(folder: Path) -> dict[str, str]:
    """Return Dask's settings for TLS, with a certificate made for this test."""
    security, files = Security.temporary(), {}
    for name, text in (
        ("ca-file", security.tls_ca_file),
        ("cert", security.tls_client_cert),
        ("key", security.tls_client_key),
    ):
        files[name] = folder / f"{name}.pem"
        files[name].write_text(str(text))
    words = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    words["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(files["ca-file"])
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        for name in ("cert", "key"):
            words[f"DASK_DISTRIBUTED__COMM__TLS__{role}__{name.upper()}"] = str(files[name])
    return words


def printed(process: subprocess.Popen[str], seconds: float) -> str:
    """Return what a process printed, once it has ended."""
    output, _ = process.communicate(timeout=seconds)
    return output


@pytest.mark.skipif(
    not may_make_namespaces(), reason="no right to make namespaces of network and files"
)
def test_three_hosts_that_share_a_folder_and_a_certificate(
    uninterrupted: Uninterrupted, kit: Kit, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    private = tmp_path_factory.getbasetemp()
    shared = tmp_path / "shared"
    shared.mkdir()
    files = Kit.written(shared, Path(shutil.copytree(kit.bundle, shared / "bundle")))
    hold = Path("/tmp") / f"hold-{secrets.token_hex(4)}"
    hold.mkdir()
    tls = settings(shared)
    words = ["--input", str(files.inputs), "--gaia-source", str(files.gaia_source), "--job",
             str(files.job), "--model", str(files.bundle), "--output", str(shared / "out"),
             "--scheduler", f"tls://10.77.0.1:{PORT}", "--device", "cpu"]  # fmt: skip
    services: list[subprocess.Popen[Any]] = []
    try:
        with hosts(1 + WORKERS, shared, private, hold) as (first, *others):
            services.append(
                first.start("distributed.cli.dask_scheduler", "--host", first.address, "--port",
                            PORT, "--protocol", "tls", "--no-dashboard", **tls)
            )  # fmt: skip
            time.sleep(5)
            threads = str(max(1, cores() // WORKERS))
            for host in others:
                services.append(
                    host.start("distributed.cli.dask_worker", f"tls://{first.address}:{PORT}",
                               "--host", host.address, "--nthreads", threads, "--no-dashboard",
                               **tls)
                )  # fmt: skip
            # Without the certificate the run is refused.
            refused = first.start("catalogproc", "run", *words)
            text = printed(refused, 120)
            assert refused.returncode == 2, text
            assert "the scheduler requires TLS and no certificate is configured" in text
            assert f"tls://10.77.0.1:{PORT}" in text
            assert "Traceback" not in text

            time.sleep(5)
            driver = first.start("catalogproc", "run", *words, "--json", **tls)
            text = printed(driver, 240)
            assert driver.returncode == 0, text
            # An output folder that only the driver sees is refused.
            elsewhere = [
                str(tmp_path / "alone") if word == str(shared / "out") else word for word in words
            ]
            unshared = first.start("catalogproc", "run", *elsewhere, **tls)
            text = printed(unshared, 120)
            assert unshared.returncode == 2, text
            assert "2 workers of the cluster without the same folders" in text
    finally:
        for process in services:
            process.terminate()
            process.communicate(timeout=60)
        hold.rmdir()
    receipts = read_receipts(shared / "out")
    assert len(receipts) == CHUNKS
    assert {receipt.host for receipt in receipts.values()} == {"host1", "host2"}
    assert json.loads((shared / "out" / "summary.json").read_text())["chunks"] == CHUNKS
    assert_same(shared / "out", uninterrupted.output)
    assert verify(shared / "out")
