"""On a real GPU: one per worker, receipts name it, and a failed GPU is recognised."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.bundles import tiny_bundle
from support.runs import CHUNKS, LOCAL, Kit

from catalogproc.cluster.gpu import discover
from catalogproc.cluster.gpu_claim import pin
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.errors import Refusal, WorkerError
from catalogproc.rundir.receipts import read_receipts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.written(folder, tiny_bundle(folder / "bundle").path)


def test_receipts_name_the_gpu_by_uuid(kit: Kit, tmp_path: Path) -> None:
    gpus = discover()
    result = kit.run(tmp_path / "out", ClusterConfig(device="cuda", dashboard=LOCAL.dashboard))
    assert (result.exit_code, result.chunks_done) == (0, CHUNKS)
    used = {receipt.device for receipt in read_receipts(tmp_path / "out").values()}
    assert used <= {gpu.label for gpu in gpus}
    assert len(result.workers) == len(set(result.workers)) == len(gpus)


def test_more_workers_than_gpus_are_refused(kit: Kit, tmp_path: Path) -> None:
    cluster = replace(LOCAL, device="cuda", workers=len(discover()) + 1)
    with pytest.raises(Refusal, match="fewer GPUs than workers"):
        kit.run(tmp_path / "out", cluster)


def test_a_gpu_is_claimed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", discover()[0].token)
    claimed = pin("cuda", folder=tmp_path)
    with pytest.raises(WorkerError, match="taken by another"):
        pin("cuda", folder=tmp_path)
    claimed.release()


# A kernel that fails on the device leaves an error in its CUDA context for ever.
FAILURE = """
import torch
from catalogproc.cluster.gpu import device_error
healthy = device_error(RuntimeError("shapes do not fit"), "GPU-0")
try:
    torch.ones(2, device="cuda")[torch.tensor([7], device="cuda")].cpu()
except RuntimeError as error:
    print(healthy, type(device_error(error, "GPU-0")).__name__)
    print(type(device_error(RuntimeError("of cuBLAS"), "GPU-0")).__name__)
"""


def test_a_failed_gpu_is_recognised_whatever_the_text_of_the_error() -> None:
    done = subprocess.run([sys.executable, "-c", FAILURE], capture_output=True, text=True)
    assert done.stdout.split() == ["None", "DeviceError", "DeviceError"], done.stderr
