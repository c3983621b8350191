"""The comparison with a published catalog as a section: text, tables, CSV and pictures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import asdict

import numpy as np

from catalogproc.errors import plural
from catalogproc.evaluation.crosscheck_figures import figures
from catalogproc.evaluation.literature import SEISMIC_FLOOR
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.evaluation.recipes import PLAIN
from catalogproc.evaluation.reference_comparison import (
    ALL,
    GOOD_MASS_AGE,
    GOOD_PARAMS,
    MIN_GOOD,
    MIN_STARS,
    SHOWN,
    Comparison,
    PartScore,
)
from catalogproc.evaluation.report_section import Section, csv_text
from catalogproc.evaluation.scorecard import decimals, figure, markdown
from catalogproc.evaluation.scores import NAN

ABOUT = (
    "Differences are this catalog minus the reference; scatter is 1.4826 times their median "
    "absolute deviation, bias their median, spread the scatter of the reference values themselves. "
    "A small scatter is no skill where the values are alike: R2 is 1 minus the mean square "
    "difference over the variance of the reference, slope that of this catalog on the reference, "
    "slope of ref. that of the reference on this catalog. z is the difference over both errors in "
    "quadrature. The reference has errors and faults of its own: a difference is not yet a fault "
    "of this catalog."
)

FLOOR = {f"{name}_percent": f"{100 * floor:.3g}" for name, floor in SEISMIC_FLOOR.items()}
"""Per cent: the errors of the best seismic masses and ages."""

_SKILL = (
    "stars", "scatter", "spread", "R2", "slope", "slope of ref.", "bias", "sd of z",
    "< 1 σ",
)  # fmt: skip


def reference_section(found: Comparison, taken: Collection[str] = ()) -> Section:
    """Return a comparison as a section.

    Parameters
    ----------
    found
        The comparison.
    taken
        Names of other sections, which this one must not have.
    """
    recipe, file = found.reference.recipe, found.reference.path.name.split(".")[0]
    name = f"{recipe.name}-{file}" if recipe.name == PLAIN else recipe.name
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", name)  # part of identifiers and of file names
    slug = next(
        x for x in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if x not in taken
    )
    lines, more = [*_counts(found), ""], []
    if found.parts:
        lines += ["### Skill", "", *_samples(found)]
        more += ["", "### By magnitude", "", *_by_magnitude(found)]
        more += ["", "### By flag", "", *_by_flag(found)]
        more += ["", "### Along the reference", "", *_by_decile(found)]
    return Section(
        slug, found.reference.title, tuple(lines), {f"{slug}.csv": csv_text(list(_rows(found)))},
        tuple(figures(found, slug)), _caution(found), tuple(more),
    )  # fmt: skip


def _caution(found: Comparison) -> str:
    """Say where bins and pictures are of good and bad stars together."""
    if not found.shown:
        return f"Fewer than {MIN_STARS} stars are in both catalogs: their scatter is uncertain."
    few = [name for name in SHOWN if found.shown.get(name) == ALL]
    if not few:
        return ""
    names = ", ".join(QUANTITIES[name].text for name in few)
    return (
        f"Fewer than {MIN_GOOD} good stars are in both catalogs: bins and pictures of {names} are "
        "of all matched stars, good and bad."
    )


def _counts(found: Comparison) -> Iterator[str]:
    """Numbers of rows and stars, of both sides."""
    reference, stars = found.reference, found.stars
    recipe, total = reference.recipe, sum(reference.rows.values())
    listed = ", ".join(f"{number:,} {what}" for what, number in reference.rows.items() if number)
    yield f"{reference.path.name}, read by the recipe `{recipe.name}` ({recipe.source})."
    if recipe.cite:
        yield f"Cite {recipe.cite}."
    yield ""
    yield f"- {plural(total, 'row')} of the reference = {listed or 'none'}"
    matched = len(stars.source_id)
    yield (
        f"- {plural(stars.catalog_stars, 'star')} of this catalog = {matched:,} in the reference + "
        f"{stars.catalog_stars - matched:,} not in it"
    )
    params, aged = (int(stars.samples[name].sum()) for name in (GOOD_PARAMS, GOOD_MASS_AGE))
    yield f"- of the stars in both, {params:,} have good_params and {aged:,} good_mass_age"
    yield f"- columns read: {', '.join(f'`{name}`' for name in reference.used)}"
    if recipe.select:
        yield f"- selected: {'; '.join(str(one) for one in recipe.select)}"
    if reference.absent:
        yield f"- not in the file: {', '.join(reference.absent)}"
    for note in reference.notes:
        yield f"- {note}"


def _samples(found: Comparison) -> Iterator[str]:
    rows = [one for one in found.of("sample") if one.score.stars]
    yield from markdown(
        ("quantity", "unit", "sample", *_SKILL, "seismic floor"),
        [(*_named(one), one.sample, *_skill(one), FLOOR.get(one.quantity, "")) for one in rows],
    )


def _by_magnitude(found: Comparison) -> Iterator[str]:
    rows = [one for one in found.of("G") if one.quantity in SHOWN]
    if not rows:
        yield f"No bin of G has {MIN_STARS} stars."
        return
    yield from markdown(
        ("quantity", "unit", "sample", "G", *_SKILL),
        [(*_named(one), one.sample, f"{one.low:g} to {one.high:g}", *_skill(one)) for one in rows],
    )


def _by_flag(found: Comparison) -> Iterator[str]:
    rows = [one for one in found.of("flag") if one.quantity in SHOWN]
    if not rows:
        yield f"No flag is set for {MIN_STARS} matched stars."
        return
    yield f"Stars with a flag, good or not; flags of fewer than {MIN_STARS} stars are left out."
    yield ""
    yield from markdown(
        ("quantity", "unit", "flag", *_SKILL),
        [(*_named(one), one.sample, *_skill(one)) for one in rows],
    )


def _by_decile(found: Comparison) -> Iterator[str]:
    if not found.deciles:
        yield f"Fewer than {MIN_GOOD} stars: no ranges."
        return
    yield "Ten ranges of the reference value with equally many stars. A catalog that knows nothing "
    yield "is biased by the whole distance to the mean."
    yield ""
    cells = []
    for name, deciles in found.deciles.items():
        if name not in SHOWN:
            continue
        sample = found.shown[name]
        item, like = QUANTITIES[name], float(np.median([one.scatter for one in deciles]))
        for place, one in enumerate(deciles):
            first = (item.text, item.unit, sample) if not place else ("", "", "")
            edges = " to ".join(figure(x, like) for x in (one.low, one.high))
            numbers = (figure(one.bias, like), figure(one.scatter, like))
            cells.append((*first, edges, f"{one.stars:,}", *numbers, _share(one.within_1_sigma)))
    header = ("quantity", "unit", "sample", "reference", "stars", "bias", "scatter", "< 1 σ")
    yield from markdown(header, cells)


def _named(one: PartScore) -> tuple[str, str]:
    item = QUANTITIES[one.quantity]
    return item.text, item.unit


def _skill(one: PartScore) -> tuple[str, ...]:
    found = one.score
    return (
        f"{found.stars:,}", figure(found.scatter), figure(found.spread, found.scatter),
        *(decimals(x) for x in (found.r2, found.slope, found.slope_of_truth)),
        figure(found.bias, found.scatter), decimals(found.z_std), _share(found.within_1_sigma),
    )  # fmt: skip


def _share(share: float) -> str:
    return "" if share != share else f"{100 * share:.0f} %"


def _rows(found: Comparison) -> Iterator[dict[str, object]]:
    """All scores as rows of one CSV table."""
    for one in found.parts:
        scores = asdict(one.score)
        scores.pop("label")
        where = {"part": one.part, "quantity": one.quantity, "unit": QUANTITIES[one.quantity].unit}
        edges = {"sample": one.sample, "low": one.low, "median": NAN, "high": one.high}
        yield where | edges | scores
    blank = dict.fromkeys(asdict(found.parts[0].score), NAN) if found.parts else {}
    blank.pop("label", None)
    for name, deciles in found.deciles.items():
        for decile in deciles:
            where = {"part": "decile", "quantity": name, "unit": QUANTITIES[name].unit}
            edges = {"sample": found.shown[name], "low": NAN, "median": NAN, "high": NAN}
            yield where | edges | blank | asdict(decile)
