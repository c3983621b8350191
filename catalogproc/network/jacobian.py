"""How every answer changes with every token: the chain rule, written out for the network.

One forward pass keeps what the reverse pass needs; one reverse pass then gives, for every
requested label, its mean's derivatives with respect to all tokens of a star. Written out,
because what automatic differentiation cannot know saves much of the work: no weight's gradient
is wanted; requests never see each other, so that one pass through head and decoder serves all
of them; a request's gradient at the memory is a sum over few heads; and slopes that all labels
share are computed once. The derivatives are those that automatic differentiation gives.

Letters as in transformer.py: N stars, T tokens, K requests, D width, H heads, E = D / H,
S = T + 1 keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogproc.network.cpu_kernels import OneDnnLinear, linear
from catalogproc.network.transformer import (
    PADDING,
    Block,
    Transformer,
    attention_mask,
    summary,
)


@dataclass(frozen=True)
class Differentiated:
    """Answers of N stars to K requests, standardised, and how they change with T tokens.

    ``mean`` and ``log_variance`` (N, K); ``jacobian`` (N, K, T), the mean's derivatives, 0
    where padded; ``summary`` (N, D), the mean of the encoder's output over a star's tokens.
    """

    mean: Tensor
    log_variance: Tensor
    jacobian: Tensor
    summary: Tensor


class Reverse:
    """The reverse pass of one network; its weights are read, never changed.

    Parameters
    ----------
    network
        In evaluation mode, without gradients.
    half
        Whether the reverse pass multiplies in bfloat16, which GPUs do many times faster;
        derivatives are then good to about 1 %. The forward pass never does.
    """

    def __init__(self, network: Transformer, half: bool = False) -> None:
        self.network = network
        self.half = half
        self._turned: dict[nn.Module, Tensor] = {
            layer: self._halved(layer.weight.t().contiguous())
            for layer in network.modules()
            if isinstance(layer, nn.Linear | OneDnnLinear)
        }

    def __call__(self, ids: Tensor, values: Tensor, requests: Tensor) -> Differentiated:
        """Answers and derivatives; ``ids`` and ``values`` (N, T), ``requests`` (K,) as there."""
        network = self.network
        present = ids != PADDING  # (N, T)
        mask = attention_mask(present)
        scale = F.embedding(ids, network.weight, padding_idx=PADDING)  # (N, T, D)
        shift = F.embedding(ids, network.bias, padding_idx=PADDING)
        x, slope = _gelu(torch.addcmul(shift, scale, values.unsqueeze(-1)))
        slope = slope * scale  # of the embedding with respect to its value
        encoder = []
        for block in _blocks(network.encoder):
            x, kept = self._forward(block, x, x, mask)
            encoder.append(kept)
        memory = x
        x = network.weight[requests].unsqueeze(0)  # (1, K, D)
        decoder = []
        for block in _blocks(network.decoder):
            x, kept = self._forward(block, x, memory, mask)
            decoder.append(kept)
        slopes = []
        head = [cast(nn.Linear, layer) for layer in network.head]
        for layer in head:
            x, bend = _gelu(linear(x, layer.weight, layer.bias))
            slopes.append(bend)

        g = network.mean.weight.expand_as(x)  # (N, K, width of the last layer)
        for layer, bend in zip(reversed(head), reversed(slopes), strict=True):
            g = self._back(layer, g * bend)  # (N, K, D) at last
        g = self._through_decoder(decoder, g)  # (N, K, T, D)
        for kept in reversed(encoder[1:]):
            g = self._through_encoder(kept, g)
        if encoder:
            jacobian = self._to_the_tokens(encoder[0], g, slope)
        else:
            jacobian = (g * slope.unsqueeze(1)).sum(-1)
        return Differentiated(
            network.mean(x).squeeze(-1),
            network.log_variance(x).squeeze(-1),
            jacobian.masked_fill(~present[:, None, :], 0.0),
            summary(memory, present),
        )

    def _forward(
        self, block: Block, x: Tensor, memory: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, _Kept]:
        """What the block does, and what is needed to go back."""
        attention = block.attention
        n, _, d = memory.shape
        query = _heads(linear(x, attention.query.weight, attention.query.bias), attention.heads)
        kv = linear(memory, attention.key_value.weight, attention.key_value.bias)  # (N, T, 2 D)
        kv = torch.cat([kv, attention.bias_key_value.expand(n, 1, 2 * d)], dim=1)
        key, value = (_heads(part, attention.heads) for part in kv.chunk(2, dim=-1))
        root = sqrt(d // attention.heads)
        scores = (query / root) @ key.transpose(-1, -2)  # (N, H, K, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        shares = scores.softmax(-1)
        y = shares @ value  # (N, H, K, E)
        x = x + linear(_merge(y), attention.out.weight, attention.out.bias)
        x, first = _norm(block.norm_attention, x)
        inner, slope = _gelu(linear(x, block.widen.weight, block.widen.bias))
        x = x + linear(inner, block.narrow.weight, block.narrow.bias)
        x, second = _norm(block.norm_feed_forward, x)
        slope = self._halved(slope)
        return x, _Kept(block, query / root, key / root, value, shares, y, first, second, slope)

    def _through_decoder(self, decoder: list[_Kept], g: Tensor) -> Tensor:
        """From each request's gradient (N, K, D) after the decoder to its own at the memory."""
        total: Tensor | None = None
        for number in reversed(range(len(decoder))):
            kept = decoder[number]
            attention = kept.block.attention
            g = self._feed_forward(kept, g)
            to_y = _heads(self._back(attention.out, g), attention.heads)  # (N, H, K, E)
            to_scores = to_y @ kept.value.transpose(-1, -2)  # (N, H, K, S)
            to_scores = kept.shares * (to_scores - (to_y * kept.y).sum(-1, keepdim=True))
            # At its keys a request's gradient is, head by head, a number a key times its query:
            # with the query turned by the weights first, one product over heads does it.
            key_weight, value_weight = (
                part.view(attention.heads, -1, part.shape[-1])  # (H, E, D)
                for part in attention.key_value.weight.chunk(2)
            )
            query = kept.query.expand(len(to_y), -1, -1, -1)
            directions = torch.cat([query @ key_weight, to_y @ value_weight], 1)  # (N, 2 H, K, D)
            numbers = torch.cat([to_scores, kept.shares], 1)[..., :-1]  # (N, 2 H, K, T)
            at_memory = numbers.permute(0, 2, 3, 1) @ directions.transpose(1, 2)  # (N, K, T, D)
            total = at_memory if total is None else total.add_(at_memory)
            if number:  # what the first block reads is a constant of the request
                g = g + self._back(attention.query, _merge(to_scores @ kept.key))
        assert total is not None
        return total

    def _through_encoder(self, kept: _Kept, g: Tensor) -> Tensor:
        """Through a block in which tokens look at each other: (N, K, T, D) to the same."""
        attention = kept.block.attention
        n, k, t, d = g.shape
        h, e = attention.heads, d // attention.heads
        g, to_scores, to_value = self._into_attention(kept, g)
        to_query = to_scores.view(n, h, -1, k * t).transpose(-1, -2) @ kept.key
        to_key = to_scores.view(n, h, -1, t) @ kept.query  # (N, H, S K, E)
        both = to_key.new_empty(n, k, t, 2, h, e)
        for place, part in enumerate((to_key, to_value)):
            both[:, :, :, place] = part.view(n, h, -1, k, e)[:, :, :-1].permute(0, 3, 2, 1, 4)
        to_query = to_query.view(n, h, k, t, e).permute(0, 2, 3, 1, 4).flatten(3)
        g += self._back(attention.query, to_query)
        g += self._back(attention.key_value, both.flatten(3))
        return g

    def _to_the_tokens(self, kept: _Kept, g: Tensor, slope: Tensor) -> Tensor:
        """Through the first block to the values (N, K, T), of which ``slope`` (N, T, D) is made.

        All labels share the weights and the slope: the slope is turned by the weights, once a
        star, instead of each label's gradient.
        """
        attention = kept.block.attention
        n, k = g.shape[:2]
        g, to_scores, to_value = self._into_attention(kept, g)
        query = _heads(linear(slope, attention.query.weight, None), attention.heads)
        key_value = linear(slope, attention.key_value.weight, None)
        key, value = (_heads(part, attention.heads) for part in key_value.chunk(2, dim=-1))
        jacobian = (g.transpose(1, 2) @ slope.unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        # How each score changes with its query's token, and with its key's.
        by_query, by_key = kept.key @ query.transpose(-1, -2), key @ kept.query.transpose(-1, -2)
        jacobian = jacobian + (to_scores * by_query.unsqueeze(3)).sum((1, 2))
        at_keys = (to_scores[:, :, :-1] * by_key.unsqueeze(3)).sum((1, -1))  # (N, T, K)
        at_values = to_value.view(n, attention.heads, -1, k, value.shape[-1])[:, :, :-1]
        at_keys += (at_values * value.unsqueeze(3)).sum((1, -1))
        return jacobian + at_keys.transpose(1, 2)

    def _into_attention(self, kept: _Kept, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From behind an encoder's block (N, K, T, D) to what goes past its attention (N, K, T, D),
        and to its scores (N, H, S, K, T) and values (N, H, S, K E)."""
        attention = kept.block.attention
        n, k, t, d = g.shape
        h, e = attention.heads, d // attention.heads
        g = self._feed_forward(kept.for_all_labels(), g)
        to_y = self._back(attention.out, g).view(n, k, t, h, e).permute(0, 3, 1, 2, 4)
        # The softmax subtracts y . to_y from each score: one more column of the product.
        left = to_y.new_empty(n, h, k, t, e + 1)
        left[..., :e] = to_y
        left[..., e] = (left[..., :e] * kept.y.unsqueeze(2)).sum(-1)
        right = F.pad(kept.value, (0, 1), value=-1.0)  # (N, H, S, E + 1)
        # Keys first, then labels and tokens: so every product below is one of large matrices.
        to_scores = (right @ left.view(n, h, k * t, e + 1).transpose(-1, -2)).view(n, h, -1, k, t)
        to_scores *= kept.shares.transpose(-1, -2).unsqueeze(3)
        across = to_y.permute(0, 1, 3, 2, 4).reshape(n, h, t, k * e)
        return g, to_scores, kept.shares.transpose(-1, -2) @ across

    def _feed_forward(self, kept: _Kept, g: Tensor) -> Tensor:
        """Through a block's second half, to what attention was added to; (..., D) to the same."""
        g = kept.second.back(g)
        inner = linear(self._halved(g), self._turned[kept.block.narrow], None)
        inner *= kept.slope
        g += self._back(kept.block.widen, inner)
        return kept.first.back(g)

    def _back(self, layer: nn.Module, g: Tensor) -> Tensor:
        """Through a linear layer: g W."""
        return linear(self._halved(g), self._turned[layer], None).to(self.network.weight.dtype)

    def _halved(self, x: Tensor) -> Tensor:
        return x.bfloat16() if self.half else x


@dataclass(frozen=True)
class _Norm:
    """A layer norm's forward pass: (x - mean) / sd = hat, times weight, plus bias.

    ``weighted`` is hat times weight; ``hat_over`` and ``weight_over`` are divided by sd.
    """

    weighted: Tensor
    hat_over: Tensor
    weight_over: Tensor

    def back(self, g: Tensor) -> Tensor:
        """(g weight - mean(g weight) - hat mean(g weight hat)) / sd."""
        along = (g * self.weighted).mean(-1, keepdim=True)
        g = g * self.weight_over
        g -= g.mean(-1, keepdim=True)
        return g.addcmul_(self.hat_over, along, value=-1.0)


@dataclass(frozen=True)
class _Kept:
    """What the reverse pass needs of a block's forward pass.

    ``query`` and ``key`` (N, H, ., E) are divided by sqrt(E); ``shares`` (N, H, K, S) of
    attention, and its result ``y`` (N, H, K, E); both norms; ``slope`` of the inner layer.
    """

    block: Block
    query: Tensor
    key: Tensor
    value: Tensor
    shares: Tensor
    y: Tensor
    first: _Norm
    second: _Norm
    slope: Tensor

    def for_all_labels(self) -> _Kept:
        """Norms and slope with a dimension for labels: (N, 1, T, .)."""
        first, second = (
            _Norm(*(x.unsqueeze(1) for x in (norm.weighted, norm.hat_over, norm.weight_over)))
            for norm in (self.first, self.second)
        )
        return replace(self, first=first, second=second, slope=self.slope.unsqueeze(1))


def _blocks(blocks: nn.ModuleList) -> list[Block]:
    return [cast(Block, block) for block in blocks]


def _norm(norm: nn.LayerNorm, x: Tensor) -> tuple[Tensor, _Norm]:
    y, mean, inverse = torch.native_layer_norm(
        x, norm.normalized_shape, norm.weight, norm.bias, norm.eps
    )
    over = inverse * inverse
    return y, _Norm(y - norm.bias, (x - mean) * over, inverse * norm.weight)


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    """x Φ(x), and its derivative."""
    slope: Tensor = torch.ops.aten.gelu_backward(x.new_ones(()).expand_as(x), x)
    return F.gelu(x), slope


def _heads(x: Tensor, heads: int) -> Tensor:
    """(..., T, D) to (..., H, T, E)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)


def _merge(x: Tensor) -> Tensor:
    """(..., H, T, E) to (..., T, D)."""
    return x.transpose(-2, -3).flatten(-2)
