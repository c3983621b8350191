"""bfloat16 in place of float32: how far its predictions are from float64's, and how fast it is.

One thread, and CPU time, so that other programs on the machine disturb the ratios less.
"""

from __future__ import annotations

from dataclasses import replace

from bench import arithmetic
from bench.kit import FIVE, Kit
from bench.matrix import best, rates
from bench.measure import Figures, Noted, Row, Target, one_thread, race
from bench.reference import reference_copy, slots
from catalogproc.inference.engine import Engine
from catalogproc.inference.precision_check import check_precision
from catalogproc.job import load_job
from catalogproc.network.precision import fast_in_bfloat16
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens

TITLE = "precision"
ROWS = (
    Row("bfloat16: stars within 5 % of their total sigma of float64's", "%", Target(99.9)),
    Row("bfloat16: stars with the same quality flags", "%", Target(99.9)),
    Row("bfloat16: stars within 5 % of their total sigma of another batch's", "%", Target(99.9)),
    Row("float32: stars within 5 % of their total sigma of float64's", "%", Target(99.9)),
    Row("bfloat16 against float32, real spectra, all labels", "×"),
    Row("bfloat16, 63 tokens against the reference", "×", Target(6)),
    Row("bfloat16, 33 tokens against the reference at 64 slots", "×", Target(10)),
    Row("bfloat16, 63 tokens, of the bfloat16 matrix rate", "%", Target(60)),
)


def measure(kit: Kit) -> Figures:
    engine = Engine(kit.bundle, replace(load_job("demo"), precision="float32"))
    tokens = engine.features(kit.spectra_read.slice(0, kit.sizes.exact))
    job, half = engine.job, engine.in_precision("bfloat16")
    checks = {
        name: check_precision(kit.bundle, job, tokens, name) for name in ("bfloat16", "float32")
    }
    note = f"{len(tokens):,} real stars; {kit.bundle.name}"
    with one_thread():
        full, halved = race(
            lambda: engine.predict(tokens), lambda: half.predict(tokens),
            kit.sizes.repeats, kit.sizes.budget, cpu=True,
        )  # fmt: skip
        speed = _against_reference(kit)
    fast = fast_in_bfloat16("cpu")
    check = checks["bfloat16"]
    found = (
        Noted(100 * check.within, note),
        Noted(100 * (1 - check.flags), note),
        Noted(100 * check.batches, note),
        100 * checks["float32"].within,
        Noted(full / halved, "" if fast else "this processor has no instructions for it"),
        *speed,
    )
    return dict(zip((row.name for row in ROWS), found, strict=True))


def _against_reference(kit: Kit) -> tuple[float, ...]:
    """Return the last three figures of :data:`ROWS`."""
    sizes, shape, n = kit.sizes, kit.bundle.shape, kit.sizes.predict
    predictor = Predictor(kit.bundle, precision="bfloat16")
    reference = reference_copy(kit.bundle.network())
    requests = predictor.requests(FIVE).tolist()
    full, few = (StarTokens.typical(kit.full(n, count)) for count in (63, 33))
    in_slots = slots(kit.bundle.pack(full))
    ratios, seconds = [], []
    for tokens in (full, few):
        theirs, ours = race(
            lambda: reference.predict(in_slots, requests),
            lambda tokens=tokens: predictor.predict(tokens, FIVE),  # type: ignore[misc]
            sizes.repeats, sizes.budget, cpu=True,
        )  # fmt: skip
        ratios.append(theirs / ours)
        seconds.append(ours)
    limit = best(rates(shape, sizes.repeats, sizes.budget / 4, cpu=True), "bfloat16")
    work = arithmetic.star(shape, 63, len(FIVE)) * n
    return (*ratios, 100 * work / seconds[0] / limit)
