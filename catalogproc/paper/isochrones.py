"""Figure 7: change of the spectra with mass, age and [M/H], from labels along isochrones."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from catalogproc.paper import plotting
from catalogproc.paper.context import (
    G_SUN,
    LABELS,
    NO_DUST,
    ExperimentContext,
    Floats,
    Spectra,
    absolute_g,
)
from catalogproc.paper.experiment import Check, Outcome, at_least, at_most, rank_correlation

GIANT_BRANCH = 2
"""Index of the phase in population.PHASES."""

AGE, LOGG = 5.0, 2.5
"""Age of the isochrone in Gyr, and log g of the stars that differ in one label only."""

BRANCH_LOGG = np.linspace(3.5, 1.8, 7)
AGES = np.array([12.0, 8.0, 5.0, 3.0, 2.0, 1.5])
METALS = np.array([-1.5, -1.0, -0.6, -0.3, 0.0, 0.3])

SHAPE = (420.0, 950.0)
"""Wavelengths in nm between which spectra are compared."""

DRAWN = (400.0, 1020.0)

LINES = {
    "Mg b and MgH": ((505.0, 530.0), (480.0, 495.0), (538.0, 555.0)),
    "Ca II triplet": ((848.0, 870.0), (828.0, 842.0), (876.0, 890.0)),
}
"""Blends that XP resolves: range of the blend, and of the continuum on both sides, in nm."""

MAX_RMSE = 5.0
"""Largest accepted rms difference from the simulator, in per cent of the mean flux."""


def isochrone(
    context: ExperimentContext, m_h: Floats, age: Floats, logg: Floats
) -> dict[str, Floats]:
    """Return stars of the giant branch on PARSEC's isochrones.

    Parameters
    ----------
    context
        Has the simulator with the isochrones.
    m_h, age, logg
        [M/H] in dex, age in Gyr, log g in dex (N,).

    Returns
    -------
    teff, logg, m_h, mass, log_age, log_l (N,), by name.
    """
    population = context.simulator.population
    place = torch.linspace(0, 1, 400)
    rows = []
    for metal, log_age, wanted in zip(m_h, np.log10(age) + 9.0, logg, strict=True):
        along = [torch.full_like(place, float(value)) for value in (metal, log_age)]
        phase = torch.full(place.shape, GIANT_BRANCH)
        track = population.at(along[0], along[1], phase, place)
        # log g falls along the branch except in the bump: the first passage is taken.
        falling = np.minimum.accumulate(track["logg"].numpy())[::-1]
        star = {
            name: float(np.interp(wanted, falling, track[name].numpy()[::-1]))
            for name in ("teff", "mass", "log_l")
        }
        rows.append(star | {"logg": wanted, "m_h": metal, "log_age": log_age})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def line_depth(spectra: Spectra, line: str) -> Floats:
    """Return the depth of a blend below the linear continuum (N,), as a share of it.

    Parameters
    ----------
    spectra
        Spectra of N stars.
    line
        Key of LINES.
    """
    inside, *outside = (
        spectra.within(*edges).flux.mean(axis=1) for edges in LINES[line]
    )  # fmt: skip
    middle, left, right = (float(np.mean(edges)) for edges in LINES[line])
    share = (middle - left) / (right - left)
    return np.asarray(1.0 - inside / ((1 - share) * outside[0] + share * outside[1]))


def along_isochrones(context: ExperimentContext) -> Outcome:
    """Return figure 7: spectra from consistent labels that differ in mass, age or [M/H].

    Parameters
    ----------
    context
        Model and stars.
    """
    cases = {
        "mass": isochrone(context, 0 * BRANCH_LOGG, np.full_like(BRANCH_LOGG, AGE), BRANCH_LOGG),
        "age": isochrone(context, 0 * AGES, AGES, np.full_like(AGES, LOGG)),
        "m_h": isochrone(context, METALS, np.full_like(METALS, AGE), np.full_like(METALS, LOGG)),
    }
    made = {name: _predicted(context, stars) for name, stars in cases.items()}
    true = {
        name: context.simulated_spectra(ebv=np.exp(NO_DUST), r_v=3.1,
                                **{k: stars[k] for k in ("teff", "logg", "m_h", "log_l")})
        for name, stars in cases.items()
    }  # fmt: skip
    checks = []
    for name, words in (("mass", "mass along an isochrone"), ("age", "mass at fixed log g")):
        order = rank_correlation(cases[name]["mass"], -made[name][1])
        difference = made[name][1] - true[name][1]
        checks += [
            at_least(f"luminosity rises with {words}: rank correlation", order, 0.9),
            at_most(f"M_G, {words}: rms difference from the isochrone",
                    np.sqrt(np.mean(difference**2)), 0.3, "mag"),
        ]  # fmt: skip
    metals = _at_one_temperature(context)
    for line in LINES:
        predicted, simulated = (line_depth(spectra, line) for spectra in metals)
        checks += [
            at_least(f"{line} deepens with [M/H] at fixed Teff and log g: rank correlation",
                     rank_correlation(METALS, predicted), 0.9),
            Check(f"{line}: depth at [M/H] 0.3 minus that at -1.5",
                  predicted[-1] - predicted[0], "",
                  simulated[-1] - simulated[0], "simulator, no noise"),
        ]  # fmt: skip
    for name, words in (("mass", "mass"), ("age", "age"), ("m_h", "[M/H]")):
        rmse = made[name][0].within(*SHAPE).rmse(true[name][0].within(*SHAPE))
        checks.append(at_most(f"spectra along {words}: median rms difference from the simulator",
                               np.median(rmse), MAX_RMSE, "%"))  # fmt: skip
    return Outcome(tuple(checks), partial(_draw_isochrones, cases, made, true))


def _predicted(context: ExperimentContext, stars: dict[str, Floats]) -> tuple[Spectra, Floats]:
    """The model's spectra and M_G from the labels of stars, without dust."""
    given = context.synthetic_inputs(
        **{name: stars[name] for name in LABELS if name in stars}, logebv=NO_DUST
    )
    return context.predicted_spectra(given), absolute_g(context.predict_one(given, "g_fakemag")[0])


