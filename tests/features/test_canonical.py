"""Canonical coefficients are one vector for every road, with errors, and nothing of the batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from support import real_stars
from support.paths import CORRELATED, EXAMPLES

from catalogproc.errors import ReleaseError
from catalogproc.features import canonical, canonical_correlations, canonical_signal, spectra
from catalogproc.features.canonical_build import RealErrors, fit, inverses, real_errors
from catalogproc.features.canonical_tables import (
    columns,
    designs,
    measured,
    operators,
    read_arrays,
)
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.sampled_errors import canonical_errors
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS

DR3 = load_release("dr3")

USED = np.flatnonzero(measured())


def by_band(table, name: str) -> dict[str, np.ndarray]:  # type: ignore[no-untyped-def]
    return {band: real_stars.stacked(table, f"{band}_{name}") for band in BANDS}


def joined(values) -> np.ndarray:  # type: ignore[no-untyped-def]
    return np.concatenate([values[band] for band in BANDS], axis=1)


@pytest.fixture(scope="module")
def bright() -> tuple[dict[str, np.ndarray], ...]:
    table = real_stars.bright()
    names = ("coefficients", "coefficient_errors", "coefficient_correlations")
    return tuple(by_band(table, name) for name in names)


@pytest.fixture(scope="module")
def faint() -> tuple[dict[str, np.ndarray], ...]:
    table = real_stars.faint()
    return tuple(by_band(table, name) for name in ("coefficients", "coefficient_errors"))


@pytest.fixture(scope="module")
def real() -> RealErrors:
    return real_errors(
        [next(CORRELATED.glob("xp_continuous*.parquet")), real_stars.ARCHIVE],
        sorted(EXAMPLES.glob("xp_continuous_*.parquet"))[:1],
        read_arrays(),
    )


def true_covariance(errors: np.ndarray, packed: dict[str, np.ndarray], star: int) -> np.ndarray:
    """The covariance of one star's coefficients by a plain loop."""
    full = np.zeros((110, 110))
    for band in BANDS:
        part = columns(band)
        lower = np.zeros((55, 55))
        lower[np.tril_indices(55, -1)] = packed[band][star]
        full[part, part] = lower + lower.T + np.eye(55)
    return full * np.outer(errors[star], errors[star])


def test_the_inverse_is_a_fixed_point() -> None:
    for name, (design, _) in designs().items():
        inverse = operators()[name].inverse
        again = inverse @ design @ inverse
        assert np.abs(again - inverse).max() < 4e-12 * np.abs(inverse).max()


def test_shipped_inverses_follow_from_gaiaxpys_matrices_and_the_prior() -> None:
    for name, wanted in inverses(read_arrays()["prior_factor"]).items():
        # The smallest singular values turn the last digits of a library into 1e-9.
        found = operators()[name].inverse
        np.testing.assert_allclose(found, wanted, atol=1e-8 * np.abs(wanted).max(), rtol=0)


def test_pure_prior_is_absent() -> None:
    assert np.flatnonzero(~measured()).tolist() == [51, 53, 54, 55 + 53, 55 + 54]


def test_both_roads_and_gaiaxpys_calibrate_agree(bright) -> None:  # type: ignore[no-untyped-def]
    made = canonical.from_coefficients(*bright)
    frame = real_stars.gaiaxpy_frame(real_stars.bright())
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        sampled, grid = real_stars.gaiaxpy().calibrate(frame, save_file=False)
    np.testing.assert_array_equal(grid, calibration(DR3).wavelengths)
    flux = np.array(sampled["flux"].to_list())
    errors = np.array(sampled["flux_error"].to_list())
    for kind, limit in ((np.float64, 1e-6), (np.float32, 0.02)):
        again = canonical.from_flux(flux.astype(kind), errors)
        shift = np.abs(joined(again.values) - joined(made.values)) / joined(made.errors)
        assert shift[:, USED].max() < limit
    # The errors of this road come from the template.
    ratio = (joined(again.errors) / joined(made.errors))[:, USED]
    assert ((ratio > 0.7) & (ratio < 1.4)).mean() > 0.99
    # The flux is kept.
    both = operators()["both"]
    back = joined(made.values) @ designs()["both"][0].T
    assert np.percentile(np.abs(back / flux - 1.0), [50, 99]) == pytest.approx([0, 0], abs=2e-5)
    assert both.pixels.all()


def test_errors_are_those_of_the_whole_covariance(bright) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors, packed = bright
    made = canonical.from_coefficients(coefficients, errors, packed)
    projection = operators()["both"].projection
    factor = canonical_correlations.covariance_factor(
        "both", joined(errors)[:3], {b: packed[b][:3] for b in BANDS}
    )
    for star in range(3):
        wanted = projection @ true_covariance(joined(errors), packed, star) @ projection.T
        scale = np.sqrt(np.diag(wanted))
        np.testing.assert_allclose(joined(made.errors)[star], scale, rtol=1e-9)
        found = factor[star] @ factor[star].T
        np.testing.assert_allclose(
            found / np.outer(scale, scale), wanted / np.outer(scale, scale), atol=1e-9
        )
        # It is singular and crosses bands: no one may invert it.
        assert np.linalg.cond(wanted) > 1e12
        assert np.abs(wanted[:55, 55:] / np.outer(scale[:55], scale[55:])).max() > 0.1


