"""Quantile regression (Koenker & Bassett 1978), with a penalty on the coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from catalogproc.network.local_calibration import SHARE

Floats = NDArray[np.float64]
Bounds = Sequence[tuple[float | None, float | None]]

SOFTNESS = 0.05
"""Width of the rounded corner of the loss."""


def pinball(residuals: Floats) -> Floats:
    """Return the loss (N,) whose mean is smallest at the quantile SHARE.

    Parameters
    ----------
    residuals
        Value less predicted quantile (N,).
    """
    return np.maximum(SHARE * residuals, (SHARE - 1.0) * residuals)


def quantile_regression(
    y: Floats, design: Floats, penalty: Floats, bounds: Bounds | None = None
) -> Floats:
    """Return the coefficients v of the conditional quantile SHARE of y, design @ v.

    Parameters
    ----------
    y
        Values (N,).
    design
        (N, P).
    penalty
        Rows (Q, P): the sum of (penalty @ v)^2 over N is added to the mean loss.
    bounds
        Of each coefficient (P,); the first one starts at the quantile of y, if they are given.

    Returns
    -------
    (P,).
    """
    from scipy.optimize import minimize

    def loss(values: Floats) -> tuple[float, Floats]:
        u = (y - design @ values) / SOFTNESS
        # Pinball loss with a rounded corner: tau u + s ln(1 + exp(-u / s)).
        corner = np.logaddexp(0.0, -u)
        slope = SHARE - 1.0 / (1.0 + np.exp(np.clip(u, -50, 50)))
        value = SOFTNESS * float(np.mean(SHARE * u + corner))
        penalised = penalty @ values
        gradient = -design.T @ slope / len(u) + 2.0 / len(u) * penalty.T @ penalised
        return value + float(penalised @ penalised) / len(u), gradient

    start = np.zeros(design.shape[1])
    if bounds is not None:
        start[0] = np.quantile(y, SHARE)
    return np.asarray(
        minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": 1000, "ftol": 1e-12},
        ).x
    )  # fmt: skip
