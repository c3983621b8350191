"""The explanation of a star as a plot: spectrum, tokens, attention, predictions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalogproc.contract import load_contract
from catalogproc.flags import load_flags
from catalogproc.io.atomic import write_atomic
from catalogproc.report.canvas import BLUE, MAP, ORANGE
from catalogproc.report.explain import Explanation
from catalogproc.report.explain_text import outside_training

_STYLE = {
    "text.usetex": False,  # GaiaXPy, where it was imported, turns LaTeX on
    "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dde1e8", "grid.linewidth": 0.5, "axes.axisbelow": True,
    "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip
_LABELS = {
    "teff": ("Teff", "{:.0f} ± {:.0f} K"),
    "logg": ("log g", "{:.2f} ± {:.2f}"),
    "m_h": ("[M/H]", "{:+.2f} ± {:.2f}"),
    "alpha_m": ("[alpha/M]", "{:+.2f} ± {:.2f}"),
    "mass": ("mass", "{:.2f} ± {:.2f} Msun"),
    "log_age": ("log age", "{:.2f} ± {:.2f}"),
    "logebv": ("ln E(B-V)", "{:.2f} ± {:.2f}"),
    "g_fakemag": ("pseudo-luminosity", "{:.3g} ± {:.2g}"),
    "rc_prob": ("red clump", "{:.0%}"),
}
"""Label: (its name, format of value and uncertainty)."""
MAX_FLAGS = 9
"""How many flags are named."""

_Line = tuple[str, str, str]
"""Text at the left, text at the right, and title, plain or flag."""


def write_explain_plot(star: Explanation, path: Path) -> Path:
    """Write the plot of a star as PNG and return its path.

    Parameters
    ----------
    star
        The explained star; it was not rejected.
    path
        The file.

    Raises
    ------
    CatalogprocError
        The file cannot be written.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12, 9), layout="constrained", dpi=130, facecolor="white")
        FigureCanvasAgg(figure)
        columns: Any = figure.subfigures(1, 2, width_ratios=(2.6, 1))
        left, right = columns
        top, middle, bottom = left.subplots(3, 1, height_ratios=(1.5, 1, 1.1))
        _spectrum(top, star)
        _tokens(middle, star)
        _attention(left, bottom, star)
        _values(right, star)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    write_atomic(path, file.getvalue())
    return path


def _spectrum(axes: Any, star: Explanation) -> None:
    axes.set_title(f"{star.identity.data_release.title} {star.source_id}")
    if star.observed is None or star.wavelengths is None:
        axes.text(0.5, 0.5, "no calibrated spectrum: a band is missing", ha="center",
                  transform=axes.transAxes)  # fmt: skip
        return
    scale = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(star.observed.flux))))
    spectra = [(star.observed, BLUE, "observed")]
    if star.predicted is not None:
        spectra.append((star.predicted, ORANGE, "predicted by the model from its labels"))
    for spectrum, colour, label in spectra:
        flux, error = spectrum.flux / scale, spectrum.error / scale
        axes.fill_between(star.wavelengths, flux - error, flux + error, color=colour, alpha=0.25,
                          linewidth=0)  # fmt: skip
        axes.plot(star.wavelengths, flux, color=colour, linewidth=1.4, label=label)
    exponent = int(np.log10(scale))
    axes.set(xlabel="wavelength [nm]", ylabel=f"flux [1e{exponent} W m-2 nm-1]")
    axes.set_xlim(star.wavelengths[0], star.wavelengths[-1])
    axes.legend(loc="best")


def _tokens(axes: Any, star: Explanation) -> None:
    assert star.standardised is not None
    assert star.low is not None
    assert star.high is not None
    x, outside = np.arange(len(star.tokens)), outside_training(star)
    shown = np.clip(star.standardised, -8, 8)
    low, high = np.clip(star.low, -8, 8), np.clip(star.high, -8, 8)
    axes.fill_between(
        x, low, high, step="mid", color="#999999", alpha=0.2, linewidth=0,
        label="99.6 % of training stars",
    )  # fmt: skip
    axes.plot(x[~outside], shown[~outside], "o", color=BLUE, markersize=4, label="inside")
    if outside.any():
        axes.plot(x[outside], shown[outside], "o", color=ORANGE, markersize=4, label="outside")
    axes.set(ylabel="standardised value", title="Input tokens")
    axes.set_xlim(-0.7, len(x) + 0.7)
    _name_tokens(axes, star)
    axes.legend(loc="upper right", ncols=3, fontsize=8.5)


