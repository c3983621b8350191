"""A plan carried out on real worker processes: counted, served, watched, done once."""

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
    ROWS,
    SECRET,
    SPOILT,
    Kit,
    Undisturbed,
    ruwe_of,
    stamps,
    tables,
    workers_of,
)

from catalogproc.cluster.event_log import LOG_FILE
from catalogproc.errors import Refusal
from catalogproc.inference.process_chunk import STAGES
from catalogproc.rundir.receipts import read_receipts
from catalogproc.rundir.verify import verify


def test_every_star_comes_out_once(undisturbed: Undisturbed) -> None:
    given = np.sort(
        np.concatenate([pq.read_table(path)["source_id"].to_numpy() for path in EXAMPLES.iterdir()])
    )
    found = tables(undisturbed.output)
    both = [found[name]["source_id"].to_numpy() for name in ("catalog", "rejected")]
    assert np.sort(np.concatenate(both)).tolist() == given.tolist()
    account = undisturbed.account
    assert (account.rows_read, account.rows_written, account.rows_rejected) == (
        1500,
        1500 - SPOILT,
        SPOILT,
    )
    assert (account.chunks, account.chunks_done, account.chunks_run) == (CHUNKS,) * 3
    assert account.exit_code == 0
    assert account.stars_per_second > 10
    assert verify(undisturbed.output)


def test_each_star_met_its_companion_on_the_workers(undisturbed: Undisturbed) -> None:
    found = tables(undisturbed.output)["catalog"]
    stars = found["source_id"].to_numpy()
    assert found["ruwe"].to_numpy().tolist() == ruwe_of(stars).tolist()
    assert not list(undisturbed.output.glob(".companion"))  # the ordered copy is gone


def test_the_account_stands_in_the_folder(undisturbed: Undisturbed) -> None:
    summary = json.loads((undisturbed.output / "summary.json").read_text())
    assert summary["rows_written"] == 1500 - SPOILT
    assert summary["chunks"] == CHUNKS
    assert summary["failures"] == []
    assert (undisturbed.output / "provenance.json").stat().st_size > 1000


def test_receipts_name_device_and_worker(undisturbed: Undisturbed) -> None:
    receipts = read_receipts(undisturbed.output).values()
    assert {receipt.device for receipt in receipts} == {"cpu"}
    assert {receipt.worker for receipt in receipts} <= {"0", "1"}
    assert undisturbed.account.workers == ("cpu",) * len(undisturbed.account.workers)


def test_the_user_is_told_how_it_goes(undisturbed: Undisturbed) -> None:
    assert "on cpu" in undisturbed.told[0]
    rows = [report[0] for report in undisturbed.reports]
    assert rows[0] == 0
    assert rows == sorted(rows)
    assert rows[-1] == 1500
    assert {report[1] for report in undisturbed.reports} == {1500}
    assert undisturbed.reports[-1][2].startswith(f"chunk {CHUNKS} of {CHUNKS}")


def test_dashboard_and_metrics_are_really_served(undisturbed: Undisturbed) -> None:
    # Without bokeh or prometheus_client these pages answer 200 too, with an apology.
    status, metrics = undisturbed.pages["status"], undisturbed.pages["metrics"]
    assert len(status) > 5000
    assert "bokeh" in status.lower()
    assert "Dask needs bokeh" not in status
    assert "dask_scheduler_workers" in metrics
    assert "not available" not in metrics


def test_prometheus_is_given_the_run(undisturbed: Undisturbed) -> None:
    """After the first chunks: stars, rejected rows, chunks, seconds by stage, memory."""
    run = undisturbed.account.output / "run.json"
    label = f'run="{json.loads(run.read_text())["run_id"]}"'
    found = {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in undisturbed.pages["metrics"].splitlines()
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
    assert len(memory) == len(undisturbed.account.workers)
    assert all(5e7 < value < 5e9 for value in memory)


def test_how_it_stands_is_told_while_it_goes_on(undisturbed: Undisturbed) -> None:
    words = undisturbed.pages["how it stands"]
    assert "of 1,500 stars read" in words
    assert "stars a second" in words
    assert "every row" not in words


def test_the_log_tells_every_chunk_once(undisturbed: Undisturbed) -> None:
    lines = [json.loads(line) for line in (undisturbed.output / LOG_FILE).read_text().splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["started", "finished"]
    done = [line for line in lines if line["event"] == "chunk done"]
    assert {line["chunk"] for line in done} == set(read_receipts(undisturbed.output))
    assert len(done) == CHUNKS
    assert sum(line["written"] for line in done) == lines[-1]["written"] == 1500 - SPOILT
    assert sum(sum(line["rejected"].values()) for line in done) == SPOILT
    moments = [line["time"] for line in lines]
    assert moments == sorted(moments)


def test_nothing_of_the_environment_gets_out(undisturbed: Undisturbed) -> None:
    files = [path for path in undisturbed.output.rglob("*") if path.is_file()]
    assert len(files) > 2 * CHUNKS
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    told = [*undisturbed.told, *undisturbed.pages.values(), *undisturbed.account.lines()]
    assert SECRET not in "\n".join(told)


def test_again_does_nothing(kit: Kit, undisturbed: Undisturbed) -> None:
    before = stamps(undisturbed.output)
    told: list[str] = []
    again = kit.run(undisturbed.output, announce=told.append)
    assert stamps(undisturbed.output) == before
    assert again.chunks_run == 0
    assert again.rows_written == 1500 - SPOILT
    assert again.exit_code == 0
    assert told == []  # no worker was started
    assert "nothing to do" in "\n".join(again.lines())


def test_a_scheduler_that_is_not_there_is_refused(kit: Kit, tmp_path: Path) -> None:
    from catalogproc.cluster.dask_cluster import standing

    with (
        pytest.raises(Refusal, match=r"(?s)no Dask scheduler answers.*--scheduler"),
        standing("tcp://127.0.0.1:9", timeout=0.5),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "told"),
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
def test_tls_without_a_certificate_is_refused(settings: dict[str, str], told: str) -> None:
    from catalogproc.cluster.dask_cluster import standing

    with (
        dask.config.set(settings),
        pytest.raises(Refusal, match=rf"(?s)no certificate.*{told}.*tls://127.0.0.1:9.*DASK_"),
        standing("tls://127.0.0.1:9"),
    ):
        pass


def test_a_second_run_in_the_same_folder_is_told_so(undisturbed: Undisturbed) -> None:
    (refusal,) = undisturbed.refusals  # while the first was at work
    assert "another run is using the output folder" in refusal
    assert f"process {os.getpid()} on" in refusal
    assert not workers_of(os.getpid())  # and nothing of ours lives on
