"""What is refused or listed before a run starts; and that nothing is written by it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.runs import CHUNKS, JOB, ROWS, Kit

from catalogproc.cluster import dask_cluster
from catalogproc.cluster import plan as module
from catalogproc.cluster.dask_cluster import Where, crew
from catalogproc.cluster.plan import check, make_plan
from catalogproc.cluster.result import Account, Failure
from catalogproc.errors import BundleError, JobError, Refusal, ReleaseError, ResumeError
from catalogproc.rundir.manifest import RUN_FILE, claim


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.laid_out(folder, tiny_bundle(folder / "bundle").path)


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_plan_lists_every_chunk_and_writes_nothing(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "deep" / "out")
    assert len(plan.chunks) == len(plan.todo) == CHUNKS
    assert plan.rows_todo == 1500
    covered = [(chunk.file.name, chunk.first_row, chunk.rows) for chunk in plan.chunks]
    assert covered == [
        (f"xp_continuous_00{file}.parquet", first, ROWS)
        for file in range(3)
        for first in range(0, 500, ROWS)
    ]
    lines = plan.lines()
    assert lines[0] == "3 files of spectra, 1,500 stars, in 60 chunks; 0 done, 60 to do"
    assert lines[1].startswith(f"job small ({plan.job.hash[:8]}), model random 0 (")
    assert sum(line.startswith("to do") for line in lines) == CHUNKS
    assert "rows 475 to 499" in lines[-1]
    assert len(plan.lines(short=True)) == 2
    assert not files_in(tmp_path)


def test_check_says_what_is_in_order_and_writes_nothing(kit: Kit, tmp_path: Path) -> None:
    lines = check(kit.plan(tmp_path / "out"), Where(workers=3, device="cpu"))
    told = "\n".join(lines)
    assert "3 workers of" in told
    assert "on cpu" in told
    assert "about 439.5 KiB to write" in told  # 1,500 stars of 300 bytes
    assert "gives the answers that are stored with it" in told
    assert not files_in(tmp_path)


def test_inputs_as_words_glob_and_folder_are_one_plan(kit: Kit, tmp_path: Path) -> None:
    words = sorted(kit.inputs.iterdir())
    ways = [[kit.inputs], words, [str(kit.inputs / "*.parquet")]]
    plans = [kit.plan(tmp_path / "out", inputs=way) for way in ways]
    assert len({plan.identity.hash for plan in plans}) == 1
    assert len({plan.chunks for plan in plans}) == 1


def test_a_companion_that_cannot_be_read_is_refused(kit: Kit, tmp_path: Path) -> None:
    other = tmp_path / "gaia.csv"
    other.write_text("ruwe\n1.0\n")
    with pytest.raises(Refusal, match="source_id") as caught:
        kit.plan(tmp_path / "out", companions=[other])
    assert caught.value.exit_code == 2
    assert not kit.plan(tmp_path / "out", companions=()).companions


def test_what_cannot_be_carried_out_is_refused(kit: Kit, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(JobError, match="nothing matches"):
        kit.plan(out, inputs=[kit.inputs / "*.fits"])
    with pytest.raises(BundleError):
        kit.plan(out, model="no-such-model")
    with pytest.raises(JobError, match="no such job"):
        kit.plan(out, job="no-such-job")
    job = tmp_path / "job.toml"
    job.write_text(JOB + 'labels = ["teff", "charisma"]\n')
    with pytest.raises(JobError, match=r"(?s)labels that this model .*found: charisma"):
        kit.plan(out, job=job)
    assert not out.exists()


def test_another_release_is_refused_with_both_numbers(kit: Kit, tmp_path: Path) -> None:
    path = next(kit.inputs.iterdir())
    table = pq.read_table(path)
    for name in ("bp_coefficients", "bp_coefficient_errors"):
        values = [row and row[:51] for row in table[name].to_pylist()]
        column = pa.array(values, table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), name, column)
    other = tmp_path / "xp" / "dr4.parquet"
    other.parent.mkdir()
    pq.write_table(table, other)
    with pytest.raises(ReleaseError, match=r"(?s)55.*51.*dr4\.parquet"):
        kit.plan(tmp_path / "out", inputs=[kit.inputs, other])


def test_an_unreadable_file_is_told_and_does_not_stop_the_plan(kit: Kit, tmp_path: Path) -> None:
    inputs = Path(shutil.copytree(kit.inputs, tmp_path / "xp"))
    (inputs / "empty.parquet").touch()
    (inputs / "text.parquet").write_text("these are no spectra")
    plan = kit.plan(tmp_path / "out", inputs=[inputs])
    assert {Path(fault.file).name for fault in plan.faults} == {"empty.parquet", "text.parquet"}
    assert len(plan.chunks) == CHUNKS + 2
    assert plan.rows_todo is None
    told = "\n".join(plan.lines(short=True))
    assert "cannot be read, and will fail:" in told
    assert "empty.parquet" in told


def test_the_same_content_twice_is_refused(kit: Kit, tmp_path: Path) -> None:
    path = next(kit.inputs.iterdir())
    twin = Path(shutil.copy(path, tmp_path / "twin.parquet"))
    with pytest.raises(Refusal, match=r"(?s)same content.*twin\.parquet"):
        kit.plan(tmp_path / "out", inputs=[path, twin])


def test_an_output_that_holds_something_else_is_refused(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Refusal, match="not a folder"):
        kit.plan(file)
    with pytest.raises(Refusal, match="cannot be written"):
        kit.plan(file / "below")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ResumeError, match=r"(?s)no run of catalogproc.*thesis\.tex"):
        kit.plan(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert kit.plan(tmp_path / "empty").todo


def test_another_runs_folder_is_refused_by_field(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "out")
    claim(tmp_path / "out", plan.identity)
    assert kit.plan(tmp_path / "out").todo
    job = tmp_path / "job.toml"
    job.write_text(JOB + "coefficients = 20\n")
    with pytest.raises(ResumeError, match=r"job\.coefficients: was 30, is 20"):
        kit.plan(tmp_path / "out", job=job)
    (tmp_path / "out" / RUN_FILE).write_text("{")
    with pytest.raises(ResumeError, match=r"run\.json cannot be read"):
        kit.plan(tmp_path / "out")


def test_too_small_a_disk_is_refused(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = kit.plan(tmp_path / "out")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 449_999}))
    with pytest.raises(Refusal, match=r"(?s)too little room.*about 439\.5 KiB.*439\.5 KiB free"):
        check(plan, Where(device="cpu"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 450_000}))
    assert module.refuse_disk(plan) == (450_000, 450_000)


def test_no_cuda_is_refused_before_anything_starts(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "out")
    with pytest.raises(Refusal, match=r"no GPU is visible|has no CUDA|fewer GPUs"):
        check(plan, Where(device="cuda", workers=64))
    assert not files_in(tmp_path)


def test_workers_fit_cores_memory_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "cores", lambda: 16)
    monkeypatch.setattr("catalogproc.cluster.dask_cluster.MEMORY_LIMIT", 64e9)

    def team(chunks: int, remaining: int | None = None, **where: object) -> tuple[int, int]:
        made = crew(Where(device="cpu", **where), chunks, remaining)  # type: ignore[arg-type]
        assert made.memory * len(made.devices) <= 64e9
        return len(made.devices), made.threads

    assert team(1000) == (16, 1)
    assert team(3) == (3, 5)
    assert team(1000, workers=4) == (4, 4)
    assert team(1000, workers=32) == (32, 1)
    # A second start for the last chunk: fewer workers, but the same threads, as they decide
    # about the last digits.
    assert team(1000, 1) == (1, 1)
    assert team(1000, 1, workers=4) == (1, 4)
    monkeypatch.setattr("catalogproc.cluster.dask_cluster.MEMORY_LIMIT", 6e9)
    assert team(1000) == (4, 4)


def test_a_busy_port_gives_way() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert dask_cluster._free(f"127.0.0.1:{port}") == "127.0.0.1:0"
    assert dask_cluster._free(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    with pytest.raises(Refusal, match="no address for a dashboard"):
        dask_cluster._free("somewhere")


def test_an_account_tells_each_failure_and_what_to_do() -> None:
    failure = Failure("c0", "xp/a.csv", "all rows", "InputError", "it is empty\n  wanted: rows")
    account = Account(
        Path("out"), chunks=5, chunks_done=3, chunks_run=2, rows_read=300, rows_written=290,
        rows_rejected=10, rejected_by_reason={"duplicate": 10}, rows_run=200, seconds=4.0,
        failures=(failure,), stopped="there is no space left to write",
    )  # fmt: skip
    assert account.exit_code == 1
    assert account.unfinished == 1
    assert account.stars_per_second == 50
    assert account.lines() == [
        "200 stars in 4.0 s (50 a second), 2 chunks",
        "out: 290 stars written, 10 rejected (10 duplicate)",
        "stopped: there is no space left to write",
        "1 failure:",
        "  xp/a.csv, all rows: it is empty",
        "      wanted: rows",
        "      what to do: fetch the file again, or leave it out and give a new --output",
        "1 chunk not begun; the same command again does what is missing",
    ]
    done = Account(Path("out"), 5, 5, 0, 300, 290, 10)
    assert done.exit_code == 0
    assert done.lines()[0] == "nothing to do: every chunk is done already"


def test_a_made_plan_takes_relative_paths(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kit.inputs.parent)
    plan = make_plan(["xp"], Path("out"), model="bundle", job="small.toml")
    assert plan.identity.inputs[0].path == "xp/xp_continuous_000.parquet"  # as it was named
    assert not Path("out").exists()


def test_a_start_that_was_killed_as_it_wrote_run_json_is_no_stranger(
    kit: Kit, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    (output / "catalog").mkdir(parents=True)
    (output / ".run.json.123@a-host.0123abcd.tmp").write_text("half of")
    assert len(kit.plan(output).todo) == CHUNKS
    (output / "thesis.tex").touch()
    with pytest.raises(ResumeError, match=r"no run of catalogproc(.|\n)*found: thesis.tex"):
        kit.plan(output)
