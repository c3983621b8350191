"""A catalog beside known labels: which stars are compared, the numbers, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.catalogs import catalog_table, finished_run

from catalogproc.errors import JobError
from catalogproc.report.html_report import write_report
from catalogproc.report.known_labels import known_labels

ROWS = 300
TABLE = catalog_table(ROWS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    finished_run(folder, files=1, chunks=1, tables=[TABLE])
    return folder


def labels(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns).replace_schema_metadata({"title": "Truth <i>"}), path)
    return path


def test_scatter_and_bias_are_those_of_the_good_stars_with_a_label(
    run: Path, tmp_path: Path
) -> None:
    """In another order, with stars that the catalog does not have, and some without a label."""
    order = np.random.default_rng(1).permutation(ROWS)
    ids, teff, good = (
        TABLE[name].to_numpy()[order] for name in ("source_id", "teff", "good_params")
    )
    residual = np.random.default_rng(2).normal(20.0, 50.0, ROWS)
    known = teff - residual
    known[::10] = np.nan
    path = labels(
        tmp_path / "known.parquet", source_id=np.append(ids, 7), teff=np.append(known, 5000.0)
    )
    found = known_labels(run, path)
    assert (found.title, found.stars, len(found.labels)) == ("Truth <i>", ROWS, 1)
    one = found.labels[0]
    kept = residual[good & np.isfinite(known)]
    assert np.count_nonzero(one.good) == len(kept)
    middle = np.median(kept)
    assert one.bias == pytest.approx(middle, abs=1e-3)
    assert one.scatter == pytest.approx(1.4826 * np.median(np.abs(kept - middle)), abs=1e-3)
    page = write_report(run, output=tmp_path / "page.html", labels=path).read_text()
    assert "Predicted against Truth &lt;i&gt;" in page
    assert 'id="known-teff"' in page
    assert "<td>Teff [K]</td>" in page


def test_the_origin_of_masses_is_counted(run: Path, tmp_path: Path) -> None:
    source = np.where(np.arange(ROWS) < 40, "seismology", "teacher").astype(object)
    source[-3:] = None
    path = labels(
        tmp_path / "known.parquet", source_id=TABLE["source_id"].to_numpy(),
        mass=np.full(ROWS, 1.2), mass_source=pa.array(source.tolist()),
    )  # fmt: skip
    (mass,) = known_labels(run, path).labels
    assert dict(mass.sources) == {"teacher": ROWS - 43, "seismology": 40, "not stated": 3}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"source_id": [1, 2], "teff": [1.0, 2.0]}, "0 stars of the catalog"),
        ({"source_id": TABLE["source_id"].to_pylist(), "x": [0.0] * ROWS}, "no label"),
        ({"teff": [1.0]}, "need the column source_id"),
        ({"source_id": [1.0], "teff": [1.0]}, "64-bit"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    run: Path, tmp_path: Path, columns: dict[str, object], words: str
) -> None:
    with pytest.raises(JobError, match=words):
        known_labels(run, labels(tmp_path / "known.parquet", **columns))


def test_what_is_no_parquet_file_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("source_id,teff\n")
    with pytest.raises(JobError, match="cannot be read"):
        known_labels(run, tmp_path / "known.csv")
