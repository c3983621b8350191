"""Tables that are masked, united, nested and renamed, by the thousand: the right numbers, or none.

Real spectra and made-up photometry are written in every format and table, by the libraries that
write them elsewhere. What is read must be each star's own numbers; what cannot be read must be
refused. A case that fails names its kind and number, and is the same again. CATALOGPROC_FUZZ is
the number of cases of each kind (make fuzz).
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.bundles import tiny_bundle
from support.containers import (
    FILES,
    MEMORY,
    MEMORY_WITHOUT_ARRAYS,
    MEMORY_WITHOUT_UNITS,
    WITHOUT_ARRAYS,
    WITHOUT_UNITS,
)
from support.disturbed import Case, Disturbed, Medium, labels_of, make_case

from catalogproc.datasets.table_io import read_table, read_units
from catalogproc.errors import CatalogprocError
from catalogproc.features.table_inputs import TableInputs
from catalogproc.features.tokens import Tokens, tokens
from catalogproc.inference.engine import Engine
from catalogproc.inference.model import load_model
from catalogproc.inference.process_chunk import process_chunk
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.job import Job
from catalogproc.readers import chunks
from catalogproc.readers.gaia_source import open_auxiliary
from catalogproc.readers.xp import read_spectra
from catalogproc.vocabulary import load_vocabulary

CASES = int(os.environ.get("CATALOGPROC_FUZZ", "3"))
VOCABULARY = load_vocabulary()
JOB = Job("fuzz", inputs=("bprp", "jh", "jk", "g_fakemag"))


Answer = tuple[pa.Table, Tokens]
Reading = Callable[[], Answer]


def dice_of(kind: str, number: int) -> np.random.Generator:
    return np.random.default_rng([zlib.crc32(kind.encode()), number])


@pytest.mark.parametrize("kind", FILES)
def test_fuzz_files(kind: str, tmp_path: Path) -> None:
    """As a run reads them, in one file or in two; one file as ``infer`` reads it too."""
    medium = Medium(units=kind not in WITHOUT_UNITS, arrays=kind not in WITHOUT_ARRAYS)
    for number in range(CASES):
        dice = dice_of(kind, number)
        case = make_case(dice, medium)
        together = dice.random() < 0.4
        folder = tmp_path / str(number)
        folder.mkdir()
        try:
            if together:
                spectra = auxiliary = _file(kind, case.joined, dice, folder / "joined")
            else:
                spectra = _file(kind, case.spectra, dice, folder / "spectra")
                auxiliary = _file(kind, case.auxiliary, dice, folder / "auxiliary")
            read = partial(_of_run, spectra, auxiliary, folder)
            _check(f"{kind}, case {number}", case, read, _of_truth)
            if together:
                infer = partial(_of_infer, spectra)
                _check(f"{kind}, case {number}, infer", case, infer, _of_python_truth)
        finally:
            shutil.rmtree(folder)


def _file(kind: str, columns: list[Disturbed], dice: np.random.Generator, path: Path) -> Path:
    ending, write = FILES[kind]
    path = path.with_suffix(ending)
    write(columns, dice, path)
    if ending != ".parquet" and dice.random() < 0.15:
        content, path = path.read_bytes(), path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(content, 1))
    return path


def _of_run(spectra: Path, auxiliary: Path, folder: Path) -> Answer:
    """The accepted rows, and their tokens."""
    batches = list(read_spectra(spectra))
    schema = batches[0].schema
    good, rejected = screen(
        pa.Table.from_batches(batches, schema).combine_chunks().to_batches()[0],
        VOCABULARY, Duplicates(), str(spectra),
    )  # fmt: skip
    known = open_auxiliary([auxiliary], folder / "staged").match(good["source_id"])
    reasons = rejected.select(["source_id", "row", "reason"])
    return reasons, tokens(_plain(good), known, VOCABULARY, JOB)


def _of_truth(case: Case) -> Answer:
    good, rejected = screen(case.truth, VOCABULARY, Duplicates(), "truth")
    rows = good["row"]
    reasons = rejected.select(["source_id", "row", "reason"])
    return reasons, tokens(_plain(good), case.known.take(rows), VOCABULARY, JOB)


def _plain(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch]).drop_columns(["row", "fault"])


@pytest.mark.parametrize("kind", MEMORY)
def test_fuzz_tables_of_python(kind: str) -> None:
    """As Model.predict reads them."""
    if kind == "polars":
        pytest.importorskip("polars", reason="polars is not installed (pip install polars)")
    medium = Medium(
        units=kind not in MEMORY_WITHOUT_UNITS, arrays=kind not in MEMORY_WITHOUT_ARRAYS,
        python=True,
    )  # fmt: skip
    for number in range(CASES):
        dice = dice_of(kind, number)
        case = make_case(dice, medium)
        table = MEMORY[kind](case.joined, dice)
        _check(f"{kind}, case {number}", case, partial(_of_python, table), _of_python_truth)


def _of_infer(path: Path) -> Answer:
    return _of_python(read_table(path), units=read_units(path), where=path)


def _of_python(table: Any, **more: Any) -> Answer:
    inputs = TableInputs.of(table, VOCABULARY, JOB, **more)
    assert inputs.source_id is not None
    return pa.table({"source_id": inputs.source_id}), inputs.tokens()


def _of_python_truth(case: Case) -> Answer:
    """No row is rejected; a star without an identifier has its auxiliary values all the same."""
    known = case.given
    found = tokens(_plain(case.truth), known, VOCABULARY, JOB)
    return pa.table({"source_id": case.truth["source_id"]}), found


def _check(kind: str, case: Case, read: Reading, right: Callable[[Case], Answer]) -> None:
    where = f"{kind}: {case.wrong or 'right'}: {labels_of(case.joined)}"
    refusal: CatalogprocError | None = None
    try:
        rows, found = read()
    except CatalogprocError as error:
        refusal = error
    except Exception as error:
        raise AssertionError(where) from error
    assert refusal is None or case.wrong, f"{where}\n{refusal}"
    if refusal is not None:
        assert refusal.message
        assert "Traceback" not in str(refusal)
        return
    if case.wrong:
        assert not len(found), where  # each row was rejected for itself
        return
    wanted_rows, wanted = right(case)
    assert rows.to_pydict() == wanted_rows.to_pydict(), where
    colours = VOCABULARY.columns(VOCABULARY.named("colour"))
    for one, other in ((found.values, wanted.values), (found.errors, wanted.errors)):
        np.testing.assert_allclose(
            one[:, colours], other[:, colours], rtol=2e-6, atol=3e-6, err_msg=where
        )  # differences of 32-bit magnitudes
        rest = [np.delete(numbers, colours, axis=1) for numbers in (one, other)]
        np.testing.assert_allclose(*rest, rtol=2e-6, err_msg=where)
    for name in ("g_mag", "parallax_zpc", "e_parallax"):
        pair = [getattr(found, name), getattr(wanted, name)]
        if name == "e_parallax":  # need not be read without a parallax
            pair = [np.where(np.isnan(wanted.parallax_zpc), np.nan, error) for error in pair]
        np.testing.assert_allclose(*pair, rtol=2e-6, err_msg=f"{where}\n{name}")


WHOLE = ("Parquet by astropy", "VOTable, BINARY2")


@pytest.mark.parametrize("kind", WHOLE)
def test_whole_runs_and_predictions(kind: str, tmp_path: Path) -> None:
    """From a disturbed file to the catalog, and from a table to predictions: each star's own."""
    bundle = tiny_bundle(tmp_path / "bundle")
    engine, model = Engine(bundle, JOB), load_model(bundle.path)
    for number in range(max(1, CASES // 20)):
        dice = dice_of(f"whole {kind}", number)
        case = make_case(dice, Medium())
        if case.wrong:
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        plain = _plain(case.truth)
        pq.write_table(plain, folder / "plain.parquet")
        pq.write_table(case.known.filter(pc.is_valid(case.known["source_id"])),
                       folder / "known.parquet")  # fmt: skip
        spectra = _file(kind, case.spectra, dice, folder / "spectra")
        auxiliary = _file(kind, case.auxiliary, dice, folder / "auxiliary")
        found = _catalog(engine, spectra, auxiliary, folder / "found")
        wanted = _catalog(engine, folder / "plain.parquet", folder / "known.parquet",
                          folder / "wanted")  # fmt: skip
        assert found["source_id"].equals(wanted["source_id"])
        assert found["quality_flags"].equals(wanted["quality_flags"])
        for name in ("teff", "e_teff", "mass", "parallax_zpc", "ra", "l"):
            pair = (found[name].to_numpy(), wanted[name].to_numpy())
            np.testing.assert_allclose(*pair, rtol=1e-4, err_msg=f"{kind} {number} {name}")
        given = MEMORY["pyarrow"](case.joined, dice)
        right = _joined(_plain(case.truth), case.given)
        one, other = (model.predict(table, ["teff", "mass"], job=JOB) for table in (given, right))
        for name in ("teff", "e_teff", "mass"):
            pair = (one[name].to_numpy(), other[name].to_numpy())
            np.testing.assert_allclose(*pair, rtol=1e-3, err_msg=f"{kind} {number} {name}")


def _catalog(engine: Engine, spectra: Path, auxiliary: Path, output: Path) -> pa.Table:
    (chunk,) = chunks.cut([spectra], 1000)
    known = open_auxiliary([auxiliary], output / "staged")
    receipt = process_chunk(engine, chunk, known, output)
    return pq.read_table(output / receipt.catalog_part).sort_by("source_id")


def _joined(spectra: pa.Table, auxiliary: pa.Table) -> pa.Table:
    for name in auxiliary.column_names:
        if name != "source_id":
            spectra = spectra.append_column(name, auxiliary[name])
    return spectra
