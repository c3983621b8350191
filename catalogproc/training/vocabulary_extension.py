"""A trained network learns new tokens: the old ones keep their numbers, scales and weights.

The seed paper's own move (Zhang, Bu et al. 2026): Leung & Bovy's network, given two more rows of
embedding, learns mass and age. Requests never see each other and a token that is absent is not
there at all, so that the extended network answers every old question with the old answer, to
the last bit, until it is trained.
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
"""The network's tensors with a row a token, the first for padding."""


def extended_vocabulary(old: Vocabulary, wanted: Vocabulary) -> Vocabulary:
    """All old tokens under their numbers, then those wanted that are new, in their order.

    Raises BundleError where a name means something else in the two.
    """
    for token in wanted.tokens:
        if token.name in old:
            known = old.tokens[old.column(token.name)]
            said = [(t.kind, t.unit, t.transform, t.band, t.index) for t in (known, token)]
            if said[0] != said[1]:
                raise BundleError(
                    "a token means something else to the model",
                    wanted=said[1], found=said[0], where=token.name,
                )  # fmt: skip
    new = [token for token in wanted.tokens if token.name not in old]
    numbered = (replace(token, number=len(old) + k) for k, token in enumerate(new, start=1))
    return Vocabulary((*old.tokens, *numbered))


def extended_network(bundle: Bundle, vocabulary: Vocabulary, seed: int) -> Transformer:
    """The bundle's network with rows for the tokens of a vocabulary that extends its own.

    The new rows are as in a new network, from the seed.
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
    """Statistics of an extended vocabulary, from those of the new stars.

    The old tokens keep their scales, which their weights belong to. The domain is that of the
    new stars, and the old one for tokens that they lack.
    """
    count = len(bundle.vocabulary)
    center, scale = standardisation.center.copy(), standardisation.scale.copy()
    center[:count], scale[:count] = bundle.standardisation.center, bundle.standardisation.scale
    low, high = domain.low.copy(), domain.high.copy()
    for ours, theirs in ((low, bundle.domain.low), (high, bundle.domain.high)):
        ours[:count] = np.where(np.isnan(ours[:count]), theirs, ours[:count])
    return Standardisation(center, scale), Domain(low, high)
