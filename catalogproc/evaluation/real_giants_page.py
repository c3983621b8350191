"""The evaluation on real giants as a Markdown page, a CSV table and a figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from catalogproc.evaluation.attenuation_plot import attenuation_figure
from catalogproc.evaluation.known_populations import EDGES as AGE_EDGES
from catalogproc.evaluation.literature import PUBLISHED
from catalogproc.evaluation.panel_scores import MODEL, TREES
from catalogproc.evaluation.quantities import QUANTITIES
from catalogproc.evaluation.real_giants_criteria import bin_text, criteria, share_text, worst_bin
from catalogproc.evaluation.real_giants_result import GOOD, GOOD_TREES, RealGiants
from catalogproc.evaluation.real_giants_tables import (
    faint_table,
    good_table,
    one_band_table,
    parallax_table,
    population_table,
    red_clump_table,
    seismic_table,
    selected_table,
    skill_cells,
)
from catalogproc.evaluation.real_test_part import BIN_STARS, CELL_STARS
from catalogproc.evaluation.scorecard import decimals, figure, markdown
from catalogproc.evaluation.scores import NAN, Score
from catalogproc.io.atomic import write_atomic

PAGE, TABLE, PICTURE = "real_giants.md", "real_giants.csv", "attenuation.png"

ABOUT = (
    "Scatter is 1.4826 times the median absolute deviation of predicted minus true, bias its "
    "median, spread the scatter of the true values themselves. R2 is 1 minus the mean square "
    "residual over the variance of the true values; slope is that of predicted on true values, "
    "slope of truth that of true on predicted ones (1 for a prediction that is the mean of the "
    "true values). z is the residual over sigma and the error of the true value in quadrature, "
    "at most 6 either way."
)


def page(found: RealGiants) -> str:
    """Return the evaluation as Markdown.

    Parameters
    ----------
    found
        The evaluation.
    """
    passed = list(criteria(found))
    left_out = ""
    if found.seen:
        left_out = f" ({found.seen:,} stars that the model may have been trained on left out)"
    lines = [
        f"# {found.model} ({found.hash[:8]}) on real giants",
        "",
        f"{found.giants:,} giants among the {found.stars:,} stars of the test part of "
        f"{found.dataset}, which took part in nothing"
        + left_out
        + f"; {TREES} is fitted to the {found.tree_stars:,} giants of the training part. Both "
        "read 30 + 30 coefficients and three colours and no parallax; the model only the "
        "coefficients that carry signal. Values, uncertainties and flags are those of the catalog.",
        "",
        ABOUT,
        "",
        *_accuracy(found),
        "",
        "True masses and ages are seismic for few of these stars and of the teacher (trees on "
        "APOGEE's labels) for most; the published scatters are on other stars with labels of "
        "another origin (DistMass).",
        "",
        f"**What is wanted**: {sum(one.passed for one in passed)} of {len(passed)} pass.",
        "",
        *markdown(
            ("quantity", "value", "wanted", "verdict"),
            [(x.words, x.value, x.wanted, "pass" if x.passed else "fail") for x in passed],
        ),
        "",
        "## Uncertainties",
        "",
        *_uncertainties(found),
        "",
        *_gains(found),
        *faint_table(found),
        "",
        *one_band_table(found),
        "",
        "## Skill along the true values",
        "",
        "Bias in ten ranges of the true value with equally many stars. A method that knows nothing "
        "is biased by the whole distance to the mean.",
        "",
        f"![bias by decile of the true value]({PICTURE})",
        "",
        *_deciles(found),
        "",
        "## Stars that are no giants, and parallaxes",
        "",
        *good_table(found),
        "",
        *parallax_table(found),
        "",
        "## Masses and ages with asteroseismology",
        "",
        *seismic_table(found),
        "",
        *(("## The red clump", "", *red_clump_table(found), "") if found.red_clump else ()),
        "## Which stars for masses and ages",
        "",
        *selected_table(found),
        *(("", "## Populations", "", *population_table(found)) if found.populations else ()),
    ]
    return "\n".join(lines) + "\n"


def _accuracy(found: RealGiants) -> Iterator[str]:
    header = ("quantity", "unit", "stars", "spread", "method", "scatter", "R2", "bias", "slope",
              "slope of truth", "published scatter")  # fmt: skip
    cells = []
    for row in found.scores:
        item = QUANTITIES[row.quantity]
        for panel, method in (("b", MODEL), ("a", TREES), ("", GOOD), ("", GOOD_TREES)):
            if method not in row.by_method:
                continue
            one = row.by_method[method]
            source, number = PUBLISHED.get((panel, row.quantity), ("", NAN))
            first = method == MODEL
            cells.append((
                item.text if first else "", item.unit if first else "",
                f"{one.stars:,}" if method in (MODEL, GOOD) else "",
                figure(one.spread, one.scatter) if first else "", method,
                *skill_cells(one), f"{number:g} ({source})" if source else "",
            ))  # fmt: skip
    yield from markdown(header, cells)


def _uncertainties(found: RealGiants) -> Iterator[str]:
    yield (
        f"Bins are of equally many stars, at least {BIN_STARS}, by columns of the catalog: G, "
        "log g, [M/H] and E(B-V). Cells of the latent space are groups of equally many giants that "
        f"the network sees as alike, at least {CELL_STARS}. Errors of the teacher's masses and "
        "ages, being of the same labels, make z too small."
    )
    yield ""
    cells = []
    for row in found.scores:
        one = row.by_method[MODEL]
        worst = [worst_bin(bins, row.quantity) for bins in (found.bins, found.cells)]
        cells.append((
            QUANTITIES[row.quantity].text, decimals(one.z_std), share_text(one.within_1_sigma),
            share_text(one.within_2_sigma),
            *(f"{share_text(x.score.within_1_sigma)}, {bin_text(x)}" if x else "" for x in worst),
        ))  # fmt: skip
    yield from markdown(
        (
            "quantity",
            "sd of z",
            "within 1 sigma",
            "within 2 sigma",
            "worst bin: within 1 sigma",
            "worst cell: within 1 sigma",
        ),
        cells,
    )


def _gains(found: RealGiants) -> Iterator[str]:
    known = [one for one in found.gains if one.stars > 1]
    if known:
        words = "; ".join(
            f"{QUANTITIES[one.label].text} {one.gain:.3f} ± {one.error:.3f}, {one.stars:,} stars"
            for one in known
        )
        yield (
            "Masses and log ages are predicted as sums of Gaussians. Their mean log likelihood "
            f"less that of Gaussians of the same mean and standard deviation, nats: {words} (the "
            "teacher's values are drawn within its scatter)."
        )
        yield ""


def _deciles(found: RealGiants) -> Iterator[str]:
    header = ("quantity", "true value", "stars", "bias", "scatter", "within 1 sigma",
              f"bias, {TREES}", f"scatter, {TREES}")  # fmt: skip
    cells = []
    for row in found.scores:
        item, like = QUANTITIES[row.quantity], row.by_method[MODEL].scatter
        trees = row.deciles.get(TREES, ())
        for place, one in enumerate(row.deciles[MODEL]):
            edges = " to ".join(figure(x, like) for x in (one.low, one.high))
            other = trees[place] if place < len(trees) else None
            cells.append((
                f"{item.text} [{item.unit}]" if not place else "", edges, f"{one.stars:,}",
                figure(one.bias, like), figure(one.scatter, like), share_text(one.within_1_sigma),
                figure(other.bias, like) if other else "",
                figure(other.scatter, like) if other else "",
            ))  # fmt: skip
    yield from markdown(header, cells)


FIELDS = ("part", "quantity", "method", "column", "low", "median", "high", "value")


def csv_text(found: RealGiants) -> str:
    """Return every score as CSV: of all giants, by bin, by decile, with parallax, seismic.

    Parameters
    ----------
    found
        The evaluation.
    """
    statistics = tuple(name for name in Score.__dataclass_fields__ if name != "label")
    out = io.StringIO()
    writer = csv.DictWriter(out, (*FIELDS, *statistics), lineterminator="\n", restval="")
    writer.writeheader()
    for row in _csv_rows(found):
        row.pop("label", None)
        writer.writerow({
            name: ("" if math.isnan(x) else f"{x:.6g}") if isinstance(x, float) else x
            for name, x in row.items()
        })  # fmt: skip
    return out.getvalue()


def _csv_rows(found: RealGiants) -> Iterator[dict[str, object]]:
    for row in found.scores:
        for method, one in row.by_method.items():
            yield {"part": "giants", "quantity": row.quantity, "method": method} | asdict(one)
        for method, deciles in row.deciles.items():
            for decile in deciles:
                where = {"part": "decile", "quantity": row.quantity, "method": method}
                yield where | {"column": "true value"} | asdict(decile)
    for part, bins in (
        ("bin", found.bins),
        ("cell", found.cells),
        ("noise added", found.faint),
    ):
        for some in bins:
            where = {"part": part, "quantity": some.quantity, "method": MODEL}
            edges = {"column": some.column, "low": some.low, "high": some.high}
            yield where | edges | asdict(some.score)
    for source, clump in found.red_clump.items():
        yield {"part": "red clump", "quantity": "rc_prob", "method": source,
               "stars": clump.stars, "value": clump.auc}  # fmt: skip
    for gain in found.gains:
        yield {"part": "distribution", "quantity": gain.label, "method": "mixture less Gaussian",
               "stars": gain.stars, "value": gain.gain}  # fmt: skip
    for band in found.one_band:
        where = {"part": "one band", "quantity": band.quantity, "method": f"{MODEL}, {band.band}"}
        yield where | asdict(band.score)
    for one_bin in found.selected:
        where = {"part": "selection", "quantity": one_bin.label, "method": one_bin.selection}
        yield where | {
            "column": "true value", "low": one_bin.low, "high": one_bin.high,
            "stars": one_bin.stars, "bias": one_bin.bias, "within_1_sigma": one_bin.within,
        }  # fmt: skip
    for sample in found.populations:
        for k, (low, high) in enumerate(pairwise(AGE_EDGES)):
            for method, fractions in (("true", sample.true), ("found", sample.found.fractions)):
                yield {"part": "population", "quantity": "age", "method": method,
                       "column": sample.sample, "low": low, "high": high,
                       "value": float(fractions[k]), "stars": sample.found.stars}  # fmt: skip
    for method, one in found.parallax.items():
        yield {"part": "parallax", "quantity": "logg", "method": method} | asdict(one)
    for label, scores in found.seismic.items():
        for seismic in scores:
            where = {"part": "seismic", "quantity": label, "method": seismic.method}
            yield where | asdict(seismic.score)
    for good in found.good:
        yield {"part": "good_params", "method": good.kind, "stars": good.stars} | {
            "column": "numbers without NOT_GIANT and in all", "low": good.unflagged,
            "high": good.good,
        }  # fmt: skip


def write_real_giants(found: RealGiants, folder: Path) -> list[Path]:
    """Write real_giants.md, real_giants.csv and attenuation.png, and return their paths.

    Parameters
    ----------
    found
        The evaluation.
    folder
        Where to write.
    """
    parts = {
        PAGE: page(found).encode(),
        TABLE: csv_text(found).encode(),
        PICTURE: attenuation_figure(found.scores),
    }
    for name, content in parts.items():
        write_atomic(folder / name, content)
    return [folder / name for name in parts]
