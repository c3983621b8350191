"""The network: from any tokens of a star to any other token, with an uncertainty.

A token is a number with a standardised value and, in networks that read errors, the
standardised logarithm of its error. An encoder reads the tokens that are present; a decoder
attends to the encoder's output with one query per requested token. Requests do not attend to
each other, so any number of them can be predicted in one pass and none changes another's
prediction. The order of the tokens has no effect.

Architecture: Leung & Bovy 2024 (MNRAS 527, 1494), as extended by Zhang et al. 2026
(arXiv:2603.03732): 8,846,041 parameters with 120 tokens and the default shape. Letters
in the comments: N stars, T tokens per star, K requests per star, D width, H heads, E = D / H.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogproc.errors import BundleError
from catalogproc.network.components import Components
from catalogproc.network.packed_tokens import PADDING, PackedTokens, attention_mask
from catalogproc.network.shape import Shape


class Dense(nn.Linear):
    """A linear layer that multiplies in the number type of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.bfloat16() if self.weight.dtype is torch.bfloat16 else x  # see precision.py
        return F.linear(x, self.weight, self.bias)


class Attention(nn.Module):
    """Multi-head attention with one additional learned key and value.

    The same function as ``torch.nn.MultiheadAttention(add_bias_kv=True)``: the learned key
    and value are appended after the projection and never masked, so that a star without
    tokens still has one key to attend to and gets a finite prediction.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = Dense(width, width)
        self.key_value = Dense(width, 2 * width)
        self.bias_key_value = nn.Parameter(torch.empty(2 * width))
        self.out = Dense(width, width)
        if not self.bias_key_value.is_meta:  # to be loaded: torch would import 800 modules for it
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as torch.nn.MultiheadAttention: Xavier over q, k and v as one matrix."""
        width = self.query.in_features
        bound = (6 / (width + 3 * width)) ** 0.5
        nn.init.uniform_(self.query.weight, -bound, bound)
        nn.init.uniform_(self.key_value.weight, -bound, bound)
        nn.init.normal_(self.bias_key_value, std=(2 / (1 + width)) ** 0.5)
        for layer in (self.query, self.key_value, self.out):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        # x (N or 1, K, D), memory (N, T, D), mask (N, 1, 1, T + 1) or None for all present
        n, t, d = memory.shape
        q = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N or 1, H, K, E)
        kv = self.key_value(memory)  # (N, T, 2 D)
        kv = torch.cat([kv, self.bias_key_value.to(kv.dtype).expand(n, 1, 2 * d)], dim=1)
        k, v = kv.view(n, t + 1, 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, T + 1, E)
        # On a CPU the backward pass of PyTorch's function is many times slower in bfloat16.
        by_products = v.dtype is torch.bfloat16 and not v.is_cuda and torch.is_grad_enabled()
        attend = attention_by_products if by_products else F.scaled_dot_product_attention
        dropout = self.dropout if self.training else 0.0
        y = attend(q.expand(n, -1, -1, -1), k, v, mask, dropout)  # (N, H, K, E)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))  # (N, K, D)
        return out


