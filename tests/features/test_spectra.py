"""Spectra as matrices: relevance, normalisation and covariance, against GaiaXPy and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import real_stars

from catalogproc.errors import ReleaseError
from catalogproc.features import spectra
from catalogproc.release import load_release

G_0 = load_release().magnitude("G").zero_point


def test_a_column_of_lists_becomes_a_matrix_without_a_copy() -> None:
    column = real_stars.faint().column("bp_coefficients")
    made = spectra.matrix(column, 55)
    assert np.array_equal(made, real_stars.stacked(real_stars.faint(), "bp_coefficients"))
    memory = column.chunk(0).values.buffers()[1]
    assert made.__array_interface__["data"][0] == memory.address


@pytest.mark.parametrize("alike", [True, False])
def test_a_row_is_projected_alike_wherever_it_stands(
    alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with a BLAS that rounds rows by their place: then one product a row."""
    if not alike:
        monkeypatch.setattr(spectra, "_round_alike", lambda shape: False)
    random = np.random.default_rng(1)
    operator, rows = random.normal(size=(110, 110)), random.normal(size=(1003, 110))
    rows[500] = np.nan
    found = spectra.project(rows, operator)
    known = np.arange(len(rows)) != 500
    np.testing.assert_allclose(found[known], rows[known] @ operator.T, rtol=0, atol=1e-12)
    assert np.isnan(found[500]).all()
    order = random.permutation(len(rows))
    np.testing.assert_array_equal(spectra.project(rows[order], operator), found[order])
    for some in (slice(0, 1), slice(7, 30), slice(1000, 1003)):
        np.testing.assert_array_equal(spectra.project(rows[some], operator), found[some])
    assert spectra.project(rows[:0], operator).shape == (0, 110)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
def test_null_lists_become_rows_of_nan(kind: pa.DataType) -> None:
    column = pa.array([None, [1.0, 2.0, 3.0], None, [4.0, None, 6.0]], kind)
    nan = np.nan
    wanted = [[nan] * 3, [1, 2, 3], [nan] * 3, [4, nan, 6]]
    assert np.array_equal(spectra.matrix(column, 3), wanted, equal_nan=True)
    assert np.array_equal(spectra.matrix(column.slice(1), 3), wanted[1:], equal_nan=True)
    chunked = pa.chunked_array([column, column.slice(1, 1)])
    assert np.array_equal(spectra.matrix(chunked, 3), [*wanted, wanted[1]], equal_nan=True)


def test_a_column_of_nulls_alone_and_an_empty_one() -> None:
    assert np.isnan(spectra.matrix(pa.nulls(2, pa.list_(pa.float64())), 4)).all()
    assert spectra.matrix(pa.array([], pa.list_(pa.float64())), 4).shape == (0, 4)


@pytest.mark.parametrize("lists", [[[1.0, 2.0]], [[1.0], [2.0, 3.0, 4.0]], [[1.0, 2.0], [3.0]]])
def test_lists_of_another_length_are_refused(lists: list[list[float]]) -> None:
    # The second has the right number of values in all.
    count = 2 if len(lists) > 1 else 3
    with pytest.raises(ReleaseError, match=f"another number of coefficients(.|\n)*wanted: {count}"):
        spectra.matrix(pa.array(lists, pa.list_(pa.float64())), count)


def relevance_of_leung_and_bovy(n_relevant: int) -> np.ndarray:
    """Their training loop, for the 55 coefficients of DR3: rel[52:55] = rel[51]."""
    relevant = np.zeros(55, dtype=bool)
    relevant[0:n_relevant] = True
    relevant[52:55] = relevant[51]
    return relevant


def test_relevance_is_that_of_the_training_of_leung_and_bovy() -> None:
    numbers = np.arange(56)
    wanted = np.stack([relevance_of_leung_and_bovy(n) for n in numbers])
    assert np.array_equal(spectra.relevance(numbers, 55), wanted)


@given(st.integers(1, 80), st.integers(0, 80))
def test_relevance_in_any_release(count: int, n_relevant: int) -> None:
    row = spectra.relevance([n_relevant], count)[0]
    assert row.shape == (count,)
    plain = np.arange(count) < n_relevant
    if count > 3:
        assert np.array_equal(row[:-3], plain[:-3])
        assert (row[-3:] == row[-4]).all()
    else:
        assert np.array_equal(row, plain)


