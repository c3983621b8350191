"""Stars with inputs for a model and known labels, simulated or real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.star_table import StarTable
from catalogproc.errors import JobError
from catalogproc.network.star_tokens import StarTokens
from catalogproc.vocabulary import Vocabulary

Floats = NDArray[np.floating]

OUTSIDE = "outside_domain"
"""Extra column of a dataset's stars: 1 where the labels are outside DistMass's training domain."""

GIANT = "giant"
"""Extra column of the stars of a dataset that marks giants: 1 for a giant by its labels."""

EXTRA = ("phot_g_mean_mag", "parallax_over_error", "dist")
"""Extra columns: magnitude, parallax over its error, distance in kpc. They are no tokens."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """N stars with inputs for a model, and their true labels.

    Attributes
    ----------
    name
        Describes the stars, for titles.
    real
        Whether they are real stars, whose truth is a measurement.
    ids
        (N,) identifiers.
    values, errors
        (N, V) input tokens, NaN where absent.
    truth, truth_errors
        (N, V) true labels, NaN where unknown; ``logebv`` and ``g_fakemag`` are those of the true
        E(B-V) and distance. Errors are 0 where the truth is exact.
    vocabulary
        Defines the V tokens.
    all_values
        (N, V) input tokens with the coefficients that carry no signal too, which trees may read;
        None where they are the same.
    extra
        Further columns (N,) by name: those of EXTRA that are known; OUTSIDE for a dataset, and
        GIANT for one that marks giants.
    one_band
        By hidden band: the tokens without it, where coefficients are canonical, which change
        with the other band.
    """

    name: str
    real: bool
    ids: NDArray[np.int64]
    values: Floats
    errors: Floats
    truth: Floats
    truth_errors: Floats
    vocabulary: Vocabulary
    extra: Mapping[str, Floats] = field(default_factory=dict)
    all_values: Floats | None = None
    one_band: Mapping[str, StarTokens] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def inputs(self) -> StarTokens:
        """The input tokens with their errors."""
        return StarTokens(self.values, self.errors)

    @property
    def tree_inputs(self) -> StarTokens:
        """The input tokens that trees may read."""
        return StarTokens(self.values if self.all_values is None else self.all_values, self.errors)

    @property
    def labels(self) -> StarTokens:
        """The true labels with their errors."""
        return StarTokens(self.truth, self.truth_errors)

    def rows(self, which: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Benchmark:
        """Return some of the stars.

        Parameters
        ----------
        which
            Row numbers, a mask (N,) or a slice.
        """
        return Benchmark(
            self.name, self.real, self.ids[which], self.values[which], self.errors[which],
            self.truth[which], self.truth_errors[which], self.vocabulary,
            {name: column[which] for name, column in self.extra.items()},
            None if self.all_values is None else self.all_values[which],
            {band: tokens.rows(which) for band, tokens in self.one_band.items()},
        )  # fmt: skip

    def without_band(self, band: str) -> StarTokens:
        """Return the input tokens without the coefficients of a band.

        Canonical coefficients are those of the other band alone. Colours stay.

        Parameters
        ----------
        band
            The band that is hidden.

        Raises
        ------
        JobError
            Canonical coefficients of one band alone are not known.
        """
        if band in self.one_band:
            return self.one_band[band]
        if self.vocabulary.basis == "canonical":
            raise JobError(
                "canonical coefficients of one band alone are not known of these stars",
                wanted="stars with spectra of both bands", found=self.name,
            )  # fmt: skip
        columns = np.arange(len(self.vocabulary))
        return self.inputs.only(~np.isin(columns, self.vocabulary.coefficient_columns(band)))

    def table(self) -> StarTable:
        """Return a table to train on: the inputs, and the truth where an input is absent."""
        known = np.isnan(self.values) & np.isfinite(self.truth)
        return StarTable(
            self.ids,
            np.where(known, self.truth, self.values),
            np.where(known, self.truth_errors, self.errors),
        )

    def split(self, fraction: float, seed: int) -> tuple[Benchmark, Benchmark]:
        """Split by identifier into two benchmarks.

        Parameters
        ----------
        fraction
            Fraction of the stars in the second one.
        seed
            Seed of the division.
        """
        in_second = np.isin(self.ids, self.table().split(fraction, seed)[1].ids)
        return self.rows(~in_second), self.rows(in_second)


def concatenated(parts: Sequence[Benchmark]) -> Benchmark:
    """Return stars of the same kind together.

    Parameters
    ----------
    parts
        One or more, with the same extra columns, and without ``all_values``.
    """
    first = parts[0]

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    return Benchmark(
        first.name, first.real, joined("ids"), joined("values"), joined("errors"),
        joined("truth"), joined("truth_errors"), first.vocabulary,
        {name: np.concatenate([part.extra[name] for part in parts]) for name in first.extra},
        None,
        {
            band: StarTokens(*(
                np.concatenate([getattr(part.one_band[band], name) for part in parts])
                for name in ("values", "errors")
            ))
            for band in first.one_band
        },
    )  # fmt: skip