def test_mean_correlations_stand_in_for_missing_ones(bright) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors, packed = bright
    true = joined(canonical.from_coefficients(coefficients, errors, packed).errors)[:, USED]
    mean = joined(canonical.from_coefficients(coefficients, errors).errors)[:, USED]
    assert (np.abs(mean / true - 1.0) < 0.1).mean() > 0.99
    # Errors grow by nothing: the archive's own are of the same size.
    archive = joined(errors)[:, USED]
    assert np.median(true / archive) == pytest.approx(1.0, abs=0.03)


def test_a_mask_before_the_projection_would_move_what_is_left(faint) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors = faint
    made = canonical.from_coefficients(coefficients, errors)
    relevant = {
        band: spectra.relevance(real_stars.faint()[f"{band}_n_relevant_bases"].to_numpy(), 55)
        for band in BANDS
    }
    masked = {band: np.where(relevant[band], coefficients[band], 0.0) for band in BANDS}
    moved = canonical.from_coefficients(masked, errors)
    for band in BANDS:
        shift = (moved.values[band] - made.values[band]) / made.errors[band]
        kept = np.abs(shift[relevant[band]])
        assert np.sqrt(np.mean(kept**2)) > 0.05  # so all coefficients are projected


def test_canonical_coefficients_are_near_those_of_the_archive(faint) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors = faint
    made = canonical.from_coefficients(coefficients, errors)
    for band, limit in (("bp", 0.45), ("rp", 0.45)):
        shift = (made.values[band] - coefficients[band]) / errors[band]
        assert np.sqrt(np.nanmean(shift[:, :30] ** 2)) < limit


def test_one_band_has_its_own_operator_and_sees_nothing_of_the_other(faint) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors = faint
    whole = canonical.from_coefficients(coefficients, errors)
    for band, hidden in (("bp", "rp"), ("rp", "bp")):
        shown = coefficients | {hidden: np.full_like(coefficients[hidden], np.nan)}
        one = canonical.from_coefficients(shown, errors)
        other = canonical.from_coefficients(shown, errors | {hidden: 7.0 * errors[hidden]})
        np.testing.assert_array_equal(one.values[band], other.values[band])
        np.testing.assert_array_equal(one.errors[band], other.errors[band])
        assert np.isnan(one.values[hidden]).all()
        assert not one.relevant()[hidden].any()
        shift = np.abs(one.values[band] - whole.values[band]) / whole.errors[band]
        assert np.median(shift) < 0.3
        zeroed = canonical.from_coefficients(
            coefficients | {hidden: np.zeros_like(coefficients[hidden])}, errors
        )
        leak = np.abs(zeroed.values[band] - whole.values[band]) / whole.errors[band]
        assert np.percentile(leak[:, :30].max(axis=1), 50) > 5.0
        # Sampled flux of this band alone gives the same numbers.
        flux = calibration(DR3).flux(coefficients)
        flux[:, ~operators()[band].pixels] = np.nan
        sampled = canonical.from_flux(flux, np.full(flux.shape, 1e-18))
        apart = np.abs(sampled.values[band] - one.values[band]) / one.errors[band]
        assert apart.max() < 1e-6
        assert np.isfinite(sampled.errors[band]).all()


def test_a_row_does_not_depend_on_the_others(bright, faint) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors = ({b: v[:40].copy() for b, v in part.items()} for part in faint)
    coefficients["bp"][3] = np.nan
    coefficients["rp"][[3, 5]] = np.nan
    whole = canonical.from_coefficients(coefficients, errors)
    flux = calibration(DR3).flux({b: v[:40] for b, v in faint[0].items()})
    sampled = canonical.from_flux(flux, 0.01 * flux)
    correlated = canonical.from_coefficients(*bright)
    for row in (0, 3, 5, 17):
        take = slice(row, row + 1)
        one = canonical.from_coefficients(
            {b: v[take] for b, v in coefficients.items()}, {b: v[take] for b, v in errors.items()}
        )
        alone = canonical.from_flux(flux[take], 0.01 * flux[take])
        packed = canonical.from_coefficients(
            *({b: v[take] for b, v in part.items()} for part in bright)
        )
        for found, wanted in ((one, whole), (alone, sampled), (packed, correlated)):
            for band in BANDS:
                np.testing.assert_array_equal(found.values[band][0], wanted.values[band][row])
                np.testing.assert_array_equal(found.errors[band][0], wanted.errors[band][row])


