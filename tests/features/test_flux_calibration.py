"""Calibrated spectra of real stars equal GaiaXPy's."""

from __future__ import annotations

import warnings

import matplotlib
import numpy as np
import pytest
from support.paths import CORRELATED

from catalogproc.errors import ReleaseError
from catalogproc.features.flux_calibration import calibration
from catalogproc.features.spectra import matrix
from catalogproc.readers.xp import read_spectra
from catalogproc.release import load_release
from catalogproc.vocabulary import BANDS

DR3 = load_release("dr3")


@pytest.fixture(scope="module")
def stars() -> dict[str, dict[str, np.ndarray]]:
    (batch,) = read_spectra(next(CORRELATED.glob("xp_continuous*.parquet")))
    names = {"value": "coefficients", "error": "coefficient_errors"}
    return {
        kind: {band: matrix(batch.column(f"{band}_{name}"), 55) for band in BANDS}
        for kind, name in names.items()
    }


def test_flux_equals_gaiaxpys(stars: dict[str, dict[str, np.ndarray]]) -> None:
    # Importing GaiaXPy switches off warnings and makes matplotlib use LaTeX, for good.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore")
        from gaiaxpy.core.config import load_xpmerge_from_xml, load_xpsampling_from_xml

        grid, merge = load_xpmerge_from_xml(bp_model="v375wi")
        design = load_xpsampling_from_xml(bp_model="v375wi")
    made = calibration(DR3)
    wanted = sum(stars["value"][band] @ design[band] * merge[band] for band in BANDS)
    np.testing.assert_array_equal(made.wavelengths, grid)
    np.testing.assert_allclose(made.flux(stars["value"]), wanted, rtol=1e-10, atol=1e-25)
    assert (made.wavelengths[[0, -1]] == (336, 1020)).all()
    assert (made.flux(stars["value"])[:, 100:200] > 0).all()


def test_errors_are_those_of_independent_coefficients(
    stars: dict[str, dict[str, np.ndarray]],
) -> None:
    made = calibration(DR3)
    one = {band: stars["error"][band][:1] for band in BANDS}
    rng = np.random.default_rng(1)
    drawn = {band: one[band] * rng.normal(size=(4_000, one[band].shape[1])) for band in BANDS}
    np.testing.assert_allclose(made.error(one)[0], made.flux(drawn).std(axis=0), rtol=0.06)


def test_another_release_is_refused(stars: dict[str, dict[str, np.ndarray]]) -> None:
    fewer = {"bp": stars["value"]["bp"][:, :51], "rp": stars["value"]["rp"]}
    with pytest.raises(ReleaseError, match="another release"):
        calibration(DR3).flux(fewer)
