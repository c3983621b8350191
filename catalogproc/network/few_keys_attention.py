"""Attention on a CPU among few tokens: the function of transformer.py, in few calls.

A star has some ten tokens, so that a head multiplies matrices of some ten rows, and torch's
attention spends its time on calls and on the softmax of short rows. Here:

* query, key and value of all heads are one product;
* the softmax is one exponential of all scores. Its sums are one more column of the values, all
  ones, so that the product that adds up the values adds up the weights too. The largest score of a
  query is subtracted only where an exponential could overflow, or all could vanish;
* a token that is not attended to has zeros in the values and in this column: no mask;
* the learned key's scores come from one more row of the query's weights.

Letters as in transformer.py: N stars, T tokens, K requests, D width, H heads, E = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from catalogproc.network.transformer import Attention

LARGEST_SCORE, SMALLEST_SUM = 60.0, 1e-20
"""The largest score is subtracted if one is larger, or the exponentials of a query's scores add up
to less: else nothing overflows, and what underflows is less than 1e-17 of the sum."""

Places = tuple[Tensor, Tensor]
"""Stars and slots of some tokens."""


@dataclass(frozen=True, eq=False)
class Keys:
    """What queries attend to.

    Attributes
    ----------
    keys, values
        (N, T, H, E) and (N, T, H, E + 1); the last column of the values is 1, and all columns are
        0 for tokens that no query attends to.
    learned
        Value of the learned key, and 1: (H, 1, 1, E + 1).
    hidden
        The tokens that no query attends to; None if there are none.
    by_request
        Which tokens each request attends to (N, K, T), None for all others.
    """

    keys: Tensor
    values: Tensor
    learned: Tensor
    hidden: Places | None
    by_request: Tensor | None


@dataclass(frozen=True, eq=False)
class Projection:
    """A product that gives columns (H, .) of each of its rows."""

    weight: Tensor
    bias: Tensor
    heads: int

    def __call__(self, x: Tensor, slots: int) -> Tensor:
        """Return (N, T, H, .) of (N T, D) with T slots."""
        columns = len(self.weight) // self.heads
        return F.linear(x, self.weight, self.bias).view(-1, slots, self.heads, columns)


class AttentionWeights:
    """The weights of an attention, put together by head.

    Parameters
    ----------
    attention
        Its weights are only read.

    Attributes
    ----------
    query
        Gives E + 1 columns: queries over the root of E, and their scores of the learned key.
    memory
        Gives 2 E + 1 columns: keys, values, and 1.
    both
        Gives the columns of the two.
    """

    def __init__(self, attention: Attention) -> None:
        self.heads, dtype = attention.heads, attention.query.weight.dtype
        query, key, value = (
            part.view(self.heads, -1, part.shape[-1])  # (H, E, D + 1), the last column the bias
            for layer, count in ((attention.query, 1), (attention.key_value, 2))
            for part in torch.cat([layer.weight, layer.bias[:, None]], 1).double().chunk(count)
        )
        learned_key, learned = attention.bias_key_value.double().view(2, self.heads, -1, 1)
        query = query * query.shape[1] ** -0.5
        score = (query * learned_key).sum(1, keepdim=True)
        one = torch.zeros_like(score)
        one[..., -1] = 1.0
        queries, memory = torch.cat([query, score], 1), torch.cat([key, value, one], 1)
        self.query, self.memory, self.both = (
            Projection(part[:, :-1].contiguous(), part[:, -1].contiguous(), self.heads)
            for part in (
                columns.flatten(0, 1).to(dtype)
                for columns in (queries, memory, torch.cat([queries, memory], 1))
            )
        )
        self._learned = torch.cat([learned[..., 0], one[:, :, -1]], 1)[:, None, None].to(dtype)

    def keys(self, columns: Tensor, hidden: Places | None, by_request: Tensor | None) -> Keys:
        """Return what is attended to.

        Parameters
        ----------
        columns
            The columns of ``memory`` of each token (N, T, H, 2 E + 1); they may be overwritten.
        hidden, by_request
            As in :class:`Keys`.
        """
        keys, values = columns.tensor_split([columns.shape[-1] // 2], dim=-1)
        if hidden is not None:
            values[hidden] = 0.0
        return Keys(keys, values, self._learned, hidden, by_request)


def hidden_places(attended: Tensor) -> Places | None:
    """Return the tokens that are not attended to; None if all are.

    Parameters
    ----------
    attended
        (N, T).
    """
    if bool(attended.all()):
        return None
    star, slot = (~attended).nonzero(as_tuple=True)
    return star, slot


def attend(query: Tensor, keys: Keys) -> Tensor:
    """Return the values that queries attend to (N K, D).

    Parameters
    ----------
    query
        The columns of :attr:`AttentionWeights.query` of each query (N, K, H, E + 1).
    keys
        Of the same N stars.
    """
    scores, learned = _scores(query, keys), query[..., -1].permute(2, 0, 1)  # (H, N, K)
    if not (_largest(scores) < LARGEST_SCORE and _largest(learned) < LARGEST_SCORE):
        return _attend_shifted(query, keys)
    weights = scores.exp_()
    if keys.by_request is not None:
        weights.mul_(keys.by_request)
    sums = _weighted(weights, keys).addcmul_(learned.exp().unsqueeze(-1), keys.learned)
    if sums.numel() and not float(sums[..., -1].min()) > SMALLEST_SUM:
        return _attend_shifted(query, keys)
    y = sums.new_empty(*query.shape[:3], query.shape[3] - 1)
    torch.div(sums[..., :-1].permute(1, 2, 0, 3), sums[..., -1:].permute(1, 2, 0, 3), out=y)
    return y.flatten(2).flatten(0, 1)


def _attend_shifted(query: Tensor, keys: Keys) -> Tensor:
    """Return what :func:`attend` does, with the largest score of each query subtracted."""
    scores, learned = _scores(query, keys), query[..., -1].permute(2, 0, 1)
    if keys.hidden is not None:
        star, slot = keys.hidden
        scores[:, star, :, slot] = -torch.inf
    if keys.by_request is not None:
        scores.masked_fill_(~keys.by_request, -torch.inf)
    shares = torch.cat([scores, learned.unsqueeze(-1)], -1).softmax(-1)
    sums = _weighted(shares[..., :-1], keys).addcmul_(shares[..., -1:], keys.learned)
    return sums[..., :-1].permute(1, 2, 0, 3).flatten(2).flatten(0, 1)


def _scores(query: Tensor, keys: Keys) -> Tensor:
    """Return the scores (H, N, K, T) of the tokens."""
    n, k, h, _ = query.shape
    scores = query.new_empty(h, n, k, keys.keys.shape[1])
    for head in range(h):
        key = keys.keys[:, :, head].transpose(1, 2)
        torch.bmm(query[:, :, head, :-1], key, out=scores[head])
    return scores


def _weighted(weights: Tensor, keys: Keys) -> Tensor:
    """Return sums of the values (H, N, K, E + 1) with weights (H, N, K, T)."""
    sums = weights.new_empty(*weights.shape[:3], keys.values.shape[-1])
    for head in range(len(weights)):
        torch.bmm(weights[head], keys.values[:, :, head], out=sums[head])
    return sums


def _largest(scores: Tensor) -> float:
    """Return the largest score, NaN if one is NaN; 0 without scores."""
    return float(scores.max()) if scores.numel() else 0.0
