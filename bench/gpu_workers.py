"""Workers on a real GPU: receipts name it, a second worker is refused, both may share it."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.kit import EXAMPLES
from catalogproc.cluster.gpu import Device, discover
from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.result import RunResult
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import Refusal
from catalogproc.io.atomic import write_atomic
from catalogproc.job import load_job
from catalogproc.rundir.receipts import read_receipts

CHUNK_ROWS = 100
NO_GPU = "not measured: no GPU"


def check_workers(folder: Path) -> dict[str, Any]:
    """Return by check what was found and whether it is as promised.

    Parameters
    ----------
    folder
        Where runs may be written.
    """
    names = ("receipts name the GPU", "a second worker is refused", "two workers share the GPU")
    if not torch.cuda.is_available():
        return {name: {"passed": None, "found": NO_GPU} for name in names}
    gpus = discover()
    one = ClusterConfig(device="cuda", workers=len(gpus), dashboard="127.0.0.1:0")
    checks: tuple[Callable[[], tuple[bool, Any]], ...] = (
        lambda: receipts_of(folder / "one", one, gpus),
        lambda: _refusal(folder / "refused", replace(one, workers=len(gpus) + 1)),
        lambda: receipts_of(
            folder / "shared", replace(one, workers=len(gpus) + 1, share_gpu=True), gpus
        ),
    )
    found = {}
    for name, check in zip(names, checks, strict=True):
        try:
            passed, seen = check()
        except Exception as error:  # a failed check must not hide the others
            passed, seen = False, f"{type(error).__name__}: {error}"
        found[name] = {"passed": passed, "found": seen}
    return found


def _run(output: Path, cluster: ClusterConfig) -> RunResult:
    job = replace(load_job("demo"), chunk_rows=CHUNK_ROWS)
    return run(make_plan(RunSpec(EXAMPLES, output, job=job, cluster=cluster)))


def receipts_of(output: Path, cluster: ClusterConfig, gpus: tuple[Device, ...]) -> tuple[bool, Any]:
    """Run, and compare the devices in the receipts with those that the driver lists.

    Parameters
    ----------
    output, cluster
        Of the run.
    gpus
        What the driver lists.
    """
    result = _run(output, cluster)
    receipts = read_receipts(output).values()
    used, workers = {one.device for one in receipts}, {one.worker for one in receipts}
    listed = {gpu.label for gpu in gpus}
    passed = result.exit_code == 0 and bool(used) and used <= listed
    seen = {
        "devices": sorted(used), "listed": sorted(listed), "workers": len(workers),
        "stars": result.rows_written, "seconds": result.seconds,
    }  # fmt: skip
    return passed and all("GPU-" in label or "MIG-" in label for label in used), seen


def _refusal(output: Path, cluster: ClusterConfig) -> tuple[bool, Any]:
    try:
        _run(output, cluster)
    except Refusal as error:
        return "fewer GPUs than workers" in str(error), str(error)
    return False, "it ran"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.gpu_workers", description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="output file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        found = check_workers(Path(folder))
    write_atomic(options.json, json.dumps(found, indent=1).encode() + b"\n")
    for name, check in found.items():
        print(f"{name}: {check['passed']} ({check['found']})")
    raise SystemExit(any(check["passed"] is False for check in found.values()))


if __name__ == "__main__":
    main()
