"""Tables of the evaluation on real giants, for parts of the stars and of what is read of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

from catalogproc.evaluation.known_populations import EDGES as AGE_EDGES
from catalogproc.evaluation.literature import SEISMIC_FLOOR
from catalogproc.evaluation.mass_age_selections import (
    ALL,
    BY_PREDICTION,
    EDGES,
    GOOD,
    RULES,
    SelectedStars,
)
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.evaluation.real_giants_criteria import share_text
from catalogproc.evaluation.real_giants_result import RealGiants
from catalogproc.evaluation.real_test_part import PARALLAX_SN
from catalogproc.evaluation.scorecard import decimals, figure, markdown
from catalogproc.evaluation.scores import Score
from catalogproc.evaluation.seismic_scores import SOURCES, SeismicScore


def skill_cells(one: Score) -> tuple[str, ...]:
    """Return scatter, R2, bias and both slopes as texts.

    Parameters
    ----------
    one
        The score.
    """
    return (
        figure(one.scatter), decimals(one.r2, 3), figure(one.bias, one.scatter),
        decimals(one.slope), decimals(one.slope_of_truth),
    )  # fmt: skip


def faint_table(found: RealGiants) -> Iterator[str]:
    yield (
        "The labelled stars end at G = 15. These are the same giants as if they were farther away: "
        "noise is added to spectra and colours, so that their errors are those of real stars of "
        "that magnitude. They are not real faint stars: dust and crowding are those of the bright "
        "ones."
    )
    yield ""
    rows = [(one.quantity, f"{one.low:g} to {one.high:g}", one.score) for one in found.faint]
    yield from _scores_by("G, noise added", rows)


def one_band_table(found: RealGiants) -> Iterator[str]:
    yield (
        "The same giants from the coefficients of one band and the colours. Coefficients of the "
        "other band take no part in those of the first."
    )
    yield ""
    rows = [(one.quantity, f"{one.band.upper()} alone", one.score) for one in found.one_band]
    order = list(QUANTITIES)
    yield from _scores_by("spectrum", sorted(rows, key=lambda row: order.index(row[0])))


def _scores_by(column: str, rows: Iterable[tuple[str, str, Score]]) -> Iterator[str]:
    """Lines of a table of scores, by quantity and by what a column says of the stars."""
    header = ("quantity", column, "stars", "scatter", "R2", "bias", "slope", "slope of truth",
              "sd of z", "within 1 sigma")  # fmt: skip
    cells = [
        (
            QUANTITIES[quantity].text, words, f"{score.stars:,}", *skill_cells(score),
            decimals(score.z_std), share_text(score.within_1_sigma),
        )
        for quantity, words, score in rows
        if score.stars
    ]  # fmt: skip
    yield from markdown(header, cells)


def good_table(found: RealGiants) -> Iterator[str]:
    yield (
        "How many stars of the test part pass `good_params`. Whether a star is a giant is by "
        "APOGEE's labels: log g < 3.5 and Teff < 5800 K. Without NOT_GIANT are those that pass "
        "and do not have this flag either."
    )
    yield ""
    header = ("stars", "number", "good_params", "share", "without NOT_GIANT", "share")
    cells = [
        (
            one.kind,
            f"{one.stars:,}",
            f"{one.good:,}",
            share_text(one.good / one.stars),
            f"{one.unflagged:,}",
            share_text(one.unflagged / one.stars),
        )
        for one in found.good
        if one.stars
    ]
    yield from markdown(header, cells)


def red_clump_table(found: RealGiants) -> Iterator[str]:
    yield (
        "`rc_prob` of giants whose stage is known: whether stars of the clump have larger "
        "probabilities than others (area under the ROC curve, 0.5 by chance), and the mean squared "
        "difference of probability and truth (Brier's score), as it is and relative to that of the "
        "clump's share (skill, 0 by chance)."
    )
    yield ""
    cells = [
        (source, f"{one.stars:,}", share_text(one.share), decimals(one.auc, 3),
         decimals(one.brier, 3), decimals(one.skill))
        for source, one in found.red_clump.items()
    ]  # fmt: skip
    header = ("stage from", "stars", "clump", "area under the ROC curve", "Brier's score", "skill")
    yield from markdown(header, cells)


def selected_table(found: RealGiants) -> Iterator[str]:
    yield (
        "Median error, and share of the stars whose true value is between the 16th and the 84th "
        "percentile, along the true masses and ages, of all giants and of those that a selection "
        "keeps; most true values are the teacher's, drawn within its scatter. Rules on the "
        f"prediction are that {', '.join(RULES)} are not set."
    )
    yield ""
    by_bin: dict[tuple[str, float, float], dict[str, SelectedStars]] = {}
    for one in found.selected:
        by_bin.setdefault((one.label, one.low, one.high), {})[one.selection] = one
    cells = [
        (_selection_bin(label, low, high), f"{some[ALL].stars:,}", _error_cell(some[ALL]),
         *(cell for name in (GOOD, BY_PREDICTION)
           for cell in (_kept_cell(some[name], some[ALL]), _error_cell(some[name]))))
        for (label, low, high), some in by_bin.items()
        if some[ALL].stars
    ]  # fmt: skip
    yield from markdown(
        ("true value", "stars", "all", GOOD, "error", BY_PREDICTION, "error"), cells
    )
    taught = found.taught
    if taught is not None and taught.stars:
        yield ""
        yield (
            f"Of the giants, {share_text(taught.taught / taught.stars)} have `TEACHER_DOMAIN` in "
            f"`input_flags`; for {share_text(taught.same / taught.stars)} APOGEE's labels give the "
            "same."
        )


def population_table(found: RealGiants) -> Iterator[str]:
    yield (
        "Fractions of true ages in samples of the giants, by `catalogproc.population` from the "
        "predictions, and of the predicted ages themselves. Some stars are left out at random by "
        "their age, so that the samples differ; true ages are drawn as above."
    )
    yield ""
    bins = [f"{low:g} to {high:g} Gyr" for low, high in pairwise(AGE_EDGES)]
    cells = []
    for one in found.populations:
        stars = f"{one.sample}, {one.found.stars:,} stars"
        texts = [f"{f:.3f} ± {e:.3f}"
                 for f, e in zip(one.found.fractions, one.found.errors, strict=True)]  # fmt: skip
        cells.append((stars, "true", *(f"{x:.3f}" for x in one.true)))
        cells.append(("", "found", *texts))
        cells.append(("", "predicted ages", *(f"{x:.3f}" for x in one.found.histogram)))
    yield from markdown(("sample", "", *bins), cells)


def _selection_bin(label: str, low: float, high: float) -> str:
    """Words of a bin of true mass or age."""
    name, unit = ("mass", "Msun") if label == "mass" else ("age", "Gyr")
    edges = [x if label == "mass" else 10.0 ** (x - 9.0) for x in (low, high)]
    if low == EDGES[label][0]:
        return f"{name} below {edges[1]:.3g} {unit}"
    if math.isinf(high):
        return f"{name} above {edges[0]:.3g} {unit}"
    return f"{name} {edges[0]:.3g} to {edges[1]:.3g} {unit}"


def _error_cell(one: SelectedStars) -> str:
    return f"{one.bias:+.3f}, {share_text(one.within)}" if one.stars else ""


def _kept_cell(one: SelectedStars, every: SelectedStars) -> str:
    return share_text(one.stars / every.stars)


def parallax_table(found: RealGiants) -> Iterator[str]:
    yield (
        f"log g of giants with a parallax of S/N above {PARALLAX_SN:g}, the same stars without and "
        "with it as an input:"
    )
    yield ""
    cells = [
        (method, f"{one.stars:,}", *skill_cells(one), decimals(one.z_std))
        for method, one in found.parallax.items()
        if one.stars
    ]
    header = ("method", "stars", "scatter", "R2", "bias", "slope", "slope of truth", "sd of z")
    yield from markdown(header, cells)


def seismic_table(found: RealGiants) -> Iterator[str]:
    floors = ", ".join(f"{name} {100 * floor:.3g} %" for name, floor in SEISMIC_FLOOR.items())
    yield (
        "Test stars with seismic masses and ages. In brackets is the range of 68 % of bootstrap "
        "samples of the stars. The teacher is fitted to seismic stars of the training part, and "
        "predicts from APOGEE's labels; ages are clipped to 0.3 to 14 Gyr. Errors of the best "
        f"seismic values: {floors}."
    )
    yield ""
    header = ("quantity", "method", "stars", "spread", "scatter", "%", "r", "bias", "R2", "slope",
              "slope of truth", "sd of z")  # fmt: skip
    cells = []
    for label in SOURCES:
        shown = [one for one in found.seismic.get(label, ()) if one.score.stars]
        for place, one in enumerate(shown):
            item, like = QUANTITIES[label], one.score.scatter
            cells.append((
                f"{item.text} [{item.unit}]" if not place else "", one.method,
                f"{one.score.stars:,}", figure(one.score.spread, like),
                _with_range(one, "scatter", like), f"{one.per_cent:.0f}",
                *(_with_range(one, name, like if name == "bias" else None)
                  for name in ("correlation", "bias", "r2", "slope", "slope_of_truth")),
                decimals(one.score.z_std),
            ))  # fmt: skip
    if not cells:
        yield "No star of the test part has any that the model was not trained on."
        return
    yield from markdown(header, cells)


def _with_range(one: SeismicScore, name: str, like: float | None) -> str:
    """A statistic with its bootstrap range; with two decimals without ``like``."""
    value, (low, high) = getattr(one.score, name), one.interval[name]
    texts = [decimals(x) if like is None else figure(x, like) for x in (value, low, high)]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"
