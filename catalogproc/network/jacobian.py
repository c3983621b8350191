"""Derivatives of every prediction with respect to every token, by a hand-written reverse pass.

The forward pass saves what the reverse pass needs; the reverse pass then gives, for every
requested label, the derivatives of its mean with respect to all tokens of a star. It is
written out because it needs less work than automatic differentiation: no gradients of weights
are computed; requests do not attend to each other, so that one pass through head and decoder
serves all of them; a request's gradient at the memory is a sum over few heads; and derivatives
that all labels share are computed once. The results equal those of automatic differentiation.

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

from catalogproc.network.components import Components
from catalogproc.network.packed_tokens import PackedTokens, attention_mask
from catalogproc.network.transformer import Block, Transformer, summary


@dataclass(frozen=True)
class ReverseOutput:
    """Predictions of K requests for N stars, standardised, and their derivatives.

    ``components``, the predicted distributions; ``jacobian`` (N, K, T), the mean's derivatives
    with respect to the tokens' values at constant errors, 0 where padded; ``summary`` (N, D), the
    mean of the encoder's output over a star's tokens.
    """

    components: Components
    jacobian: Tensor
    summary: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean (N, K) of the predicted distributions."""
        return self.components.moments()[0]

    @property
    def log_variance(self) -> Tensor:
        """Log variance (N, K) of the predicted distributions."""
        return self.components.moments()[1]