def _at_one_temperature(context: ExperimentContext) -> tuple[Spectra, Spectra]:
    """Spectra of model and simulator at the [M/H] of METALS, all with one Teff and log g."""
    star = isochrone(context, np.zeros(1), np.array([AGE]), np.array([LOGG]))
    fixed = {"teff": star["teff"][0], "logg": LOGG, "m_h": METALS}
    simulated = context.simulated_spectra(
        **fixed, log_l=star["log_l"][0], ebv=np.exp(NO_DUST), r_v=3.1
    )[0]
    return context.predicted_spectra(context.synthetic_inputs(**fixed, logebv=NO_DUST)), simulated


def _draw_isochrones(
    cases: dict[str, dict[str, Floats]],
    made: dict[str, tuple[Spectra, Floats]],
    true: dict[str, tuple[Spectra, Floats]],
    figure: Any,
) -> None:
    from matplotlib import colormaps

    titles = {
        "mass": f"along an isochrone: [M/H] 0, {AGE:g} Gyr",
        "age": f"by mass, at its age: [M/H] 0, log g {LOGG:g}",
        "m_h": f"by [M/H]: {AGE:g} Gyr, log g {LOGG:g}",
    }
    for axes, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        stars, size = cases[name], len(cases[name]["mass"])
        shades = colormaps[plotting.MAP](np.linspace(0.05, 0.9, size))
        for i in range(size):
            for kind, style in ((made, "-"), (true, ":")):
                spectra, m_g = kind[name][0].within(*DRAWN), kind[name][1]
                flux = spectra.flux[i] / spectra.flux[i].mean()
                if name != "m_h":
                    flux = flux * 10 ** (-0.4 * (m_g[i] - G_SUN))
                label = _label(stars, name, i) if kind is made else None
                axes.plot(spectra.wavelengths, flux, style, color=shades[i], linewidth=1.1,
                          label=label)  # fmt: skip
        if name != "m_h":
            axes.set_yscale("log")
            axes.set_ylim(bottom=axes.get_ylim()[0] / 4)  # room for the legend
            plotting.plain_ticks(axes)
        else:
            low, high = axes.get_ylim()
            axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
        axes.set(title=title, xlabel="wavelength [nm]", xlim=DRAWN)
        axes.set_ylabel(
            "flux over its mean" if name == "m_h" else "flux over its mean, times L_G [Sun]"
        )
        axes.legend(fontsize=6.5, labelspacing=0.25,
                    title="dotted: simulator", title_fontsize=6.5,
                    loc="upper right" if name == "m_h" else "lower right")  # fmt: skip


def _label(stars: dict[str, Floats], name: str, i: int) -> str:
    if name == "m_h":
        return f"{stars['m_h'][i]:+.1f}"
    mass, age = stars["mass"][i], 10 ** (stars["log_age"][i] - 9)
    if name == "age":
        return f"{mass:.2f} Msun, {age:.3g} Gyr"
    return f"{mass:.3f} Msun, log g {stars['logg'][i]:.2f}"
