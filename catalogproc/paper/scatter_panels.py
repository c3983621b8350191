"""Figures 4 to 6, 18 and 19: predictions against true values, next to XGBoost.

Atmospheres, mass and age from six input sets; the Kiel diagram, reddening and distances; colours
from XP; and one coefficient from more and more inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from textwrap import fill
from typing import Any

import numpy as np

from catalogproc.evaluation.literature import PUBLISHED, RP0
from catalogproc.evaluation.metrics import Predictions, select_inputs
from catalogproc.evaluation.panel_scores import MODEL, PANELS, TREES
from catalogproc.evaluation.quantities import QUANTITIES, label_of
from catalogproc.evaluation.scores import Score
from catalogproc.evaluation.xgboost_baseline import TreeData
from catalogproc.paper import plotting
from catalogproc.paper.context import ATMOSPHERE, LABELS, ExperimentContext, Flags, Floats
from catalogproc.paper.experiment import (
    Check,
    Outcome,
    at_least,
    at_most,
    finite_median,
    robust_scatter,
)

MASS_AND_AGE = ("mass", "age")

TITLE_WIDTH = 18
"""Letters of a line of a panel's title: wider ones do not fit above it."""

MAX_OVER_B = 2.0
"""Largest accepted ratio of the scatter with few or random tokens (c, d) to that of b."""

MAX_F_OVER_E = 0.05
"""Largest accepted ratio of the scatter with the true labels as inputs (f) to that without (e)."""

MIN_SIGMA_RATIO = 1.5
"""Smallest accepted ratio of sigma from noisy tokens (e) to that of b."""

MAX_Z_STD = 1.25
"""Largest accepted standard deviation of z = (predicted - true) / sigma."""

MIN_PARALLAX_SN = 5.0
"""Smallest parallax over error of the stars whose distances are compared, as in the paper."""

MAX_OVER_STARS = 0.5
"""Largest accepted ratio of the scatter of residuals to that of the stars themselves."""


def atmospheres(context: ExperimentContext) -> Outcome:
    """Return figure 4: Teff, log g and [M/H] from six input sets.

    Parameters
    ----------
    context
        Model and stars.
    """
    return _panels(context, ATMOSPHERE)


def mass_and_age(context: ExperimentContext) -> Outcome:
    """Return figure 5: mass and age from six input sets.

    Parameters
    ----------
    context
        Model and stars.
    """
    return _panels(context, MASS_AND_AGE)


def _panels(context: ExperimentContext, names: Sequence[str]) -> Outcome:
    scores = {
        key: dict(zip(names, predictions.scores(context.stars.labels, context.vocabulary, names),
                      strict=True))
        for key, predictions in context.panel_predictions.items()
    }  # fmt: skip
    checks: list[Check] = []
    for name in names:
        checks += _scatters({key: found[name] for key, found in scores.items()}, name)
        text = QUANTITIES[name].text
        sigma = {key: _median_sigma(context.panel_predictions[key], name) for key in "be"}
        checks += [
            at_least(f"{text}: sigma from noisy tokens (e) over that from b",
                     sigma["e"] / sigma["b"], MIN_SIGMA_RATIO),
            at_most(f"{text}: sd of z in e", scores["e"][name].z_std, MAX_Z_STD),
        ]  # fmt: skip
    noisy = select_inputs("e", context.stars.inputs, context.stars.labels, context.vocabulary)
    empty = 100.0 * float((~noisy.present).all(axis=1).mean())
    checks.append(Check("stars without any noisy token: their prediction in e is the prior",
                          empty, "%"))  # fmt: skip
    stars = ", ".join(f"{scores['b'][n].stars:,} with {QUANTITIES[n].text}" for n in names)
    draw = partial(_draw_panels, context, scores, names)
    return Outcome(tuple(checks), draw, stars=f"Stars: {stars}")


def _scatters(scores: dict[str, Score], name: str) -> list[Check]:
    """Scatter of every panel with the published one, and checks of their ratios."""
    item = QUANTITIES[name]
    checks = []
    for key, found in scores.items():
        source, published = PUBLISHED.get((key, name), ("", float("nan")))
        words = f"{item.text}: scatter, {key} ({TREES if key == 'a' else 'model'})"
        checks.append(Check(words, found.scatter, item.unit, published, source))
    scatter = {key: found.scatter for key, found in scores.items()}
    return [
        *checks,
        at_most(f"{item.text}: scatter, b", scatter["b"], scatter["a"], item.unit,
                f"{TREES}, same inputs"),
        *(at_most(f"{item.text}: scatter, {key} over b", scatter[key] / scatter["b"], MAX_OVER_B)
          for key in "cd"),
        at_most(f"{item.text}: scatter, f over e", scatter["f"] / scatter["e"], MAX_F_OVER_E),
    ]  # fmt: skip


