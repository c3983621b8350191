"""Extend a trained network by new tokens; the old ones keep their numbers, scales and weights.

This is the method of Zhang, Bu et al. (2026): two more rows of embedding let the
network of Leung & Bovy learn mass and age. Requests do not attend to each other, and absent
tokens are no input, so that the extended network gives the same predictions for old tokens, bit
for bit, until it is trained.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from catalogproc.errors import BundleError
from catalogproc.network.bundle import Bundle, Domain, Standardisation
from catalogproc.network.transformer import Transformer
from catalogproc.vocabulary import Vocabulary

EMBEDDINGS = ("weight", "bias")
"""The network's tensors with one row per token; the first row is for padding."""


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
    if (old.release, old.basis) != (wanted.release, wanted.basis):
        raise BundleError(
            "the coefficients of the model mean something else",
            wanted=f"release {old.release}, {old.basis} basis",
            found=f"release {wanted.release}, {wanted.basis} basis",
            advice="train a model for that release without --resume from this one",
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
    return Vocabulary((*old.tokens, *numbered), old.release, old.basis)


def extended_network(bundle: Bundle, vocabulary: Vocabulary, seed: int) -> Transformer:
    """Return a bundle's network with rows for the tokens of an extended vocabulary.

    Parameters
    ----------
    bundle
        The trained model.
    vocabulary
        Extends the model's vocabulary.
    seed
        Seed of the new rows, which are those of a new network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Transformer(replace(bundle.shape, tokens=len(vocabulary)))
    state = network.state_dict()
    for name, old in bundle.network().state_dict().items():
        if name in EMBEDDINGS:
            state[name][: len(old)] = old
        else:
            state[name] = old.clone()
    network.load_state_dict(state)
    return network


def extended_scales(
    bundle: Bundle, standardisation: Standardisation, domain: Domain
) -> tuple[Standardisation, Domain]:
    """Return standardisation and domain of an extended vocabulary.

    Old tokens keep their scales, because the weights depend on them. The domain is that of the
    new stars, and the old one for tokens that these lack.

    Parameters
    ----------
    bundle
        The trained model.
    standardisation, domain
        Of the new stars.
    """
    count = len(bundle.vocabulary)
    center, scale = standardisation.center.copy(), standardisation.scale.copy()
    center[:count], scale[:count] = bundle.standardisation.center, bundle.standardisation.scale
    low, high = domain.low.copy(), domain.high.copy()
    for new, old in ((low, bundle.domain.low), (high, bundle.domain.high)):
        new[:count] = np.where(np.isnan(new[:count]), old, new[:count])
    return Standardisation(center, scale), Domain(low, high)
