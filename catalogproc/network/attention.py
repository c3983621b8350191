"""Attention weights of the decoder's last block: which tokens a prediction attends to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.transformer import Transformer


@torch.inference_mode()
def attention(
    network: Transformer,
    star: PackedTokens,
    requests: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the attention weights of one star's predictions, averaged over the heads.

    Attention shows which tokens were read, not which determined the prediction (Jain &
    Wallace 2019, arXiv:1902.10186).

    Parameters
    ----------
    network
        In evaluation mode.
    star
        The tokens (1, T) of one star, without padding.
    requests
        Token numbers to predict (K,).

    Returns
    -------
    Weights (K, T + 1); each row sums to 1. The last column is the learned key (see
    :class:`~catalogproc.network.transformer.Attention`).
    """
    block: Any = network.decoder[-1]
    inputs_seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = block.attention.register_forward_pre_hook(
        lambda module, inputs: inputs_seen.append((inputs[0], inputs[1]))
    )
    try:
        network(star, torch.from_numpy(requests))
    finally:
        hook.remove()
    (queries, memory), module = inputs_seen[-1], block.attention
    width = memory.shape[-1]
    query = module.query(queries[0]).view(-1, module.heads, width // module.heads)  # (K, H, E)
    keys = torch.cat([module.key_value(memory[0]), module.bias_key_value[None]])[:, :width]
    keys = keys.reshape(-1, module.heads, width // module.heads)  # (T + 1, H, E)
    scores = torch.einsum("khe,the->hkt", query, keys) / query.shape[-1] ** 0.5
    weights: NDArray[np.float64] = scores.softmax(-1).mean(0).double().numpy()
    return weights
