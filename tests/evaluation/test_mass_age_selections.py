"""Errors of masses and ages along the true values, of selected stars."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from catalogproc.evaluation.mass_age_selections import (
    ALL,
    BY_PREDICTION,
    EDGES,
    GOOD,
    selected_stars,
)
from catalogproc.flags import load_flags


def test_a_selection_by_the_prediction_biases_masses_along_the_true_ones() -> None:
    """Heavy stars are kept where they scattered upwards, and light ones likewise."""
    random = np.random.default_rng(3)
    true = random.uniform(0.8, 2.0, 40_000)
    mass = true + random.normal(0.0, 0.2, len(true))
    catalog = pa.table({
        "mass": mass, "mass_16": mass - 0.2, "mass_84": mass + 0.2,
        "good_mass_age": random.random(len(true)) < 0.5,
        "quality_flags": np.where(mass < 1.2, load_flags().mask("UNC_MASS"), 0),
    })  # fmt: skip
    found = {(one.selection, one.low): one for one in selected_stars("mass", catalog, true)}
    for low, high in pairwise(EDGES["mass"]):
        in_bin = (true >= low) & (true < high)
        every, good, kept = (found[name, low] for name in (ALL, GOOD, BY_PREDICTION))
        assert every.stars == in_bin.sum()
        assert every.within == pytest.approx(0.683, abs=0.02)
        assert abs(every.bias) < 0.01
        assert abs(good.bias) < 0.015
        assert good.stars == pytest.approx(every.stars / 2, rel=0.1)
        if high < 1.2:
            assert kept.bias > 0.1  # the light ones that are left are those predicted too heavy


def test_ages_are_compared_as_logarithms_and_empty_bins_are_said() -> None:
    true = np.array([9.1, 9.2, np.nan])
    catalog = pa.table({
        "age_16": [1.0, 1.0, 1.0], "age": [2.0, 2.0, 2.0], "age_84": [3.0, 1.2, 3.0],
        "good_mass_age": [True, False, True], "quality_flags": [0, 0, 0],
    })  # fmt: skip
    found = list(selected_stars("log_age", catalog, true))
    youngest = {one.selection: one for one in found if one.low == EDGES["log_age"][0]}
    assert [youngest[name].stars for name in (ALL, GOOD, BY_PREDICTION)] == [2, 1, 1]
    assert youngest[ALL].bias == pytest.approx(9.0 + np.log10(2.0) - 9.15)
    assert youngest[ALL].within == 0.5
    others = [one for one in found if one.low != EDGES["log_age"][0]]
    assert all(one.stars == 0 and np.isnan(one.bias) for one in others)
