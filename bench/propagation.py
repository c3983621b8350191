"""Prediction with propagated input errors, compared with prediction without."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch

from bench.kit import FIVE, Kit
from bench.measure import Absent, Figures, Noted, Row, Target, race
from bench.reference import reference_copy, slots
from catalogproc.inference.engine import Engine
from catalogproc.job import load_job
from catalogproc.network.bundle import load_bundle

TITLE = "error propagation, first order"
ROWS = (
    Row("independent errors against inference without errors", "×", Target(3, at_most=True)),
    Row("correlated errors against inference without errors", "×", Target(3, at_most=True)),
    Row("stars, correlated errors", "stars/s"),
    Row("default job and model: first-order errors, of its cost", "×", Target(3, at_most=True)),
    Row("default job and model, one thread", "stars/s"),
    Row("default job and model, against the reference implementation", "×", Target(10)),
    Row("reference implementation, the same labels, without errors, one thread", "stars/s"),
)


def measure(kit: Kit) -> Figures:
    if find_spec("catalogproc.network.error_propagation") is None:
        return {row.name: Absent("not measured: no network/error_propagation.py") for row in ROWS}
    from catalogproc.network.error_propagation import first_order
    from catalogproc.network.input_covariance import Correlated, InputNoise
    from catalogproc.network.star_tokens import StarTokens
    from catalogproc.vocabulary import BANDS

    n, sizes, predictor = kit.sizes.predict, kit.sizes, kit.predictor
    tokens = StarTokens.typical(kit.real(n))
    errors = np.broadcast_to(0.1 * kit.bundle.standardisation.scale, tokens.values.shape)
    # Correlations like those of XP: strongest between neighbours.
    steps = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    groups = [
        Correlated(
            kit.bundle.vocabulary.coefficient_columns(band)[:30],
            np.broadcast_to(0.5**steps, (n, 30, 30)),
        )
        for band in BANDS
    ]
    measured: dict[str, tuple[float, float]] = {}
    for name, noise in {
        "independent": InputNoise(errors),
        "correlated": InputNoise(errors, tuple(groups)),
    }.items():
        measured[name] = race(
            lambda noise=noise: first_order(predictor, tokens, noise, FIVE),  # type: ignore[misc]
            lambda: predictor.predict(tokens, FIVE),
            sizes.repeats,
            sizes.budget,
        )
    return (
        {
            f"{name} errors against inference without errors": ours / without
            for name, (ours, without) in measured.items()
        }
        | {"stars, correlated errors": n / measured["correlated"][0]}
        | _default_job(kit)
    )


def _default_job(kit: Kit) -> Figures:
    """Return the figures of the model that ships, from tables of spectra to rows of a catalog.

    The reference implementation gets tokens that are ready, and predicts the same labels.
    """
    job, bundle, spectra = load_job("demo"), load_bundle("default"), kit.spectra_read
    reading = Engine(bundle, job)
    by_derivatives = Engine(bundle, replace(job, propagation="first_order"))
    reference = reference_copy(bundle.network())
    in_slots = slots(bundle.pack(reading.features(spectra).network_inputs))
    requests = (bundle.vocabulary.columns(reading.labels) + 1).tolist()
    sizes, stars = kit.sizes, spectra.num_rows
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first_order_time, time = race(
            lambda: by_derivatives.process(spectra),
            lambda: reading.process(spectra),
            sizes.repeats,
            sizes.budget,
            cpu=True,
        )
        theirs, again = race(
            lambda: reference.predict(in_slots, requests),
            lambda: reading.process(spectra),
            sizes.repeats,
            sizes.budget,
            cpu=True,
        )
    finally:
        torch.set_num_threads(threads)
    note = f"{stars:,} real spectra, {len(requests)} labels"
    found = (first_order_time / time, Noted(stars / time, note), theirs / again, stars / theirs)
    return dict(zip((row.name for row in ROWS[-4:]), found, strict=True))
