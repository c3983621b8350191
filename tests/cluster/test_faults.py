"""Faults injected into real runs: what is left in the end is what would have been anyway."""

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
    ANYWHERE,
    CHUNKS,
    ROWS,
    WORKERS,
    Kit,
    Undisturbed,
    assert_same,
    at_first_star,
    stamps,
    workers_of,
)

from catalogproc.cluster.dask_cluster import Where, cores
from catalogproc.cluster.run import _stoppable, run
from catalogproc.cluster.scheduler import reports, work
from catalogproc.errors import ResumeError, VerifyError, WorkerError
from catalogproc.rundir.receipts import receipt_files
from catalogproc.rundir.verify import verify


def test_a_worker_killed_in_the_middle_changes_nothing(
    kit: Kit, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        worker = workers_of(os.getpid())[0]
        killed.append(worker.pid)
        worker.kill()

    account = kit.run(tmp_path / "out", progress=at_first_star(kill_one))
    assert killed
    assert not psutil.pid_exists(killed[0])
    assert (account.exit_code, account.chunks_done, account.failures) == (0, CHUNKS, ())
    assert_same(tmp_path / "out", undisturbed.output)
    assert verify(tmp_path / "out")


def driven(kit: Kit, output: Path, end: str) -> tuple[int, list[int]]:
    """A run in its own process, ended by a signal after its first chunk; status and workers."""
    words = (kit.inputs, kit.companion, kit.job, kit.bundle)
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


def test_a_driver_that_is_ended_in_the_middle_goes_on_from_there(
    kit: Kit, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    output, held = tmp_path / "out", 0
    for end, status in (("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)):
        returned, workers = driven(kit, output, end)
        assert returned == status, end
        assert len(workers) == WORKERS
        # Workers die with their driver, however it dies.
        _, alive = psutil.wait_procs(
            [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)], timeout=20
        )
        assert not alive
        before, held = held, len(receipt_files(output))
        assert before < held < CHUNKS, end
        assert not (output / "summary.json").exists()
    # A receipt or a part that does not hold proves nothing; what holds stays untouched.
    garbage, short, *good = receipt_files(output)
    garbage.write_bytes(garbage.read_bytes()[:100])
    part = output / json.loads(short.read_text())["catalog_part"]
    os.truncate(part, part.stat().st_size - 10)
    proved = {path.name for path in good}
    proved |= {Path(json.loads(path.read_text())["catalog_part"]).name for path in good}
    before_the_last = stamps(output)
    plan = kit.plan(output)
    assert plan.spoilt == {garbage.stem, short.stem}
    assert "2 chunks of these done before" in "\n".join(plan.lines(short=True))
    account = run(plan, ANYWHERE)
    assert (account.exit_code, account.chunks_run) == (0, CHUNKS - len(good))
    after = stamps(output)
    assert {name for name, stamp in after.items() if before_the_last.get(name) == stamp} == proved
    assert_same(output, undisturbed.output)
    assert not list(output.glob("**/.*.tmp"))  # what the killed ones left is gone
    assert verify(output)


def test_the_end_that_a_batch_system_sends_is_as_clean_as_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), _stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_truncated_file_fails_alone(kit: Kit, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(kit.inputs, tmp_path / "xp"))
    broken = inputs / "xp_continuous_001.parquet"
    os.truncate(broken, broken.stat().st_size // 2)
    there = replace(kit, inputs=inputs)
    output = tmp_path / "out"
    plan = there.plan(output)
    assert [Path(fault.file).name for fault in plan.faults] == [broken.name]
    account = run(plan, ANYWHERE)
    assert account.exit_code == 1
    (failure,) = account.failures
    assert failure.file == str(broken)
    assert failure.kind == "InputError"
    told = "\n".join(account.lines())
    assert "1 failure:" in told
    assert str(broken) in told
    assert "wanted:" in told
    assert "found:" in told
    assert account.rows_written == 990
    summary = json.loads((output / "summary.json").read_text())
    assert [item["file"] for item in summary["failures"]] == [str(broken)]
    with pytest.raises(VerifyError, match=rf"1 findings\n.*\n.*{broken.name}: no chunk of it"):
        verify(output)


def test_another_job_model_or_input_is_refused(
    kit: Kit, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    from support.bundles import tiny_bundle

    job = tmp_path / "other.toml"
    job.write_text(runs.JOB.replace(str(ROWS), "200") + 'labels = ["teff"]\n')
    with pytest.raises(ResumeError, match=r"(?s)job.chunk_rows: was 25, is 200.*job.labels: was"):
        kit.plan(undisturbed.output, job=job)
    other = tiny_bundle(tmp_path / "bundle", seed=1)
    with pytest.raises(ResumeError, match=r"model: was random 0 .* is random 1"):
        kit.plan(undisturbed.output, model=other.path)
    fewer = sorted(kit.inputs.iterdir())[:2]
    with pytest.raises(ResumeError, match=r"input: gone .*xp_continuous_002\.parquet"):
        kit.plan(undisturbed.output, inputs=fewer)
    moved = Path(shutil.copytree(kit.inputs, tmp_path / "moved"))
    assert not kit.plan(undisturbed.output, inputs=[moved]).todo  # the same files elsewhere


def test_on_a_cluster_that_stands_a_late_worker_without_a_model_does_no_work(
    kit: Kit, undisturbed: Undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Path(shutil.copytree(kit.bundle, tmp_path / "bundle"))
    monkeypatch.chdir(kit.inputs.parent)  # a relative path must reach the workers whole
    plan = replace(kit, bundle=bundle).plan(tmp_path / "out", inputs=["xp"])
    told: list[str] = []
    late: list[str] = []
    with LocalCluster(
        n_workers=WORKERS,
        threads_per_worker=max(1, cores() // WORKERS),
        dashboard_address="127.0.0.1:0",
    ) as cluster:

        def join_late() -> None:
            spoil(bundle / "weights.safetensors")
            cluster.scale(WORKERS + 1)
            cluster.wait_for_workers(WORKERS + 1, timeout=60)
            with cluster.get_client() as client:
                known = client.scheduler_info(n_workers=-1)["workers"]
                (address,) = (at for at, worker in known.items() if worker["name"] == WORKERS)
                (name,) = client.run(our_plugins, workers=[address])[address]
                assert "was changed" in reports(client, name)[address].error
                handed = client.submit(
                    work, name, plan.chunks[-1], plan.output, workers=[address], pure=False
                )
                with pytest.raises(WorkerError, match=r"(?s)without a working model.*was changed"):
                    handed.result(timeout=60)
                late.append(address)

        where = Where(scheduler=cluster.scheduler_address, device="cpu")
        account = run(plan, where, progress=at_first_star(join_late), announce=told.append)
        with cluster.get_client() as client:
            left = client.run(our_plugins)  # the cluster goes on, without what we put there
        assert list(left.values()) == [[]] * (WORKERS + 1)
    assert late
    assert not list(plan.output.glob(".probe*"))
    assert (account.exit_code, account.chunks_done, account.failures) == (0, CHUNKS, ())
    (note,) = account.notes
    assert note in told
    assert note.startswith(f"worker {WORKERS} on ")
    assert "is left out" in note
    receipts = [json.loads(path.read_text()) for path in receipt_files(plan.output)]
    assert {receipt["worker"] for receipt in receipts} <= {"0", "1"}
    assert_same(tmp_path / "out", undisturbed.output)


def test_no_worker_with_a_model_ends_the_run_with_the_reason(kit: Kit, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(kit.bundle, tmp_path / "bundle"))
    plan = replace(kit, bundle=bundle).plan(tmp_path / "out")
    spoil(bundle / "weights.safetensors")
    with pytest.raises(WorkerError, match=r"(?s)no worker has a working model.*was changed"):
        run(plan, ANYWHERE)
    assert not receipt_files(tmp_path / "out")
    assert not workers_of(os.getpid())


def spoil(path: Path) -> None:
    """Put a file with one other byte in the place of a file, which stays as it is for those
    who have it open: their models are its pages."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def our_plugins(dask_worker: Worker) -> list[str]:
    return [name for name in dask_worker.plugins if name.startswith("catalogproc-")]
