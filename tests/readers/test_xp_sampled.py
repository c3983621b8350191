"""XP sampled spectra in every layout give the coefficients that the archive's do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table
from support import real_stars
from support.bundles import tiny_bundle

from catalogproc.errors import CatalogprocError, ReleaseError
from catalogproc.features import canonical, canonical_signal
from catalogproc.features.canonical_tables import designs, measured
from catalogproc.features.star_batch import read
from catalogproc.features.table_inputs import TableInputs, default_job
from catalogproc.features.tokens import from_stars
from catalogproc.inference.engine import Engine
from catalogproc.inference.screening import Duplicates, screen
from catalogproc.job import Job
from catalogproc.readers.chunks import cut, expand
from catalogproc.readers.convert import convert
from catalogproc.readers.release_check import check_release
from catalogproc.readers.xp import read_spectra
from catalogproc.readers.xp_sampled import GRID
from catalogproc.vocabulary import BANDS, load_vocabulary

ARCHIVE = load_vocabulary()
VOCABULARY = replace(ARCHIVE, basis="canonical")
JOB = Job("sampled", inputs=("bprp",))
STARS = 12


def coefficients() -> tuple[dict[str, np.ndarray], ...]:
    table = real_stars.bright().slice(0, STARS)
    names = ("coefficients", "coefficient_errors", "coefficient_correlations")
    return tuple({b: real_stars.stacked(table, f"{b}_{name}") for b in BANDS} for name in names)


def sampled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identifiers, flux and flux errors (with correlations) of the stars on the usual grid."""
    values, errors, packed = coefficients()
    design = designs()["both"][0]
    factor = real_factor(errors, packed)
    flux = np.concatenate([values[band] for band in BANDS], axis=1) @ design.T
    error = np.sqrt(np.square(design @ factor).sum(axis=2))
    return real_stars.bright()["source_id"].to_numpy()[:STARS], flux, error


def real_factor(errors: dict[str, np.ndarray], packed: dict[str, np.ndarray]) -> np.ndarray:
    from scipy.linalg import block_diag

    from catalogproc.features.spectra import covariance

    both = [covariance(errors[band], packed[band]) for band in BANDS]
    return np.stack([np.linalg.cholesky(block_diag(a, b)) for a, b in zip(*both, strict=True)])


def rows_of(path: Path) -> pa.Table:
    return pa.Table.from_batches(list(read_spectra(path))).combine_chunks()


def check(path: Path, limit: float = 1e-4, stars: int = STARS) -> None:
    """The file gives canonical coefficients of the archive's, within a part of their error."""
    ids, _, _ = sampled()
    table = rows_of(path)
    assert table["source_id"].to_pylist() == ids[:stars].tolist()
    assert table["fault"].null_count == stars, table["fault"].to_pylist()
    made = read(table, None, VOCABULARY)
    wanted = canonical.from_coefficients(*coefficients())
    for band in BANDS:
        used = canonical_signal.measured_by_band()[band]
        shift = (made.coefficients[band] - wanted.values[band][:stars]) / wanted.errors[band][
            :stars
        ]
        assert np.abs(shift[:, used]).max() < limit
        ratio = (made.errors[band] / wanted.errors[band][:stars])[:, used]
        assert ((ratio > 0.7) & (ratio < 1.4)).mean() > 0.99


def text(values: np.ndarray) -> str:
    return "(" + ", ".join(map(repr, values.tolist())) + ")"


