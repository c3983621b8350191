"""A star's explanation as a picture: spectrum, tokens, attention, answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from catalogproc.contract import load_contract, load_flags
from catalogproc.io.atomic import write_atomic
from catalogproc.report.explain import Explanation
from catalogproc.report.explain_text import outside_training
from catalogproc.report.figures import BLUE, MAP, ORANGE

_STYLE = {
    "text.usetex": False,  # GaiaXPy, where it was imported, asks for LaTeX
    "font.family": "sans-serif", "font.size": 10, "axes.titlesize": 11, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dde1e8", "grid.linewidth": 0.5, "axes.axisbelow": True,
    "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip
_SHOWN = {
    "teff": ("Teff", "{:.0f} ± {:.0f} K"),
    "logg": ("log g", "{:.2f} ± {:.2f}"),
    "m_h": ("[M/H]", "{:+.2f} ± {:.2f}"),
    "mass": ("mass", "{:.2f} ± {:.2f} Msun"),
    "log_age": ("log age", "{:.2f} ± {:.2f}"),
    "logebv": ("ln E(B-V)", "{:.2f} ± {:.2f}"),
    "g_fakemag": ("pseudo-luminosity", "{:.3g} ± {:.2g}"),
}
MOST_FLAGS = 9


def write_picture(star: Explanation, path: Path) -> Path:
    """Write the picture of a star that was answered as PNG. Raises CatalogprocError."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(12, 9), layout="constrained", dpi=130, facecolor="white")
        FigureCanvasAgg(figure)
        parts: Any = figure.subfigures(1, 2, width_ratios=(2.6, 1))
        left, right = parts
        above, middle, below = left.subplots(3, 1, height_ratios=(1.5, 1, 1.1))
        _spectrum(above, star)
        _tokens(middle, star)
        _attention(left, below, star)
        _answers(right, star)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    write_atomic(path, file.getvalue())
    return path


def _spectrum(axes: Any, star: Explanation) -> None:
    axes.set_title(f"Gaia DR3 {star.source_id}")
    if star.observed is None or star.wavelengths is None:
        axes.text(0.5, 0.5, "no calibrated spectrum: a band is missing", ha="center",
                  transform=axes.transAxes)  # fmt: skip
        return
    scale = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(star.observed.flux))))
    drawn = [(star.observed, BLUE, "observed")]
    if star.believed is not None:
        drawn.append((star.believed, ORANGE, "as the model expects it of its own answers"))
    for spectrum, colour, label in drawn:
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
    at, out = np.arange(len(star.tokens)), outside_training(star)
    shown = np.clip(star.standardised, -8, 8)
    low, high = np.clip(star.low, -8, 8), np.clip(star.high, -8, 8)
    axes.fill_between(
        at, low, high, step="mid", color="#999999", alpha=0.2, linewidth=0,
        label="99.6 % of training stars",
    )  # fmt: skip
    axes.plot(at[~out], shown[~out], "o", color=BLUE, markersize=4, label="read")
    if out.any():
        axes.plot(at[out], shown[out], "o", color=ORANGE, markersize=4, label="read, outside")
    axes.set(ylabel="standardised", title="What the model read")
    axes.set_xlim(-0.7, len(at) + 0.7)
    _name_tokens(axes, star)
    axes.legend(loc="upper right", ncols=3, fontsize=8.5)


def _attention(figure: Any, axes: Any, star: Explanation) -> None:
    shares = np.stack([answer.attention for answer in star.answers])
    drawn = axes.imshow(shares, aspect="auto", cmap=MAP, vmin=0, interpolation="nearest")
    axes.set_yticks(range(len(star.answers)), [_SHOWN[a.label][0] for a in star.answers])
    axes.set_title("Where it looked for each answer")
    axes.set_xlim(-0.7, len(star.tokens) + 0.7)
    axes.grid(False)
    _name_tokens(axes, star, "none")
    figure.colorbar(drawn, ax=axes, pad=0.01, aspect=18, label="share of attention")


def _name_tokens(axes: Any, star: Explanation, *more: str) -> None:
    """Every fifth coefficient by its name, every other token."""
    names = (*star.tokens, *more)
    named = [
        (place, name)
        for place, name in enumerate(names)
        if not name[2:].isdigit() or int(name[2:]) % 5 == 0
    ]
    axes.set_xticks([place for place, _ in named], [name for _, name in named], rotation=60,
                    fontsize=8)  # fmt: skip


def _answers(figure: Any, star: Explanation) -> None:
    axes = figure.subplots()
    axes.axis("off")
    row = star.row
    said: list[tuple[str, str, str]] = [("", "What it answered", "title")]
    for answer in star.answers:
        name, form = _SHOWN[answer.label]
        said.append((name, form.format(answer.mean, answer.sigma), "plain"))
    if np.isfinite(row["age"]):
        said.append(
            ("age", f"{row['age']:.1f} ({row['age_16']:.1f} to {row['age_84']:.1f}) Gyr", "plain")
        )
    if np.isfinite(row["dist"]):
        said.append(("distance", f"{row['dist']:.2f} kpc", "plain"))
    if any(np.isfinite(answer.inputs) for answer in star.answers):
        said.append(("", "Errors of what it read cause", "title"))
        for answer in star.answers:
            share = answer.inputs**2 / answer.sigma**2 if answer.sigma > 0 else np.nan
            said.append((_SHOWN[answer.label][0], f"{share:.0%} of its variance", "plain"))
    said.append(("", "Known of it", "title"))
    for name in ("phot_g_mean_mag", "bp_rp", "parallax_zpc"):
        unit = load_contract("catalog")[name].unit
        value = "not known" if np.isnan(row[name]) else f"{row[name]:.3f} {unit}"
        said.append((name, value, "plain"))
    flags = load_flags().words(int(row["quality_flags"]))
    good = [f"good_params: {_yes(row['good_params'])}", f"mass, age: {_yes(row['good_mass_age'])}"]
    said.append(("", "Flags", "title"))
    said.append((good[0], good[1], "plain"))
    more = len(flags) - MOST_FLAGS
    said += [(name, "", "flag") for name in flags[:MOST_FLAGS]]
    said += [(f"and {more} more", "", "flag")] if more > 0 else []
    _column(axes, said)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _column(axes: Any, said: list[tuple[str, str, str]]) -> None:
    step = 1.0 / max(len(said) + 4, 34)
    y = 1.0
    for left, right, kind in said:
        if kind == "title":
            y -= 0.6 * step
            axes.text(0, y, right, weight="bold", size=11, va="top", transform=axes.transAxes)
        else:
            colour = ORANGE if kind == "flag" else "black"
            axes.text(0, y, left, size=9.5, color=colour, va="top", transform=axes.transAxes)
            axes.text(1, y, right, size=9.5, ha="right", va="top", transform=axes.transAxes)
        y -= step
