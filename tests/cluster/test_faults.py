"""Fault injection into real runs: the catalog is that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from distributed import LocalCluster, Worker
from support import runs
from support.runs import (
    CHUNKS,
    ROWS,
    WORKERS,
    Kit,
    Uninterrupted,
    assert_same,
    at_first_chunk,
    stamps,
    workers_of,
)

from catalogproc.cluster.chunk_on_worker import process_on_worker
from catalogproc.cluster.dask_cluster import cores
from catalogproc.cluster.run import run
from catalogproc.cluster.run_lock import sigterm_as_interrupt
from catalogproc.cluster.spec import ClusterConfig
from catalogproc.cluster.worker_plugin import worker_statuses
from catalogproc.errors import ResumeError, VerifyError, WorkerError
from catalogproc.rundir.receipts import receipt_files
from catalogproc.rundir.verify import verify


def test_a_worker_killed_in_the_middle_changes_nothing(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        worker = workers_of(os.getpid())[0]
        killed.append(worker.pid)
        worker.kill()

    result = kit.run(tmp_path / "out", progress=at_first_chunk(kill_one))
    assert killed
    assert not psutil.pid_exists(killed[0])
    assert (result.exit_code, result.chunks_done, result.failures) == (0, CHUNKS, ())
    assert_same(tmp_path / "out", uninterrupted.output)
    assert verify(tmp_path / "out")


def run_until(kit: Kit, output: Path, end: str) -> tuple[int, list[int]]:
    """Run in a process that a signal ends after its first chunk; return status and workers."""
    words = (kit.inputs, kit.gaia_source, kit.job, kit.bundle)
    done = subprocess.run(
        [sys.executable, runs.__file__, str(output), *words, end],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def test_a_run_whose_driver_was_ended_in_the_middle_resumes(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    output, count = tmp_path / "out", 0
    for end, status in (("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)):
        returned, workers = run_until(kit, output, end)
        assert returned == status, end
        assert len(workers) == WORKERS
        # Workers die with their driver, however it dies.
        _, alive = psutil.wait_procs(
            [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=20
        )
        assert not alive
        before, count = count, len(receipt_files(output))
        assert before < count < CHUNKS, end
        assert not (output / "summary.json").exists()
    # A chunk with a damaged receipt or part is processed again; the others are not touched.
    garbage, short, *good = receipt_files(output)
    garbage.write_bytes(garbage.read_bytes()[:100])
    part = output / json.loads(short.read_text())["catalog_part"]
    os.truncate(part, part.stat().st_size - 10)
    valid = {path.name for path in good}
    valid |= {Path(json.loads(path.read_text())["catalog_part"]).name for path in good}
    before_the_last = stamps(output)
    plan = kit.plan(output)
    assert plan.invalid == {garbage.stem, short.stem}
    assert "2 invalid receipts: " in "\n".join(plan.lines(short=True))
    result = run(plan)
    assert (result.exit_code, result.chunks_run) == (0, CHUNKS - len(good))
    after = stamps(output)
    assert {name for name, stamp in after.items() if before_the_last.get(name) == stamp} == valid
    assert_same(output, uninterrupted.output)
    assert not list(output.glob("**/.*.tmp"))  # files of the killed processes are removed
    assert verify(output)


def test_sigterm_of_a_batch_system_ends_a_run_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_truncated_file_costs_only_its_own_chunk(kit: Kit, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(kit.inputs, tmp_path / "xp"))
    broken = inputs / "xp_continuous_001.parquet"
    os.truncate(broken, broken.stat().st_size // 2)
    output = tmp_path / "out"
    plan = replace(kit, inputs=inputs).plan(output)
    assert [Path(fault.file).name for fault in plan.faults] == [broken.name]
    result = run(plan)
    assert result.exit_code == 1
    (failure,) = result.failures
    assert failure.file == str(broken)
    assert failure.kind == "InputError"
    lines = "\n".join(result.lines())
    assert "1 failure:" in lines
    assert str(broken) in lines
    assert "wanted:" in lines
    assert "found:" in lines
    assert result.rows_written == 990
    summary = json.loads((output / "summary.json").read_text())
    assert [item["file"] for item in summary["failures"]] == [str(broken)]
    with pytest.raises(VerifyError, match=rf"1 finding\n.*\n.*{broken.name}: no chunk of it"):
        verify(output)


def test_a_different_job_model_or_input_is_refused(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    from support.bundles import tiny_bundle

    job = tmp_path / "other.toml"
    job.write_text(runs.JOB.replace(str(ROWS), "200") + 'labels = ["teff"]\n')
    with pytest.raises(ResumeError, match=r"(?s)job.chunk_rows: was 25, is 200.*job.labels: was"):
        kit.plan(uninterrupted.output, job=job)
    other = tiny_bundle(tmp_path / "bundle", seed=1)
    with pytest.raises(ResumeError, match=r"model: was random 0 .* is random 1"):
        kit.plan(uninterrupted.output, model=other.path)
    fewer = sorted(kit.inputs.iterdir())[:2]
    with pytest.raises(ResumeError, match=r"input: removed .*xp_continuous_002\.parquet"):
        kit.plan(uninterrupted.output, input=fewer)
    moved = Path(shutil.copytree(kit.inputs, tmp_path / "moved"))
    assert not kit.plan(uninterrupted.output, input=moved).todo  # the same files in another folder


def test_on_an_existing_cluster_a_late_worker_without_a_model_gets_no_chunk(
    kit: Kit, uninterrupted: Uninterrupted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(kit.bundle, tmp_path / "bundle"))
    monkeypatch.chdir(kit.inputs.parent)  # workers in another folder get absolute paths
    lines: list[str] = []
    late: list[str] = []
    with LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=max(1, cores() // WORKERS),
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        config = ClusterConfig(scheduler=cluster.scheduler_address, device="cpu")
        plan = replace(kit, bundle=bundle).plan(tmp_path / "out", config, input="xp")

        def join_late() -> None:
            change_last_byte(bundle / "weights.safetensors")
            cluster.scale(WORKERS + 1)
            cluster.wait_for_workers(WORKERS + 1, timeout=60)
            with cluster.get_client() as client:
                known = client.scheduler_info(n_workers=-1)["workers"]
                (address,) = (at for at, worker in known.items() if worker["name"] == WORKERS)
                (name,) = client.run(our_plugins, workers=[address])[address]
                assert "was changed" in worker_statuses(client, name)[address].error
                future = client.submit(
                    process_on_worker, name, plan.output, plan.chunks[-1],
                    workers=[address], pure=False,
                )  # fmt: skip
                with pytest.raises(WorkerError, match=r"(?s)without a working model.*was changed"):
                    future.result(timeout=60)
                late.append(address)

        result = run(plan, progress=at_first_chunk(join_late), announce=lines.append)
        with cluster.get_client() as client:
            left = client.run(our_plugins)  # the cluster remains, without the plugin
        assert list(left.values()) == [[]] * (WORKERS + 1)
    assert late
    assert not list(plan.output.glob(".probe*"))
    assert (result.exit_code, result.chunks_done, result.failures) == (0, CHUNKS, ())
    (note,) = result.notes
    assert note in lines
    assert note.startswith(f"worker {WORKERS} on ")
    assert "is not used" in note
    receipts = [json.loads(path.read_text()) for path in receipt_files(plan.output)]
    assert {receipt["worker"] for receipt in receipts} <= {"0", "1"}
    assert_same(tmp_path / "out", uninterrupted.output)


def test_no_worker_with_a_model_ends_the_run_with_the_reason(kit: Kit, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(kit.bundle, tmp_path / "bundle"))
    plan = replace(kit, bundle=bundle).plan(tmp_path / "out")
    change_last_byte(bundle / "weights.safetensors")
    with pytest.raises(WorkerError, match=r"(?s)no worker has a working model.*was changed"):
        run(plan)
    assert not receipt_files(tmp_path / "out")
    assert not workers_of(os.getpid())


def change_last_byte(path: Path) -> None:
    """Replace a file by one with another last byte. Processes that have mapped the old file, as
    the workers have with the model, keep it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def our_plugins(dask_worker: Worker) -> list[str]:
    return [name for name in dask_worker.plugins if name.startswith("catalogproc-")]