def test_relevance_is_one_rule_on_every_road(bright, faint) -> None:  # type: ignore[no-untyped-def]
    table = real_stars.faint()
    made = canonical.from_coefficients(*faint)
    for band in BANDS:
        published = table[f"{band}_n_relevant_bases"].to_numpy()
        number = canonical_signal.relevant_number(band, made.values[band], made.errors[band])
        few = (published >= 4) & (published <= 6)
        assert 2 <= np.median(number[few]) <= 7  # not the 34 of the last |k/e| > 2
        # Pure noise is no signal, at any level of the errors.
        rng = np.random.default_rng(1)
        noise = made.errors[band] * rng.normal(size=made.errors[band].shape)
        assert (
            np.percentile(canonical_signal.relevant_number(band, noise, made.errors[band]), 98) <= 5
        )
    whole = canonical.from_coefficients(*bright)
    flux, error = calibration(DR3).flux(bright[0]), real_flux_errors(bright)
    sampled = canonical.from_flux(flux, error)
    for band in BANDS:
        one, two = (
            canonical_signal.relevant_number(band, s.values[band], s.errors[band]).astype(int)
            for s in (whole, sampled)
        )
        assert np.percentile(np.abs(one - two), 90) <= 2
    unknown = np.full((1, 55), np.nan)
    assert canonical_signal.relevant_number("bp", np.ones((1, 55)), unknown)[0] == 53
    assert canonical_signal.relevant_number("bp", unknown, unknown)[0] == 0


def real_flux_errors(bright) -> np.ndarray:  # type: ignore[no-untyped-def]
    _, errors, packed = bright
    design = designs()["both"][0]
    rows = [true_covariance(joined(errors), packed, star) for star in range(len(errors["bp"]))]
    return np.array([np.sqrt(np.diag(design @ row @ design.T)) for row in rows])


@pytest.mark.parametrize("step", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_the_error_template_holds_for_stars_left_out(real: RealErrors, step: int) -> None:
    correlated = np.flatnonzero(real.weight == 1.0)
    assert len(correlated) == 32
    inside = []
    for star in np.r_[correlated[:30:step], correlated[30:]]:
        template = fit(real.without(star))
        for band in BANDS:
            used = measured()[columns(band)]
            for kind in ("both", band):
                true = real.canonical[kind][star]
                true = true[columns(band)] if kind == "both" else true
                found = canonical_errors(real.flux[star : star + 1], band, kind != "both", template)
                ratio = (found[0] / true)[used]
                inside.append(float(((ratio > 0.7) & (ratio < 1.4)).mean()))
    bright, fainter = inside[:-8], inside[-8:]
    assert np.mean(np.array(bright) == 1.0) > 0.9  # every coefficient, of 30 stars of G 6 to 8
    assert min(fainter) > 0.7  # most coefficients, of G 9 and 13, other colours


def test_the_error_template_follows_the_level_and_knows_its_limits(real: RealErrors) -> None:
    flux = real.flux[:4]
    for band in BANDS:
        one = canonical_errors(flux, band, alone=False)
        twice = canonical_errors(2.0 * flux, band, alone=False)
        np.testing.assert_allclose(twice / one, 2.0, rtol=0.15)
        unknown = flux.copy()
        unknown[0, :] = np.nan
        assert np.isnan(canonical_errors(unknown, band, alone=False)[0]).all()
        wild = canonical_errors(flux * np.geomspace(1e-6, 1e6, 343), band, alone=False)
        assert np.isfinite(wild).all()


def test_independent_errors_of_flux_would_be_absurd(bright) -> None:  # type: ignore[no-untyped-def]
    made = canonical.from_coefficients(*bright)
    naive = np.sqrt(np.square(real_flux_errors(bright)) @ np.square(operators()["both"].inverse).T)
    assert np.median((naive / joined(made.errors))[:, USED]) > 200


def test_another_release_or_grid_is_refused(bright) -> None:  # type: ignore[no-untyped-def]
    coefficients, errors, _ = bright
    fewer = coefficients | {"bp": coefficients["bp"][:, :51]}
    with pytest.raises(ReleaseError, match="another release"):
        canonical.from_coefficients(fewer, errors)
    with pytest.raises(ReleaseError, match="another grid"):
        canonical.from_flux(np.ones((2, 300)), np.ones((2, 300)))


@pytest.mark.slow
def test_the_file_can_be_made_again(tmp_path: Path) -> None:
    from catalogproc.features.canonical_build import write_tables

    path = tmp_path / "again.npz"
    np.savez(path, prior_factor=read_arrays()["prior_factor"])
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        write_tables(
            path,
            [next(CORRELATED.glob("xp_continuous*.parquet")), real_stars.ARCHIVE],
            sorted(EXAMPLES.glob("xp_continuous_*.parquet")),
        )
    shipped = read_arrays()
    with np.load(path) as again:
        assert set(again.files) == set(shipped)
        for name in shipped:
            scale = np.abs(shipped[name]).max()
            if "components" in name or "weights" in name or name.endswith(("low", "high")):
                continue  # signs of principal components are free; errors are compared below
            np.testing.assert_allclose(again[name], shipped[name], atol=1e-6 * scale, err_msg=name)
        flux = np.full((1, 343), 1e-18)
        for band in BANDS:
            np.testing.assert_allclose(
                canonical_errors(flux, band, False, dict(again)),
                canonical_errors(flux, band, False),
                rtol=1e-4,
            )
