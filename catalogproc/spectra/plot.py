"""A picture of generated spectra: flux over wavelength with its error band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalogproc.io.atomic import write_atomic
from catalogproc.spectra.generated import Spectra

MUCH_BRIGHTER = 20.0
"""With mean fluxes that differ by more than this factor, the axis of the flux is logarithmic: on a
linear one only the brightest stars are seen."""

MOST = 12
"""Spectra in one picture; of more, so many evenly chosen ones are drawn."""


def _scale(axes: Any, flux: NDArray[np.floating]) -> None:
    """Set the limits and the scale of the axis of the flux of N spectra (N, wavelengths)."""
    level = flux.mean(axis=1)
    if level.min() > 0 and level.max() > MUCH_BRIGHTER * level.min():
        axes.set_yscale("log")
        # The noise about zero, where a star is faint, would stretch the axis by decades.
        positive = [np.percentile(one[one > 0], 2) for one in flux]
        axes.set_ylim(0.5 * min(positive), 1.5 * float(flux.max()))
    else:
        axes.set_ylim(bottom=min(0.0, float(flux.min())))
        axes.ticklabel_format(axis="y", scilimits=(-2, 4), useMathText=True)


def draw_spectra(path: Path, spectra: Spectra, names: list[str], title: str) -> None:
    """Write a PNG of flux over wavelength, one line per star with its 1 sigma band.

    Parameters
    ----------
    path
        The file.
    spectra
        N spectra; at most MOST of them are drawn.
    names
        One for each.
    title
        Of the picture.
    """
    from io import BytesIO

    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    sampled = spectra.sampled()
    rows = np.unique(np.linspace(0, len(spectra) - 1, min(MOST, len(spectra))).round().astype(int))
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(rows)))
    scaled = bool(np.isfinite(spectra.g_mag).all())
    # GaiaXPy, where it was imported, asks matplotlib for LaTeX.
    with rc_context({"text.usetex": False}):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        axes = figure.subplots()
        for row, colour in zip(rows, colours, strict=True):
            flux, error = sampled.flux[row], sampled.error[row]
            axes.fill_between(
                sampled.wavelength,
                flux - error,
                flux + error,
                color=colour,
                alpha=0.25,
                linewidth=0,
            )
            axes.plot(sampled.wavelength, flux, color=colour, linewidth=1.2, label=names[row])
        axes.set_xlim(sampled.wavelength[0], sampled.wavelength[-1])
        _scale(axes, sampled.flux[rows])
        axes.set_xlabel("wavelength [nm]")
        axes.set_ylabel("flux [W m$^{-2}$ nm$^{-1}$]" if scaled else "flux over the G flux")
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        if len(rows) > 1:
            figure.legend(frameon=False, fontsize=7.5, loc="outside right center")
        out = BytesIO()
        figure.savefig(out, format="png", dpi=130)
    write_atomic(path, out.getvalue())
