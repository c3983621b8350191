"""Reference implementation: the same network of torch's own modules, eager and in float32.

It predicts as the code of astroNN_stars_foundation does (Leung & Bovy 2024): each star fills a
fixed number of slots and is encoded once; labels are predicted one by one, with the decoder's keys
and values computed again for each; attention weights are computed and not used.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogproc.network.components import Components
from catalogproc.network.packed_tokens import PackedTokens
from catalogproc.network.shape import Shape
from catalogproc.network.transformer import Transformer

SLOTS, BATCH = 64, 1024
"""Slots per star and stars per batch, as in astroNN_stars_foundation."""


class ReferenceBlock(nn.Module):
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
        attended, _ = self.attention(x, memory, memory, key_padding_mask=padded, need_weights=True)
        x = self.norm_attention(x + self.drop(attended))
        return self.norm_feed_forward(x + self.drop(self.narrow(F.gelu(self.widen(x)))))


class ReferenceTransformer(nn.Module):
    """Encoder, decoder and head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d, dropout = shape.width, shape.dropout
        self.shape = shape
        tables = ("weight", "bias", "error_weight", "error_bias")
        for name in tables if shape.reads_errors else tables[:2]:
            setattr(self, name, nn.Parameter(torch.zeros(shape.tokens + 1, d)))
        self.encoder = nn.ModuleList(ReferenceBlock(d, *block, dropout) for block in shape.encoder)
        self.decoder = nn.ModuleList(ReferenceBlock(d, *block, dropout) for block in shape.decoder)
        widths = (d, *shape.head)
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        outputs = ("mean", "log_variance", "component_weight")
        for name in outputs if shape.components > 1 else outputs[:2]:
            setattr(self, name, nn.Linear(widths[-1], shape.components))
        self.drop = nn.Dropout(dropout)

    def encode(self, stars: PackedTokens) -> tuple[Tensor, Tensor]:
        """Return the encoder's output and which slots are padded, as :meth:`decode` takes them."""
        ids, padded = stars.ids, stars.ids == 0
        scale, shift = self.weight[ids], self.bias[ids]
        if stars.errors is not None:
            scale = scale + self.error_weight[ids] * stars.errors[..., None]
            shift = shift + self.error_bias[ids] * stars.errors[..., None]
        x = F.gelu(scale * stars.values[..., None] + shift)
        attended = padded | torch.isin(ids, torch.tensor(self.shape.late, dtype=ids.dtype))
        for block in self.encoder:
            x = block(x, x, attended)
        return x, padded

    def decode(self, memory: Tensor, padded: Tensor, request: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (N,) of one label per star.

        Parameters
        ----------
        memory, padded
            Output of :meth:`encode`.
        request
            Number of the label for each star (N,).
        """
        x = self.weight[request][:, None, :]
        for block in self.decoder:
            x = block(x, memory, padded)
        for layer in self.head:
            x = self.drop(F.gelu(layer(x)))
        means, log_variances = self.mean(x), self.log_variance(x)  # (N, 1, M)
        if self.shape.components == 1:
            return means[:, 0, 0], log_variances[:, 0, 0]
        logits = self.component_weight(x)
        if self.shape.mixture:
            logits[~torch.isin(request, torch.tensor(self.shape.mixture)), :, 1:] = -torch.inf
        found = Components(means, log_variances, logits.log_softmax(-1)).moments()
        return found[0][:, 0], found[1][:, 0]

    @torch.inference_mode()
    def predict(
        self, stars: PackedTokens, requests: list[int], *, encode_again: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (N, K), batch by batch and label by label.

        Parameters
        ----------
        stars
            N stars, as :func:`slots` returns them.
        requests
            Numbers of the K labels.
        encode_again
            Run the encoder again for each label.
        """
        batches = []
        for start in range(0, len(stars), BATCH):
            batch = stars.rows(slice(start, start + BATCH))
            memory, padded = self.encode(batch)
            columns = []
            for number in requests:
                if encode_again and columns:
                    memory, padded = self.encode(batch)
                columns.append(self.decode(memory, padded, torch.full((len(batch),), number)))
            means, log_variances = zip(*columns, strict=True)
            batches.append((torch.stack(means, 1), torch.stack(log_variances, 1)))
        means, log_variances = zip(*batches, strict=True)
        return torch.cat(means), torch.cat(log_variances)


def reference_copy(network: Transformer) -> ReferenceTransformer:
    """Return the reference implementation with the weights of a network."""
    original = {name: value.detach().float().cpu() for name, value in network.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for name, value in original.items():
        block, _, key = name.rpartition(".attention.")
        at = f"{block}.attention"
        if not block:
            weights[name] = value
        elif key.startswith("query."):
            kind = key.removeprefix("query.")
            both = original[f"{at}.key_value.{kind}"]
            weights[f"{at}.in_proj_{kind}"] = torch.cat([value, both])
        elif key == "bias_key_value":
            half = len(value) // 2
            weights[f"{at}.bias_k"] = value[:half].reshape(1, 1, half)
            weights[f"{at}.bias_v"] = value[half:].reshape(1, 1, half)
        elif key.startswith("out."):
            weights[f"{at}.out_proj.{key.removeprefix('out.')}"] = value
    reference = ReferenceTransformer(network.shape)
    reference.load_state_dict(weights, strict=True)
    return reference.eval()


def slots(stars: PackedTokens, count: int = SLOTS) -> PackedTokens:
    """Pad packed stars (N, T) to a fixed number of slots, or more where they have more tokens."""
    more = max(0, count - stars.ids.shape[1])
    errors = None if stars.errors is None else F.pad(stars.errors, (0, more))
    return PackedTokens(F.pad(stars.ids, (0, more)), F.pad(stars.values, (0, more)), errors)
