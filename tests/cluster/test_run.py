"""A run on real worker processes: counts, dashboard, metrics, log; finished chunks are kept."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dask
import numpy as np
import pyarrow.parquet as pq
import pytest
from support.runs import (
    CHUNKS,
    EXAMPLES,
    REJECTED,
    ROWS,
    SECRET,
    Kit,
    Uninterrupted,
    ruwe_of,
    stamps,
    tables,
    workers_of,
)

from catalogproc.cluster.event_log import LOG_FILE
from catalogproc.errors import Refusal
from catalogproc.inference.stopwatch import STAGES
from catalogproc.rundir.receipts import read_receipts
from catalogproc.rundir.verify import verify


def test_every_star_comes_out_once(uninterrupted: Uninterrupted) -> None:
    given = np.sort(
        np.concatenate([pq.read_table(path)["source_id"].to_numpy() for path in EXAMPLES.iterdir()])
    )
    found = tables(uninterrupted.output)
    both = [found[name]["source_id"].to_numpy() for name in ("catalog", "rejected")]
    assert np.sort(np.concatenate(both)).tolist() == given.tolist()
    result = uninterrupted.result
    assert (result.rows_read, result.rows_written, result.rows_rejected) == (
        1500,
        1500 - REJECTED,
        REJECTED,
    )
    assert (result.chunks, result.chunks_done, result.chunks_run) == (CHUNKS,) * 3
    assert result.exit_code == 0
    assert result.stars_per_second > 10
    assert verify(uninterrupted.output)


def test_each_star_is_joined_to_its_gaia_source_row(uninterrupted: Uninterrupted) -> None:
    found = tables(uninterrupted.output)["catalog"]
    stars = found["source_id"].to_numpy()
    assert found["ruwe"].to_numpy().tolist() == ruwe_of(stars).tolist()
    assert not list(uninterrupted.output.glob(".auxiliary"))  # the sorted copy is removed


def test_the_folder_has_a_summary(uninterrupted: Uninterrupted) -> None:
    summary = json.loads((uninterrupted.output / "summary.json").read_text())
    assert summary["rows_written"] == 1500 - REJECTED
    assert summary["chunks"] == CHUNKS
    assert summary["failures"] == []
    assert (uninterrupted.output / "provenance.json").stat().st_size > 1000


def test_receipts_name_device_and_worker(uninterrupted: Uninterrupted) -> None:
    receipts = read_receipts(uninterrupted.output).values()
    assert {receipt.device for receipt in receipts} == {"cpu"}
    assert {receipt.worker for receipt in receipts} <= {"0", "1"}
    assert uninterrupted.result.workers == ("cpu",) * len(uninterrupted.result.workers)


def test_workers_and_progress_are_reported(uninterrupted: Uninterrupted) -> None:
    assert any("on cpu" in line for line in uninterrupted.lines)
    rows = [report[0] for report in uninterrupted.progress]
    assert rows[0] == 0
    assert rows == sorted(rows)
    assert rows[-1] == 1500
    assert {report[1] for report in uninterrupted.progress} == {1500}
    assert uninterrupted.progress[-1][2].startswith(f"chunk {CHUNKS} of {CHUNKS}")


def test_what_comes_next_begins_once_everything_is_counted(uninterrupted: Uninterrupted) -> None:
    [(result, names)] = uninterrupted.counted
    assert result == uninterrupted.result
    assert {"catalog", "receipts", "summary.json", "provenance.json"} <= names


def test_dashboard_and_metrics_are_served(uninterrupted: Uninterrupted) -> None:
    # Without bokeh or prometheus_client these pages answer 200 too, with a message.
    status, metrics = uninterrupted.pages["status"], uninterrupted.pages["metrics"]
    assert len(status) > 5000
    assert "bokeh" in status.lower()
    assert "Dask needs bokeh" not in status
    assert "dask_scheduler_workers" in metrics
    assert "not available" not in metrics


def test_metrics_count_the_run(uninterrupted: Uninterrupted) -> None:
    """After the first chunks: stars, rejected rows, chunks, seconds by stage, memory."""
    run = uninterrupted.result.output / "run.json"
    label = f'run="{json.loads(run.read_text())["run_id"]}"'
    found = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in uninterrupted.pages["metrics"].splitlines()
        if line.startswith("catalogproc_")
    }
    chunks = found[f'catalogproc_chunks_total{{outcome="done",{label}}}']
    assert 1 <= chunks < CHUNKS
    assert found[f'catalogproc_chunks_total{{outcome="failed",{label}}}'] == 0
    stars = found[f"catalogproc_stars_total{{{label}}}"]
    rejected = sum(n for name, n in found.items() if name.startswith("catalogproc_rows_rejected_"))
    assert stars + rejected == ROWS * chunks
    for stage in STAGES:
        assert found[f'catalogproc_stage_seconds_total{{{label},stage="{stage}"}}'] > 0
    memory = [n for name, n in found.items() if name.startswith("catalogproc_device_memory_bytes")]
    assert len(memory) == len(uninterrupted.result.workers)
    assert all(5e7 < value < 5e9 for value in memory)


def test_status_is_available_during_the_run(uninterrupted: Uninterrupted) -> None:
    text = uninterrupted.pages["run status"]
    assert "of 1,500 stars read" in text
    assert "stars per second" in text
    assert "every row" not in text


def test_the_log_has_every_chunk_once(uninterrupted: Uninterrupted) -> None:
    lines = [
        json.loads(line) for line in (uninterrupted.output / LOG_FILE).read_text().splitlines()
    ]
    assert [lines[0]["event"], lines[-1]["event"]] == ["started", "finished"]
    done = [line for line in lines if line["event"] == "chunk done"]
    assert {line["chunk"] for line in done} == set(read_receipts(uninterrupted.output))
    assert len(done) == CHUNKS
    assert sum(line["written"] for line in done) == lines[-1]["written"] == 1500 - REJECTED
    assert sum(sum(line["rejected"].values()) for line in done) == REJECTED
    moments = [line["time"] for line in lines]
    assert moments == sorted(moments)


def test_no_credential_of_the_environment_is_written(uninterrupted: Uninterrupted) -> None:
    files = [path for path in uninterrupted.output.rglob("*") if path.is_file()]
    assert len(files) > 2 * CHUNKS
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    texts = [*uninterrupted.lines, *uninterrupted.pages.values(), *uninterrupted.result.lines()]
    assert SECRET not in "\n".join(texts)


def test_a_finished_run_is_not_repeated(kit: Kit, uninterrupted: Uninterrupted) -> None:
    before = stamps(uninterrupted.output)
    lines: list[str] = []
    again = kit.run(uninterrupted.output, announce=lines.append)
    assert stamps(uninterrupted.output) == before
    assert again.chunks_run == 0
    assert again.rows_written == 1500 - REJECTED
    assert again.exit_code == 0
    assert lines == []  # no worker was started
    assert "nothing to do" in "\n".join(again.lines())


def test_a_missing_scheduler_is_refused(kit: Kit, tmp_path: Path) -> None:
    from catalogproc.cluster.dask_cluster import connect

    with (
        pytest.raises(Refusal, match=r"(?s)no Dask scheduler answers.*--scheduler"),
        connect("tcp://127.0.0.1:9", timeout=0.5),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"none in Dask's settings"),
        ({"distributed.comm.tls.ca-file": "/nowhere/ca.pem"}, r"none in Dask's settings"),
        (
            {
                "distributed.comm.tls.ca-file": "/nowhere/ca.pem",
                "distributed.comm.tls.client.cert": "/nowhere/me.pem",
            },
            r"No such file",
        ),
    ],
)
def test_tls_without_a_certificate_is_refused(settings: dict[str, str], message: str) -> None:
    from catalogproc.cluster.dask_cluster import connect

    with (
        dask.config.set(settings),
        pytest.raises(Refusal, match=rf"(?s)no certificate.*{message}.*tls://127.0.0.1:9.*DASK_"),
        connect("tls://127.0.0.1:9"),
    ):
        pass


def test_a_second_run_in_the_same_folder_is_refused(uninterrupted: Uninterrupted) -> None:
    (refusal,) = uninterrupted.refusals  # during the first run
    assert "another run is using the output folder" in refusal
    assert f"process {os.getpid()} on" in refusal
    assert not workers_of(os.getpid())  # all have ended
