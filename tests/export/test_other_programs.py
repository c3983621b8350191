"""pandas, polars and DuckDB read the parts and the exports: 64-bit ids, NaN, flags, units.

polars and DuckDB are not required by catalogproc; their tests are skipped without them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.catalogs import finished_run
from support.exports import exported

from catalogproc.contract import load_contract
from catalogproc.export.open_catalog import open_catalog
from catalogproc.export.reader import open_rows
from catalogproc.flags import load_flags

CATALOG = load_contract("catalog")
RUWE = load_flags()["RUWE"].value
FILES = pytest.mark.parametrize("format", ["parquet", "parts", "csv"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    finished_run(path, files=2, chunks=2, rows=80)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    return pa.Table.from_batches(open_rows(folder).batches()).sort_by("source_id")


def pattern(folder: Path, format: str, place: Path) -> str:
    if format == "parts":
        return str(folder / "catalog" / "*.parquet")
    return str(exported(folder, format, place))


@FILES
def test_pandas(folder: Path, rows: pa.Table, tmp_path: Path, format: str) -> None:
    import pandas as pd

    path = pattern(folder, format, tmp_path)
    if format == "csv":
        found = pd.read_csv(path)
    else:
        found = pd.read_parquet(folder / "catalog" if format == "parts" else path)
    found = found.sort_values("source_id")
    assert found["source_id"].dtype == np.int64
    assert found["source_id"].tolist() == rows["source_id"].to_pylist()
    assert found["good_params"].dtype == bool
    assert int((found["quality_flags"] & RUWE != 0).sum()) == ruwe_stars(rows)
    got = found["dist_84"].to_numpy(np.float32)
    np.testing.assert_array_equal(got, rows["dist_84"].to_numpy())
    good = found.query("good_mass_age and m_h > -0.5")
    assert len(good) == chosen(rows)


@FILES
def test_polars(folder: Path, rows: pa.Table, tmp_path: Path, format: str) -> None:
    pl = pytest.importorskip("polars", reason="polars is not installed (pip install polars)")
    read = pl.scan_csv if format == "csv" else pl.scan_parquet
    found = read(pattern(folder, format, tmp_path)).sort("source_id").collect()
    assert found.schema["source_id"] == pl.Int64
    assert found["source_id"].to_list() == rows["source_id"].to_pylist()
    assert found.schema["good_params"] == pl.Boolean
    assert found.filter(pl.col("quality_flags") & RUWE != 0).height == ruwe_stars(rows)
    got = found["dist_84"].fill_null(float("nan")).to_numpy().astype(np.float32)
    np.testing.assert_array_equal(got, rows["dist_84"].to_numpy())
    assert found.filter(pl.col("good_mass_age") & (pl.col("m_h") > -0.5)).height == chosen(rows)


def test_an_open_catalog_is_an_arrow_stream(folder: Path, rows: pa.Table) -> None:
    found = pa.table(open_catalog(folder)).sort_by("source_id")
    assert found.schema.equals(rows.schema)
    for name in ("source_id", "dist_84", "quality_flags"):  # NaN is not equal to itself in Arrow
        np.testing.assert_array_equal(found[name].to_numpy(), rows[name].to_numpy())
    pl = pytest.importorskip("polars", reason="polars is not installed (pip install polars)")
    assert sorted(pl.DataFrame(open_catalog(folder))["source_id"]) == rows["source_id"].to_pylist()


@FILES
def test_duckdb(folder: Path, rows: pa.Table, tmp_path: Path, format: str) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed (pip install duckdb)")
    path = pattern(folder, format, tmp_path)
    connection = duckdb.connect()

    def query(what: str, where: str = "true") -> list[tuple[object, ...]]:
        found = connection.execute(f"select {what} from '{path}' where {where}").fetchall()
        return [tuple(row) for row in found]

    ((kind,),) = set(query("typeof(source_id)"))
    assert kind == "BIGINT"
    assert sorted(ids for (ids,) in query("source_id")) == rows["source_id"].to_pylist()
    assert query("count(*)", f"quality_flags & {RUWE} != 0") == [(ruwe_stars(rows),)]
    unknown = "dist_84 is null" if format == "csv" else "isnan(dist_84)"
    # Not in its WHERE: there DuckDB asks the row groups' minima and maxima, which know no NaN.
    wanted = int(np.isnan(rows["dist_84"].to_numpy()).sum())
    assert query(f"count(*) filter ({unknown})") == [(wanted,)]
    assert query("count(*)", "good_mass_age and m_h > -0.5") == [(chosen(rows),)]


def test_units_are_in_the_schema_of_the_parts(folder: Path) -> None:
    schema = pq.read_schema(next((folder / "catalog").glob("*.parquet")))
    for column in CATALOG.columns:
        metadata = schema.field(column.name).metadata
        assert metadata.get(b"unit", b"").decode() == column.unit
        assert metadata.get(b"ucd", b"").decode() == column.ucd
        assert metadata[b"description"].decode() == column.description


def ruwe_stars(rows: pa.Table) -> int:
    count = int((rows["quality_flags"].to_numpy() & RUWE != 0).sum())
    assert count > 0
    return count


def chosen(rows: pa.Table) -> int:
    count = int((rows["good_mass_age"].to_numpy() & (rows["m_h"].to_numpy() > -0.5)).sum())
    assert 0 < count < rows.num_rows
    return count
