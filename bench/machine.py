"""Description of the machine and of library versions, without the host's name."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from bench.measure import cores
from catalogproc import __version__

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = ("torch", "numpy", "pyarrow", "dask", "gaiaxpy", "isal")


def describe() -> dict[str, Any]:
    """Return date, machine, versions and commit, the first entries of bench.json."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "changed_since": bool(_git("status", "--porcelain", "--", "catalogproc")),
        "machine": {
            "cpu": _processor(),
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load": round(os.getloadavg()[0], 2),
        },
        "versions": {
            "catalogproc": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in LIBRARIES},
        },
    }


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """Return the processor's model name, family and model number."""
    facts: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = facts.get("model name") or platform.machine()
    return f"{name}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')}"


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
