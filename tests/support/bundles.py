"""A small model with random weights, for tests that need a model but not its truth."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from support.paths import DATA

from catalogproc.network.bundle import Bundle, Domain, ErrorScaling, Standardisation
from catalogproc.network.bundle_writer import BundleContent, write_bundle
from catalogproc.network.shape import Shape
from catalogproc.network.star_tokens import StarTokens
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import Vocabulary, load_vocabulary

STATISTICS = DATA / "lb24_training_statistics.csv"

# Tokens that Leung & Bovy 2024 did not have: (center, scale) of red giants.
EVOLUTION = {
    "mass": (1.2, 0.3), "log_age": (9.7, 0.3), "alpha_m": (0.08, 0.1), "rc_prob": (0.3, 0.4),
}  # fmt: skip
LIMITS = {
    "teff": (3100.0, 6700.0),
    "logg": (-0.5, 5.5),
    "m_h": (-2.5, 0.6),
    "mass": (0.3, 6.0),
    "log_age": (7.5, 10.15),
}

LABELS = ("teff", "logg", "m_h", "mass", "log_age", "logebv", "g_fakemag")
"""Labels of the shipped model `tiny`."""


def tiny_bundle(
    folder: Path,
    vocabulary: Vocabulary | None = None,
    seed: int = 0,
    late: Sequence[str] = (),
    errors: bool = False,
    mixture: Sequence[str] = (),
) -> Bundle:
    """Write a bundle of a few thousand random weights into a folder, and load it.

    Tokens are standardised with the statistics of real training stars, so the answers are
    plausible for giants, and differ from star to star; they are not right. With ``errors`` the
    network reads the errors of tokens too; the labels of ``mixture`` get two Gaussians.
    """
    vocabulary = vocabulary or load_vocabulary()
    standardisation = _standardisation(vocabulary)
    center, scale = standardisation.center, standardisation.scale
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    shape = Shape(
        len(vocabulary), 16, ((4, 32),), ((2, 32), (4, 32)), (32, 16), dropout=0.0,
        late=tuple(map(vocabulary.number, late)), reads_errors=errors,
        components=2 if mixture else 1, mixture=tuple(map(vocabulary.number, mixture)),
    )  # fmt: skip
    network = Transformer(shape)
    for name, weight in network.named_parameters() if errors else ():
        if name.startswith("error_"):
            torch.nn.init.normal_(weight, std=0.3)
    typical = np.log(0.1 * scale)
    low, high = center - 50 * scale, center + 50 * scale
    for name, limits in LIMITS.items():
        low[vocabulary.column(name)], high[vocabulary.column(name)] = limits
    return write_bundle(
        folder,
        BundleContent(
            name=f"random {seed}",
            description="random weights, for tests",
            network=network,
            vocabulary=vocabulary,
            standardisation=standardisation,
            domain=Domain(low, high),
            training={"data": "none: the weights are random", "seed": seed},
            check_tokens=StarTokens.typical(
                center + scale * generator.normal(size=(2, len(vocabulary)))
            ),
            check_labels=["teff", "logg", "m_h", "mass", "log_age"],
            error_scaling=ErrorScaling(typical, np.ones_like(typical), typical - 5, typical + 5)
            if errors
            else None,
        ),
    )


def _standardisation(vocabulary: Vocabulary) -> Standardisation:
    with STATISTICS.open(encoding="utf-8") as file:
        known = {
            row["token"]: (float(row["median"]), float(row["mad_std"]))
            for row in csv.DictReader(file)
        }
    known |= EVOLUTION
    pairs = np.array([known[name] for name in vocabulary.names])
    return Standardisation(pairs[:, 0], pairs[:, 1])
