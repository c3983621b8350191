"""Stars to generate spectra of: one by its labels, or those along an isochrone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from catalogproc.errors import JobError, did_you_mean
from catalogproc.features.table_inputs import DERIVED, TableInputs
from catalogproc.network.predictor import Predictor
from catalogproc.network.star_tokens import StarTokens
from catalogproc.simulation.isochrones import LOG_AGE, LOGG, M_H, PHASES, TEFF, load_population

RED_GIANT = 2
POINTS = 40

DUST = "logebv"
"""A label that is no property of the star: any star can lie behind any dust."""


def one_star(labels: Mapping[str, float], more: Sequence[str] = ()) -> pa.Table:
    """Return one row of tokens.

    Parameters
    ----------
    labels
        Values by name.
    more
        Others as ``NAME=VALUE``.

    Raises
    ------
    JobError
        Another form.
    """
    known = dict(labels)
    for word in more:
        name, _, value = word.partition("=")
        try:
            known[name.strip()] = float(value)
        except ValueError:
            raise JobError(
                "a token of the star", wanted="NAME=VALUE, as in bprp=1.2", found=word,
                where="--known",
            ) from None  # fmt: skip
    return pa.table({name: pa.array([value]) for name, value in known.items()})


def check_known(names: Sequence[str], inputs: TableInputs) -> None:
    """Refuse names of values of which nothing is made, so that none is ignored silently.

    Parameters
    ----------
    names
        The names.
    inputs
        What is made of them.

    Raises
    ------
    JobError
        A name is no token.
    """
    if unknown := [name for name in names if name in inputs.ignored]:
        known = (*inputs.vocabulary.names, *DERIVED)
        raise JobError(
            "no such token", wanted=f"{inputs.vocabulary.summary()}, {', '.join(DERIVED)}",
            found=", ".join(unknown), where="--known", advice=did_you_mean(unknown[0], known),
        )  # fmt: skip


def isochrone(age: float, m_h: float, points: int = POINTS, phase: int = RED_GIANT) -> pa.Table:
    """Return giants of one age and [M/H] along a phase of evolution, one row each.

    Columns ``teff`` [K], ``logg``, ``m_h``, ``mass`` [solar masses] and ``age`` [Gyr], of the
    PARSEC isochrones, within the limits of the simulator's giants.

    Parameters
    ----------
    age
        Gyr.
    m_h
        [M/H], dex.
    points
        Rows before the limits are applied.
    phase
        A key of ``simulation.isochrones.PHASES``.

    Raises
    ------
    JobError
        An age or [M/H] beyond the isochrones, or a phase that they do not have.
    """
    for what, value, (low, high), unit in (
        ("age", float(np.log10(max(age, 1e-9))) + 9.0, LOG_AGE, "log10 of years"),
        ("[M/H]", m_h, M_H, "dex"),
    ):
        if not low <= value <= high:
            raise JobError(
                f"an {what} that the isochrones do not have",
                wanted=f"{low} to {high} {unit}", found=round(value, 3), where="--isochrone",
            )  # fmt: skip
    if phase not in PHASES:
        raise JobError(
            "no such phase", wanted=", ".join(f"{k} {v}" for k, v in PHASES.items()), found=phase
        )
    place = torch.linspace(0.0, 1.0, points)
    full = torch.full_like(place, 1.0)
    found = load_population().at(
        m_h * full, (np.log10(age) + 9.0) * full, torch.full(place.shape, phase), place
    )
    star = {name: found[name].double().numpy() for name in ("teff", "logg", "mass")}
    inside = (star["teff"] > TEFF[0]) & (star["teff"] < TEFF[1])
    inside &= (star["logg"] > LOGG[0]) & (star["logg"] < LOGG[1])
    rows = {name: values[inside] for name, values in star.items()}
    rows |= {"m_h": np.full(inside.sum(), m_h), "age": np.full(inside.sum(), age)}
    return pa.table(rows)


def label_tension(
    predictor: Predictor, tokens: StarTokens
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return how far each given label lies from its prediction by all other tokens.

    A large difference means that the labels are inconsistent: the model has seen no such star.

    Parameters
    ----------
    predictor
        The model.
    tokens
        Known tokens of N stars.

    Returns
    -------
    mean, sigma, difference
        Predictions, their errors, and the differences in units of these errors (N, V); NaN for
        missing tokens, for those that are not labels of the star, and for a star's only token.
    """
    vocabulary, values = predictor.bundle.vocabulary, tokens.values
    mean, sigma, difference = np.full((3, *values.shape), np.nan)
    for name in vocabulary.named("label"):
        if name == DUST:
            continue
        column = vocabulary.column(name)
        others = tokens.without(column)
        rows = np.isfinite(values[:, column]) & np.isfinite(others.values).any(axis=1)
        if name in predictor.bundle.requestable and rows.any():
            prediction = predictor.predict(others.rows(rows), (name,))
            mean[rows, column], sigma[rows, column] = prediction.mean[:, 0], prediction.sigma[:, 0]
            difference[rows, column] = (values[rows, column] - mean[rows, column]) / sigma[
                rows, column
            ]
    return mean, sigma, difference
