"""A run on several hosts over TLS: what they share is a folder, a network and a certificate."""

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
# A host sees nothing of the tests' folders but what is shared, and has a name of its own.
ALONE = """
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
    """A machine, made of namespaces: its name, its address, and how a command is begun on it."""

    name: str
    address: str
    before: tuple[str, ...]
    environment: Mapping[str, str]

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        python = [sys.executable, "-m", *words]
        return subprocess.Popen(
            [*self.before, *python], env={**self.environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
        )  # fmt: skip


@contextmanager
def hosts(count: int, shared: Path, private: Path, hold: Path) -> Iterator[list[Host]]:
    """So many hosts on one network: namespaces of network, files and names for each."""
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
            before = (
                IP,
                "netns",
                "exec",
                name,
                "unshare",
                "--mount",
                "--uts",
                "sh",
                "-c",
                ALONE,
                "sh",
            )
            made.append(Host(own["NAME"], address, before, base | own))
        yield made
    finally:
        for name in [*names, wire]:
            subprocess.run([IP, "netns", "del", name], check=False, capture_output=True)


def possible() -> bool:
    """Whether this user may make namespaces here."""
    if not IP or not shutil.which("unshare") or not hasattr(os, "getuid") or os.getuid():
        return False
    tried = ["unshare", "--net", "--mount", "--uts", "true"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def settings(folder: Path) -> dict[str, str]:
    """Dask's own words for TLS, with a certificate made for this test."""
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


def said(process: subprocess.Popen[str], seconds: float) -> str:
    told, _ = process.communicate(timeout=seconds)
    return told


@pytest.mark.skipif(not possible(), reason="no right to make namespaces of network and files")
def test_three_hosts_that_share_a_folder_and_a_certificate(
    uninterrupted: Uninterrupted, kit: Kit, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    private = tmp_path_factory.getbasetemp()
    shared = tmp_path / "shared"
    shared.mkdir()
    ours = Kit.written(shared, Path(shutil.copytree(kit.bundle, shared / "bundle")))
    hold = Path("/tmp") / f"hold-{secrets.token_hex(4)}"
    hold.mkdir()
    tls = settings(shared)
    words = ["--input", str(ours.inputs), "--gaia-source", str(ours.gaia_source), "--job",
             str(ours.job), "--model", str(ours.bundle), "--output", str(shared / "out"),
             "--scheduler", f"tls://10.77.0.1:{PORT}", "--device", "cpu"]  # fmt: skip
    standing: list[subprocess.Popen[Any]] = []
    try:
        with hosts(1 + WORKERS, shared, private, hold) as (first, *others):
            standing.append(
                first.start("distributed.cli.dask_scheduler", "--host", first.address, "--port",
                            PORT, "--protocol", "tls", "--no-dashboard", **tls)
            )  # fmt: skip
            time.sleep(5)
            threads = str(max(1, cores() // WORKERS))
            for host in others:
                standing.append(
                    host.start("distributed.cli.dask_worker", f"tls://{first.address}:{PORT}",
                               "--host", host.address, "--nthreads", threads, "--no-dashboard",
                               **tls)
                )  # fmt: skip
            # Without the certificate nobody gets in, and is told so.
            stranger = first.start("catalogproc", "run", *words)
            told = said(stranger, 120)
            assert stranger.returncode == 2, told
            assert "the scheduler requires TLS and no certificate is configured" in told
            assert f"tls://10.77.0.1:{PORT}" in told
            assert "Traceback" not in told

            time.sleep(5)
            driver = first.start("catalogproc", "run", *words, "--json", **tls)
            told = said(driver, 240)
            assert driver.returncode == 0, told
            # A folder that only the driver sees is refused before anything is done.
            elsewhere = [
                str(tmp_path / "alone") if word == str(shared / "out") else word for word in words
            ]
            blind = first.start("catalogproc", "run", *elsewhere, **tls)
            told = said(blind, 120)
            assert blind.returncode == 2, told
            assert "workers of the cluster do not see the same folders" in told
    finally:
        for process in standing:
            process.terminate()
            process.communicate(timeout=60)
        hold.rmdir()
    receipts = read_receipts(shared / "out")
    assert len(receipts) == CHUNKS
    assert {receipt.host for receipt in receipts.values()} == {"host1", "host2"}
    assert json.loads((shared / "out" / "summary.json").read_text())["chunks"] == CHUNKS
    assert_same(shared / "out", uninterrupted.output)
    assert verify(shared / "out")
