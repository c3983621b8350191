"""The picture of generated spectra."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from catalogproc.spectra.plot import _scale


@pytest.mark.parametrize(("ratio", "scale"), [(1.5, "linear"), (200.0, "log")])
def test_spectra_of_very_different_brightness_are_all_seen(ratio: float, scale: str) -> None:
    """As a giant branch at 10 pc: on a linear axis all but the brightest would lie on zero."""
    wavelength = np.linspace(340, 1020, 343)
    faint = 1e-12 * np.exp(-(((wavelength - 650) / 200) ** 2))
    faint[:5] = -1e-14  # noise
    axes = Figure().subplots()
    _scale(axes, np.stack([faint, ratio * faint]))
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert high > ratio * faint.max()
    assert low <= 0 if scale == "linear" else 0 < low < faint.max() / 10
