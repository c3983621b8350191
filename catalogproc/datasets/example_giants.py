"""The example of real giants that ships: stars of the test part of ``dataset apogee-xp``.

Three tables of the same stars, in the order of their identifiers: spectra (canonical coefficients
in the archive's layout), an auxiliary table (photometry, parallaxes where Gaia's own are known),
and the labels of APOGEE and asteroseismology, which a run does not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from catalogproc.contract import load_contract
from catalogproc.datasets.dataset import TEST, dataset_facts
from catalogproc.datasets.matched_tables import PARALLAXES, ROUNDING
from catalogproc.errors import InputError
from catalogproc.features import spectra
from catalogproc.io.atomic import AtomicFile
from catalogproc.io.parquet_writer import parquet_writer
from catalogproc.readers.arrow_lists import matrix_lists
from catalogproc.release import load_release
from catalogproc.resources import shipped
from catalogproc.vocabulary import BANDS

STARS = 2_000
SPECTRA, AUXILIARY, LABELS = "xp_canonical.parquet", "gaia_source.parquet", "apogee.parquet"
"""The files of the example."""

NOTE = (
    "Masses and ages: by asteroseismology for a few stars, by trees for most (origin teacher: "
    "fitted to seismic giants, they read APOGEE's labels), and for the most luminous giants ages "
    "of Hasselquist et al. (2020)."
)
"""What a reader of the comparison must know."""

_MAGNITUDES = (
    "phot_g_mean_mag", "phot_bp_mean_mag", "phot_rp_mean_mag", "j_m", "h_m", "ks_m",
)  # fmt: skip
_LABELS = (
    "apogee_id", "teff", "e_teff", "logg", "e_logg", "m_h", "e_m_h", "alpha_m", "e_alpha_m",
    "mass", "e_mass", "mass_source", "log_age", "e_log_age", "age_source", "logebv", "e_logebv",
)  # fmt: skip


def write_example(dataset: Path, folder: Path, stars: int = STARS) -> tuple[Path, ...]:
    """Write the three tables; the same dataset gives the same bytes.

    The stars are giants of the test part with APOGEE labels, those of the smallest hashes of their
    identifiers: a random sample that no number of a model has chosen.

    Parameters
    ----------
    dataset
        A dataset of ``catalogproc dataset apogee-xp``.
    folder
        Where the tables are written.
    stars
        How many there are.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    InputError
        The dataset has fewer giants, or its coefficients are not canonical.
    """
    facts = dataset_facts(dataset)
    table = pq.read_table(dataset / f"{TEST}.parquet", use_threads=False)
    table = table.filter(pa.array(_usable(table)))
    if table.num_rows < stars:
        raise InputError(
            "the dataset has too few giants for the example", wanted=f"{stars:,}",
            found=f"{table.num_rows:,}", where=dataset, advice="catalogproc dataset apogee-xp",
        )  # fmt: skip
    table = table.take(_chosen(table["source_id"].to_pylist(), stars))
    credit = {"credit": str(facts.get("credit", ""))}
    made = {
        SPECTRA: (_spectra(table), credit),
        AUXILIARY: (_auxiliary(table), credit),
        LABELS: (_labels(table), {"title": "APOGEE DR17", "note": NOTE, **credit}),
    }
    return tuple(_write(folder / name, *content) for name, content in made.items())


def _usable(table: pa.Table) -> NDArray[np.bool_]:
    """Return the rows of giants with a canonical spectrum; one a star."""
    canonical = np.array(table["basis"].is_valid().to_numpy(), dtype=bool)
    known = np.isfinite(table["teff"].to_numpy()) & np.isfinite(table["logg"].to_numpy())
    giant = np.array(table["giant"].fill_null(False).to_numpy(), dtype=bool)
    return np.asarray(giant & (table["repeat"].to_numpy() == 0) & canonical & known)


def _chosen(source_id: Sequence[int], stars: int) -> NDArray[np.int64]:
    """Return the rows of the smallest hashes, in the order of the identifiers.

    The first 32 bits of the hash say which fold a star is in; these are the next.
    """
    number = [int(sha256(str(one).encode()).hexdigest()[8:24], 16) for one in source_id]
    rows = np.argsort(np.array(number, dtype=np.uint64), kind="stable")[:stars]
    return np.asarray(rows[np.argsort(np.array(source_id)[rows])])


def _spectra(table: pa.Table) -> pa.Table:
    """Return the spectra in the archive's layout; a dataset has them over the G flux."""
    contract = load_contract("xp_continuous")
    zero_point = load_release().magnitude("G").zero_point
    flux = spectra.g_flux(table["phot_g_mean_mag"].to_numpy().astype(np.float64), zero_point)
    columns = {"source_id": table["source_id"], "basis_id": table["basis"]}
    for band in BANDS:
        size = len(table[f"{band}_coefficients"][0])
        columns[f"{band}_n_relevant_bases"] = table[f"{band}_n_relevant_bases"]
        for name in (f"{band}_coefficients", f"{band}_coefficient_errors"):
            scaled = spectra.matrix(table[name], size).astype(np.float64) * flux[:, None]
            columns[name] = matrix_lists(scaled.astype(np.float32), pa.float32())
    # Single precision, as in the dataset: half of the size.
    fields = [contract[name].arrow_field().with_type(array.type) for name, array in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _auxiliary(table: pa.Table) -> pa.Table:
    """Return photometry and the parallaxes that Gaia published; null where there is none.

    The library has no errors of magnitudes. Corrected parallaxes (APO-K2) are not Gaia's.
    """
    contract = load_contract("gaia_source")
    known = pq.read_table(shipped("grids") / PARALLAXES)
    known = known.filter(pa.array(~known["corrected"].to_numpy()))
    place = {star: row for row, star in enumerate(known["source_id"].to_pylist())}
    rows = np.array([place.get(star, -1) for star in table["source_id"].to_pylist()])
    parallax = known["parallax"].to_numpy().astype(np.float64)[rows]
    rounded = np.hypot(known["e_parallax"].to_numpy().astype(np.float64), ROUNDING / np.sqrt(12.0))
    columns: dict[str, Any] = {"source_id": table["source_id"].to_numpy()}
    columns |= {name: table[name].to_numpy() for name in _MAGNITUDES}
    columns["parallax"] = np.where(rows >= 0, parallax, np.nan)
    columns["parallax_error"] = np.where(rows >= 0, rounded[rows], np.nan)
    fields = [contract[name].arrow_field() for name in columns]
    arrays = [
        pa.array(value, from_pandas=True).cast(field.type)
        for value, field in zip(columns.values(), fields, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields))


def _labels(table: pa.Table) -> pa.Table:
    contract, names = load_contract("training"), ("source_id", *_LABELS)
    return table.select(names).cast(pa.schema([contract[name].arrow_field() for name in names]))


def _write(path: Path, table: pa.Table, words: dict[str, str]) -> Path:
    with AtomicFile(path) as file:
        schema = table.schema.with_metadata(words)
        with parquet_writer(file, schema, split_floats=True) as writer:
            writer.write_table(table.replace_schema_metadata(words))
    return path
