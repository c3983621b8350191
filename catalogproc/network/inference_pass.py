"""The forward pass on a CPU: the function of :class:`Transformer`, with less of what is no product.

Attention as in few_keys_attention.py, linear layers as in packed_linear.py; residual sums and
activations are written in place. The weights are only read.

Letters as in transformer.py: N stars, T tokens, K requests, D width, H heads, E = D / H.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogproc.network.components import Components
from catalogproc.network.few_keys_attention import AttentionWeights, Keys, attend, hidden_places
from catalogproc.network.packed_linear import PackedLinear, rounded_rows
from catalogproc.network.packed_tokens import PackedTokens, attention_mask
from catalogproc.network.transformer import Block, Transformer

MANY_TOKENS = 48
"""Among more tokens than this torch's attention is faster."""


class InferencePass:
    """The forward pass of a network in float32 or float64.

    Its methods are those of :class:`~catalogproc.network.transformer.Transformer`, and their
    results the same to rounding.

    Parameters
    ----------
    network
        In evaluation mode, on a CPU.
    """

    def __init__(self, network: Transformer) -> None:
        self.network = network
        self._encoder = [_Block(cast(Block, block)) for block in network.encoder]
        self._decoder = [_Block(cast(Block, block)) for block in network.decoder]
        self._head = [_packed([layer], gelu=True) for layer in network.head]
        self._outputs, self._columns = _packed(network.outputs()), len(network.outputs())

    def encode(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        """Run the encoder.

        Parameters
        ----------
        tokens
            Of N stars, with errors if, and only if, the network reads them.

        Returns
        -------
        As :meth:`~catalogproc.network.transformer.Transformer.encode`.
        """
        network = self.network
        network.require_errors(tokens)
        attended = network.attended(tokens)
        hidden, mask = hidden_places(attended), attention_mask(attended)
        scale, shift = network.scale_and_shift(tokens)
        embedded = F.gelu(shift.addcmul_(scale, tokens.values.unsqueeze(-1)))  # (N, T, D)
        n, t, d = embedded.shape
        x = _in_rounded_rows(embedded.view(n * t, d))
        for block in self._encoder:
            if t > MANY_TOKENS:
                memory = x[: n * t].view(n, t, d)
                x = block.among_many(x, memory, memory, mask)
                continue
            weights = block.attention
            columns = weights.both(x[: n * t], t)
            query, keys = columns.tensor_split([d // weights.heads + 1], dim=-1)
            x = block(x, attend(query, weights.keys(keys, hidden, None)))
        return x[: n * t].view(n, t, d), tokens.present

    def decode_components(self, memory: Tensor, present: Tensor, requests: Tensor) -> Components:
        """Return the predicted distributions (N, K), standardised, of each requested token.

        Parameters
        ----------
        memory, present
            As for :meth:`~catalogproc.network.transformer.Transformer.decode_components`.
        requests
            Token numbers (K,), the same for all stars.
        """
        network, (n, t, d), k = self.network, memory.shape, len(requests)
        by_request = present if present.dim() == 3 and not bool(present.all()) else None
        hidden = hidden_places(present) if present.dim() == 2 else None
        asking = network.weight[requests]  # (K, D), then (N K, D)
        x = _in_rounded_rows(asking.expand(n, -1, -1).reshape(n * k, d))
        mask = attention_mask(present)
        for block in self._decoder:
            if t > MANY_TOKENS:
                x = block.among_many(x, asking.view(-1, k, d), memory, mask)
                asking = x[: n * k]
                continue
            weights = block.attention
            query = weights.query(asking, k).expand(n, -1, -1, -1)
            columns = weights.memory(memory.view(n * t, d), t)
            keys: Keys = weights.keys(columns, hidden, by_request)
            x = block(x, attend(query, keys))
            asking = x[: n * k]
        for layer in self._head:
            x = layer(x)
        found = self._outputs(x)[: n * k].view(n, k, -1)
        return network.distribution(requests, *found.chunk(self._columns, dim=-1))


class _Block:
    """A block of the network behind its attention, with packed weights."""

    def __init__(self, block: Block) -> None:
        self.attention = AttentionWeights(block.attention)
        self._attention, self._out = block.attention, block.attention.out
        self._widen, self._narrow = _packed([block.widen], gelu=True), _packed([block.narrow])
        self._norms = block.norm_attention, block.norm_feed_forward

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the block's output (rows, D).

        Parameters
        ----------
        x
            The block's input (rows, D), which is overwritten; it may have more rows than y.
        y
            What its attention found (N T, D).
        """
        x[: len(y)].add_(self._out.bias).addmm_(y, self._out.weight.t())
        return self._rest(x)

    def among_many(self, x: Tensor, asking: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return the block's output by torch's attention.

        Parameters
        ----------
        x
            The block's input (rows, D), which is overwritten.
        asking
            The rows of x that ask (N, K, D), or (1, K, D) if those of all stars are the same.
        memory, mask
            As for :class:`~catalogproc.network.transformer.Attention`.
        """
        y = self._attention(asking, memory, mask).flatten(0, 1)
        x[: len(y)].add_(y)
        return self._rest(x)

    def _rest(self, x: Tensor) -> Tensor:
        """Return the block's output from the residual sum behind its attention."""
        x = self._norms[0](x)
        out: Tensor = self._norms[1](self._narrow.added(x, self._widen(x)))
        return out


def _packed(layers: Iterable[nn.Module], gelu: bool = False) -> PackedLinear:
    """Return layers with the same input as one."""
    linear = [cast(nn.Linear, layer) for layer in layers]
    if len(linear) == 1:  # the network's own weights, not a copy
        return PackedLinear(linear[0].weight, linear[0].bias, gelu)
    weight, bias = torch.cat([x.weight for x in linear]), torch.cat([x.bias for x in linear])
    return PackedLinear(weight, bias, gelu)


def _in_rounded_rows(x: Tensor) -> Tensor:
    """Return x (rows, D) with rows of zeros appended, see :func:`rounded_rows`."""
    more = rounded_rows(len(x)) - len(x)
    return F.pad(x, (0, 0, 0, more))
