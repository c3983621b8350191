"""Bad input by the thousand: what comes of it is rows, rejected rows, or a clear refusal.

Never an error that is not ours, a hang, or a wrong number of rows. A few cases of each kind here;
CATALOGPROC_FUZZ says how many (make fuzz: 20,000 and more in all). A case that fails names its
kind and number, and is the same again.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from support.bundles import tiny_bundle
from support.catalogs import finished_run
from support.fits_files import ascii_table, colfits
from support.mutations import changed, damaged, no_hang
from support.xp_files import (
    ARCHIVE,
    ARRAYS,
    AUXILIARY,
    fits_bytes,
    parquet_bytes,
    plain_csv,
    real,
    scattered,
    votable,
    written,
    zipped,
)

from catalogproc import contract, flags, vocabulary
from catalogproc.errors import CatalogprocError
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.job import load_job, load_training_job
from catalogproc.network.bundle import DECLARATION, WEIGHTS, load_bundle
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.pieces import spectra
from catalogproc.resources import shipped
from catalogproc.rundir.manifest import read_identity
from catalogproc.rundir.receipts import read_receipt, receipt_files
from catalogproc.rundir.status import status
from catalogproc.rundir.verify import verify
from catalogproc.vocabulary import load_vocabulary

CASES = int(os.environ.get("CATALOGPROC_FUZZ", "15"))
VOCABULARY = load_vocabulary()


def csv_part(lines: int) -> bytes:
    return b"\n".join((ARCHIVE / "XP_CONTINUOUS_RAW.csv").read_bytes().splitlines()[:lines]) + b"\n"


def fits_table() -> bytes:
    table = real(12)
    arrays = {name: ("55D", np.array(table.column(name).to_pylist())) for name in ARRAYS}
    return fits_bytes({"source_id": ("K", table.column("source_id").to_numpy())} | arrays)


def by_columns() -> bytes:
    table = real(12)
    arrays = [(name, "", np.array(table[name].to_pylist())) for name in ("source_id", *ARRAYS)]
    return colfits([(*column, np.zeros(column[2].shape, bool)) for column in arrays])


def ascii_rows() -> bytes:
    """Two stars, one column per element."""
    table = scattered(real(2).select(["source_id", *ARRAYS]), lambda name, k: f"{name}_{k}")
    cells, place = [], 1
    cards: dict[str, Any] = {"TFIELDS": table.num_columns}
    for number, name in enumerate(table.column_names, start=1):
        form = "I20" if name == "source_id" else "D25.17"
        cards |= {f"TTYPE{number}": name, f"TFORM{number}": form, f"TBCOL{number}": place}
        width = 20 if name == "source_id" else 25
        cells.append([str(value).ljust(width) for value in table[name].to_pylist()])
        place += width + 1
    return ascii_table([" ".join(row) for row in zip(*cells, strict=True)], cards)


def two_stars(data: str) -> bytes:
    return votable(plain_csv(ARCHIVE / "XP_CONTINUOUS_RAW.csv"), data)


SPECTRA: dict[str, Callable[[], bytes]] = {
    "a.csv": lambda: csv_part(3),
    "b.csv.gz": lambda: zipped(csv_part(3)),
    "a.ecsv": lambda: (ARCHIVE / "XP_CONTINUOUS_RAW.ecsv").read_bytes(),
    "a.fits": fits_table,
    "b.fits": lambda: (ARCHIVE / "XP_CONTINUOUS_RAW.fits").read_bytes(),
    "c.fits": by_columns,
    "d.fits": ascii_rows,
    "a.xml": lambda: two_stars("TABLEDATA"),
    "b.vot": lambda: two_stars("BINARY"),
    "c.vot.gz": lambda: zipped(two_stars("BINARY2")),
    "a.parquet": lambda: parquet_bytes(real(20), compression="none", use_dictionary=False),
    "b.parquet": lambda: parquet_bytes(written(real(8), "(", ", ", ")"), row_group_size=4),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra(name: str, tmp_path: Path) -> None:
    whole = SPECTRA[name]()
    for case in range(CASES):
        content = damaged(whole, random.Random(f"{name} {case}"))
        path = tmp_path / name
        path.write_bytes(content)
        with no_hang(f"{name}, case {case}"):
            try:
                read = _through(path)
            except CatalogprocError as error:
                _speaks(error, path)
                continue
            except Exception as error:
                raise AssertionError(f"{name}, case {case}") from error
        if name.endswith(".parquet"):
            assert read == pq.read_metadata(path).num_rows, f"{name}, case {case}"


def _through(path: Path) -> int:
    """Rows of a file that are cut, read and screened: each is good or rejected."""
    rows = 0
    for piece in (piece for chunk in chunks.cut([path], 5) for piece in chunk.pieces):
        seen = Duplicates(np.array([], dtype=np.int64))
        count = 0
        for batch in spectra(piece, correlations=True):
            batch.validate(full=True)
            good, refused = screen(batch, VOCABULARY, seen, str(path))
            assert len(good) + len(refused) == len(batch)
            count += len(batch)
        assert piece.rows is None or count == piece.rows
        rows += count
    return rows


def _speaks(error: CatalogprocError, where: Path) -> None:
    """An error for people: it says what, and where, and is not a traceback."""
    said = str(error)
    assert error.message
    assert "Traceback" not in said
    assert len(said) < 5000
    assert str(where) in said or str(where.parent) in said, said


def _refuses(error: CatalogprocError) -> None:
    assert error.exit_code == 2
    assert "Traceback" not in str(error)


AUXILIARY_TABLES: dict[str, Callable[[], bytes]] = {
    "g.parquet": AUXILIARY.read_bytes,
    "g.csv": lambda: _text(pq.read_table(AUXILIARY).slice(0, 8)),
}


def _text(table: pa.Table) -> bytes:
    from pyarrow import csv

    out = pa.BufferOutputStream()
    csv.write_csv(table, out)
    return bytes(out.getvalue().to_pybytes())


@pytest.mark.parametrize("name", AUXILIARY_TABLES)
def test_auxiliary_tables(name: str, tmp_path: Path) -> None:
    whole = AUXILIARY_TABLES[name]()
    stars = pq.read_table(AUXILIARY)["source_id"].combine_chunks()
    for case in range(CASES):
        path = tmp_path / name
        path.write_bytes(damaged(whole, random.Random(f"{name} {case}")))
        with no_hang(f"{name}, case {case}"):
            try:
                found = open_auxiliary([path], tmp_path / "staging").match(stars)
            except CatalogprocError as error:
                _speaks(error, tmp_path)
                continue
            except Exception as error:
                raise AssertionError(f"{name}, case {case}") from error
        assert len(found) == len(stars)


def _job(name: str) -> dict[str, Any]:
    return tomllib.loads((shipped("jobs") / f"{name}.toml").read_text())


def _schema(name: str) -> dict[str, Any]:
    return tomllib.loads((shipped("schemas") / f"{name}.toml").read_text())


def _load_contract(path: Path) -> object:
    return contract.declared_contract(path)


DOCUMENTS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Path], object]]] = {
    "run job": (lambda: _job("gaia-dr3-giants"), load_job),
    "training job": (lambda: _job("train-apogee"), load_training_job),
    "contract": (lambda: _schema("catalog"), _load_contract),
    "flags": (lambda: _schema("flags"), flags.declared_flags),
    "vocabulary": (lambda: _schema("vocabulary"), vocabulary.load_vocabulary),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_jobs_and_schemas(kind: str, tmp_path: Path) -> None:
    made, load = DOCUMENTS[kind]
    document = made()
    path = tmp_path / "x.toml"
    for case in range(CASES):
        dice = random.Random(f"{kind} {case}")
        path.write_bytes(_toml(document, dice))
        with no_hang(f"{kind}, case {case}"):
            try:
                load(path)
            except CatalogprocError as error:
                _refuses(error)
            except Exception as error:
                raise AssertionError(f"{kind}, case {case}") from error


def _toml(document: dict[str, Any], dice: random.Random) -> bytes:
    """The document with a value changed, or where TOML cannot say that, with a byte changed."""
    if dice.random() < 0.7:
        try:
            return tomli_w.dumps(changed(document, dice)).encode()
        except (TypeError, ValueError, AttributeError, OverflowError):
            pass
    return damaged(tomli_w.dumps(document).encode(), dice)


def test_bundles(tmp_path: Path) -> None:
    """Also those that bear the right hashes, as a stranger would see to it."""
    folder = tiny_bundle(tmp_path / "bundle").path
    head, _, body = (folder / DECLARATION).read_bytes().partition(b"\n")
    document, weights = tomllib.loads(body.decode()), (folder / WEIGHTS).read_bytes()
    for case in range(CASES):
        dice = random.Random(f"bundle {case}")
        stored, declared = weights, dict(document)
        if dice.random() < 0.3:
            stored = damaged(weights, dice)
            declared["weights_sha256"] = hashlib.sha256(stored).hexdigest()
            text = tomli_w.dumps(declared).encode()
        else:
            text = _toml(declared, dice)
        first = f'hash = "{hashlib.sha256(text).hexdigest()}"'.encode()
        (folder / WEIGHTS).write_bytes(stored)
        (folder / DECLARATION).write_bytes((head if case % 5 == 0 else first) + b"\n" + text)
        with no_hang(f"bundle, case {case}"):
            try:
                load_bundle(folder).network()
            except CatalogprocError as error:
                _refuses(error)
            except Exception as error:
                raise AssertionError(f"bundle, case {case}") from error


@pytest.mark.parametrize("kind", ["receipt", "run"])
def test_receipts_and_runs(kind: str, tmp_path: Path) -> None:
    finished_run(tmp_path, files=1, chunks=2, rows=5)
    path = receipt_files(tmp_path)[0] if kind == "receipt" else tmp_path / "run.json"
    document, whole = json.loads(path.read_bytes()), path.read_bytes()
    read: Callable[[Path], object] = read_receipt
    if kind == "run":
        read = lambda path: read_identity(path.parent)  # noqa: E731
    for case in range(CASES):
        dice = random.Random(f"{kind} {case}")
        bad = damaged(whole, dice)
        if dice.random() < 0.7:
            bad = json.dumps(changed(document, dice), default=str).encode()
        path.write_bytes(bad)
        with no_hang(f"{kind}, case {case}"):
            for look in (read, lambda path: status(tmp_path), lambda path: verify(tmp_path)):
                try:
                    look(path)
                except CatalogprocError as error:
                    _speaks(error, tmp_path)
                except Exception as error:
                    raise AssertionError(f"{kind}, case {case}") from error