def _attention(figure: Any, axes: Any, star: Explanation) -> None:
    shares = np.stack([prediction.attention for prediction in star.predictions])
    image = axes.imshow(shares, aspect="auto", cmap=MAP, vmin=0, interpolation="nearest")
    axes.set_yticks(range(len(shares)), [_LABELS[p.label][0] for p in star.predictions])
    axes.set_title("Attention for each prediction")
    axes.set_xlim(-0.7, len(star.tokens) + 0.7)
    axes.grid(False)
    _name_tokens(axes, star, "no token")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=18, label="share of attention")


def _name_tokens(axes: Any, star: Explanation, *extra: str) -> None:
    """Label the ticks: every fifth coefficient, and every other token."""
    names = (*star.tokens, *extra)
    named = [
        (x, name)
        for x, name in enumerate(names)
        if not name[2:].isdigit() or int(name[2:]) % 5 == 0
    ]
    axes.set_xticks([x for x, _ in named], [name for _, name in named], rotation=60,
                    fontsize=8)  # fmt: skip


def _values(figure: Any, star: Explanation) -> None:
    """Write predictions, inputs and flags as text."""
    axes = figure.subplots()
    axes.axis("off")
    row = star.row
    lines: list[_Line] = [("", "Predictions", "title")]
    for prediction in star.predictions:
        name, form = _LABELS[prediction.label]
        lines.append((name, form.format(prediction.mean, prediction.sigma), "plain"))
    if np.isfinite(row["age"]):
        age = f"{row['age']:.1f} ({row['age_16']:.1f} to {row['age_84']:.1f}) Gyr"
        lines.append(("age", age, "plain"))
    if np.isfinite(row["dist"]):
        lines.append(("distance", f"{row['dist']:.2f} kpc", "plain"))
    if any(np.isfinite(prediction.input_sigma) for prediction in star.predictions):
        lines.append(("", "Share of variance from input errors", "title"))
        for prediction in (p for p in star.predictions if np.isfinite(p.input_sigma)):
            sigma = prediction.sigma if prediction.sigma > 0 else np.nan
            share = (prediction.input_sigma / sigma) ** 2
            lines.append((_LABELS[prediction.label][0], f"{share:.0%}", "plain"))
    lines.append(("", "Inputs", "title"))
    for name in ("phot_g_mean_mag", "bp_rp", "parallax_zpc"):
        unit = load_contract("catalog")[name].unit
        value = "unknown" if np.isnan(row[name]) else f"{row[name]:.3f} {unit}"
        lines.append((name, value, "plain"))
    _write_lines(axes, [*lines, *_flags(row)])


def _flags(row: Mapping[str, Any]) -> list[_Line]:
    names = load_flags().words(int(row["quality_flags"]))
    good_params, good_mass_age = (
        f"{sample}: {'yes' if row[sample] else 'no'}" for sample in ("good_params", "good_mass_age")
    )
    lines: list[_Line] = [("", "Flags", "title"), (good_params, good_mass_age, "plain")]
    lines += [(name, "", "flag") for name in names[:MAX_FLAGS]]
    more = len(names) - MAX_FLAGS
    return [*lines, (f"and {more} more", "", "flag")] if more > 0 else lines


def _write_lines(axes: Any, lines: Sequence[_Line]) -> None:
    step = 1.0 / max(len(lines) + 4, 34)
    y = 1.0
    for left, right, kind in lines:
        if kind == "title":
            y -= 0.6 * step
            axes.text(0, y, right, weight="bold", size=11, va="top", transform=axes.transAxes)
        else:
            colour = ORANGE if kind == "flag" else "black"
            axes.text(0, y, left, size=9.5, color=colour, va="top", transform=axes.transAxes)
            axes.text(1, y, right, size=9.5, ha="right", va="top", transform=axes.transAxes)
        y -= step
