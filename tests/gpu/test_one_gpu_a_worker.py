"""On a real GPU: each worker has one, receipts name it, and two workers do not share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.bundles import tiny_bundle
from support.runs import ANYWHERE, CHUNKS, Kit

from catalogproc.cluster.dask_cluster import Where
from catalogproc.cluster.gpu import discover, pin
from catalogproc.errors import Refusal, WorkerError
from catalogproc.rundir.receipts import read_receipts

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.laid_out(folder, tiny_bundle(folder / "bundle").path)


def test_receipts_name_the_gpu_by_uuid(kit: Kit, tmp_path: Path) -> None:
    gpus = discover()
    account = kit.run(tmp_path / "out", Where(device="cuda", dashboard=ANYWHERE.dashboard))
    assert (account.exit_code, account.chunks_done) == (0, CHUNKS)
    used = {receipt.device for receipt in read_receipts(tmp_path / "out").values()}
    assert used <= {gpu.label for gpu in gpus}
    assert len(account.workers) == len(set(account.workers)) == len(gpus)


def test_more_workers_than_gpus_are_refused(kit: Kit, tmp_path: Path) -> None:
    where = replace(ANYWHERE, device="cuda", workers=len(discover()) + 1)
    with pytest.raises(Refusal, match="fewer GPUs than workers"):
        kit.run(tmp_path / "out", where)


def test_a_gpu_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", discover()[0].token)
    held = pin("cuda", folder=tmp_path)
    with pytest.raises(WorkerError, match="taken by another"):
        pin("cuda", folder=tmp_path)
    held.release()