def _median_sigma(predictions: Predictions, name: str) -> float:
    """The median sigma of a label; NaN where it was not predicted."""
    if predictions.sigma is None or label_of(name) not in predictions.labels:
        return float("nan")
    return float(np.median(predictions.sigma[:, predictions.labels.index(label_of(name))]))


def _draw_panels(
    context: ExperimentContext,
    scores: dict[str, dict[str, Score]],
    names: Sequence[str],
    figure: Any,
) -> None:
    keys = tuple(context.panel_predictions)
    places = figure.subplots(len(names), len(keys), squeeze=False)
    for key, axes in zip(keys, places[0], strict=True):
        axes.set_title(f"{key}  {fill(_short(key), TITLE_WIDTH)}", fontsize=7.5)
    for row, name in zip(places, names, strict=True):
        item = QUANTITIES[name]
        true = item.from_token(context.stars.truth[:, context.vocabulary.column(item.token)])
        for axes, key in zip(row, keys, strict=True):
            predicted = _quantity(context.panel_predictions[key], name, len(true))
            scatter = f"{scores[key][name].scatter:.3g} {item.unit}"
            plotting.plot_identity(axes, true, predicted, scatter)
        row[0].set_ylabel(f"predicted {item.text} [{item.unit}]")
        row[len(keys) // 2].set_xlabel(f"true {item.text} [{item.unit}]")


def _short(key: str) -> str:
    return PANELS[key].split(":")[0]


def _quantity(predictions: Predictions, name: str, size: int) -> Floats:
    """A predicted quantity (N,), NaN where it was not predicted."""
    item = QUANTITIES[name]
    if item.token not in predictions.labels:
        return np.full(size, np.nan)
    return item.from_token(predictions.mean[:, predictions.labels.index(item.token)])


def kiel_reddening_distance(context: ExperimentContext) -> Outcome:
    """Return figure 6: the Kiel diagram, E(B-V) and distances, from the inputs of panel b.

    Parameters
    ----------
    context
        Model and stars.
    """
    predictions, stars = context.panel_predictions["b"], context.stars
    names = ("teff", "logg", "m_h", "ebv", "dist")
    predicted = {name: _quantity(predictions, name, len(stars)) for name in names}
    true = {
        name: QUANTITIES[name].from_token(stars.truth[:, context.vocabulary.column(label_of(name))])
        for name in names
    }
    good = stars.extra.get("parallax_over_error", np.full(len(stars), np.inf)) > MIN_PARALLAX_SN
    distance = np.where(good, 100.0 * (predicted["dist"] / true["dist"] - 1.0), np.nan)
    extinction = predicted["ebv"] - true["ebv"]
    source, published = PUBLISHED["b", "ebv"]
    dist_source, per_cent = PUBLISHED["b", "dist"]
    checks = (
        Check("E(B-V): scatter", robust_scatter(extinction), "mag", published, source),
        at_most("E(B-V): scatter over that of the stars",
                robust_scatter(extinction) / robust_scatter(true["ebv"]),
                MAX_OVER_STARS),
        Check("distance: scatter, parallax S/N > 5", robust_scatter(distance), "%", per_cent,
              dist_source),
        Check("distance: median difference", finite_median(distance), "%"),
        at_most("distance: scatter over that of the stars",
                robust_scatter(np.log(predicted["dist"] / true["dist"])[good])
                / robust_scatter(np.log(true["dist"])[good]), MAX_OVER_STARS),
        at_least("Kiel diagram: correlation of predicted Teff with log g on the giant branch",
                 _branch(predicted), _branch(true) - 0.1, source="true values, minus 0.1"),
    )  # fmt: skip
    words = (
        f"Stars: {len(stars):,}, {np.isfinite(extinction).sum():,} with E(B-V), "
        f"{np.isfinite(distance).sum():,} with a distance"
    )
    return Outcome(checks, partial(_draw_kiel, predicted, true, good), stars=words)


def _branch(values: dict[str, Floats]) -> float:
    """Correlation of Teff and log g of stars near solar [M/H] above the red clump."""
    chosen = (np.abs(values["m_h"]) < 0.3) & (values["logg"] < 2.2) & (values["teff"] < 5000)
    if chosen.sum() < 10:
        return float("nan")
    return float(np.corrcoef(values["teff"][chosen], values["logg"][chosen])[0, 1])


def _draw_kiel(
    predicted: dict[str, Floats], true: dict[str, Floats], good: Flags, figure: Any
) -> None:
    kiel, extinction, distance = figure.subplots(1, 3)
    shown = kiel.scatter(
        predicted["teff"][:4000], predicted["logg"][:4000], c=predicted["m_h"][:4000], s=2,
        cmap=plotting.MAP, vmin=-1.5, vmax=0.4, linewidths=0,
    )  # fmt: skip
    for name, limit in (("teff", kiel.set_xlim), ("logg", kiel.set_ylim)):
        both = np.concatenate([predicted[name], true[name]])
        low, high = np.percentile(both[np.isfinite(both)], (0.3, 99.7))
        limit(high + 0.06 * (high - low), low - 0.06 * (high - low))  # both axes fall
    kiel.set(xlabel="predicted Teff [K]", ylabel="predicted log g [dex]", title="Kiel diagram")
    bar = figure.colorbar(shown, ax=kiel, pad=0.02, aspect=24)
    bar.set_label("predicted [M/H] [dex]")
    bar.outline.set_visible(False)
    plotting.plot_identity(extinction, true["ebv"], predicted["ebv"])
    extinction.set(xlabel="true E(B-V) [mag]", ylabel="predicted E(B-V) [mag]", title="reddening")
    true_kpc, predicted_kpc = (np.where(good, 100.0 * d["dist"], np.nan) for d in (true, predicted))
    plotting.plot_identity(distance, true_kpc, predicted_kpc)
    distance.set(xlabel="true distance for G = 10 [kpc]", ylabel="predicted [kpc]",
                 title="distance, parallax S/N > 5")  # fmt: skip


# --- figures 18 and 19: colours from XP, and RP0 from more and more inputs ---

N_COEFFICIENTS = 32
"""Number of coefficients of each band among the inputs of figure 18."""

GROWING = {
    "labels": LABELS,
    "labels, J-H, J-K": (*LABELS, "jh", "jk"),
    "labels, J-H, J-K, BP-RP": (*LABELS, "jh", "jk", "bprp"),
}
"""Inputs of figure 19."""


def colours(context: ExperimentContext) -> Outcome:
    """Return figure 18: BP-RP and J-K from 32 coefficients a band.

    Parameters
    ----------
    context
        Model and stars.
    """
    v, stars = context.vocabulary, context.stars
    xp = [t.name for t in v.tokens if t.kind == "coefficient" and t.index < N_COEFFICIENTS]
    inputs = context.inputs(stars, xp)
    checks: list[Check] = []
    shown = {}
    for name, words in (("bprp", "BP-RP"), ("jk", "J-K")):
        predicted, _ = context.predict_one(inputs, name)
        observed, error = (m[:, v.column(name)].astype(float) for m in (stars.values, stars.errors))
        residual = predicted - observed
        shown[words] = (observed, predicted)
        known = np.isfinite(observed)
        red = observed > np.percentile(observed[known], 90) if known.any() else known
        checks += [
            at_most(f"{words}: scatter over that of the stars",
                    robust_scatter(residual) / robust_scatter(observed), 0.3),
            Check(f"{words}: scatter", robust_scatter(residual), "mag", finite_median(error),
                  "median observed error"),
            Check(f"{words}: median difference", finite_median(residual), "mag"),
            Check(f"{words}: median difference, reddest tenth", finite_median(residual[red]),
                  "mag"),
        ]  # fmt: skip
    known = ", ".join(
        f"{np.isfinite(observed).sum():,} with {words}" for words, (observed, _) in shown.items()
    )
    # A colour that no star has gets no panel; its line in the table says how many have it.
    drawn = {
        words: pair
        for words, pair in shown.items()
        if np.isfinite(pair[0]).any() and np.isfinite(pair[1]).any()
    }
    draw = partial(_draw_colours, drawn, context.measured)
    return Outcome(tuple(checks), draw, stars=f"Stars: {known}")


def _draw_colours(shown: dict[str, tuple[Floats, Floats]], measured: str, figure: Any) -> None:
    for axes, (words, (observed, predicted)) in zip(
        figure.subplots(1, max(len(shown), 1), squeeze=False)[0], shown.items(), strict=False
    ):
        scatter = robust_scatter(predicted - observed)
        plotting.plot_identity(axes, observed, predicted, f"scatter {scatter:.3g} mag")
        axes.set(xlabel=f"{measured} {words} [mag]", ylabel=f"predicted {words} [mag]")
        axes.set_box_aspect(1)


@dataclass(frozen=True, eq=False)
class _Growing:
    """Observed RP0 over G (N,); for each of GROWING predictions, scatter, median sigma."""

    observed: Floats
    predicted: list[Floats]
    scatter: dict[str, list[float]]
    sigma: list[float]


def rp0_by_inputs(context: ExperimentContext) -> Outcome:
    """Return figure 19: RP0 from labels, with 2MASS colours, with BP-RP; next to XGBoost.

    Parameters
    ----------
    context
        Model and stars.
    """
    found = _predict_growing(context)
    checks: list[Check] = []
    for inputs, (published, published_trees, source), ours, trees in zip(
        GROWING, RP0, found.scatter[MODEL], found.scatter[TREES], strict=True
    ):
        name = f"scatter of RP0 from {inputs}"
        checks += [
            Check(name, ours, "", published, source),
            Check(f"{name}, {TREES}", trees, "", published_trees,
                  f"{source}, fitted to the test stars"),
            at_most(name, ours, 1.1 * trees, "",
                    f"{TREES} fitted to the training stars, plus 10 %"),
        ]  # fmt: skip
    for (before, after), (sigma, smaller) in zip(
        pairwise(GROWING), pairwise(found.sigma), strict=True
    ):
        checks.append(
            at_most(f"median sigma of RP0 from {after}", smaller, sigma, source=f"from {before}")
        )
    gain = found.scatter[MODEL][0] / found.scatter[MODEL][1]
    checks += [
        Check("scatter from labels over that with J-H and J-K", gain, "",
              RP0[0][0] / RP0[1][0], RP0[0][2]),
        at_least("RP0: scatter without J-H and J-K over that with them", gain, 1.0),
    ]  # fmt: skip
    stars = (
        f"Stars: {np.isfinite(found.observed).sum():,}; XGBoost is fitted to "
        f"{len(context.training):,} others"
    )
    draw = partial(_draw_growing, found, context.measured)
    return Outcome(tuple(checks), draw, stars=stars)


def _predict_growing(context: ExperimentContext) -> _Growing:
    column, stars, training = context.vocabulary.column("rp0"), context.stars, context.training
    found = _Growing(stars.values[:, column].astype(float), [], {MODEL: [], TREES: []}, [])
    for names in GROWING.values():
        inputs = context.inputs(stars, names)
        predicted, sigma = context.predict_one(inputs, "rp0")
        used = np.flatnonzero(inputs.present.any(axis=0))
        data = TreeData(
            context.inputs(training, names).values, training.values[:, [column]], ("rp0",), used
        )
        by_trees = context.trees.predict(data, inputs.values)[:, 0]
        found.predicted.append(predicted)
        found.scatter[MODEL].append(robust_scatter(predicted - found.observed))
        found.scatter[TREES].append(robust_scatter(by_trees - found.observed))
        found.sigma.append(float(np.median(sigma)))
    return found


def _draw_growing(found: _Growing, measured: str, figure: Any) -> None:
    *places, last = figure.subplots(1, 4)
    for axes, inputs, predicted in zip(places, GROWING, found.predicted, strict=True):
        plotting.plot_identity(axes, found.observed, predicted)
        axes.set_title(inputs, fontsize=8)
        axes.set(xlabel=f"{measured} RP0 over G")
    places[0].set_ylabel("predicted")
    for method, marker, colour in ((MODEL, "o", plotting.BLUE), (TREES, "s", plotting.ORANGE)):
        last.plot(range(3), found.scatter[method], marker=marker, color=colour, label=method)
    last.plot(range(3), [p for p, *_ in RP0], "D", color=plotting.PURPLE, fillstyle="none",
              label="published, real stars")  # fmt: skip
    last.plot(range(3), found.sigma, ":", color=plotting.BLUE, label="sigma, model")
    last.set_yscale("log")
    last.set_xticks(range(3), ["labels", "+ JHK", "+ BP−RP"])
    last.set_title("scatter", fontsize=8)
    plotting.plain_ticks(last)
    last.legend()
