"""Extend a trained network by new tokens; the old ones keep their numbers, scales and weights.

This is the method of Zhang, Bu et al. (2026): two more rows of embedding let the
network of Leung & Bovy learn mass and age. Requests do not attend to each other, and absent
tokens are no input, so that the extended network gives the same predictions for old tokens, bit
for bit, until it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.errors import BundleError, JobError
from catalogproc.network.bundle import Bundle, Domain, ErrorScaling, Standardisation
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import Vocabulary

EMBEDDINGS = ("weight", "bias", "error_weight", "error_bias")
"""The network's tensors with one row per token; the first row is for padding."""

GAUSSIAN = ("mean.weight", "mean.bias", "log_variance.weight", "log_variance.bias")
"""The network's tensors with one row per Gaussian."""

APART = 0.02
"""Distance of the first and the last mean from the old one, standardised."""

GROWTH = ("reads_errors", "components", "mixture", "late", "dropout")
"""Fields of a job's table ``network`` that a fine-tuned model may get."""


def extended_vocabulary(old: Vocabulary, wanted: Vocabulary) -> Vocabulary:
    """Return all old tokens with their numbers, then the new ones in their order.

    Parameters
    ----------
    old
        The vocabulary of the trained network.
    wanted
        A vocabulary with the new tokens.

    Raises
    ------
    BundleError
        A name has different meanings in the two vocabularies, or their spectra are of
        different releases or bases.
    """
    same = old.data_release.same_spectra(wanted.data_release)
    if old.basis != wanted.basis or not (same or old.basis == "canonical"):
        raise BundleError(
            "the coefficients of the model mean something else",
            wanted=f"release {old.release}, {old.basis} basis",
            found=f"release {wanted.release}, {wanted.basis} basis",
            advice="name the release to train for (--release NAME|FILE): what means the same is "
            "inherited",
        )
    for token in wanted.tokens:
        if token.name in old:
            known = old.tokens[old.column(token.name)]
            found, expected = (
                (t.kind, t.unit, t.transform, t.band, t.index) for t in (known, token)
            )
            if found != expected:
                raise BundleError(
                    "a token has another meaning in the model",
                    wanted=expected, found=found, where=token.name,
                )  # fmt: skip
    new = [token for token in wanted.tokens if token.name not in old]
    numbered = (replace(token, number=len(old) + k) for k, token in enumerate(new, start=1))
    return replace(old, tokens=(*old.tokens, *numbered))


def extended_network(bundle: Bundle, shape: Shape, seed: int) -> Transformer:
    """Return a bundle's network with rows for more tokens, tables for errors, or more Gaussians.

    Predictions are the same, but for several Gaussians: these are the old one with means within
    :data:`APART` of it, so that the training can tell them apart.

    Parameters
    ----------
    bundle
        The trained model.
    shape
        That of the model, with some of :data:`GROWTH`, or with more tokens.
    seed
        Seed of the new rows, which are those of a new network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Transformer(shape)
    state = network.state_dict()
    for name, old in bundle.network().state_dict().items():
        if name in EMBEDDINGS:
            state[name][: len(old)] = old
        elif name in GAUSSIAN and len(old) < shape.components:
            state[name] = old.expand_as(state[name]).clone()
            if name == "mean.bias":
                state[name] += APART * torch.linspace(-1.0, 1.0, shape.components)
        else:
            state[name] = old.clone()
    network.load_state_dict(state)
    return network


def extended_shape(
    network: Mapping[str, Any], vocabulary: Vocabulary, bundle: Bundle | None
) -> Shape:
    """Return the shape of the network to train.

    Parameters
    ----------
    network
        Table ``network`` of a training job; ``mixture`` and ``late`` have names of tokens. If a
        model is fine-tuned, only :data:`GROWTH` is read of it; the rest is the model's.
    vocabulary
        Defines the tokens.
    bundle
        The model to fine-tune; None for a new network.

    Raises
    ------
    JobError
        An invalid shape, or one without what the model has.
    """
    network = dict(network)
    for table in {"mixture", "late"} & network.keys():
        network[table] = [vocabulary.number(name) for name in network[table]]
    if bundle is None:
        return Shape.from_dict({"tokens": len(vocabulary), **network})
    grown = {name: network[name] for name in GROWTH if name in network}
    given = bundle.shape.to_dict() | grown | {"tokens": len(vocabulary)}
    shape = Shape.from_dict(given)
    if bundle.shape.components not in (1, shape.components):
        raise JobError(
            "the model has another number of Gaussians", wanted=bundle.shape.components,
            found=shape.components, where="[network], components",
        )  # fmt: skip
    if bundle.reads_errors and not shape.reads_errors:
        raise JobError("the model reads errors", wanted="reads_errors = true", found="false",
                       where="[network]")  # fmt: skip
    return shape


def extended_errors(bundle: Bundle | None, fitted: ErrorScaling) -> ErrorScaling:
    """Return the scaling of errors of an extended vocabulary; trained tokens keep theirs.

    Parameters
    ----------
    bundle
        The model to fine-tune, if any.
    fitted
        That of the new stars.
    """
    if bundle is None or bundle.error_scaling is None:
        return fitted
    old, new = vars(bundle.error_scaling), vars(fitted)
    return ErrorScaling(*(_kept(bundle, old[name], new[name]) for name in new))


def extended_scales(
    bundle: Bundle, standardisation: Standardisation, domain: Domain
) -> tuple[Standardisation, Domain]:
    """Return standardisation and domain of an extended vocabulary.

    Trained tokens keep their scales, because the weights depend on them. The domain is that of
    the new stars, and the old one for tokens that these lack.

    Parameters
    ----------
    bundle
        The trained model.
    standardisation, domain
        Of the new stars.
    """
    old = bundle.standardisation
    center = _kept(bundle, old.center, standardisation.center)
    scale = _kept(bundle, old.scale, standardisation.scale)
    count = len(bundle.vocabulary)
    low, high = domain.low.copy(), domain.high.copy()
    for new, before in ((low, bundle.domain.low), (high, bundle.domain.high)):
        new[:count] = np.where(np.isnan(new[:count]), before, new[:count])
    return Standardisation(center, scale), Domain(low, high)


def _kept(
    bundle: Bundle, old: NDArray[np.floating], new: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return the old numbers of tokens that the bundle was trained on, and the new ones of others.

    A token that no star of its training had is in its vocabulary, but has no domain.
    """
    kept = np.asarray(new, dtype=np.float64).copy()
    trained = np.flatnonzero(~np.isnan(bundle.domain.low))
    kept[trained] = old[trained]
    return kept