def test_one_row_a_star_as_lists_text_and_float32(tmp_path: Path) -> None:
    ids, flux, error = sampled()
    lists = {"source_id": ids, "flux": list(flux), "flux_error": list(error)}
    pq.write_table(pa.table(lists), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet")
    narrow = lists | {"flux": list(flux.astype(np.float32)), "solution_id": ids}
    pq.write_table(pa.table(narrow), tmp_path / "b.parquet")
    check(tmp_path / "b.parquet", limit=0.02)
    written = {"source_id": ids} | {
        name: [text(row) for row in values]
        for name, values in (("flux", flux), ("flux_error", error))
    }
    pd.DataFrame(written).to_csv(tmp_path / "XP_SAMPLED_RAW.csv", index=False)
    check(tmp_path / "XP_SAMPLED_RAW.csv")
    table = Table({"source_id": ids, "flux": flux * 1e7, "flux_error": error * 1e7})
    for name in ("flux", "flux_error"):
        table[name].unit = units.erg / units.s / units.cm**2 / units.nm * 1e-4
    table["flux"].unit = table["flux_error"].unit = "erg s-1 cm-2 nm-1"
    table["flux"] *= 1e-4
    table["flux_error"] *= 1e-4
    table.write(tmp_path / "c.fits")
    check(tmp_path / "c.fits")


def test_one_row_a_wavelength_with_the_star_in_the_name_or_in_a_column(tmp_path: Path) -> None:
    ids, flux, error = sampled()
    for star in range(2):
        one = Table({"wavelength": GRID, "flux": flux[star], "flux_error": error[star]})
        for suffix, form in ((".csv", "ascii.csv"), (".xml", "votable"), (".fits", "fits")):
            path = tmp_path / str(star) / f"XP_SAMPLED-Gaia DR3 {ids[star]}{suffix}"
            path.parent.mkdir(exist_ok=True)
            one.write(path, format=form)
            table = rows_of(path)
            assert table["source_id"].to_pylist() == [ids[star]]
            np.testing.assert_allclose(table["flux"][0].as_py(), flux[star], rtol=1e-12)
            assert [piece.rows for chunk in cut([path], 100) for piece in chunk.pieces] == [1]
    nameless = tmp_path / "spectrum.csv"
    one.write(nameless, format="ascii.csv")
    with pytest.raises(CatalogprocError, match="identifier of its star"):
        rows_of(nameless)
    long = pa.table({
        "source_id": np.repeat(ids, 343),
        "wavelength": np.tile(GRID, STARS),
        "flux": flux.ravel(),
        "flux_error": error.ravel(),
    })  # fmt: skip
    pq.write_table(long, tmp_path / "long.parquet", row_group_size=1000)
    check(tmp_path / "long.parquet")
    (batch,) = read_spectra(tmp_path / "long.parquet", skip=3, rows=2)
    assert batch.column("source_id").to_pylist() == ids[3:5].tolist()
    assert batch.column("row").to_pylist() == [3, 4]


def test_gaiaxpys_output_with_its_own_sampling(tmp_path: Path) -> None:
    import warnings

    import matplotlib

    table = real_stars.bright().slice(0, STARS)
    frame = real_stars.gaiaxpy_frame(table)
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        package = real_stars.gaiaxpy()
        package.calibrate(frame, output_path=str(tmp_path), output_file="usual")
        odd = np.arange(335.0, 1021.5, 1.6)
        package.calibrate(frame, sampling=odd, output_path=str(tmp_path), output_file="odd")
        made, _ = package.calibrate(frame, save_file=False)
    assert sorted(path.name for path in expand([tmp_path])) == ["odd.csv", "usual.csv"]
    check(tmp_path / "usual.csv")
    check(tmp_path / "odd.csv", limit=0.02)
    # In memory too.
    inputs = TableInputs.of(made, VOCABULARY, default_job(VOCABULARY))
    tokens = inputs.tokens()
    direct = from_stars(read(rows_of(tmp_path / "usual.csv"), None, VOCABULARY), VOCABULARY, JOB)
    at = np.concatenate([VOCABULARY.coefficient_columns(band)[:30] for band in BANDS])
    np.testing.assert_allclose(tokens.values[:, at], direct.values[:, at], rtol=1e-6)


def test_other_wavelengths_are_read_or_refused_with_the_reason(tmp_path: Path) -> None:
    ids, flux, error = sampled()
    grids = {
        "3 nm": (np.arange(336.0, 1021.0, 3.0), "steps of 2 nm or finer, found 3 nm"),
        "short": (GRID[5:], "336 to 1020 nm, found 346"),
        "twice": (np.r_[GRID, 500.0], "missing, or there twice"),
    }
    for name, (grid, reason) in grids.items():
        row = np.interp(grid, GRID, flux[0])
        table = pa.table({
            "source_id": ids[:1], "wavelength": [grid], "flux": [row], "flux_error": [abs(row)],
        })  # fmt: skip
        pq.write_table(table, tmp_path / f"{name}.parquet")
        assert reason in rows_of(tmp_path / f"{name}.parquet")["fault"][0].as_py()
    table = pa.table(
        {"source_id": ids[:1], "flux": [flux[0, :100]], "flux_error": [error[0, :100]]}
    )
    pq.write_table(table, tmp_path / "unknown.parquet")
    assert "a column wavelength" in rows_of(tmp_path / "unknown.parquet")["fault"][0].as_py()
    turned = pa.table({
        "source_id": ids, "wavelength": [GRID[::-1]] * STARS,
        "flux": list(flux[:, ::-1]), "flux_error": list(error[:, ::-1]),
    })  # fmt: skip
    pq.write_table(turned, tmp_path / "turned.parquet")
    check(tmp_path / "turned.parquet")


def test_every_row_is_accepted_or_rejected_with_a_reason(tmp_path: Path) -> None:
    ids, flux, error = sampled()
    flux, error = flux.copy(), error.copy()
    flux[1, 160:] = np.nan  # BP alone
    error[1, 160:] = np.nan
    flux[2, [3, 300]] = np.nan  # neither band
    error[3, 7] = 0.0
    lists = [None if row == 4 else flux[row] for row in range(STARS)]
    table = pa.table({"source_id": ids, "flux": lists, "flux_error": list(error)})
    pq.write_table(table, tmp_path / "a.parquet")
    (batch,) = read_spectra(tmp_path / "a.parquet")
    good, rejected = screen(batch, VOCABULARY, Duplicates(), "a")
    assert len(good) + len(rejected) == STARS
    found = dict(zip(rejected["row"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    assert found == {2: "bad_value", 3: "bad_error", 4: "no_coefficients"}
    tokens = from_stars(read(good, None, VOCABULARY), VOCABULARY, replace(JOB, inputs=()))
    assert tokens.bp.tolist() == [True, False] + [True] * (len(good) - 2)  # no G flux: no token
    assert not tokens.rp[1]


def test_a_model_of_the_archives_basis_refuses_them_by_name(tmp_path: Path) -> None:
    ids, flux, error = sampled()
    table = pa.table({"source_id": ids, "flux": list(flux), "flux_error": list(error)})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ReleaseError, match=r"XP_SAMPLED(.|\n)*XP_CONTINUOUS"):
        check_release(tmp_path / "a.parquet", ARCHIVE)
    check_release(tmp_path / "a.parquet", VOCABULARY)
    with pytest.raises(ReleaseError, match="XP_SAMPLED"):
        read(rows_of(tmp_path / "a.parquet"), None, ARCHIVE)


def test_both_roads_give_the_same_answers(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model", VOCABULARY)
    ids, flux, error = sampled()
    table = pa.table({"source_id": ids, "flux": list(flux), "flux_error": list(error)})
    pq.write_table(table, tmp_path / "a.parquet")
    (part,) = convert([tmp_path / "a.parquet"], tmp_path / "converted")
    job = replace(JOB, mask_irrelevant=False)
    engine = Engine(bundle, job)
    one = engine.process(real_stars.bright().slice(0, STARS))
    for path in (tmp_path / "a.parquet", part):
        two = engine.process(rows_of(path))
        for name in ("teff", "logg", "m_h"):
            apart = (two[name].to_numpy() - one[name].to_numpy()) / one[f"e_{name}"].to_numpy()
            assert np.abs(apart).max() < 0.01  # the same mask, though not the same errors
    assert measured().sum() == 105