def attention_by_products(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float
) -> Tensor:
    """Return softmax(q k^T / sqrt(E)) v: what ``scaled_dot_product_attention`` computes.

    Parameters
    ----------
    query, key, value
        (N, H, K, E), (N, H, S, E), (N, H, S, E).
    mask
        True for keys to attend to, broadcast to (N, H, K, S); None for all.
    dropout
        Probability with which an attention weight is left out.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (N, H, K, S)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    shares = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return F.dropout(shares, dropout) @ value


class Block(nn.Module):
    """Attention, then a feed-forward layer, each with residual connection and layer norm."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, dropout)
        self.norm_attention = nn.LayerNorm(width)
        self.widen = _dense(width, inner)
        self.narrow = _dense(inner, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        x = self.norm_attention(x + self.drop(self.attention(x, memory, mask)))  # (N, K, D)
        y = self.narrow(F.gelu(self.widen(x)))
        x = self.norm_feed_forward(x + self.drop(y))  # (N, K, D)
        return x


class Transformer(nn.Module):
    """Encoder, decoder and head of a given :class:`Shape`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        d, dropout = shape.width, shape.dropout
        self.weight = nn.Parameter(torch.empty(shape.tokens + 1, d))
        self.bias = nn.Parameter(torch.empty(shape.tokens + 1, d))
        self.encoder = nn.ModuleList(Block(d, h, inner, dropout) for h, inner in shape.encoder)
        self.decoder = nn.ModuleList(Block(d, h, inner, dropout) for h, inner in shape.decoder)
        widths = (d, *shape.head)
        self.head = nn.ModuleList(_dense(a, b) for a, b in pairwise(widths))
        self.mean = _dense(widths[-1], shape.components)
        self.log_variance = _dense(widths[-1], shape.components)
        if shape.components > 1:
            self.component_weight = _dense(widths[-1], shape.components)
        self.drop = nn.Dropout(dropout)
        for table in (self.weight, self.bias):
            nn.init.xavier_uniform_(table)
            with torch.no_grad():
                table[PADDING] = 0.0
        if shape.reads_errors:
            # Zero at first: a network that does not read errors is the special case.
            self.error_weight = nn.Parameter(torch.zeros(shape.tokens + 1, d))
            self.error_bias = nn.Parameter(torch.zeros(shape.tokens + 1, d))

    def scale_and_shift(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        """Return scale and shift (N, T, D): a token's embedding is GELU(scale x + shift).

        scale = W + A r and shift = b + U r, with x the token's value, r its error (see
        :class:`PackedTokens`), W, b, A and U one row per token; A and U only where errors are
        read.

        Parameters
        ----------
        tokens
            Of N stars.
        """
        scale = F.embedding(tokens.ids, self.weight, padding_idx=PADDING)
        shift = F.embedding(tokens.ids, self.bias, padding_idx=PADDING)
        if tokens.errors is not None:
            r = tokens.errors.unsqueeze(-1)  # (N, T, 1)
            by_error = F.embedding(tokens.ids, self.error_weight, padding_idx=PADDING)
            scale = torch.addcmul(scale, by_error, r)
            by_error = F.embedding(tokens.ids, self.error_bias, padding_idx=PADDING)
            shift = torch.addcmul(shift, by_error, r)
        return scale, shift

    def encode(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        """Run the encoder.

        Parameters
        ----------
        tokens
            Of N stars, with errors if, and only if, the network reads them.

        Returns
        -------
        memory, present
            The encoder's output (N, T, D), undefined where padded, and the mask of tokens
            that are not padding (N, T), which :meth:`decode` applies.
        """
        self.require_errors(tokens)
        mask = attention_mask(self.attended(tokens))
        scale, shift = self.scale_and_shift(tokens)
        x = F.gelu(torch.addcmul(shift, scale, tokens.values.unsqueeze(-1)))  # (N, T, D)
        for block in self.encoder:
            x = block(x, x, mask)
        return x, tokens.present

    def attended(self, tokens: PackedTokens) -> Tensor:
        """Return the tokens that others attend to in the encoder (N, T): all but late ones.

        Parameters
        ----------
        tokens
            Of N stars.
        """
        return tokens.without(self.shape.late)

    def decode(self, memory: Tensor, present: Tensor, requests: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance (N, K), standardised, of each requested token.

        Parameters
        ----------
        memory, present, requests
            As for :meth:`decode_components`.
        """
        return self.decode_components(memory, present, requests).moments()

    def decode_components(self, memory: Tensor, present: Tensor, requests: Tensor) -> Components:
        """Return the predicted distributions (N, K), standardised, of each requested token.

        Parameters
        ----------
        memory, present
            As :meth:`encode` returns them; ``present`` may be (N, K, T), the tokens that each
            request attends to.
        requests
            Token numbers: (K,), the same for all stars, or (N, K). For (K,), what depends
            on the request alone is computed once, not per star.
        """
        mask = attention_mask(present)
        x = F.embedding(requests, self.weight, padding_idx=PADDING)  # (K, D) or (N, K, D)
        if x.dim() == 2:
            x = x.unsqueeze(0)  # (1, K, D)
        for block in self.decoder:
            x = block(x, memory, mask)  # (N, K, D)
        for layer in self.head:
            x = self.drop(F.gelu(layer(x)))
        return self.components(x, requests)

    def components(self, x: Tensor, requests: Tensor) -> Components:
        """Return the predicted distributions (N, K) of the last hidden layer's output.

        Parameters
        ----------
        x
            (N, K, width of the layer).
        requests
            Token numbers, (K,) or (N, K).
        """
        x = x.to(self.mean.weight.dtype)
        return self.distribution(requests, *(layer(x) for layer in self.outputs()))

    def outputs(self) -> list[nn.Module]:
        """Return the layers whose outputs :meth:`distribution` takes, each of M columns."""
        layers: list[nn.Module] = [self.mean, self.log_variance]
        return [*layers, self.component_weight] if self.shape.components > 1 else layers

    def distribution(self, requests: Tensor, *outputs: Tensor) -> Components:
        """Return the predicted distributions (N, K) of what the last layers give.

        Parameters
        ----------
        requests
            Token numbers, (K,) or (N, K).
        outputs
            (N, K, M) of each of :meth:`outputs`.
        """
        means, log_variances, *others = outputs
        shape = self.shape
        if shape.components == 1:
            return Components(means, log_variances)
        logits = others[0]
        if shape.mixture:
            chosen = torch.zeros_like(requests, dtype=torch.bool)
            for number in shape.mixture:  # a table of them would be copied to the device
                chosen = chosen | (requests == number)
            first = torch.arange(shape.components, device=requests.device) == 0
            logits = logits.masked_fill(~(chosen.unsqueeze(-1) | first), -torch.inf)
        return Components(means, log_variances, logits.log_softmax(-1))

    def forward(self, tokens: PackedTokens, requests: Tensor) -> tuple[Tensor, Tensor]:
        """Run :meth:`encode`, then :meth:`decode`."""
        return self.distributions(tokens, requests).moments()

    def distributions(self, tokens: PackedTokens, requests: Tensor) -> Components:
        """Run :meth:`encode`, then :meth:`decode_components`."""
        memory, present = self.encode(tokens)
        return self.decode_components(memory, present, requests)

    def require_errors(self, tokens: PackedTokens) -> None:
        """Raise BundleError for tokens without errors that are read, or with such that are not.

        Parameters
        ----------
        tokens
            Of any stars.
        """
        if self.shape.reads_errors != (tokens.errors is not None):
            raise BundleError(
                "the network reads errors, and the tokens have none"
                if self.shape.reads_errors
                else "the tokens have errors that the network does not read"
            )


def summary(memory: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the encoder's output over a star's tokens; 0 without tokens.

    Parameters
    ----------
    memory, present
        As :meth:`Transformer.encode` returns them.

    Returns
    -------
    (N, D).
    """
    weight = present.to(memory.dtype).unsqueeze(-1)
    return (memory * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def _dense(inputs: int, outputs: int) -> Dense:
    """Return a linear layer with He's uniform initialisation, as Leung & Bovy 2024 use."""
    layer = Dense(inputs, outputs)
    nn.init.kaiming_uniform_(layer.weight)
    return layer
