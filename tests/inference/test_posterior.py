"""The posterior beside the catalog: the same stars, the same percentiles, whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.paths import EXAMPLES
from support.runs import LOCAL

from catalogproc.cluster.plan import make_plan
from catalogproc.cluster.run import run
from catalogproc.cluster.spec import RunSpec
from catalogproc.errors import JobError, ResumeError, VerifyError
from catalogproc.inference.engine import Engine
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.job import Job
from catalogproc.readers import chunks
from catalogproc.rundir.posterior_check import check_posterior
from catalogproc.rundir.receipts import Receipt, is_valid
from catalogproc.rundir.verify import verify

COUNT = 200
JOB = Job("test", posterior=COUNT)
REAL = EXAMPLES / "xp_continuous_000.parquet"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory):
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def receipt(bundle, folder: Path) -> Receipt:
    (chunk,) = chunks.cut([REAL], 10_000)
    return process_chunk(Engine(bundle, JOB), chunk, None, folder)


def values(folder: Path, receipt: Receipt, label: str) -> np.ndarray:
    column = pq.read_table(folder / receipt.posterior_part).column(label).combine_chunks()
    return column.flatten().to_numpy().reshape(receipt.rows_written, COUNT)


def test_the_posterior_has_the_stars_of_the_catalog_and_its_percentiles(
    folder: Path, receipt: Receipt
) -> None:
    catalog = pq.read_table(folder / receipt.catalog_part)
    assert check_posterior(folder, receipt) == []
    levels = (np.arange(COUNT) + 0.5) / COUNT
    for label in ("mass", "log_age", "m_h"):
        found = values(folder, receipt, label)
        assert (np.diff(found, axis=1) >= 0).all()
        if label != "m_h":
            name = label.removeprefix("log_")
            for level, column in ((0.158655, f"{name}_16"), (0.841345, f"{name}_84")):
                stated = catalog.column(column).to_numpy().astype(np.float64)
                stated = np.log10(stated) + 9 if label == "log_age" else stated
                ours = np.array([np.interp(level, levels, row) for row in found])
                np.testing.assert_allclose(ours, stated, rtol=2e-3)


def test_the_catalog_and_the_hash_of_a_job_do_not_depend_on_it(
    bundle, folder: Path, receipt: Receipt, tmp_path: Path
) -> None:
    assert Job("test").hash == replace(JOB, posterior=0).hash != JOB.hash
    (chunk,) = chunks.cut([REAL], 10_000)
    plain = process_chunk(Engine(bundle, Job("test")), chunk, None, tmp_path)
    assert plain.posterior_part == ""
    assert not (tmp_path / "posterior").exists()
    tables = [
        pq.read_table(at / one.catalog_part).drop_columns(["run_id"]).to_pandas()
        for at, one in ((folder, receipt), (tmp_path, plain))
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_receipt_whose_posterior_is_missing_is_not_valid(
    bundle, folder: Path, receipt: Receipt
) -> None:
    hashes = (JOB.hash, bundle.hash, [receipt.input_fingerprint])
    assert is_valid(receipt, folder, *hashes)
    hidden = replace(receipt, posterior_part=receipt.posterior_part.replace("-", "_"))
    assert not is_valid(hidden, folder, *hashes)


def test_another_order_of_the_stars_is_found(folder: Path, receipt: Receipt) -> None:
    path = folder / receipt.posterior_part
    content, table = path.read_bytes(), pq.read_table(path)
    try:
        pq.write_table(table.take(pa.array(np.arange(table.num_rows)[::-1])), path)
        assert "has other stars" in check_posterior(folder, receipt)[0]
        pq.write_table(table.slice(0, 10), path)
        assert "has other stars" in check_posterior(folder, receipt)[0]
    finally:
        path.write_bytes(content)


def test_a_failure_leaves_no_posterior(
    bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (chunk,) = chunks.cut([REAL], 10_000)
    module = "catalogproc.inference.process_chunk.write_receipt"
    monkeypatch.setattr(module, lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        process_chunk(Engine(bundle, JOB), chunk, None, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("count", [1, 7, 1025])
def test_a_number_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(JobError, match="posterior"):
        Job("test", posterior=count)


@pytest.mark.slow
def test_a_run_writes_verifies_and_resumes_it(bundle, tmp_path: Path) -> None:
    spec = RunSpec(REAL, tmp_path / "out", model=bundle.path, cluster=LOCAL, posterior=16)
    assert run(make_plan(spec)).exit_code == 0
    report = verify(tmp_path / "out")
    assert report.parts == 2 * report.chunks
    assert run(make_plan(spec)).chunks_run == 0
    with pytest.raises(ResumeError, match="posterior"):
        make_plan(replace(spec, posterior=None))
    (part,) = (tmp_path / "out" / "posterior").glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(VerifyError, match="SHA-256"):
        verify(tmp_path / "out")
    part.unlink()
    with pytest.raises(VerifyError, match="is missing"):
        verify(tmp_path / "out")
    assert run(make_plan(spec)).chunks_run == 1
