"""A Parquet part holds its rows, and says what they are."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import votable
from astropy.table import Table
from support.catalogs import catalog_table, rejected_table, source_ids

from catalogproc.contract import load_contract
from catalogproc.errors import ContractError
from catalogproc.io.parquet_writer import ROW_GROUP, PartWriter

CATALOG = load_contract("catalog")


def equal(a: pa.Table, b: pa.Table) -> bool:
    """Bit for bit, NaN included, nulls included."""
    if a.column_names != b.column_names or a.num_rows != b.num_rows:
        return False
    for name in a.column_names:
        left, right = (t.column(name).combine_chunks() for t in (a, b))
        if left.type != right.type or left.is_null().to_pylist() != right.is_null().to_pylist():
            return False
        if pa.types.is_floating(left.type):
            x, y = (side.to_numpy(zero_copy_only=False) for side in (left, right))
            if x.tobytes() != y.tobytes():
                return False
        elif not left.equals(right):
            return False
    return True


def write(folder: Path, table: pa.Table, step: int, row_group: int = ROW_GROUP) -> PartWriter:
    writer = PartWriter(folder, "part", CATALOG, {"run": "r"})
    writer.row_group = row_group
    with writer:
        for start in range(0, table.num_rows, step):
            writer.write(table.slice(start, step))
    return writer


@pytest.mark.parametrize("step", [7, 100, 1000])
def test_a_part_holds_the_rows_and_tells_their_hash(tmp_path: Path, step: int) -> None:
    table = catalog_table(250, seed=1)
    part = write(tmp_path, table, step, row_group=100).part
    assert part is not None
    path = tmp_path / part.path
    assert part.path == "catalog/part.parquet"
    assert (part.rows, part.bytes) == (250, path.stat().st_size)
    assert part.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert equal(pq.read_table(path), table)
    groups = pq.read_metadata(path)
    assert [groups.row_group(i).num_rows for i in range(3)] == [100, 100, 50]
    assert groups.row_group(0).column(2).compression == "ZSTD"


def test_the_same_rows_give_the_same_bytes_whatever_the_batches(tmp_path: Path) -> None:
    table = catalog_table(250, seed=1)
    parts = {write(tmp_path, table, step, row_group=100).part for step in (1, 7, 99, 100, 250)}
    assert len(parts) == 1


def test_source_ids_that_a_float_cannot_hold_come_back_exactly(tmp_path: Path) -> None:
    table = catalog_table(500)
    ids = table.column("source_id").to_numpy()
    assert (ids > 2**53).all()
    assert (ids.astype(np.float64).astype(np.int64) != ids).mean() > 0.9  # floats would corrupt
    part = write(tmp_path, table, 100).part
    assert part is not None
    np.testing.assert_array_equal(pq.read_table(tmp_path / part.path)["source_id"].to_numpy(), ids)


def test_every_column_says_its_unit_ucd_and_meaning_in_arrow(tmp_path: Path) -> None:
    part = write(tmp_path, catalog_table(3), 3).part
    assert part is not None
    schema = pq.read_schema(tmp_path / part.path)
    for column in CATALOG.columns:
        stated = {
            key.decode(): text.decode() for key, text in schema.field(column.name).metadata.items()
        }
        assert stated["description"] == column.description
        assert stated.get("unit", "") == column.unit
        assert stated.get("ucd", "") == column.ucd
    assert schema.metadata[b"contract"] == b"catalog"
    assert schema.metadata[b"contract_version"] == str(CATALOG.version).encode()
    assert schema.metadata[b"run"] == b"r"


@pytest.mark.parametrize("rows", [0, 40])
def test_astropy_reads_units_ucds_and_descriptions_through_voparquet(
    tmp_path: Path, rows: int
) -> None:
    table = catalog_table(rows)
    with PartWriter(tmp_path, "part", CATALOG) as writer:
        writer.write(table)
    assert writer.part is not None
    path = tmp_path / writer.part.path
    found = Table.read(path, format="parquet.votable")
    assert len(found) == rows
    for column in CATALOG.columns:
        read = found[column.name]
        assert str(read.unit or "") == column.unit, column.name
        assert read.description == column.description
        assert read.meta.get("ucd", "") == column.ucd, column.name
        wanted = {"string": "U"}.get(column.type) or np.dtype(column.type).kind
        assert read.dtype.kind == wanted, column.name
    np.testing.assert_array_equal(found["source_id"], table["source_id"].to_numpy())
    np.testing.assert_array_equal(found["dist_84"], table["dist_84"].to_numpy())


def test_the_voparquet_document_is_a_votable_without_rows(tmp_path: Path) -> None:
    part = write(tmp_path, catalog_table(5), 5).part
    assert part is not None
    metadata = pq.read_metadata(tmp_path / part.path).metadata
    assert metadata[b"IVOA.VOTable-Parquet.version"] == b"1.0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # votable warns of every departure from the standard
        document = votable.parse(
            io.BytesIO(metadata[b"IVOA.VOTable-Parquet.content"]), verify="exception"
        )
    (table,) = document.iter_tables()
    assert [field.name for field in table.fields] == list(CATALOG.names)
    assert not len(table.array)
    kinds = {field.name: field.datatype for field in table.fields}
    assert kinds["good_params"] == "boolean"  # STILTS stops on "bit"
    assert kinds["source_id"] == "long"


def test_rejected_rows_keep_lost_ids_as_nulls_and_any_letter(tmp_path: Path) -> None:
    table = rejected_table(10, "é/ü.parquet")
    contract = load_contract("rejected")
    with PartWriter(tmp_path, "part", contract, allow_empty=False) as writer:
        writer.write(table)
    assert writer.part is not None
    found = pq.read_table(tmp_path / writer.part.path)
    assert equal(found, table)
    assert found["source_id"].null_count == 5


def test_no_rows_no_file_where_that_is_asked_for(tmp_path: Path) -> None:
    with PartWriter(tmp_path, "x", load_contract("rejected"), allow_empty=False) as one:
        pass
    with PartWriter(tmp_path, "x", CATALOG) as other:
        pass
    assert one.part is None
    assert not list((tmp_path / "rejected").iterdir())
    assert other.part is not None
    assert other.part.rows == pq.read_table(tmp_path / other.part.path).num_rows == 0


def test_a_batch_that_breaks_the_contract_leaves_nothing(tmp_path: Path) -> None:
    table = catalog_table(10)
    broken = table.set_column(
        table.column_names.index("e_teff"), "e_teff", pa.array([-1.0] * 10, pa.float32())
    )
    writer = PartWriter(tmp_path, "part", CATALOG)
    writer.row_group = 5

    def both() -> None:
        with writer:
            writer.write(table)
            writer.write(broken)

    with pytest.raises(ContractError, match="at least 0"):
        both()
    assert writer.part is None
    assert not list((tmp_path / "catalog").iterdir())


def test_memory_holds_a_row_group_and_not_the_part(tmp_path: Path) -> None:
    table = catalog_table(2_000)
    peak = 0
    before = pa.total_allocated_bytes()
    writer = PartWriter(tmp_path, "part", CATALOG)
    writer.row_group = 2_000
    with writer:
        for _ in range(50):
            writer.write(table)
            peak = max(peak, pa.total_allocated_bytes() - before)
    assert writer.part is not None
    assert writer.part.rows == 100_000
    assert peak < 5 * table.nbytes


def test_the_made_up_ids_are_distinct() -> None:
    ids = source_ids(10_000)
    assert len(np.unique(ids)) == 10_000
