"""The sizes of the network's layers, which is known of a bundle without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import prod
from typing import Any

from catalogproc.errors import JobError


@dataclass(frozen=True)
class Shape:
    """The sizes of the network's layers.

    ``tokens`` is the vocabulary's length V. ``encoder`` and ``decoder`` list their blocks
    as (attention heads, feed-forward width); ``head`` lists the hidden layers between
    the decoder and the two outputs. With ``reads_errors`` a token's embedding depends on its
    error too. With ``components`` M > 1 the predicted distribution is a weighted sum of M
    Gaussians: for the token numbers ``mixture``, or for all if there are none. The token numbers
    ``late`` enter at the decoder (late fusion): in the encoder no other token attends to them, so
    that one encoding serves predictions with them and without.
    """

    tokens: int
    width: int = 128
    encoder: tuple[tuple[int, int], ...] = ((16, 1024), (8, 512))
    decoder: tuple[tuple[int, int], ...] = ((16, 3096), (8, 1548), (4, 774))
    head: tuple[int, ...] = (3096, 1548, 774, 387)
    dropout: float = 0.1
    reads_errors: bool = False
    components: int = 1
    mixture: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = [self.tokens, self.width, *self.head, self.components]
        sizes += [size for block in (*self.encoder, *self.decoder) for size in block]
        if not all(isinstance(size, int) and size > 0 for size in sizes) or not self.decoder:
            raise JobError("a network needs positive integer sizes and a decoder", found=self)
        for heads, _ in (*self.encoder, *self.decoder):
            if self.width % heads:
                raise JobError(
                    "attention heads must divide the width",
                    wanted=f"a divisor of {self.width}",
                    found=heads,
                )
        if not 0.0 <= self.dropout < 1.0:
            raise JobError("dropout is a probability", wanted="0 to 1", found=self.dropout)
        if not isinstance(self.reads_errors, bool):
            raise JobError("reads_errors is true or false", found=self.reads_errors)
        if not all(isinstance(n, int) and 0 < n <= self.tokens for n in self.mixture) or (
            self.mixture and self.components == 1
        ):
            raise JobError(
                "the numbers of tokens that are predicted as several Gaussians",
                wanted=f"1 to {self.tokens}, with components of 2 or more", found=self.mixture,
            )  # fmt: skip
        if not all(isinstance(n, int) and 0 < n <= self.tokens for n in self.late):
            raise JobError(
                "the numbers of tokens that enter at the decoder",
                wanted=f"1 to {self.tokens}", found=self.late,
            )  # fmt: skip

    @property
    def weights(self) -> int:
        """About how many weights the blocks and the head have: what a prediction multiplies."""
        layers = pairwise((self.width, *self.head))
        blocks = (*self.encoder, *self.decoder)
        return sum(map(prod, layers)) + sum(
            4 * self.width**2 + 2 * self.width * inner for _, inner in blocks
        )

    def to_dict(self) -> dict[str, Any]:
        """Return lists and numbers for TOML and JSON; :meth:`from_dict` reads them."""
        content = asdict(self)
        for name in ("encoder", "decoder"):
            content[name] = [list(block) for block in content[name]]
        for name in ("head", "mixture", "late"):
            content[name] = list(content[name])
        optional = {"reads_errors": False, "components": 1, "mixture": [], "late": []}
        for name, default in optional.items():
            if content[name] == default:
                del content[name]  # keeps the text of bundles that were written before
        return content

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Shape:
        """Return the shape of what :meth:`to_dict` wrote.

        Parameters
        ----------
        content
            Fields by name; those with a default may be missing.

        Raises
        ------
        JobError
            An unknown field, or a value of the wrong type.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(content) - set(known))
        if unknown:
            raise JobError("unknown fields of a network", wanted=known, found=unknown)
        given = dict(content)
        try:
            for name in ("encoder", "decoder"):
                if name in given:
                    given[name] = tuple((heads, inner) for heads, inner in given[name])
            for name in ("head", "mixture", "late"):
                if name in given:
                    given[name] = tuple(given[name])
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise JobError("a network's field is missing or wrong", found=error) from None
