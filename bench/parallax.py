"""Two questions about each star, with the parallax and without it, compared with one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bench.kit import Kit
from bench.measure import Figures, Row, Target, race
from catalogproc.inference.catalog_columns import INDEPENDENT, LUMINOSITY_CONTEXT
from catalogproc.network.predictor import Predictor
from catalogproc.network.questions import Questions
from catalogproc.network.star_tokens import StarTokens

TITLE = "two questions"
SHARES = (0.5, 0.9, 1.0)
"""Share of stars with a usable parallax; of giants of Gaia DR3 brighter than G = 17.65 about 90 %
have a parallax error of at most 0.1 mas and a RUWE of at most 1.4."""
LATE, TWICE = "the parallax a late token", "encoded twice"
ROWS = tuple(
    Row(
        f"{share:.0%} of stars with a parallax, {how}",
        "×",
        Target(1.6, at_most=True) if how == LATE else None,
    )
    for how in (LATE, TWICE)
    for share in SHARES
)


def measure(kit: Kit) -> Figures:
    n, sizes, bundle, labels = kit.sizes.predict, kit.sizes, kit.bundle, kit.job.labels
    column = bundle.vocabulary.column("g_fakemag")
    late = replace(bundle, shape=replace(bundle.shape, late=(column + 1,)))
    context = tuple(label for label in labels if label in LUMINOSITY_CONTEXT)
    values = kit.full(n)
    found = {}
    for how, predictor in ((LATE, Predictor(late)), (TWICE, Predictor(bundle))):
        for share in SHARES:
            tokens = values.copy()
            tokens[: round(share * n), column] = bundle.standardisation.center[column]
            hidden = np.zeros(tokens.shape, dtype=bool)
            hidden[:, column] = True
            ask = Questions(predictor, hidden, INDEPENDENT)
            both, one = race(
                lambda ask=ask, tokens=tokens: ask.ask(  # type: ignore[misc]
                    StarTokens.typical(tokens), labels, context
                ),
                lambda: kit.predictor.predict(StarTokens.typical(values), labels),
                sizes.repeats,
                sizes.budget,
            )
            found[f"{share:.0%} of stars with a parallax, {how}"] = both / one
    return found
