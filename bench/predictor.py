"""The predictor compared with the reference implementation, the machine's limit and float64."""

from __future__ import annotations

import numpy as np

from bench import arithmetic
from bench.kit import FIVE, Kit
from bench.matrix import best
from bench.measure import Absent, Figures, Noted, Row, Target, race, seconds
from bench.reference import reference_copy, slots
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

TITLE = "predictor, 5 labels"
ROWS = (
    Row("stars, 63 tokens", "stars/s"),
    Row("reference implementation, 64 slots", "stars/s"),
    Row("63 tokens against the reference", "×", Target(6)),
    Row("63 tokens against the reference, encoder run for each label", "×"),
    Row("63 tokens, of the matrix rate in the precision used", "%"),
    Row("63 tokens, of the bfloat16 matrix rate", "%", Target(60)),
    Row("stars, 33 tokens", "stars/s"),
    Row("33 tokens against the reference at 64 slots", "×", Target(10)),
    Row("33 tokens, of the matrix rate in the precision used", "%"),
    Row("stars, real spectra in examples/", "stars/s"),
    Row("reference's predictions, largest difference from ours", "% of sigma"),
    Row("predictions within 2 % of sigma of float64's", "%", Target(99.9)),
)


def measure(kit: Kit) -> Figures:
    predictor, sizes, n = kit.predictor, kit.sizes, kit.sizes.predict
    shape, requests = kit.bundle.shape, predictor.requests(FIVE).tolist()
    reference = reference_copy(kit.bundle.network())
    full, median_star, real = kit.full(n), kit.full(n, 33), kit.real(n)
    in_slots = slots(kit.bundle.pack(StarTokens.typical(full)))
    tokens = float(np.count_nonzero(~np.isnan(real), axis=1).mean())
    precision = predictor.precision

    def reference_predict() -> None:
        reference.predict(in_slots, requests)

    ours, theirs = race(
        lambda: predictor.predict(StarTokens.typical(full), FIVE),
        reference_predict,
        sizes.repeats,
        2 * sizes.budget,
    )
    encoding_again = seconds(
        lambda: reference.predict(in_slots, requests, encode_again=True),
        sizes.repeats,
        sizes.budget / 2,
    )
    sparse, theirs_again = race(
        lambda: predictor.predict(StarTokens.typical(median_star), FIVE),
        reference_predict,
        sizes.repeats,
        2 * sizes.budget,
    )
    faint = seconds(
        lambda: predictor.predict(StarTokens.typical(real), FIVE), sizes.repeats, sizes.budget / 2
    )
    if predictor.device.type == "cpu":
        work = {size: arithmetic.star(shape, size, len(FIVE)) * n for size in (33, 63)}
        used, half = best(kit.rates, precision), best(kit.rates, "bfloat16")
        shares = [work[63] / ours / used, work[63] / ours / half, work[33] / sparse / used]
        of_limit = [Noted(100 * share, precision) for share in shares]
    else:
        of_limit = [Absent("not measured: the predictor is on a GPU")] * 3
    return {
        "stars, 63 tokens": Noted(n / ours, precision),
        "reference implementation, 64 slots": n / theirs,
        "63 tokens against the reference": theirs / ours,
        "63 tokens against the reference, encoder run for each label": encoding_again / ours,
        "63 tokens, of the matrix rate in the precision used": of_limit[0],
        "63 tokens, of the bfloat16 matrix rate": of_limit[1],
        "stars, 33 tokens": Noted(n / sparse, "median of giants"),
        "33 tokens against the reference at 64 slots": theirs_again / sparse,
        "33 tokens, of the matrix rate in the precision used": of_limit[2],
        "stars, real spectra in examples/": Noted(n / faint, f"{tokens:.1f} tokens per star"),
        "reference's predictions, largest difference from ours": 100 * largest_difference(kit),
        "predictions within 2 % of sigma of float64's": Noted(
            100 * close_to_exact(kit), f"{sizes.exact:,} real stars; {kit.bundle.name}"
        ),
    }


def largest_difference(kit: Kit) -> float:
    """Return the largest difference of the reference's means from ours, in our sigma."""
    values = kit.real(kit.sizes.exact)[: kit.sizes.predict // 2]
    tokens = StarTokens.typical(values)
    ours = kit.predictor.predict(tokens, FIVE)
    requests = kit.predictor.requests(FIVE).tolist()
    reference = reference_copy(kit.bundle.network())
    means, _ = reference.predict(slots(kit.bundle.pack(tokens)), requests)
    columns = kit.bundle.vocabulary.columns(FIVE)
    standardisation = kit.bundle.standardisation
    theirs = means.numpy() * standardisation.scale[columns] + standardisation.center[columns]
    return float(np.abs((ours.mean - theirs) / ours.sigma).max())


def close_to_exact(kit: Kit) -> float:
    """Return the fraction of stars whose predictions are all within 2 % of sigma of float64's."""
    tokens = StarTokens.typical(kit.real(kit.sizes.exact))
    ours = kit.predictor.predict(tokens, FIVE)
    exact = Predictor(kit.bundle, precision="float64").predict(tokens, FIVE)
    return float((np.abs(ours.mean - exact.mean) <= 0.02 * exact.sigma).all(axis=1).mean())
