"""Hidden bands: nothing of them reaches the tokens, whatever kind of spectrum was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from support import real_stars

from catalogproc.features import canonical
from catalogproc.features.design_functions import design_at, merge_at
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.one_band import OTHER, hide_band, one_band_tokens
from catalogproc.features.star_batch import read
from catalogproc.features.tokens import Tokens, from_stars
from catalogproc.job import Job
from catalogproc.network.star_tokens import StarTokens
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS, load_vocabulary

ARCHIVE = load_vocabulary()
VOCABULARY = replace(ARCHIVE, basis="canonical")
N = 40
FINE = np.arange(336.0, 1020.5, 1.5)
"""Other wavelengths than the archive's, nm."""

Coefficients = dict[str, np.ndarray]


def coefficients(table: pa.Table) -> tuple[Coefficients, Coefficients]:
    found = ({b: real_stars.stacked(table, f"{b}_{name}") for b in BANDS}
             for name in ("coefficients", "coefficient_errors"))  # fmt: skip
    return next(found), next(found)


def lists(values: np.ndarray) -> pa.Array:
    return pa.array(list(values), pa.list_(pa.float64()))


def as_archive(c: Coefficients, e: Coefficients) -> pa.Table:
    columns = {f"{b}_coefficients": lists(c[b]) for b in BANDS}
    columns |= {f"{b}_coefficient_errors": lists(e[b]) for b in BANDS}
    return pa.table({"source_id": np.arange(len(c["bp"])) + 1} | columns)


def as_canonical(c: Coefficients, e: Coefficients) -> pa.Table:
    made = canonical.from_coefficients(c, e)
    table = as_archive(dict(made.values), dict(made.errors))
    return table.append_column("basis_id", pa.repeat(canonical.BASIS_ID, len(table)))


def as_sampled(c: Coefficients, e: Coefficients) -> pa.Table:
    bases = calibration(load_release())
    none = {f"{b}_coefficient{what}": pa.nulls(len(c["bp"]), pa.list_(pa.float64()))
            for b in BANDS for what in ("s", "_errors")}  # fmt: skip
    flux = {"flux": lists(bases.flux(c)), "flux_error": lists(bases.error(e, None))}
    return pa.table({"source_id": np.arange(len(c["bp"])) + 1} | none | flux)


def as_finer(c: Coefficients, e: Coefficients) -> pa.Table:
    table, weights = as_sampled(c, e), merge_at(FINE)
    flux = sum(c[b] @ (design_at(FINE, b) * weights[b][:, None]).T for b in BANDS)
    errors = np.array(table["flux_error"].to_pylist())
    near = np.clip(np.searchsorted(np.arange(336.0, 1021.0, 2.0), FINE), 0, errors.shape[1] - 1)
    for name, values in (("flux", flux), ("flux_error", errors[:, near])):
        table = table.set_column(table.column_names.index(name), name, lists(values))
    return table.append_column("wavelength", lists(np.tile(FINE, (len(flux), 1))))


def tokens_of(table: pa.Table) -> Tokens:
    g = pa.table({"source_id": table["source_id"], "phot_g_mean_mag": np.full(len(table), 15.0)})
    return from_stars(read(table, g, VOCABULARY), VOCABULARY, Job("bands", inputs=()))


def test_hiding_a_band_is_reading_one_band() -> None:
    """By another route: a star that has one band only."""
    table = as_archive(*coefficients(real_stars.faint().slice(0, N)))
    hidden = hide_band(tokens_of(table), table, "rp", VOCABULARY)
    one = tokens_of(real_stars.nulled(table, "rp", list(range(N))))
    bp = VOCABULARY.coefficient_columns("bp")[:30]
    np.testing.assert_array_equal(hidden.values[:, bp], one.values[:, bp])
    np.testing.assert_array_equal(hidden.errors[:, bp], one.errors[:, bp])
    assert hidden.bp.all()
    assert not hidden.rp.any()


