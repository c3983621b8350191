"""map_partition gives each row of a DataFrame its row of the catalog, as LSDB asks for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.xp_files import real

import catalogproc
from catalogproc.contract import load_contract
from catalogproc.errors import InputError
from catalogproc.inference.engine import Engine
from catalogproc.inference.partition import map_partition
from catalogproc.job import load_job


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle").path


def stars(count: int = 40) -> pd.DataFrame:
    """Real stars beside a position, in a random order, with an index as HATS has it."""
    table = real(count)
    table = table.append_column("ra", pa.array(np.linspace(0, 90, count)))
    table = table.append_column("dec", pa.array(np.linspace(-9, 9, count)))
    frame = table.to_pandas(types_mapper=pd.ArrowDtype)
    frame.index = pd.Index(np.arange(count)[::-1] * 1000, name="_healpix_29")
    return frame


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    return frame[name].astype("float64").to_numpy()


def test_the_numbers_are_those_of_a_run(bundle: Path) -> None:
    frame = stars()
    found = map_partition(frame, model=bundle)
    assert found.index.equals(frame.index)
    assert found["rejected"].isna().all()
    assert [*found.columns] == [*load_contract("catalog").names, "rejected"]
    plain = real(40).combine_chunks().to_batches()[0]
    whole = Engine(catalogproc.load_model(bundle).bundle, load_job("gaia-dr3-giants")).process(
        plain
    )
    assert found["source_id"].tolist() == whole["source_id"].to_pylist()
    for name in ("teff", "logg", "mass", "e_mass"):
        np.testing.assert_allclose(numbers(found, name), whole[name].to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(numbers(found, "ra"), np.linspace(0, 90, 40))


def test_rows_that_are_rejected_stay_in_place(bundle: Path) -> None:
    frame = stars(10)
    twice = frame.copy()
    twice.iloc[4, twice.columns.get_loc("source_id")] = twice["source_id"].iloc[2]
    twice["bp_coefficients"] = [
        None if row in (6, 7) else value for row, value in enumerate(twice["bp_coefficients"])
    ]
    twice["rp_coefficients"] = [
        None if row in (6, 7) else value for row, value in enumerate(twice["rp_coefficients"])
    ]
    found = map_partition(twice, model=bundle)
    assert len(found) == 10
    assert found["rejected"].notna().tolist() == [row in (4, 6, 7) for row in range(10)]
    assert found["teff"].isna().tolist() == [row in (4, 6, 7) for row in range(10)]
    assert found["source_id"].tolist() == twice["source_id"].tolist()
    others = [row for row in range(10) if row not in (4, 6, 7)]
    expected = map_partition(frame, model=bundle)
    np.testing.assert_allclose(
        numbers(found, "teff")[others], numbers(expected, "teff")[others], rtol=1e-5
    )


def test_nested_columns_are_read(bundle: Path, tmp_path: Path) -> None:
    table = real(20)
    names = [name for name in table.column_names if name != "source_id"]
    nested = pa.StructArray.from_arrays(
        [table[name].combine_chunks() for name in names], names=names
    )
    pq.write_table(
        pa.table({"source_id": table["source_id"].combine_chunks(), "xp": nested}),
        tmp_path / "nested.parquet",
    )
    frame = pq.read_table(tmp_path / "nested.parquet").to_pandas(types_mapper=pd.ArrowDtype)
    found = map_partition(frame, model=bundle)
    expected = map_partition(table.to_pandas(types_mapper=pd.ArrowDtype), model=bundle)
    np.testing.assert_allclose(numbers(found, "mass"), numbers(expected, "mass"))


def test_an_empty_partition_has_the_columns(bundle: Path) -> None:
    """Dask calls a function with no rows to learn what it returns."""
    found = map_partition(stars(5).iloc[:0], model=bundle)
    assert len(found) == 0
    assert found.dtypes.equals(map_partition(stars(5), model=bundle).dtypes)
    assert found.index.name == "_healpix_29"


def test_a_table_without_spectra_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="these are no XP spectra"):
        map_partition(pd.DataFrame({"source_id": [1], "teff": [4800.0]}), model=bundle)


@pytest.mark.filterwarnings("ignore")  # of its own
def test_a_catalog_of_lsdb_is_mapped(bundle: Path) -> None:
    lsdb = pytest.importorskip("lsdb", reason="LSDB is not installed (pip install lsdb)")
    frame = stars(60).reset_index(drop=True)
    catalog = lsdb.from_dataframe(frame, ra_column="ra", dec_column="dec", partition_rows=20)
    result = catalog.map_partitions(map_partition, model=bundle).compute()
    assert sorted(result["source_id"]) == sorted(frame["source_id"])
    assert result["teff"].notna().all()
