"""What is listed or refused before a run starts; nothing is written by it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.runs import CHUNKS, JOB, ROWS, Kit

from catalogproc.cluster import dashboard, dask_cluster
from catalogproc.cluster.dask_cluster import fit_workers
from catalogproc.cluster.disk_space import refuse_disk
from catalogproc.cluster.plan import check, make_plan
from catalogproc.cluster.result import Failure, RunResult
from catalogproc.cluster.spec import ClusterConfig, RunSpec
from catalogproc.errors import BundleError, InputError, JobError, Refusal, ReleaseError, ResumeError
from catalogproc.features.tokens import reads_parallax
from catalogproc.readers.chunks import Chunk
from catalogproc.readers.pieces import Piece
from catalogproc.rundir.manifest import RUN_FILE, open_run


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    folder = tmp_path_factory.mktemp("kit")
    return Kit.written(folder, tiny_bundle(folder / "bundle").path)


def files_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_a_plan_lists_every_chunk_and_writes_nothing(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "deep" / "out")
    assert len(plan.chunks) == len(plan.todo) == CHUNKS
    assert plan.rows_todo == 1500
    pieces = [piece for chunk in plan.chunks for piece in chunk.pieces]
    covered = [(piece.file.name, piece.first_row, piece.rows) for piece in pieces]
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
    assert plan.lines(short=True)[-1].endswith("gaia.csv: columns used: ruwe")
    assert len(plan.lines(short=True)) == 3 + reads_parallax(plan.job)
    assert not files_in(tmp_path)


def test_the_process_that_plans_loads_no_network(kit: Kit, tmp_path: Path) -> None:
    """torch takes as long to load as the plan; only the workers need it."""
    code = (
        "import sys; from catalogproc.cluster import run; from catalogproc.cluster.plan import *\n"
        "plan = make_plan(RunSpec([sys.argv[1]], sys.argv[2], model=sys.argv[3], job='demo'))\n"
        "print(len(plan.todo), [x for x in ('torch', 'astropy', 'bokeh') if x in sys.modules])"
    )
    words = [sys.executable, "-c", code, str(kit.inputs), str(tmp_path / "out"), str(kit.bundle)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "3 []\n"


def test_a_plan_says_what_is_predicted_without_the_parallax(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "out")
    words = "luminosity and distance are predicted without them"
    for inputs, said in ((("bprp", "jh"), False), (("bprp", "g_fakemag"), True)):
        lines = replace(plan, job=replace(plan.job, inputs=inputs)).lines(short=True)
        assert (words in "\n".join(lines)) == said


def test_check_reports_and_writes_nothing(kit: Kit, tmp_path: Path) -> None:
    lines = check(kit.plan(tmp_path / "out", ClusterConfig(workers=3, device="cpu")))
    text = "\n".join(lines)
    assert "3 workers with" in text
    assert "on cpu" in text
    assert "about 439.5 KiB to write" in text  # 1,500 stars of 300 bytes
    assert "reproduces its stored predictions" in text
    assert not files_in(tmp_path)


def test_files_glob_and_folder_give_the_same_plan(kit: Kit, tmp_path: Path) -> None:
    files = sorted(kit.inputs.iterdir())
    ways = [kit.inputs, [kit.inputs], files, str(kit.inputs / "*.parquet")]
    plans = [kit.plan(tmp_path / "out", input=way) for way in ways]
    assert len({plan.identity.hash for plan in plans}) == 1
    assert len({plan.chunks for plan in plans}) == 1


def test_a_gaia_source_table_that_cannot_be_read_is_refused(kit: Kit, tmp_path: Path) -> None:
    other = tmp_path / "gaia.csv"
    other.write_text("ruwe\n1.0\n")
    with pytest.raises(Refusal, match="source_id") as caught:
        kit.plan(tmp_path / "out", gaia_source=other)
    assert caught.value.exit_code == 2
    assert not kit.plan(tmp_path / "out", gaia_source=()).gaia_source


def test_what_cannot_be_run_is_refused(kit: Kit, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(JobError, match="nothing matches"):
        kit.plan(out, input=kit.inputs / "*.fits")
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
        kit.plan(tmp_path / "out", input=[kit.inputs, other])


def test_an_unreadable_file_is_reported_and_does_not_stop_the_plan(
    kit: Kit, tmp_path: Path
) -> None:
    inputs = Path(shutil.copytree(kit.inputs, tmp_path / "xp"))
    (inputs / "empty.parquet").touch()
    (inputs / "text.parquet").write_text("these are no spectra")
    plan = kit.plan(tmp_path / "out", input=inputs)
    assert {Path(fault.file).name for fault in plan.faults} == {"empty.parquet", "text.parquet"}
    assert len(plan.chunks) == CHUNKS + 2
    assert plan.rows_todo is None
    text = "\n".join(plan.lines(short=True))
    assert "cannot be read and will fail:" in text
    assert "empty.parquet" in text


def test_the_same_content_twice_is_refused(kit: Kit, tmp_path: Path) -> None:
    path = next(kit.inputs.iterdir())
    copy = Path(shutil.copy(path, tmp_path / "copy.parquet"))
    with pytest.raises(Refusal, match=r"(?s)same content.*copy\.parquet"):
        kit.plan(tmp_path / "out", input=[path, copy])


def test_an_output_that_holds_something_else_is_refused(kit: Kit, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Refusal, match="not a folder"):
        kit.plan(file)
    with pytest.raises(Refusal, match="cannot be written"):
        kit.plan(file / "below")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ResumeError, match=r"(?s)not of a run of catalogproc.*thesis\.tex"):
        kit.plan(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert kit.plan(tmp_path / "empty").todo


def test_another_runs_folder_is_refused_by_field(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "out")
    open_run(tmp_path / "out", plan.identity)
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
    with pytest.raises(
        Refusal, match=r"(?s)too little disk space.*about 439\.5 KiB.*439\.5 KiB free"
    ):
        check(plan)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 450_000}))
    assert refuse_disk(plan.todo, plan.output) == (450_000, 450_000)


def test_no_cuda_is_refused_before_anything_starts(kit: Kit, tmp_path: Path) -> None:
    plan = kit.plan(tmp_path / "out", ClusterConfig(device="cuda", workers=64))
    with pytest.raises(Refusal, match=r"no GPU is visible|has no CUDA|fewer GPUs"):
        check(plan)
    assert not files_in(tmp_path)


def test_workers_fit_cores_memory_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "cores", lambda: 16)
    monkeypatch.setattr("catalogproc.cluster.dask_cluster.MEMORY_LIMIT", 64e9)

    def fitted(
        chunks: int, remaining: int | None = None, workers: int | None = None
    ) -> tuple[int, int]:
        config = ClusterConfig(device="cpu", workers=workers)
        spec = fit_workers(config, chunks, remaining)
        assert spec.memory * len(spec.devices) <= 64e9
        return len(spec.devices), spec.threads

    assert fitted(1000) == (16, 1)
    assert fitted(3) == (3, 5)
    assert fitted(1000, workers=4) == (4, 4)
    assert fitted(1000, workers=32) == (32, 1)
    # A second start for the last chunk: fewer workers, but the same threads, on which the last
    # digits depend.
    assert fitted(1000, 1) == (1, 1)
    assert fitted(1000, 1, workers=4) == (1, 4)
    monkeypatch.setattr("catalogproc.cluster.dask_cluster.MEMORY_LIMIT", 6e9)
    assert fitted(1000) == (4, 4)


def test_a_port_in_use_is_replaced_by_a_free_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert dashboard.free_address(f"127.0.0.1:{port}") == "127.0.0.1:0"
    assert dashboard.free_address(f"127.0.0.1:{port}") == f"127.0.0.1:{port}"
    with pytest.raises(Refusal, match="not a dashboard address"):
        dashboard.free_address("somewhere")


def test_a_result_lists_each_failure_and_what_to_do() -> None:
    error = InputError("it is empty", wanted="rows")
    chunk = Chunk((Piece("c0", Path("xp/a.csv"), "", 0, None),))
    failure = Failure.of_chunk(chunk, error)
    result = RunResult(
        Path("out"), chunks=5, chunks_done=3, chunks_run=2, rows_read=300, rows_written=290,
        rows_rejected=10, rejected_by_reason={"duplicate": 10}, rows_run=200, seconds=4.0,
        failures=(failure,), stopped="there is no space left to write",
    )  # fmt: skip
    assert result.exit_code == 1
    assert result.unfinished == 1
    assert result.stars_per_second == 50
    assert result.lines() == [
        "200 stars in 4.0 s (50 per second), 2 chunks",
        "out: 290 stars written, 10 rejected (10 duplicate)",
        "stopped: there is no space left to write",
        "1 failure:",
        "  xp/a.csv, all rows: it is empty",
        "      wanted: rows",
        "      what to do: download the file again, or leave it out and give a new --output",
        "1 chunk not started; run the same command again to resume",
    ]
    done = RunResult(Path("out"), 5, 5, 0, 300, 290, 10)
    assert done.exit_code == 0
    assert done.lines()[0] == "nothing to do: every chunk is already done"


def test_a_plan_takes_relative_paths(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kit.inputs.parent)
    plan = make_plan(RunSpec("xp", "out", model="bundle", job="small.toml"))
    assert plan.identity.inputs[0].path == "xp/xp_continuous_000.parquet"  # as it was named
    assert not Path("out").exists()


def test_a_folder_with_half_a_run_json_can_be_used_again(kit: Kit, tmp_path: Path) -> None:
    output = tmp_path / "out"
    (output / "catalog").mkdir(parents=True)
    (output / ".run.json.123@a-host.0123abcd.tmp").write_text("half of")
    assert len(kit.plan(output).todo) == CHUNKS
    (output / "thesis.tex").touch()
    with pytest.raises(ResumeError, match=r"not of a run of catalogproc(.|\n)*found: thesis.tex"):
        kit.plan(output)


def test_an_input_of_which_no_file_can_be_read_is_refused(kit: Kit, tmp_path: Path) -> None:
    table, empty = tmp_path / "labels.csv", tmp_path / "empty.parquet"
    table.write_text("star,teff\nHD 1,4800\n")
    empty.touch()
    with pytest.raises(Refusal, match=r"no XP spectra(.|\n)*what to do: .*catalogproc infer"):
        kit.plan(tmp_path / "out", input=table)
    with pytest.raises(Refusal, match=r"found:\n    .*labels\.csv: .*\n    .*empty\.parquet: "):
        kit.plan(tmp_path / "out", input=[table, empty])
    assert not (tmp_path / "out").exists()
