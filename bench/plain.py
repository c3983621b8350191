"""The plain reference: the same network of torch's own modules, eager and in float32.

Used as the direct peer uses its own (SCIENCE 4.2): every star fills a fixed number of slots,
stars are encoded once and then asked label by label, with the decoder's keys and values
computed again for each label, and attention weights are asked for and thrown away.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogproc.network.transformer import Shape, Transformer

SLOTS = 64
BATCH = 1024
"""The peer's."""


class PlainBlock(nn.Module):
    """Attention and feed-forward, post-normalised."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            width, heads, dropout, add_bias_kv=True, batch_first=True
        )
        self.norm_attention = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, padded: Tensor) -> Tensor:
        seen, _ = self.attention(x, memory, memory, key_padding_mask=padded, need_weights=True)
        x = self.norm_attention(x + self.drop(seen))
        return self.norm_feed_forward(x + self.drop(self.narrow(F.gelu(self.widen(x)))))


class PlainTransformer(nn.Module):
    """Encoder, decoder and head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, dropout = shape.width, shape.dropout
        self.weight = nn.Parameter(torch.zeros(shape.tokens + 1, d))
        self.bias = nn.Parameter(torch.zeros(shape.tokens + 1, d))
        self.encoder = nn.ModuleList(PlainBlock(d, *block, dropout) for block in shape.encoder)
        self.decoder = nn.ModuleList(PlainBlock(d, *block, dropout) for block in shape.decoder)
        widths = (d, *shape.head)
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.mean, self.log_variance = nn.Linear(widths[-1], 1), nn.Linear(widths[-1], 1)
        self.drop = nn.Dropout(dropout)

    def encode(self, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        padded = ids == 0
        x = F.gelu(self.weight[ids] * values[..., None] + self.bias[ids])
        for block in self.encoder:
            x = block(x, x, padded)
        return x, padded

    def decode(self, memory: Tensor, padded: Tensor, request: Tensor) -> tuple[Tensor, Tensor]:
        """One label a star: request (N,)."""
        x = self.weight[request][:, None, :]
        for block in self.decoder:
            x = block(x, memory, padded)
        for layer in self.head:
            x = self.drop(F.gelu(layer(x)))
        return self.mean(x)[:, 0, 0], self.log_variance(x)[:, 0, 0]

    @torch.inference_mode()
    def answer(
        self, ids: Tensor, values: Tensor, requests: list[int], *, again: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, K), batch by batch, label by label.

        With ``again`` the stars are encoded anew for each label.
        """
        batches = []
        for x, z in zip(ids.split(BATCH), values.split(BATCH), strict=True):
            memory, padded = self.encode(x, z)
            columns = []
            for number in requests:
                if again and columns:
                    memory, padded = self.encode(x, z)
                columns.append(self.decode(memory, padded, torch.full((len(x),), number)))
            means, log_variances = zip(*columns, strict=True)
            batches.append((torch.stack(means, 1), torch.stack(log_variances, 1)))
        means, log_variances = zip(*batches, strict=True)
        return torch.cat(means), torch.cat(log_variances)


def plain_copy(network: Transformer) -> PlainTransformer:
    """The plain network with the weights of ours."""
    given = {name: value.detach().float().cpu() for name, value in network.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, value in given.items():
        block, _, key = name.rpartition(".attention.")
        at = f"{block}.attention"
        if not block:
            weights[name] = value
        elif key.startswith("query."):
            kind = key.removeprefix("query.")
            both = given[f"{at}.key_value.{kind}"]
            weights[f"{at}.in_proj_{kind}"] = torch.cat([value, both])
        elif key == "bias_key_value":
            half = len(value) // 2
            weights[f"{at}.bias_k"] = value[:half].reshape(1, 1, half)
            weights[f"{at}.bias_v"] = value[half:].reshape(1, 1, half)
        elif key.startswith("out."):
            weights[f"{at}.out_proj.{key.removeprefix('out.')}"] = value
    plain = PlainTransformer(network.shape)
    plain.load_state_dict(weights, strict=True)
    return plain.eval()


def slots(ids: Tensor, values: Tensor, count: int = SLOTS) -> tuple[Tensor, Tensor]:
    """Packed stars (N, T) in a fixed number of slots, at least as many as they need."""
    more = max(0, count - ids.shape[1])
    return F.pad(ids, (0, more)), F.pad(values, (0, more))
