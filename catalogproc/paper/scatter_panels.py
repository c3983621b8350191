"""Figures 4 to 6, 18 and 19: answers against the truth, beside XGBoost.

Atmospheres, mass and age from six sets of tokens; what the answers show; colours from XP; and
one coefficient from ever more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from catalogproc.evaluation.benchmark import PANELS, TREES
from catalogproc.evaluation.literature import PUBLISHED, RP0
from catalogproc.evaluation.metrics import QUANTITIES, Answers, Score, given_by, token_of
from catalogproc.evaluation.xgboost_baseline import fit_baseline
from catalogproc.paper import plotting
from catalogproc.paper.base import (
    ATMOSPHERE,
    LABELS,
    Flags,
    Floats,
    Number,
    Outcome,
    Setting,
    at_least,
    at_most,
    middle,
    robust,
)

MASS_AND_AGE = ("mass", "age")

MOST_OF_B = 2.0
"""The paper's "robust": with few or random tokens, scatter at most so many times that of b."""

IDENTITY = 0.05
"""With the truth among the noisy tokens, the scatter left is at most so much of that without."""

LARGER = 1.5
"""From noisy tokens the model states a sigma at least so many times that from good ones."""

BELIEVED = 1.25
"""At most the standard deviation of (predicted - true) / sigma where sigma can be believed."""

GOOD_PARALLAX = 5.0
"""Parallax over error of the stars whose distances the paper compares."""

KNOWN_BY_HALF = 0.5
"""A quantity is known where its scatter is at most so much of that of the stars themselves."""


def atmospheres(setting: Setting) -> Outcome:
    """Figure 4: Teff, log g and [M/H]."""
    return _panels(setting, ATMOSPHERE)


def mass_and_age(setting: Setting) -> Outcome:
    """Figure 5."""
    return _panels(setting, MASS_AND_AGE)


def _panels(setting: Setting, names: Sequence[str]) -> Outcome:
    scores = {
        key: dict(zip(names, answer.scores(setting.stars.truth, setting.vocabulary, names),
                      strict=True))
        for key, answer in setting.panels.items()
    }  # fmt: skip
    numbers: list[Number] = []
    for name in names:
        numbers += _scatters({key: found[name] for key, found in scores.items()}, name)
        text = QUANTITIES[name].text
        stated = {key: _stated(setting.panels[key], name) for key in "be"}
        numbers += [
            at_least(f"{text}: sigma from noisy tokens (e) over that from b",
                     stated["e"] / stated["b"], LARGER),
            at_most(f"{text}: sd of z in e", scores["e"][name].z_std, BELIEVED),
        ]  # fmt: skip
    noisy = given_by("e", setting.stars.values, setting.stars.truth, setting.vocabulary)
    empty = 100.0 * float(np.isnan(noisy).all(axis=1).mean())
    numbers.append(Number("stars that have no noisy token at all: their answer in e is the prior",
                          empty, "%"))  # fmt: skip
    return Outcome(tuple(numbers), partial(_draw_panels, setting, scores, names))


def _scatters(scores: dict[str, Score], name: str) -> list[Number]:
    """Every panel's scatter beside the published one, and what must hold between them."""
    item = QUANTITIES[name]
    numbers = []
    for key, found in scores.items():
        whose, published = PUBLISHED.get((key, name), ("", float("nan")))
        words = f"{item.text}: scatter, {key} ({TREES if key == 'a' else 'the model'})"
        numbers.append(Number(words, found.scatter, item.unit, published, whose))
    scatter = {key: found.scatter for key, found in scores.items()}
    return [
        *numbers,
        at_most(f"{item.text}: scatter, b", scatter["b"], scatter["a"], item.unit,
                f"{TREES}, same tokens"),
        *(at_most(f"{item.text}: scatter, {key} over b", scatter[key] / scatter["b"], MOST_OF_B)
          for key in "cd"),
        at_most(f"{item.text}: scatter, f over e", scatter["f"] / scatter["e"], IDENTITY),
    ]  # fmt: skip


def _stated(answers: Answers, name: str) -> float:
    """The median sigma of a label; NaN where it is not answered."""
    if answers.sigma is None or token_of(name) not in answers.labels:
        return float("nan")
    return float(np.median(answers.sigma[:, answers.labels.index(token_of(name))]))


