"""The tokens of stars: values and their errors, which are always passed together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.errors import ContractError

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class StarTokens:
    """Tokens of N stars, dense, in their physical units and in the vocabulary's order.

    Attributes
    ----------
    values
        (N, V); NaN where a token is absent.
    errors
        (N, V) one standard deviation of the values: 0 for an exact value, NaN for an unknown
        error, which a model that reads errors takes as typical. Ignored where a value is absent.
    """

    values: Floats
    errors: Floats

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape != self.errors.shape:
            raise ContractError(
                "values and errors must have one row per star and one column per token",
                wanted="(N, V) both",
                found=f"{self.values.shape} and {self.errors.shape}",
            )

    @classmethod
    def exact(cls, values: Floats) -> StarTokens:
        """Return tokens without error.

        Parameters
        ----------
        values
            (N, V).
        """
        return cls(values, np.broadcast_to(np.zeros(1, values.dtype), values.shape))

    @classmethod
    def typical(cls, values: Floats) -> StarTokens:
        """Return tokens whose errors are unknown.

        Parameters
        ----------
        values
            (N, V).
        """
        return cls(values, np.broadcast_to(np.full(1, np.nan, values.dtype), values.shape))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which tokens the stars have (N, V)."""
        return ~np.isnan(self.values)

    def rows(self, which: Any) -> StarTokens:
        """Return the tokens of some stars.

        Parameters
        ----------
        which
            Row numbers, a mask (N,) or a slice.
        """
        return StarTokens(self.values[which], self.errors[which])

    def only(self, shown: NDArray[np.bool_]) -> StarTokens:
        """Return a copy in which all other tokens are absent.

        Parameters
        ----------
        shown
            (V,) or (N, V), True for tokens that stay.
        """
        return StarTokens(np.where(shown, self.values, np.nan), self.errors)

    def filled_from(self, other: StarTokens) -> StarTokens:
        """Return a copy in which absent tokens are those of others, with their errors.

        Parameters
        ----------
        other
            Tokens of the same stars.
        """
        return StarTokens(
            np.where(self.present, self.values, other.values),
            np.where(self.present, self.errors, other.errors),
        )

    def without(self, columns: NDArray[np.integer] | int) -> StarTokens:
        """Return a copy in which some tokens are absent.

        Parameters
        ----------
        columns
            Their columns.
        """
        shown = np.ones(self.values.shape[1], dtype=bool)
        shown[columns] = False
        return self.only(shown)