def test_the_relevant_number_of_null_and_of_a_missing_band() -> None:
    present = np.array([True, True, False, True])
    given = pa.array([7, None, None, 0], pa.int16())
    assert spectra.relevant_number(given, present, 55).tolist() == [7, 55, 0, 0]
    assert spectra.relevant_number(None, present, 51).tolist() == [51, 51, 0, 51]
    assert spectra.relevant_number(given, present, 55).dtype == np.int16


def test_flux_and_magnitude_are_each_others_inverse_and_the_flux_wins() -> None:
    magnitude = np.array([6.0, 12.0, 17.5, np.nan, 12.0, 12.0])
    flux = spectra.g_flux(magnitude, G_0)
    assert spectra.g_magnitude(flux, G_0) == pytest.approx(magnitude, abs=1e-12, nan_ok=True)
    given = np.array([np.nan, 5.0, 0.0, 3.0, -1.0, np.nan])
    assert spectra.g_flux(magnitude, G_0, given) == pytest.approx(
        [flux[0], 5.0, flux[2], 3.0, flux[4], flux[5]]
    )
    assert np.isnan(spectra.g_magnitude([0.0, -1.0, np.nan], G_0)).all()


def test_normalised_spectra_do_not_depend_on_distance() -> None:
    """Ten times farther is 100 times fainter, in coefficients, errors and G flux alike."""
    near = real_stars.stacked(real_stars.bright(), "bp_coefficients")
    errors = real_stars.stacked(real_stars.bright(), "bp_coefficient_errors")
    g = real_stars.bright_auxiliary().column("phot_g_mean_mag").to_numpy().astype(float)
    first = spectra.normalise(near, errors, spectra.g_flux(g, G_0))
    second = spectra.normalise(near / 100, errors / 100, spectra.g_flux(g + 5, G_0))
    for one, other in zip(first, second, strict=True):
        assert other == pytest.approx(one, rel=1e-12)
    # These stars' spectra are as bright as their photometry says: bp0 of G-normalised giants
    # has median 0.057 and scatter 0.011 (Leung & Bovy's training set, 397,000 stars).
    assert np.median(first[0][:, 0]) == pytest.approx(0.057, abs=0.022)


@pytest.mark.parametrize("band", ["bp", "rp"])
def test_covariances_are_those_of_gaiaxpys_parser(band: str) -> None:
    real_stars.gaiaxpy()
    from gaiaxpy.file_parser.parse_internal_continuous import InternalContinuousParser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame, _ = InternalContinuousParser().parse_file(str(real_stars.ARCHIVE), disable_info=True)
    theirs = np.stack(list(frame[f"{band}_covariance_matrix"]))
    scatter = frame[f"{band}_standard_deviation"].to_numpy()
    correlation = np.stack(list(frame[f"{band}_coefficient_correlations"]))
    row, column = np.tril_indices(correlation.shape[1], -1)
    ours = spectra.covariance(
        np.stack(list(frame[f"{band}_coefficient_errors"])), correlation[:, row, column]
    )
    # Theirs is the formal covariance: without the standard deviation of the fit.
    assert ours == pytest.approx(theirs * scatter[:, None, None] ** 2, rel=1e-12)


def test_the_packing_of_correlations_is_that_of_the_archive() -> None:
    """The archive's text itself, read without GaiaXPy, against GaiaXPy's symmetric matrix."""
    real_stars.gaiaxpy()
    from gaiaxpy.core.generic_functions import array_to_symmetric_matrix

    packed = real_stars.stacked(real_stars.bright(), "rp_coefficient_correlations")
    made = spectra.correlation_matrix(packed)
    for values, ours in zip(packed, made, strict=True):
        assert np.array_equal(ours, array_to_symmetric_matrix(values, 55))


@pytest.mark.parametrize("band", ["bp", "rp"])
def test_covariances_of_real_stars_are_covariances(band: str) -> None:
    errors = real_stars.stacked(real_stars.bright(), f"{band}_coefficient_errors")
    packed = real_stars.stacked(real_stars.bright(), f"{band}_coefficient_correlations")
    made = spectra.covariance(errors, packed)
    assert np.sqrt(np.diagonal(made, axis1=1, axis2=2)) == pytest.approx(errors, rel=1e-12)
    assert np.array_equal(made, made.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(spectra.correlation_matrix(packed)).min() > 0


def test_a_number_of_correlations_that_is_no_triangle_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"no strict triangle(.|\n)*found: 1484"):
        spectra.correlation_matrix(np.zeros((1, 1484)))
