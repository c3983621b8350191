"""The input flags of a catalog row: facts about its inputs and place that are no faults.

The flags are declared in schemas/input_flags.toml; this module has the rule of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from catalogproc.flags import load_input_flags
from catalogproc.network.teacher_domain import INPUTS

if TYPE_CHECKING:
    from catalogproc.features.tokens import Tokens
    from catalogproc.network.predictor import Prediction
    from catalogproc.network.uncertainty_calibration import UncertaintyCalibration

Mask = NDArray[np.bool_]

RULES: Mapping[str, Callable[[Tokens, Mask], Mask]] = {
    "PLX_ZP_ASSUMED": lambda tokens, _: tokens.zero_point_assumed,
    "PLX_ZP_RELEASE": lambda tokens, _: tokens.zero_point_published,
    "BRIDGED": lambda tokens, _: (tokens.bp | tokens.rp) & (tokens.release.bridge is not None),
    "PLX_INPUT": lambda tokens, _: np.asarray(tokens.by_parallax.any(axis=1)),
    "ERROR_ASSUMED": lambda tokens, _: np.asarray(
        (np.isfinite(tokens.values) & np.isnan(tokens.errors)).any(axis=1)
    ),
    "TEACHER_DOMAIN": lambda _, taught: taught,
}
"""The rule of each flag, from the inputs and from what :func:`in_teacher_domain` returns."""


def in_teacher_domain(calibration: UncertaintyCalibration, prediction: Prediction) -> Mask:
    """Return which stars (N,) are where the network was taught masses; False for no domain.

    Parameters
    ----------
    calibration
        Of the model.
    prediction
        Its predictions for N stars.
    """
    labels, domain = prediction.labels, calibration.teacher_domain
    if domain is None or not set(INPUTS) <= set(labels):
        return np.zeros(len(prediction.mean), dtype=bool)
    at = [labels.index(name) for name in INPUTS]
    return domain.covers(prediction.mean[:, at].astype(np.float64))


def input_flags(tokens: Tokens, taught: Mask) -> NDArray[np.int32]:
    """Return input_flags (N,), the bits of all flags that a star raises.

    Parameters
    ----------
    tokens
        The inputs of N stars.
    taught
        (N,) of :func:`in_teacher_domain`.
    """
    declared = load_input_flags()
    value = np.zeros(len(tokens), dtype=np.int32)
    for name, rule in RULES.items():
        value[rule(tokens, taught)] |= declared[name].value
    return value


def zero_point_differences(tokens: Tokens) -> dict[str, int]:
    """Return the number of stars by the difference of the two zero-points of a parallax.

    Parameters
    ----------
    tokens
        The inputs of N stars.

    Returns
    -------
    dict
        By tentative_parallax_bias less the zero-point of Lindegren et al. (2021), in whole
        micro-arcseconds; a star that lacks one of them is not counted.
    """
    both = tokens.zero_point_published & np.isfinite(tokens.zero_point_relation)
    difference = (tokens.parallax_zp - tokens.zero_point_relation)[both] * 1000.0
    values, counts = np.unique(np.rint(difference).astype(np.int64), return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}
