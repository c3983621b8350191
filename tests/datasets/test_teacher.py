"""Masses and ages that trees learn from asteroseismology."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogproc.datasets import seismic
from catalogproc.datasets.cross_fit import FitStars
from catalogproc.datasets.giant_labels import (
    HASSELQUIST,
    TEACHER,
    Stars,
    Teachers,
    atmospheres,
    evolution_labels,
    fit_teachers,
)
from catalogproc.datasets.seismic import SeismicStars
from catalogproc.datasets.teacher import Classifier, Measured, fit_classifier, fit_teacher


@pytest.fixture(scope="module")
def stars() -> Stars:
    table = seismic.read_seismic()
    star = table.names.stars()
    count = int(star.max()) + 1
    fold = np.zeros(count, dtype=np.int8)
    fold[star] = table.names.folds(star)
    merged = table.by_star(star, count)
    inputs = atmospheres(merged, np.arange(count))
    none = np.full(count, np.nan)
    return Stars(fold, np.ones(count, dtype=bool), inputs, merged, (none, none))


@pytest.fixture(scope="module")
def predicted(
    stars: Stars, teachers: Teachers
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    found = {}
    for name, teacher in teachers.items():
        value, error = np.full((2, len(stars.fold)), np.nan)
        test = stars.fold == 0
        value[test], error[test] = teacher.predict(stars.inputs[test], stars.fold[test])
        found[name] = value, error
    return found


@pytest.fixture(scope="module")
def teachers(stars: Stars) -> Teachers:
    return fit_teachers(stars)


def made_up(noise: float, size: int = 1200) -> Measured:
    random = np.random.default_rng(3)
    inputs = random.uniform([4300, 1.5, -0.8, 0.0], [5000, 3.2, 0.3, 0.3], (size, 4))
    truth = 1.2 + 0.5 * (inputs[:, 1] - 2.4) + 0.4 * inputs[:, 2]
    values = truth + random.normal(0, noise, size) + random.normal(0, 0.1, size)
    return Measured(inputs, random.integers(1, 5, size), values, np.full(size, noise))


@pytest.mark.parametrize("noise", [0.02, 0.1])
def test_the_error_is_the_scatter_of_the_truth_without_the_measurement(noise: float) -> None:
    # The truth scatters by 0.1 about what the inputs tell, whatever the errors of measurement.
    teacher = fit_teacher(made_up(noise))
    inputs = np.array([[4600, 2.3, -0.2, 0.15], [4800, 2.8, -0.4, 0.1]])
    value, error = teacher.predict(inputs, np.zeros(2, dtype=int))
    assert error == pytest.approx([0.1, 0.1], rel=0.25)
    assert value == pytest.approx([1.07, 1.24], abs=0.1)


def test_a_star_is_predicted_without_its_own_measurement() -> None:
    stars = made_up(0.02)
    absurd = stars.values.copy()
    absurd[stars.part == 2] += 5.0
    usual, wrong = (
        fit_teacher(Measured(stars.inputs, stars.part, values, stars.errors))
        for values in (stars.values, absurd)
    )
    own = np.flatnonzero(stars.part == 2)[:50]
    inputs, part = stars.inputs[own], stars.part[own]
    before, after = (teacher.predict(inputs, part)[0] for teacher in (usual, wrong))
    known = np.isfinite(before)
    assert known.sum() > 40
    assert np.abs(after - before)[known].max() < 0.3
    other = wrong.predict(inputs, np.zeros(50, dtype=int))[0]
    assert (other - before > 0.6)[known].all()


def test_nothing_is_predicted_outside_the_domain_or_without_a_label() -> None:
    teacher = fit_teacher(made_up(0.02))
    inputs = np.array([[4600, 0.2, -0.2, 0.1], [9000, 2.3, 0, 0], [4600, 2.3, np.nan, 0.1]])
    value, error = teacher.predict(inputs, np.ones(3, dtype=int))
    assert np.isnan(value).all()
    assert np.isnan(error).all()


def test_teachers_are_as_good_as_stated(stars: Stars, teachers: Teachers) -> None:
    def scatter(residual: np.ndarray[Any, Any]) -> float:
        return float(1.4826 * np.median(np.abs(residual - np.median(residual))))

    mass, age = teachers["mass"], teachers["log_age"]
    assert len(mass.residual) > 7_000
    assert len(age.residual) > 5_000
    assert scatter(mass.residual) < 0.155
    assert scatter(age.residual) < 0.165
    logg = age.stars.inputs[:, 1]
    by_logg = [scatter(age.residual[near]) for near in (logg > 2.6, logg < 2.0)]
    assert by_logg[0] < 0.13
    assert by_logg[1] < 0.30


def test_errors_of_the_teachers_agree_with_seismic_stars_of_the_test_fold(
    stars: Stars, predicted: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> None:
    test = stars.fold == 0
    for name in ("mass", "log_age"):
        value, error = predicted[name]
        measured, own = stars.seismic.values[name], stars.seismic.errors[name]
        known = test & np.isfinite(value) & np.isfinite(measured)
        assert known.sum() > 900
        z = ((measured - value) / np.hypot(error, own))[known]
        assert 0.60 < np.mean(np.abs(z) < 1) < 0.76, name


def test_no_star_of_the_test_fold_teaches(stars: Stars, teachers: Teachers) -> None:
    for teacher in teachers.values():
        assert set(teacher.trees.fits) == {1, 2, 3, 4}
        assert (teacher.trees.stars.part > 0).all()


def test_measured_values_come_first(stars: Stars, teachers: Teachers) -> None:
    # 400 stars of the test fold.
    row = np.flatnonzero(stars.fold == 0)[:400]
    seen = stars.seismic
    few = SeismicStars(
        *({name: column[row] for name, column in store.items()} for store in
          (seen.values, seen.errors, seen.source))
    )  # fmt: skip
    ages = (np.full(400, 9.0), np.full(400, 0.24))
    further = Stars(stars.fold[row], stars.teaches[row], stars.inputs[row], few, ages)
    labels = evolution_labels(further, teachers)
    for name in ("mass", "log_age", "rc_prob"):
        known = np.isfinite(few.values[name])
        assert np.array_equal(labels[name].values[known], few.values[name][known])
        assert not np.isin(labels[name].source[known].astype(str), [TEACHER, HASSELQUIST]).any()
        errors = labels[name].errors[np.isfinite(labels[name].values)]
        assert (errors == 0 if name == "rc_prob" else errors > 0).all()
    stage = labels["rc_prob"]
    assert set(stage.values[np.isfinite(few.values["rc_prob"])]) == {0.0, 1.0}
    taught = stage.values[stage.source == TEACHER]
    assert ((taught > 0) & (taught < 1)).all()
    source = labels["log_age"].source.astype(str)
    assert {TEACHER, HASSELQUIST} < set(source)
    assert (labels["log_age"].errors[source == HASSELQUIST] == 0.35).all()
    assert np.isfinite(labels["log_age"].values).all()


def test_ages_are_clipped_and_errors_are_sane(stars: Stars) -> None:
    age = stars.seismic.values["log_age"]
    known = np.isfinite(age)
    assert age[known].min() >= np.log10(0.3) + 9
    assert age[known].max() == pytest.approx(np.log10(14) + 9)
    error = stars.seismic.errors["log_age"][known]
    assert error.min() == pytest.approx(np.log10(1.11))
    assert error.max() <= 0.5
    mass, e_mass = (store["mass"] for store in (stars.seismic.values, stars.seismic.errors))
    assert np.nanmin(e_mass / mass) >= 0.038 - 1e-12


def test_stages_of_stars_on_which_papers_disagree_are_unknown(stars: Stars) -> None:
    table = seismic.read_seismic()
    stage, star = table.values["rc_prob"], table.names.stars()
    assert np.isnan(stage[table.source == seismic.AGES_AS_IF_CLUMP]).all()
    known = np.isfinite(stage)
    ones = np.bincount(star[known], stage[known], minlength=len(stars.fold))
    rows = np.bincount(star[known], minlength=len(stars.fold))
    mixed = (ones > 0) & (ones < rows)
    assert 40 < mixed.sum() < 80
    merged = stars.seismic.values["rc_prob"]
    assert np.isnan(merged[mixed]).all()
    assert not stars.seismic.source["rc_prob"][mixed].any()
    agreed = (rows > 0) & ~mixed
    assert np.array_equal(merged[agreed], (ones / np.maximum(rows, 1))[agreed])


def test_the_classifier_is_as_good_as_stated(stars: Stars, teachers: Teachers) -> None:
    teacher = teachers["rc_prob"]
    assert isinstance(teacher, Classifier)
    facts = teacher.facts
    assert facts["stars"] > 5_800
    assert facts["area under the ROC curve"] > 0.985
    assert facts["Brier score"] < 0.03
    # Stars of the test fold, of papers that taught nothing too: Kepler's, by their oscillations.
    truth = stars.seismic.values["rc_prob"]
    row = np.flatnonzero((stars.fold == 0) & np.isfinite(truth))
    value, error = teacher.predict(stars.inputs[row], stars.fold[row])
    known = np.isfinite(value)
    assert known.sum() > 1_500
    assert (error[known] == 0).all()
    assert np.mean((value > 0.5) == (truth[row] > 0.5), where=known) > 0.95
    assert np.square(value - truth[row])[known].mean() < 0.03
    kepler = known & (stars.seismic.source["rc_prob"][row] == "APOKASC-2 RGB (Warfield+24)")
    assert kepler.sum() > 300
    assert value[kepler].mean() < 0.05


def test_the_classifier_states_probabilities_and_cannot_see_its_own_star() -> None:
    made = made_up(0.02, 3000)
    random = np.random.default_rng(5)
    truth = 1.0 / (1.0 + np.exp(-(made.inputs[:, 1] - 2.4) * 4))
    is_one = (random.random(len(truth)) < truth).astype(float)
    stars = FitStars(made.inputs, made.part)
    every = np.ones(len(truth), dtype=bool)
    usual = fit_classifier(stars, is_one, every)
    found, _ = usual.predict(stars.inputs, stars.part)
    known = np.isfinite(found)
    assert known.mean() > 0.8
    assert np.array_equal(found[known], usual.trees.unseen[known])
    assert np.corrcoef(found[known], truth[known])[0, 1] > 0.9
    assert np.mean(found[known]) == pytest.approx(np.mean(truth[known]), abs=0.03)
    # Opposite answers of one part change nothing in that part, and much in the others.
    own = stars.part == 2
    turned = fit_classifier(stars, np.where(own, 1 - is_one, is_one), every)
    absurd, _ = turned.predict(stars.inputs, stars.part)
    assert np.array_equal(absurd[own & known], found[own & known])
    assert np.abs(absurd - found)[~own & known].mean() > 0.1


def test_stars_of_a_one_sided_sample_widen_the_domain_and_teach_nothing() -> None:
    made = made_up(0.02, 1500)
    is_one = (made.inputs[:, 1] > 2.4).astype(float)
    fair = made.inputs[:, 1] > 2.0
    # Absurd answers where the sample has one kind only.
    stars = FitStars(made.inputs, made.part)
    narrow = fit_classifier(FitStars(made.inputs[fair], made.part[fair]), is_one[fair], fair[fair])
    wide = fit_classifier(stars, np.where(fair, is_one, 1.0), fair)
    beyond = made.inputs[:, 1] < 1.7
    found, missing = (
        fit.predict(made.inputs[beyond], made.part[beyond])[0] for fit in (wide, narrow)
    )
    assert np.isfinite(found).mean() > 0.9
    assert np.isnan(missing).all()
    assert np.nanmax(found) < 0.1
    assert wide.facts["stars"] == fair.sum()
