"""The predictor against the plain reference, the machine and float64."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import arithmetic
from bench.kit import FIVE, Kit
from bench.matrix import best
from bench.measure import Absent, Figures, Noted, Row, Target, race, seconds
from bench.plain import SLOTS, plain_copy, slots
from catalogproc.network.predictor import pack

TITLE = "predictor, 5 labels"
ROWS = (
    Row("stars, 63 tokens", "stars/s"),
    Row("plain reference, 64 slots", "stars/s"),
    Row("63 tokens against plain", "×", Target(6)),
    Row("63 tokens against plain that encodes again for each label", "×"),
    Row("63 tokens, of the matrix rate in the precision used", "%"),
    Row("63 tokens, of the bfloat16 matrix rate", "%", Target(60)),
    Row("stars, 33 tokens", "stars/s"),
    Row("33 tokens against plain at 64 slots", "×", Target(10)),
    Row("33 tokens, of the matrix rate in the precision used", "%"),
    Row("stars, real spectra in examples/", "stars/s"),
    Row("plain's answers, farthest from ours", "% of sigma"),
    Row("answers within 2 % of sigma of float64's", "%", Target(99.9)),
)


def measure(kit: Kit) -> Figures:
    predictor, sizes, n = kit.predictor, kit.sizes, kit.sizes.predict
    shape, requests = kit.bundle.shape, predictor.requests(FIVE).tolist()
    plain = plain_copy(kit.bundle.network())
    full, median_star, real = kit.full(n), kit.full(n, 33), kit.real(n)
    given = slots(*standardised(kit, full))
    tokens = float(np.count_nonzero(~np.isnan(real), axis=1).mean())
    precision = str(predictor.dtype).removeprefix("torch.")

    def theirs() -> None:
        plain.answer(*given, requests)

    ours, reference = race(
        lambda: predictor.predict(full, FIVE), theirs, sizes.repeats, 2 * sizes.budget
    )
    again = seconds(
        lambda: plain.answer(*given, requests, again=True), sizes.repeats, sizes.budget / 2
    )
    sparse, beside = race(
        lambda: predictor.predict(median_star, FIVE), theirs, sizes.repeats, 2 * sizes.budget
    )
    faint = seconds(lambda: predictor.predict(real, FIVE), sizes.repeats, sizes.budget / 2)
    if predictor.device.type == "cpu":
        work = {size: arithmetic.star(shape, size, len(FIVE)) * n for size in (33, 63)}
        used, half = best(kit.rates, precision), best(kit.rates, "bfloat16")
        shares = [work[63] / ours / used, work[63] / ours / half, work[33] / sparse / used]
        told = [Noted(100 * share, precision) for share in shares]
    else:
        told = [Absent("on a GPU: see there")] * 3
    return {
        "stars, 63 tokens": Noted(n / ours, precision),
        "plain reference, 64 slots": n / reference,
        "63 tokens against plain": reference / ours,
        "63 tokens against plain that encodes again for each label": again / ours,
        "63 tokens, of the matrix rate in the precision used": told[0],
        "63 tokens, of the bfloat16 matrix rate": told[1],
        "stars, 33 tokens": Noted(n / sparse, "what the median giant has"),
        "33 tokens against plain at 64 slots": beside / sparse,
        "33 tokens, of the matrix rate in the precision used": told[2],
        "stars, real spectra in examples/": Noted(n / faint, f"{tokens:.1f} tokens a star"),
        "plain's answers, farthest from ours": 100 * farthest_from_plain(kit),
        "answers within 2 % of sigma of float64's": Noted(
            100 * close_to_exact(kit), f"{sizes.exact:,} real stars; {kit.bundle.name}"
        ),
    }


def standardised(kit: Kit, values: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Token numbers and values (N, T) as the network reads them."""
    standardisation = kit.bundle.standardisation
    ids, x = pack((values - standardisation.center) / standardisation.scale)
    return torch.from_numpy(ids), torch.from_numpy(x)


def farthest_from_plain(kit: Kit) -> float:
    """The largest difference of the plain reference's means from ours, in our sigma."""
    values = kit.real(kit.sizes.exact)[: kit.sizes.predict // 2]
    ours = kit.predictor.predict(values, FIVE)
    requests = kit.predictor.requests(FIVE).tolist()
    plain = plain_copy(kit.bundle.network())
    means, _ = plain.answer(*slots(*standardised(kit, values), SLOTS), requests)
    columns = kit.bundle.vocabulary.columns(FIVE)
    standardisation = kit.bundle.standardisation
    theirs = means.numpy() * standardisation.scale[columns] + standardisation.center[columns]
    return float(np.abs((ours.mean - theirs) / ours.sigma).max())


def close_to_exact(kit: Kit) -> float:
    """The share of stars of which every answer is within 2 % of its sigma of float64's."""
    values = kit.real(kit.sizes.exact)
    ours = kit.predictor.predict(values, FIVE)
    mean, sigma = exact(kit, values)
    return float((np.abs(ours.mean - mean) <= 0.02 * sigma).all(axis=1).mean())


@torch.inference_mode()
def exact(kit: Kit, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Mean and sigma (N, 5) in float64 throughout; stars with as many tokens go together."""
    standardisation, columns = kit.bundle.standardisation, kit.bundle.vocabulary.columns(FIVE)
    network = kit.bundle.network().double()
    z = (values - standardisation.center) / standardisation.scale
    present = ~np.isnan(z)
    counts = present.sum(axis=1)
    found = np.empty((2, len(values), len(FIVE)))
    requests = torch.from_numpy(columns + 1)
    for count in np.unique(counts):
        for rows in np.array_split(np.flatnonzero(counts == count), max(1, len(values) // 256)):
            if len(rows):
                numbers = np.nonzero(present[rows])[1].reshape(len(rows), count) + 1
                x = z[rows][present[rows]].reshape(len(rows), count)
                answer = network(torch.from_numpy(numbers), torch.from_numpy(x), requests)
                found[:, rows] = torch.stack(answer).numpy()
    scale = standardisation.scale[columns]
    return found[0] * scale + standardisation.center[columns], np.exp(0.5 * found[1]) * scale
