"""The attention behind each prediction of a star, of the tokens that it was predicted from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.inference.engine import Engine


def label_attention(engine: Engine, tokens: Tokens) -> dict[str, NDArray[np.float64]]:
    """Return the shares of attention behind the predictions of the job's labels.

    Parameters
    ----------
    engine
        The model and the job.
    tokens
        Of one star, which has T.

    Returns
    -------
    dict
        By label: (T + 1,), the shares of the tokens and of the learned key; 0 for tokens that the
        label was predicted without.
    """
    from catalogproc.inference.catalog_columns import INDEPENDENT
    from catalogproc.network.attention import attention

    bundle, inputs = engine.bundle, tokens.network_inputs
    network, shares = bundle.network(), {}
    for label in engine.labels:
        star = inputs.only(~tokens.by_parallax) if label in INDEPENDENT else inputs
        shown = np.append(star.present[0][inputs.present[0]], True)  # and the learned key
        packed = bundle.pack(star).rows(slice(1), int(shown.sum()) - 1)
        shares[label] = np.zeros(len(shown))
        found = attention(network, packed, bundle.vocabulary.columns((label,)) + 1)
        shares[label][shown] = found[0]
    return shares