def _draw_panels(
    setting: Setting, scores: dict[str, dict[str, Score]], names: Sequence[str], figure: Any
) -> None:
    keys = tuple(setting.panels)
    places = figure.subplots(len(names), len(keys), squeeze=False)
    for key, axes in zip(keys, places[0], strict=True):
        axes.set_title(f"{key}  {_short(key)}", fontsize=7.5)
    for row, name in zip(places, names, strict=True):
        item = QUANTITIES[name]
        true = item.of(setting.stars.truth[:, setting.vocabulary.column(item.token)])
        for axes, key in zip(row, keys, strict=True):
            said = _quantity(setting.panels[key], name, len(true))
            words = f"{scores[key][name].scatter:.3g} {item.unit}"
            plotting.identity(axes, true, said, words)
        row[0].set_ylabel(f"predicted {item.text} [{item.unit}]")
        row[len(keys) // 2].set_xlabel(f"true {item.text} [{item.unit}]")


def _short(key: str) -> str:
    return PANELS[key].split(":")[0]


def _quantity(answers: Answers, name: str, size: int) -> Floats:
    """A quantity (N,) of answers, NaN where it is not answered."""
    item = QUANTITIES[name]
    if item.token not in answers.labels:
        return np.full(size, np.nan)
    return item.of(answers.mean[:, answers.labels.index(item.token)])


def what_answers_show(setting: Setting) -> Outcome:
    """Figure 6: the Kiel diagram, E(B-V) and distances, from the tokens of panel b."""
    answers, stars = setting.panels["b"], setting.stars
    names = ("teff", "logg", "m_h", "ebv", "dist")
    said = {name: _quantity(answers, name, len(stars)) for name in names}
    true = {
        name: QUANTITIES[name].of(stars.truth[:, setting.vocabulary.column(token_of(name))])
        for name in names
    }
    good = stars.beside.get("parallax_over_error", np.full(len(stars), np.inf)) > GOOD_PARALLAX
    distance = np.where(good, 100.0 * (said["dist"] / true["dist"] - 1.0), np.nan)
    extinction = said["ebv"] - true["ebv"]
    whose, published = PUBLISHED["b", "ebv"]
    source, per_cent = PUBLISHED["b", "dist"]
    numbers = (
        Number("E(B-V): scatter", robust(extinction), "mag", published, whose),
        at_most("E(B-V): scatter over that of the stars", robust(extinction) / robust(true["ebv"]),
                KNOWN_BY_HALF),
        Number("distance: scatter, parallax S/N > 5", robust(distance), "%", per_cent, source),
        Number("distance: median difference", middle(distance), "%"),
        at_most("distance: scatter over that of the stars",
                robust(np.log(said["dist"] / true["dist"])[good])
                / robust(np.log(true["dist"])[good]), KNOWN_BY_HALF),
        at_least("Kiel diagram: correlation of predicted Teff with log g on the giant branch",
                 _branch(said), _branch(true) - 0.1, whose="the truth, less 0.1"),
    )  # fmt: skip
    return Outcome(numbers, partial(_draw_shown, said, true, good))


def _branch(of: dict[str, Floats]) -> float:
    """Correlation of Teff and log g of stars near solar [M/H] above the red clump."""
    chosen = (np.abs(of["m_h"]) < 0.3) & (of["logg"] < 2.2) & (of["teff"] < 5000)
    if chosen.sum() < 10:
        return float("nan")
    return float(np.corrcoef(of["teff"][chosen], of["logg"][chosen])[0, 1])


def _draw_shown(said: dict[str, Floats], true: dict[str, Floats], good: Flags, figure: Any) -> None:
    kiel, extinction, distance = figure.subplots(1, 3)
    shown = kiel.scatter(
        said["teff"][:4000], said["logg"][:4000], c=said["m_h"][:4000], s=2, cmap=plotting.MAP,
        vmin=-1.5, vmax=0.4, linewidths=0,
    )  # fmt: skip
    kiel.invert_xaxis()
    kiel.invert_yaxis()
    kiel.set(xlabel="predicted Teff [K]", ylabel="predicted log g [dex]", title="Kiel diagram")
    bar = figure.colorbar(shown, ax=kiel, pad=0.02, aspect=24)
    bar.set_label("predicted [M/H] [dex]")
    bar.outline.set_visible(False)
    plotting.identity(extinction, true["ebv"], said["ebv"])
    extinction.set(xlabel="true E(B-V) [mag]", ylabel="predicted E(B-V) [mag]", title="reddening")
    one, other = (np.where(good, 100.0 * d["dist"], np.nan) for d in (true, said))
    plotting.identity(distance, one, other)
    distance.set(xlabel="true distance, were G = 10 [kpc]", ylabel="predicted [kpc]",
                 title="distance, parallax S/N > 5")  # fmt: skip


# --- figures 18 and 19: colours from XP, and RP0 from ever more ---

GIVEN_XP = 32
"""Coefficients of each band that figure 18 gives."""

GROWING = {
    "labels": LABELS,
    "labels, J-H, J-K": (*LABELS, "jh", "jk"),
    "labels, J-H, J-K, BP-RP": (*LABELS, "jh", "jk", "bprp"),
}
"""Of figure 19: what RP0 is asked from."""


def colours(setting: Setting) -> Outcome:
    """Figure 18: BP-RP and J-K from 32 coefficients a band."""
    v, stars = setting.vocabulary, setting.stars
    xp = [t.name for t in v.tokens if t.kind == "coefficient" and t.index < GIVEN_XP]
    given = setting.known(stars, xp)
    numbers: list[Number] = []
    shown = {}
    for name, words in (("bprp", "BP-RP"), ("jk", "J-K")):
        said, _ = setting.one(given, name)
        seen, error = (m[:, v.column(name)].astype(float) for m in (stars.values, stars.errors))
        off = said - seen
        shown[words] = (seen, said, robust(off))
        known = np.isfinite(seen)
        red = seen > np.percentile(seen[known], 90) if known.any() else known
        numbers += [
            at_most(f"{words}: scatter over that of the stars", robust(off) / robust(seen), 0.3),
            Number(f"{words}: scatter", robust(off), "mag", middle(error),
                   "median error of what was seen"),
            Number(f"{words}: median difference", middle(off), "mag"),
            Number(f"{words}: median difference, reddest tenth", middle(off[red]), "mag"),
        ]  # fmt: skip

    def draw(figure: Any) -> None:
        for axes, (words, (seen, said, scatter)) in zip(
            figure.subplots(1, 2), shown.items(), strict=True
        ):
            plotting.identity(axes, seen, said, f"scatter {scatter:.3g} mag")
            axes.set(xlabel=f"observed {words} [mag]", ylabel=f"from XP {words} [mag]")

    return Outcome(tuple(numbers), draw)


def growing_information(setting: Setting) -> Outcome:
    """Figure 19: RP0 from labels, with 2MASS colours, with BP-RP; beside trees."""
    v, stars, training = setting.vocabulary, setting.stars, setting.training
    seen = stars.values[:, v.column("rp0")].astype(float)
    target = training.values[:, [v.column("rp0")]]
    scatter: dict[str, list[float]] = {"model": [], TREES: []}
    sigmas, shown = [], {}
    for words, names in GROWING.items():
        given = setting.known(stars, names)
        said, sigma = setting.one(given, "rp0")
        columns = np.flatnonzero(np.isfinite(given).any(axis=0))
        grown = fit_baseline(
            setting.known(training, names), target, ("rp0",), columns, setting.tree_settings
        )
        scatter["model"].append(robust(said - seen))
        scatter[TREES].append(robust(grown.predict(given)[:, 0] - seen))
        sigmas.append(float(np.median(sigma)))
        shown[words] = (seen, said)
    numbers: list[Number] = []
    for i, words in enumerate(GROWING):
        published, by_trees, whose = RP0[i]
        ours, trees = scatter["model"][i], scatter[TREES][i]
        numbers += [
            Number(f"scatter of RP0 from {words}", ours, "", published, whose),
            Number(f"scatter of RP0 from {words}, {TREES}", trees, "", by_trees,
                   f"{whose}, grown on the test part"),
            at_most(f"scatter of RP0 from {words}", ours, 1.1 * trees, "",
                    f"{TREES} on the training part, and 10 %"),
        ]  # fmt: skip
    steps = list(GROWING)
    for i in (1, 2):
        numbers.append(at_most(f"median sigma of RP0 from {steps[i]}", sigmas[i], sigmas[i - 1],
                               whose=f"from {steps[i - 1]}"))  # fmt: skip
    gained = scatter["model"][0] / scatter["model"][1]
    numbers += [
        Number("scatter from labels over that with J-H and J-K", gained, "",
               RP0[0][0] / RP0[1][0], RP0[0][2]),
        at_least("J-H and J-K make RP0 better: scatter without them over that with", gained, 1.0),
    ]  # fmt: skip

    def draw(figure: Any) -> None:
        *places, last = figure.subplots(1, 4)
        for axes, (words, (true, said)) in zip(places, shown.items(), strict=True):
            plotting.identity(axes, true, said)
            axes.set_title(words, fontsize=8)
            axes.set(xlabel="observed RP0 over G")
        places[0].set_ylabel("predicted")
        for method, marker, colour in (
            ("model", "o", plotting.BLUE),
            (TREES, "s", plotting.ORANGE),
        ):
            last.plot(range(3), scatter[method], marker=marker, color=colour, label=method)
        last.plot(range(3), [p for p, *_ in RP0], "D", color=plotting.PURPLE, fillstyle="none",
                  label="published, real stars")  # fmt: skip
        last.plot(range(3), sigmas, ":", color=plotting.BLUE, label="sigma, model")
        last.set_yscale("log")
        last.set_xticks(range(3), ["labels", "+ JHK", "+ BP−RP"])
        last.set_title("scatter", fontsize=8)
        plotting.plain_ticks(last)
        last.legend()

    return Outcome(tuple(numbers), draw)