class ReversePass:
    """The reverse pass of a network; the weights are only read.

    Parameters
    ----------
    network
        In evaluation mode, without gradients.
    half
        Whether the reverse pass multiplies in bfloat16, many times faster on GPUs;
        derivatives then have errors of about 1 %. The forward pass keeps the network's type.
    """

    def __init__(self, network: Transformer, half: bool = False) -> None:
        self.network = network
        self.half = half
        self._transposed: dict[nn.Module, Tensor] = {
            layer: self._to_half(layer.weight.t().contiguous())
            for layer in network.modules()
            if isinstance(layer, nn.Linear)
        }

    def __call__(self, tokens: PackedTokens, requests: Tensor) -> ReverseOutput:
        """Return predictions and derivatives.

        Parameters
        ----------
        tokens
            Of N stars, with errors if, and only if, the network reads them.
        requests
            Token numbers (K,).
        """
        network = self.network
        network.require_errors(tokens)
        present = tokens.present  # (N, T)
        attended = attention_mask(network.attended(tokens))
        scale, shift = network.scale_and_shift(tokens)  # (N, T, D)
        x, slope = _gelu(torch.addcmul(shift, scale, tokens.values.unsqueeze(-1)))
        slope = slope * scale  # of the embedding with respect to the token's value
        encoder = []
        for block in _blocks(network.encoder):
            x, saved = self._forward(block, x, x, attended)
            encoder.append(saved)
        memory, mask = x, attention_mask(present)
        x = network.weight[requests].unsqueeze(0)  # (1, K, D)
        decoder = []
        for block in _blocks(network.decoder):
            x, saved = self._forward(block, x, memory, mask)
            decoder.append(saved)
        derivatives = []
        head = [cast(nn.Linear, layer) for layer in network.head]
        for layer in head:
            x, derivative = _gelu(F.linear(x, layer.weight, layer.bias))
            derivatives.append(derivative)

        found = network.components(x, requests)
        chances = network.component_weight.weight if network.shape.components > 1 else None
        g = found.mean_gradient(network.mean.weight, chances)  # (N, K, width of the last layer)
        for layer, derivative in zip(reversed(head), reversed(derivatives), strict=True):
            g = self._linear_backward(layer, g * derivative)  # (N, K, D) at last
        g = self._decoder_backward(decoder, g)  # (N, K, T, D)
        for saved in reversed(encoder[1:]):
            g = self._encoder_block_backward(saved, g)
        if encoder:
            jacobian = self._first_block_backward(encoder[0], g, slope)
        else:
            jacobian = (g * slope.unsqueeze(1)).sum(-1)
        return ReverseOutput(
            found,
            jacobian.masked_fill(~present[:, None, :], 0.0),
            summary(memory, present),
        )

    def _forward(
        self, block: Block, x: Tensor, memory: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, _SavedBlock]:
        """Return the block's output, and what the reverse pass needs."""
        attention = block.attention
        n, _, d = memory.shape
        query = _heads(F.linear(x, attention.query.weight, attention.query.bias), attention.heads)
        kv = F.linear(memory, attention.key_value.weight, attention.key_value.bias)  # (N, T, 2 D)
        kv = torch.cat([kv, attention.bias_key_value.expand(n, 1, 2 * d)], dim=1)
        key, value = (_heads(part, attention.heads) for part in kv.chunk(2, dim=-1))
        root = sqrt(d // attention.heads)
        scores = (query / root) @ key.transpose(-1, -2)  # (N, H, K, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        shares = scores.softmax(-1)
        y = shares @ value  # (N, H, K, E)
        x = x + F.linear(_merge(y), attention.out.weight, attention.out.bias)
        x, first = _norm(block.norm_attention, x)
        inner, slope = _gelu(F.linear(x, block.widen.weight, block.widen.bias))
        x = x + F.linear(inner, block.narrow.weight, block.narrow.bias)
        x, second = _norm(block.norm_feed_forward, x)
        slope = self._to_half(slope)
        return x, _SavedBlock(
            block, query / root, key / root, value, shares, y, first, second, slope
        )

    def _decoder_backward(self, decoder: list[_SavedBlock], g: Tensor) -> Tensor:
        """Return each request's gradient at the memory (N, K, T, D) from that after the decoder.

        ``g`` is (N, K, D).
        """
        total: Tensor | None = None
        for number in reversed(range(len(decoder))):
            saved = decoder[number]
            attention = saved.block.attention
            g = self._feed_forward_backward(saved, g)
            out = self._linear_backward(attention.out, g)
            grad_y = _heads(out, attention.heads)  # (N, H, K, E)
            grad_scores = grad_y @ saved.value.transpose(-1, -2)  # (N, H, K, S)
            grad_scores = saved.shares * (grad_scores - (grad_y * saved.y).sum(-1, keepdim=True))
            # In each head a request's gradient at a key is a number times its query: multiply
            # the query by the weights first, then one product sums over the heads.
            key_weight, value_weight = (
                part.view(attention.heads, -1, part.shape[-1])  # (H, E, D)
                for part in attention.key_value.weight.chunk(2)
            )
            query = saved.query.expand(len(grad_y), -1, -1, -1)
            directions = torch.cat([query @ key_weight, grad_y @ value_weight], 1)  # (N, 2 H, K, D)
            numbers = torch.cat([grad_scores, saved.shares], 1)[..., :-1]  # (N, 2 H, K, T)
            at_memory = numbers.permute(0, 2, 3, 1) @ directions.transpose(1, 2)  # (N, K, T, D)
            total = at_memory if total is None else total.add_(at_memory)
            if number:  # the input of the first block depends on the request alone
                g = g + self._linear_backward(attention.query, _merge(grad_scores @ saved.key))
        assert total is not None
        return total

    def _encoder_block_backward(self, saved: _SavedBlock, g: Tensor) -> Tensor:
        """Return the gradient before an encoder block from that behind it, both (N, K, T, D)."""
        attention = saved.block.attention
        n, k, t, d = g.shape
        h, e = attention.heads, d // attention.heads
        g, grad_scores, grad_value = self._attention_backward(saved, g)
        grad_query = grad_scores.view(n, h, -1, k * t).transpose(-1, -2) @ saved.key
        grad_key = grad_scores.view(n, h, -1, t) @ saved.query  # (N, H, S K, E)
        both = grad_key.new_empty(n, k, t, 2, h, e)
        for place, part in enumerate((grad_key, grad_value)):
            both[:, :, :, place] = part.view(n, h, -1, k, e)[:, :, :-1].permute(0, 3, 2, 1, 4)
        grad_query = grad_query.view(n, h, k, t, e).permute(0, 2, 3, 1, 4).flatten(3)
        g += self._linear_backward(attention.query, grad_query)
        g += self._linear_backward(attention.key_value, both.flatten(3))
        return g

    def _first_block_backward(self, saved: _SavedBlock, g: Tensor, slope: Tensor) -> Tensor:
        """Return the derivatives with respect to the tokens' values (N, K, T).

        ``slope`` (N, T, D) is the derivative of each token's embedding with respect to its
        value. All labels share it and the weights: it is multiplied by the projections once
        per star, instead of each label's gradient.
        """
        attention = saved.block.attention
        n, k = g.shape[:2]
        g, grad_scores, grad_value = self._attention_backward(saved, g)
        query = _heads(F.linear(slope, attention.query.weight), attention.heads)
        key_value = F.linear(slope, attention.key_value.weight)
        key, value = (_heads(part, attention.heads) for part in key_value.chunk(2, dim=-1))
        jacobian = (g.transpose(1, 2) @ slope.unsqueeze(-1)).squeeze(-1).transpose(1, 2)
        # Derivatives of each score with respect to its query's token, and to its key's.
        by_query, by_key = saved.key @ query.transpose(-1, -2), key @ saved.query.transpose(-1, -2)
        jacobian = jacobian + (grad_scores * by_query.unsqueeze(3)).sum((1, 2))
        at_keys = (grad_scores[:, :, :-1] * by_key.unsqueeze(3)).sum((1, -1))  # (N, T, K)
        at_values = grad_value.view(n, attention.heads, -1, k, value.shape[-1])[:, :, :-1]
        at_keys += (at_values * value.unsqueeze(3)).sum((1, -1))
        return jacobian + at_keys.transpose(1, 2)

    def _attention_backward(self, saved: _SavedBlock, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients inside of an encoder block from that behind it (N, K, T, D).

        Of the input past the attention (N, K, T, D), of the scores (N, H, S, K, T) and of the
        attention's values (N, H, S, K E).
        """
        attention = saved.block.attention
        n, k, t, d = g.shape
        h, e = attention.heads, d // attention.heads
        g = self._feed_forward_backward(saved.for_all_labels(), g)
        grad_y = self._linear_backward(attention.out, g).view(n, k, t, h, e).permute(0, 3, 1, 2, 4)
        # The softmax subtracts y . grad_y from each score: one additional column of the product.
        left = grad_y.new_empty(n, h, k, t, e + 1)
        left[..., :e] = grad_y
        left[..., e] = (left[..., :e] * saved.y.unsqueeze(2)).sum(-1)
        right = F.pad(saved.value, (0, 1), value=-1.0)  # (N, H, S, E + 1)
        # Keys first, then labels and tokens: so every product below is of large matrices.
        grad_scores = (right @ left.view(n, h, k * t, e + 1).transpose(-1, -2)).view(n, h, -1, k, t)
        grad_scores *= saved.shares.transpose(-1, -2).unsqueeze(3)
        across = grad_y.permute(0, 1, 3, 2, 4).reshape(n, h, t, k * e)
        return g, grad_scores, saved.shares.transpose(-1, -2) @ across

    def _feed_forward_backward(self, saved: _SavedBlock, g: Tensor) -> Tensor:
        """Return the gradient at the residual sum of the attention from that behind the block.

        Both (..., D).
        """
        g = saved.second.backward(g)
        inner = F.linear(self._to_half(g), self._transposed[saved.block.narrow])
        inner *= saved.slope
        g += self._linear_backward(saved.block.widen, inner)
        return saved.first.backward(g)

    def _linear_backward(self, layer: nn.Module, g: Tensor) -> Tensor:
        """Return the gradient before a linear layer: g W."""
        return F.linear(self._to_half(g), self._transposed[layer]).to(self.network.weight.dtype)

    def _to_half(self, x: Tensor) -> Tensor:
        return x.bfloat16() if self.half else x


@dataclass(frozen=True)
class _Norm:
    """The saved forward pass of a layer norm, hat * weight + bias with hat = (x - mean) / sd.

    ``weighted`` is hat times weight; ``hat_over`` and ``weight_over`` are hat and weight
    divided by sd.
    """

    weighted: Tensor
    hat_over: Tensor
    weight_over: Tensor

    def backward(self, g: Tensor) -> Tensor:
        """Return (g weight - mean(g weight) - hat mean(g weight hat)) / sd."""
        along = (g * self.weighted).mean(-1, keepdim=True)
        g = g * self.weight_over
        g -= g.mean(-1, keepdim=True)
        return g.addcmul_(self.hat_over, along, value=-1.0)


@dataclass(frozen=True)
class _SavedBlock:
    """What the reverse pass needs of a block's forward pass.

    ``query`` and ``key`` (N, H, ., E) are divided by sqrt(E); ``shares`` (N, H, K, S) are the
    attention weights and ``y`` (N, H, K, E) the attention's result; ``first`` and ``second``
    the norms; ``slope`` the derivative of the feed-forward layer's activation.
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

    def for_all_labels(self) -> _SavedBlock:
        """Return a copy whose norms and slope have a dimension for labels: (N, 1, T, .)."""
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
    """Return x Φ(x), and its derivative."""
    slope: Tensor = torch.ops.aten.gelu_backward(x.new_ones(()).expand_as(x), x)
    return F.gelu(x), slope


def _heads(x: Tensor, heads: int) -> Tensor:
    """Reshape (..., T, D) to (..., H, T, E)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(-2, -3)


def _merge(x: Tensor) -> Tensor:
    """Reshape (..., H, T, E) to (..., T, D)."""
    return x.transpose(-2, -3).flatten(-2)
