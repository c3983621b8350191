"""STILTS, the program under TOPCAT, reads what we export. Skipped where it is not installed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.catalogs import finished_run
from support.exports import NULLABLE, Write, exported, things, written

from catalogproc.contract import load_contract
from catalogproc.export.fits import write_fits
from catalogproc.export.votable import write_votable
from catalogproc.rundir.manifest import RunIdentity
from catalogproc.rundir.receipts import read_receipts

CATALOG = load_contract("catalog")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run")
    finished_run(path, files=2, chunks=3, rows=70)
    return path


@pytest.fixture(scope="module")
def rows(folder: Path) -> pa.Table:
    """Return all rows, read from the parts in the order of the input."""
    done = sorted(read_receipts(folder).values(), key=lambda r: (r.file, r.first_row))
    return pa.concat_tables([pq.read_table(folder / receipt.catalog_part) for receipt in done])


@pytest.fixture(scope="module")
def stilts() -> Callable[..., str]:
    """Run STILTS, the program under TOPCAT; its warnings and errors fail the test."""
    program = shutil.which("stilts")
    if program is None:
        pytest.skip("STILTS is not installed (Debian: apt-get install stilts)")

    def run(*words: str) -> str:
        done = subprocess.run(
            [program, "-J-Xmx128m", "-J-XX:TieredStopAtLevel=1", *words],
            capture_output=True, text=True, timeout=120, env=os.environ | {"DISPLAY": ""},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "WARNING" not in done.stderr, done.stderr
        assert "rror" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def reads(
    stilts: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Return STILTS' argument for a format; skip where its build cannot read it."""
    program = shutil.which("stilts") or ""
    done = subprocess.run([program, "-J-Xmx128m", "tpipe", "ifmt=ecsv", "in=/dev/null"],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    known = "handler" not in done.stderr

    def words(format: str) -> str:
        if format == "ecsv" and not known:
            pytest.skip("STILTS has no ECSV (Debian: apt-get install starlink-ecsv-java)")
        return f"ifmt={format}"

    return words


def cells(text: str) -> list[dict[str, str]]:
    """Return the rows of STILTS' comma-separated output."""
    import csv

    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("format", ["fits", "votable", "ecsv"])
def test_stilts_shows_every_columns_type_unit_ucd_and_description(
    folder: Path,
    tmp_path: Path,
    stilts: Callable[..., str],
    reads: Callable[[str], str],
    format: str,
) -> None:
    path = exported(folder, format, tmp_path)
    output = stilts(
        "tpipe",
        reads(format),
        f"in={path}",
        "cmd=meta name class units ucd description",
        "ofmt=csv",
    )
    classes = {"int64": "Long", "int32": "Integer", "int16": "Short", "float64": "Double"}
    classes |= {"float32": "Float", "bool": "Boolean", "string": "String"}
    shown = cells(output)
    assert len(shown) == len(CATALOG.columns)
    for row, column in zip(shown, CATALOG.columns, strict=True):
        assert row == {
            "Name": column.name,
            "Class": classes[column.type],
            "Units": column.unit,
            "UCD": column.ucd,
            "Description": column.description,
        }


@pytest.mark.parametrize("format", ["fits", "votable", "ecsv", "csv"])
def test_stilts_reads_every_value(
    folder: Path,
    rows: pa.Table,
    tmp_path: Path,
    stilts: Callable[..., str],
    reads: Callable[[str], str],
    format: str,
) -> None:
    path = exported(folder, format, tmp_path)
    shown = cells(stilts("tpipe", reads(format), f"in={path}", "ofmt=csv"))
    assert len(shown) == rows.num_rows
    for column in CATALOG.columns:
        texts = [row[column.name] for row in shown]
        wanted = rows[column.name].to_pylist()
        if column.type.startswith("int"):
            assert [int(text) for text in texts] == wanted
        elif column.type == "bool":
            assert [text == "true" for text in texts] == wanted
            assert set(texts) <= {"true", "false"}
        elif column.type == "string":
            assert texts == wanted
        else:
            numbers = np.array([float(text or "nan") for text in texts], dtype=column.type)
            np.testing.assert_array_equal(numbers, rows[column.name].to_numpy())


def test_votlint_finds_no_fault(folder: Path, tmp_path: Path, stilts: Callable[..., str]) -> None:
    path = exported(folder, "votable", tmp_path)
    assert stilts("votlint", "ucd=true", "unit=true", f"votable={path}") == ""


def test_a_crossmatch_of_two_exports_by_stilts_is_exact(
    folder: Path, rows: pa.Table, tmp_path: Path, stilts: Callable[..., str]
) -> None:
    """Every row finds itself by source_id, and only itself; the flags of both are equal."""
    one, other = (exported(folder, format, tmp_path) for format in ("fits", "votable"))
    output = stilts(
        "tmatch2", f"in1={one}", f"in2={other}", "matcher=exact", "values1=source_id",
        "values2=source_id", "find=all", "progress=none", "ofmt=csv",
        "ocmd=select 'quality_flags_1==quality_flags_2 && good_params_1==good_params_2'",
        "ocmd=keepcols 'source_id_1 source_id_2'",
    )  # fmt: skip
    pairs = [(int(row["source_id_1"]), int(row["source_id_2"])) for row in cells(output)]
    ids = rows["source_id"].to_pylist()
    assert sorted(pairs) == sorted(zip(ids, ids, strict=True))


@pytest.mark.parametrize("write", [write_fits, write_votable])
def test_stilts_reads_nulls_as_nulls(
    tmp_path: Path, stilts: Callable[..., str], write: Write
) -> None:
    batch = things(100)
    suffix = "fits" if write is write_fits else "vot"
    path = written(write, tmp_path / f"x.{suffix}", [batch], {})
    shown = cells(stilts("tpipe", f"in={path}", "ofmt=csv"))
    for column in NULLABLE.columns:
        wanted = [not (v or v in (0, False)) for v in batch.column(column.name).to_pylist()]
        assert [row[column.name] == "" for row in shown] == wanted, column.name


def test_a_run_without_rows_is_read_by_stilts(tmp_path: Path, stilts: Callable[..., str]) -> None:
    run: RunIdentity = finished_run(tmp_path / "run", files=1, chunks=1, rows=0)
    assert run
    for format in ("fits", "votable"):
        path = exported(tmp_path / "run", format, tmp_path)
        assert stilts("tpipe", f"in={path}", "omode=count").split()[-1] == "0"
