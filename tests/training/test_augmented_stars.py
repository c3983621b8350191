"""Stars of a dataset that a training moves to other distances and behind dust."""

from __future__ import annotations

import numpy as np
import pytest

from catalogproc.datasets.holdout import MEASURED
from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import JobError
from catalogproc.features.one_band import one_band_tokens
from catalogproc.network.star_tokens import StarTokens
from catalogproc.simulation.simulator import Simulator
from catalogproc.training.augmented_stars import AugmentationOptions, AugmentedStars
from catalogproc.vocabulary import BANDS, load_vocabulary

VOCABULARY = load_vocabulary(basis="canonical")
SPECTRUM = np.concatenate([VOCABULARY.coefficient_columns(band) for band in BANDS])
N = 600


def augmented(**options: float) -> AugmentedStars:
    """Simulated giants of G < 13, as a dataset holds them."""
    stars = Simulator().draw(6 * N, 8)
    bright = np.flatnonzero(stars["g_mag"].numpy() < 13)[:N]
    values, errors = (x.numpy()[bright].astype(np.float64) for x in stars.tokens(VOCABULARY))
    spectra = stars._spectra("canonical")
    scale = 10 ** (0.4 * (VOCABULARY.data_release.magnitude("G").zero_point - stars["g_mag"]))
    flux = scale.numpy()[bright, None]
    unmasked, their_errors = (
        np.concatenate([spectra[band][item].numpy() for band in BANDS], axis=1)[bright] / flux
        for item in (0, 1)
    )
    names = ("g_mag", "bp_mag", "rp_mag", "j_mag", "h_mag", "ks_mag")
    magnitudes = np.stack([stars[name].numpy()[bright] for name in names], axis=1)
    return AugmentedStars(
        StarTable(np.arange(len(bright)), values, errors),
        unmasked.astype(np.float64),
        their_errors.astype(np.float64),
        magnitudes.astype(np.float64),
        VOCABULARY,
        AugmentationOptions(**options),
    )


def column(values: np.ndarray, name: str) -> np.ndarray:
    return values[:, VOCABULARY.column(name)]


def test_without_moves_stars_are_those_of_the_table() -> None:
    stars = augmented()
    for found, expected in zip(stars.sample(4, 99), stars.table.sample(4, 99), strict=True):
        assert np.array_equal(found[:, :5], expected[:, :5], equal_nan=True)
    values = stars.table.values
    assert set(map(tuple, np.nan_to_num(stars.sample(4, 99)[0]))) <= set(
        map(tuple, np.nan_to_num(values))
    )


def test_fainter_stars_have_larger_errors_and_fewer_relevant_coefficients() -> None:
    here, there = augmented(), augmented(fainter=1.0)
    (value, error), (moved, moved_error) = (stars.sample(4, 400) for stars in (here, there))
    # The same stars: labels do not change.
    assert np.array_equal(column(value, "teff"), column(moved, "teff"))
    ratio = np.nanmedian(moved_error[:, SPECTRUM] / error[:, SPECTRUM], axis=1)
    assert np.median(ratio) > 2
    assert ratio.min() > 0.99
    count, fewer = (np.isfinite(x[:, SPECTRUM]).sum(axis=1) for x in (value, moved))
    assert np.median(fewer) < np.median(count) - 5
    # Noise of one standard error.
    z = (moved - value)[:, SPECTRUM[0]] / moved_error[:, SPECTRUM[0]]
    assert np.nanstd(z) == pytest.approx(1.0, abs=0.25)
    assert np.nanmedian(column(moved_error, "bprp") / column(error, "bprp")) > 1.02
    assert np.nanmedian(column(moved_error, "jh") / column(error, "jh")) > 1.1
    # Distance leaves the pseudo-luminosity as it is, with a larger error.
    z = (column(moved, "g_fakemag") - column(value, "g_fakemag")) / column(moved_error, "g_fakemag")
    assert np.nanstd(z) == pytest.approx(1.0, abs=0.3)


def test_dust_reddens_and_dims() -> None:
    here, there = augmented(), augmented(redder=1.0, ebv=0.4)
    (value, _), (moved, moved_error) = (stars.sample(4, 400) for stars in (here, there))
    added = np.exp(column(moved, "logebv")) - np.exp(column(value, "logebv"))
    assert np.median(added) == pytest.approx(0.4 * np.log(2), rel=0.2)
    excess = column(moved, "bprp") - column(value, "bprp")
    # E(BP - RP) is about 1.3 E(B-V); the SFD scale is 0.86 of it.
    assert np.median(excess / added) == pytest.approx(1.12, abs=0.12)
    dimming = 5 * np.log10(column(moved, "g_fakemag") / column(value, "g_fakemag"))
    strong = np.isfinite(dimming) & (
        column(moved, "g_fakemag") > 20 * column(moved_error, "g_fakemag")
    )
    assert np.median((dimming / added)[strong]) == pytest.approx(2.1, abs=0.3)


def test_a_hidden_band_leaves_the_other_as_a_star_with_one_band_has_it() -> None:
    stars = augmented(one_band=1.0)
    values, errors, hidden = stars.sample(4, 200)
    whole, _ = augmented().sample(4, 200)
    shown = ~hidden & np.isfinite(values)
    columns = {band: VOCABULARY.coefficient_columns(band) for band in BANDS}
    count = {band: shown[:, columns[band]].sum(axis=1) for band in BANDS}
    assert ((count["bp"] == 0) != (count["rp"] == 0)).all()
    assert 60 < (count["bp"] > 0).sum() < 140
    labels = VOCABULARY.columns([x for x in VOCABULARY.named("label") if x not in MEASURED])
    assert not shown[:, labels].any()
    assert 0.3 < shown[:, VOCABULARY.column("bprp")].mean() < 0.9
    # The tokens are those that a run makes of a star without the other band.
    table, number = stars.table, np.random.default_rng(4).integers(N, size=200)
    for band, other in (("bp", "rp"), ("rp", "bp")):
        rows = np.flatnonzero(count[band])
        every = np.full((len(rows), len(VOCABULARY)), np.nan)
        their = every.copy()
        every[:, SPECTRUM] = stars.coefficients[number[rows]]
        their[:, SPECTRUM] = stars.errors[number[rows]]
        tokens = StarTokens(table.values[number[rows]], table.errors[number[rows]])
        wanted = one_band_tokens(StarTokens(every, their), tokens, other, VOCABULARY)
        for found, expected in ((values, wanted.values), (errors, wanted.errors)):
            np.testing.assert_allclose(
                found[rows][:, columns[band]], expected[:, columns[band]], rtol=1e-9
            )
        # What is hidden may be requested, and is that of the whole spectrum.
        assert hidden[np.ix_(rows, columns[other])].all()
        assert np.array_equal(
            values[rows][:, columns[other]], whole[rows][:, columns[other]], equal_nan=True
        )


@pytest.mark.parametrize(
    "options",
    [{"fainter": 1.2}, {"redder": -0.1}, {"faintest": 0.0}, {"ebv": 0.0}, {"one_band": 2.0}],
)
def test_impossible_options_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(JobError, match=next(iter(options))):
        AugmentationOptions.from_dict(options)
