"""The tokens of a training: which are shown and requested, and what is fitted to its stars."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from catalogproc.datasets.holdout import AUXILIARY
from catalogproc.datasets.star_table import StarSampler, StarTable, fit_standardisation
from catalogproc.errors import JobError
from catalogproc.job import Job
from catalogproc.network.bundle import Bundle, Domain, Standardisation
from catalogproc.network.shape import Shape
from catalogproc.training.config import TrainSpec
from catalogproc.training.error_sampling import ErrorDraws, ErrorOptions, fit_error_scaling
from catalogproc.training.token_sampling import TrainingStars
from catalogproc.training.vocabulary_extension import (
    extended_errors,
    extended_scales,
    extended_shape,
)
from catalogproc.vocabulary import BANDS, Vocabulary

LEAST_ERRORS = {"rc_prob": 0.2}
"""Smallest errors of true values. The mean of a Gaussian likelihood of values 0 and 1 is their
probability, also with an error; without one a star that was thought to be certain would outweigh
all others of its step."""


def label_tokens(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Return which tokens (V,) are labels.

    Parameters
    ----------
    vocabulary
        Defines the tokens.
    """
    return np.array([token.kind == "label" for token in vocabulary.tokens])


def _read_by_default(vocabulary: Vocabulary) -> NDArray[np.bool_]:
    """Return which tokens (V,) the default job reads of a star that has all of them."""
    job = Job("default")
    first = [vocabulary.coefficient_columns(band)[: job.coefficients] for band in BANDS]
    others = vocabulary.columns([name for name in AUXILIARY if name in vocabulary])
    return np.isin(np.arange(len(vocabulary)), np.concatenate([*first, others]))


@dataclass(frozen=True)
class TrainedTokens:
    """The tokens of a training, and what it fits to its stars.

    Attributes
    ----------
    spec, base
        The training; the model to fine-tune, None for a new network.
    vocabulary
        Defines the V tokens.
    label_weight
        How often labels are requested, relative to other tokens.
    """

    spec: TrainSpec
    base: Bundle | None
    vocabulary: Vocabulary
    label_weight: float

    @cached_property
    def shape(self) -> Shape:
        """The shape of the network."""
        return extended_shape(self.spec.job.network, self.vocabulary, self.base)

    def stars(
        self, sampler: StarSampler, statistics: StarTable, validation: StarTable
    ) -> tuple[TrainingStars, Domain]:
        """Return the stars of a training, and the domain of the model.

        Parameters
        ----------
        sampler
            Draws the stars to train on.
        statistics
            Stars to which standardisation, domain and the scaling of errors are fitted. In
            fine-tuning, known tokens keep their scales.
        validation
            Stars that are not trained on.
        """
        labels = label_tokens(self.vocabulary)
        standardisation, domain = fit_standardisation(statistics.values, labels)
        if self.base is not None:
            standardisation, domain = extended_scales(self.base, standardisation, domain)
        weights = np.where(labels, self.label_weight, 1.0)
        errors = self._error_draws(statistics, standardisation)
        read = _read_by_default(self.vocabulary)
        least = np.array([LEAST_ERRORS.get(name, 0.0) for name in self.vocabulary.names])
        stars = TrainingStars(
            sampler, standardisation, weights, labels, read, validation, errors, least
        )
        return stars, domain

    def _error_draws(self, table: StarTable, standardisation: Standardisation) -> ErrorDraws | None:
        """Return how errors are drawn; None for a network that does not read them."""
        job = self.spec.job
        if job.errors and not self.shape.reads_errors:
            raise JobError(
                "the job draws errors for a network that does not read them",
                wanted="reads_errors = true in [network]", found="[errors]", where=job.name,
            )  # fmt: skip
        if not self.shape.reads_errors:
            return None
        options = ErrorOptions.from_dict(job.errors)
        spectrum = np.array([token.kind == "coefficient" for token in self.vocabulary.tokens])
        errors = np.where(np.isnan(table.values), np.nan, table.errors)
        fitted = fit_error_scaling(errors, standardisation.scale, spectrum, options)
        return ErrorDraws(options, spectrum, extended_errors(self.base, fitted))
