"""What the decoder looks at when it answers: the attention of its last block."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from catalogproc.network.transformer import Transformer


@torch.inference_mode()
def attention(
    network: Transformer,
    ids: NDArray[np.int64],
    x: NDArray[np.float32],
    requests: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Shares of attention (K, T + 1) of K requests over a star's T tokens, mean over the heads.

    ``ids`` and ``x`` (T,) are the star's tokens, all of them present, standardised, as
    :func:`~catalogproc.network.predictor.pack` gives them; ``requests`` (K,) are token
    numbers. The last share is that of the learned key which is always there (see
    :class:`~catalogproc.network.transformer.Attention`). Each row adds up to 1. Attention
    tells where the answer was looked for, not what made it (Jain & Wallace 2019).
    """
    block: Any = network.decoder[-1]
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = block.attention.register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0], inputs[1]))
    )
    try:
        network(torch.from_numpy(ids[None]), torch.from_numpy(x[None]), torch.from_numpy(requests))
    finally:
        hook.remove()
    (asked, memory), module = seen[-1], block.attention
    width = memory.shape[-1]
    query = module.query(asked[0]).view(-1, module.heads, width // module.heads)  # (K, H, E)
    keys = torch.cat([module.key_value(memory[0]), module.bias_key_value[None]])[:, :width]
    keys = keys.reshape(-1, module.heads, width // module.heads)  # (T + 1, H, E)
    scores = torch.einsum("khe,the->hkt", query, keys) / query.shape[-1] ** 0.5
    shares: NDArray[np.float64] = scores.softmax(-1).mean(0).double().numpy()
    return shares
