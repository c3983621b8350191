"""How far a run can be trusted: samples, flags and ranges, against numbers counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.catalogs import catalog_table

from catalogproc.flags import load_flags
from catalogproc.network.bundle import Bundle, Domain, load_bundle
from catalogproc.report import trust
from catalogproc.report.histograms import COLUMNS, Histograms, count_stars

STARS = catalog_table(4_000, seed=9)


@pytest.fixture(scope="module")
def counted() -> Histograms:
    return count_stars(STARS.select(list(COLUMNS)).to_batches())


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """A model whose training has known ranges of [M/H] and of the reddening, and no other."""
    model = load_bundle("tiny")
    low, high = np.full((2, len(model.vocabulary)), np.nan)
    for name, edges in (("m_h", (-0.5, 0.25)), ("logebv", (np.log(0.02), np.log(0.3)))):
        low[model.vocabulary.column(name)], high[model.vocabulary.column(name)] = edges
    return replace(model, domain=Domain(low, high))


def test_the_flags_that_remove_most_stand_first(counted: Histograms) -> None:
    params, mass_age = trust.samples(counted)
    assert (params.good, params.stars) == (STARS["good_params"].to_numpy().sum(), 4_000)
    numbers = [number for _, number, _ in mass_age.removed]
    assert numbers == sorted(numbers, reverse=True)
    assert len(numbers) <= trust.SHOWN_FLAGS
    value = STARS["quality_flags"].to_numpy()
    for flag, number, alone in params.removed:
        assert flag.value & load_flags().good_params
        assert number == np.count_nonzero(value & flag.value)
        assert alone <= number
    assert not params.few
    assert "are good for Teff, log g and [M/H] (good_params)" in params.words


def test_shares_beyond_the_training_are_those_of_the_stars(
    counted: Histograms, bundle: Bundle
) -> None:
    """Within the width of a bin; percentiles too; ranges that are not known say so."""
    rows = {row.name: row for row in trust.ranges(counted, bundle)}
    m_h = STARS["m_h"].to_numpy().astype(float)
    row = rows["[M/H], predicted"]
    assert row.outside == pytest.approx(np.mean((m_h < -0.5) | (m_h > 0.25)), abs=0.01)
    np.testing.assert_allclose(row.run, np.quantile(m_h, trust.PERCENTILES), atol=0.03)
    np.testing.assert_allclose(row.scaled, (np.array(row.run) + 0.5) / 0.75)
    ebv = STARS["ebv"].to_numpy().astype(float)
    row = rows["E(B-V), predicted"]
    assert (row.low, row.high) == pytest.approx((0.02, 0.3))
    assert row.outside == pytest.approx(np.mean((ebv < 0.02) | (ebv > 0.3)), abs=0.02)
    assert rows["G"].cells()[3:] == ("not known", "")
    assert np.isnan(rows["Teff, predicted"].outside)
    unknown = trust.ranges(counted, None)
    assert {row.cells()[3] for row in unknown} == {"not known"}
    assert len(unknown) == len(trust.COMPARED)


def test_flags_of_the_domain_are_compared_with_the_training(counted: Histograms) -> None:
    rows = {row[0]: row[1:] for row in trust.domain_flags(counted)}
    number = counted.flags["XP_BOX"]
    assert rows["XP_BOX"] == (f"{number:,}", f"{100 * number / 4_000:.1f} %", "0.5 %")
    assert trust.unlike(counted) == ()