def seen(table: pa.Table, hidden: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and errors of the band that is shown; and its values where both bands are read."""
    whole, at = tokens_of(table), VOCABULARY.coefficient_columns(OTHER[hidden])
    one = hide_band(whole, table, hidden, VOCABULARY)
    assert np.isnan(one.values[:, VOCABULARY.coefficient_columns(hidden)]).all()
    assert np.isfinite(one.values[:, at[0]]).all()
    return one.values[:, at], one.errors[:, at], whole.values[:, at]


@pytest.mark.parametrize("hidden", BANDS)
@pytest.mark.parametrize("kind", [as_archive, as_sampled, as_finer])
def test_changing_a_hidden_band_changes_no_token(
    kind: Callable[[Coefficients, Coefficients], pa.Table], hidden: str
) -> None:
    c, e = coefficients(real_stars.faint().slice(0, N))
    moved = c | {hidden: np.roll(1.3 * c[hidden], 7, axis=0)}  # of other stars, and brighter
    value, error, naive = seen(kind(c, e), hidden)
    again, error_again, naive_again = seen(kind(moved, e), hidden)
    np.testing.assert_array_equal(value, again)
    np.testing.assert_array_equal(error, error_again)
    # Leaving out the tokens alone would not do.
    assert np.nanmax(np.abs(naive - naive_again) / error) > 10.0


@pytest.mark.parametrize(("hidden", "limit"), [("bp", 0.005), ("rp", 0.1)])
def test_canonical_coefficients_of_both_bands_hide_one_nearly(hidden: str, limit: float) -> None:
    """They hold the flux to 1e-6, and the operator of one band magnifies that."""
    c, e = coefficients(real_stars.faint().slice(0, N))
    noise = 3.0 * e[hidden] * np.random.default_rng(1).normal(size=c[hidden].shape)
    value, error, _ = seen(as_canonical(c, e), hidden)
    again, *_ = seen(as_canonical(c | {hidden: c[hidden] + noise}, e), hidden)
    assert np.mean(np.isnan(value) == np.isnan(again)) > 0.99  # where the signal ends may move
    off = np.abs(value - again) / error
    assert np.nanmedian(off) < limit
    assert np.nanmax(off) < 1.0


@pytest.mark.parametrize("hidden", BANDS)
def test_one_band_follows_from_the_canonical_coefficients_of_both(hidden: str) -> None:
    c, e = coefficients(real_stars.faint().slice(0, N))
    table, made = as_archive(c, e), canonical.from_coefficients(c, e)
    whole = tokens_of(table)
    values, errors = whole.values.copy(), whole.errors.copy()
    for band in BANDS:  # none masked
        at = VOCABULARY.coefficient_columns(band)
        values[:, at] = made.values[band] / whole.g_flux[:, None]
        errors[:, at] = made.errors[band] / whole.g_flux[:, None]
    every = StarTokens(values, errors)
    found = one_band_tokens(every, whole.network_inputs, hidden, VOCABULARY)
    wanted = hide_band(whole, table, hidden, VOCABULARY)
    at = VOCABULARY.coefficient_columns(OTHER[hidden])
    both = np.isfinite(found.values[:, at]) & np.isfinite(wanted.values[:, at])
    assert both.sum() > 0.97 * np.isfinite(wanted.values[:, at]).sum()
    off = np.abs(found.values[:, at] - wanted.values[:, at]) / wanted.errors[:, at]
    assert np.quantile(off[both], 0.5) < 0.1
    assert off[both].max() < 1.0
    ratio = (found.errors[:, at] / wanted.errors[:, at])[both]
    assert 0.7 < ratio.min() < ratio.max() < 1.2


def test_archive_coefficients_of_one_band_stay() -> None:
    table = as_archive(*coefficients(real_stars.faint().slice(0, N)))
    whole = from_stars(read(table, None, ARCHIVE), ARCHIVE, Job("bands", inputs=()))
    hidden = hide_band(whole, table, "bp", ARCHIVE)
    bp, rp = (ARCHIVE.coefficient_columns(band) for band in BANDS)
    np.testing.assert_array_equal(hidden.values[:, rp], whole.values[:, rp])
    assert np.isnan(hidden.values[:, bp]).all()
