"""Figures 16 and 17: the extinction curve that a model has learned, and its attention to dust."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from catalogproc.features.extinction import TRUE_PER_SFD, curve, g_extinction
from catalogproc.network.attention import attention
from catalogproc.paper import plotting
from catalogproc.paper.context import (
    NO_DUST,
    ExperimentContext,
    Floats,
    Spectra,
    absolute_g,
    giant_branch_teff,
)
from catalogproc.paper.experiment import Check, Outcome, at_least, at_most

LOGG = np.arange(1.0, 2.41, 0.1)
EBV = (0.4, 0.8, 1.2)
"""E(B-V) of Zhang, Bu et al. (2026), SFD scale, mag."""

MASS, LOG_AGE = 1.2, 9.7
"""Of all stars, Msun and log10 yr: those of PARSEC's giant branch at solar [M/H]."""

LUMINOSITY = 1.8
"""log L/Lsun of the simulator's stars; an extinction curve does not depend on it."""

TOLERANCE = 10.0
"""Largest accepted difference of the curve from F99 between 450 and 950 nm, per cent."""

RANGE = (450.0, 950.0)

MODEL, LEVEL, SIMULATOR = "model", "model, own level", "simulator"
"""Sources of curves: the model's spectra with Gaia's A_G, with the model's A_G; simulator."""


def extinction_curve(flux: Floats, clear: Floats, ebv: float) -> Floats:
    """Return R(λ) = -2.5 log10(F/F0) / (0.884 E) (N, L); NaN where a flux is not positive.

    0.884 E is the true E(B-V) (Schlafly & Finkbeiner 2011). The code of Zhang, Bu et al. (2026)
    takes the natural logarithm, which gives a curve 8.6 % too low.

    Parameters
    ----------
    flux, clear
        Absolute spectra (N, L) of the same stars with dust and without.
    ebv
        E(B-V) in mag, SFD scale.
    """
    ratio = np.where((flux > 0) & (clear > 0), flux / np.where(clear > 0, clear, 1.0), np.nan)
    return np.asarray(-2.5 * np.log10(ratio) / (TRUE_PER_SFD * ebv))


def absolute_flux(spectra: Spectra, m_g: Floats) -> Floats:
    """Return spectra over the G flux (N, L) scaled to their absolute level.

    Parameters
    ----------
    spectra
        Spectra over the G flux.
    m_g
        M_G in mag (N,).
    """
    return np.asarray(spectra.flux * 10 ** (-0.4 * m_g)[:, None])


def extinction_figure(context: ExperimentContext) -> Outcome:
    """Return figure 16: R(λ) of the model, of the simulator, and F99.

    Parameters
    ----------
    context
        Model and stars.
    """
    teff = giant_branch_teff(LOGG)
    star = {"teff": teff, "logg": LOGG, "m_h": 0.0}
    inputs = {
        ebv: context.synthetic_inputs(**star, mass=MASS, log_age=LOG_AGE, logebv=np.log(ebv))
        for ebv in (np.exp(NO_DUST), *EBV)
    }
    made = {ebv: context.predicted_spectra(given) for ebv, given in inputs.items()}
    level = {
        ebv: absolute_g(context.predict_one(given, "g_fakemag")[0]) for ebv, given in inputs.items()
    }
    clear = next(iter(inputs))
    wavelengths = made[clear].wavelengths
    checks: list[Check] = []
    curves = {"wavelength_nm": wavelengths, "F99, R_V 3.1": curve(wavelengths)}
    for ebv in EBV:
        a_g = g_extinction(ebv, teff, context.vocabulary.data_release)
        by_source = {
            MODEL: extinction_curve(
                absolute_flux(made[ebv], a_g), absolute_flux(made[clear], 0 * teff), ebv
            ),
            LEVEL: extinction_curve(
                absolute_flux(made[ebv], level[ebv]), absolute_flux(made[clear], level[clear]), ebv
            ),
            SIMULATOR: _simulated(context, star, ebv),
        }
        for source, r in by_source.items():
            for name, values in zip(("16 %", "median", "84 %"), percentiles(r), strict=True):
                curves[f"{source}, E {ebv}, {name}"] = values
        median, simulated = (curves[f"{s}, E {ebv}, median"] for s in (MODEL, SIMULATOR))
        checks += [
            at_most(f"largest difference from F99, 450 to 950 nm, E(B-V) {ebv}",
                    max_difference(wavelengths, median), TOLERANCE, "%"),
            Check(f"rms difference from F99, 450 to 950 nm, E(B-V) {ebv}",
                  rms_difference(wavelengths, median), "%",
                  rms_difference(wavelengths, simulated), "simulator, no noise"),
            Check(f"A_G from the model's luminosities, E(B-V) {ebv}",
                  float(np.nanmedian(level[ebv] - level[clear])), "mag",
                  float(np.median(a_g)), "Gaia EDR3 relation"),
        ]  # fmt: skip
    return Outcome(tuple(checks), partial(_draw_curves, curves), curves)


def _draw_curves(curves: dict[str, Floats], figure: Any) -> None:
    wavelengths, law = curves["wavelength_nm"], curves["F99, R_V 3.1"]
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for ebv, colour in zip(EBV, (plotting.BLUE, plotting.GREEN, plotting.ORANGE), strict=True):
        low, middle, high = (curves[f"{MODEL}, E {ebv}, {p}"] for p in ("16 %", "median", "84 %"))
        left.fill_between(wavelengths, low, high, color=colour, alpha=0.18, linewidth=0)
        left.plot(wavelengths, middle, color=colour, label=f"E(B−V) {ebv}, 16 to 84 %")
        right.plot(wavelengths, 100 * (middle / law - 1), color=colour)
        simulated = curves[f"{SIMULATOR}, E {ebv}, median"]
        right.plot(wavelengths, 100 * (simulated / law - 1), ":", color=colour)
    left.plot(wavelengths, law, color=plotting.INK, linewidth=1, label="Fitzpatrick 1999, 3.1")
    for r_v, style in ((2.5, ":"), (4.0, "--")):
        left.plot(wavelengths, curve(wavelengths, r_v), style, color="#888888", linewidth=0.8,
                  label=f"F99, R_V {r_v}")  # fmt: skip
    left.set(xlabel="wavelength [nm]", ylabel="R(λ) = A(λ) / E(B−V)", xlim=(380, 1020),
             ylim=(0, 6))  # fmt: skip
    left.legend()
    right.axhspan(-TOLERANCE, TOLERANCE, color="#888888", alpha=0.15, linewidth=0)
    right.axhline(0, color=plotting.INK, linewidth=0.7)
    right.set(xlabel="wavelength [nm]", ylabel="difference from F99 [%]", xlim=(400, 1000),
              ylim=(-50, 50), title="dotted: simulator")  # fmt: skip


def percentiles(r: Floats) -> Floats:
    """Return the 16th, 50th and 84th percentile (3, L) of curves; NaN where all are NaN.

    Parameters
    ----------
    r
        Curves (N, L).
    """
    found = np.full((3, r.shape[1]), np.nan)
    known = np.isfinite(r).any(axis=0)
    found[:, known] = np.nanpercentile(r[:, known], (16, 50, 84), axis=0)
    return found


def max_difference(wavelengths: Floats, r: Floats) -> float:
    """Return the largest difference of a curve from F99 within RANGE, in per cent.

    Parameters
    ----------
    wavelengths
        In nm (L,).
    r
        The curve (L,); the result is NaN where it has gaps.
    """
    return float(np.abs(_differences(wavelengths, r)).max())


def rms_difference(wavelengths: Floats, r: Floats) -> float:
    """Return the root mean square difference of a curve from F99 within RANGE, in per cent.

    Parameters
    ----------
    wavelengths
        In nm (L,).
    r
        The curve (L,); the result is NaN where it has gaps.
    """
    return float(np.sqrt(np.mean(_differences(wavelengths, r) ** 2)))


def _differences(wavelengths: Floats, r: Floats) -> Floats:
    within = (wavelengths >= RANGE[0]) & (wavelengths <= RANGE[1])
    return 100.0 * (r[within] / curve(wavelengths[within]) - 1.0)


def _simulated(context: ExperimentContext, star: dict[str, Any], ebv: float) -> Floats:
    """The curve (N, L) of the simulator's spectra without noise, by the same formula."""
    parts = []
    for dust in (ebv, np.exp(NO_DUST)):
        spectra, m_g = context.simulated_spectra(**star, log_l=LUMINOSITY, ebv=dust, r_v=3.1)
        parts.append(absolute_flux(spectra, m_g))
    return extinction_curve(parts[0], parts[1], ebv)


# --- figure 17 ---

STAR = {"teff": 5000.0, "m_h": 0.0}
DUSTY = -1.0
"""ln E(B-V) of the dusty star in Zhang, Bu et al. (2026)."""

CASES: dict[str, dict[str, float]] = {
    "": {},
    " with mass and age": {"mass": MASS, "log_age": LOG_AGE},
}
"""Inputs besides STAR and dust, by their description."""

Shares = dict[tuple[str, float], dict[str, Floats]]
"""Attention (C,) of C requested coefficients by case and ln E(B-V), then by input token."""


def attention_figure(context: ExperimentContext) -> Outcome:
    """Return figure 17: attention of the last block to each label, with dust and without.

    Parameters
    ----------
    context
        Model and stars.
    """
    requests = list(context.vocabulary.named("coefficient"))
    shares = _attention_shares(context, requests)
    checks = []
    for token in ("bp0", "rp0"):
        at = requests.index(token)
        for name, words in (("logebv", "E(B-V)"), ("teff", "Teff")):
            clear, dusty = (float(shares["", dust][name][at]) for dust in (NO_DUST, DUSTY))
            make = at_least if name == "logebv" else at_most
            checks.append(make(f"attention of {token} to {words}, with dust", dusty, clear,
                               source="without dust"))  # fmt: skip
    with_dust, without = (shares[" with mass and age", dust] for dust in (DUSTY, NO_DUST))
    of_dust = float(np.mean(np.abs(with_dust["logebv"] - without["logebv"])))
    for name in ("mass", "log_age"):
        change = float(np.mean(np.abs(with_dust[name] - without[name])))
        checks.append(at_most(f"mean change of attention to {name} with dust", change, of_dust,
                              source="that to E(B-V)"))  # fmt: skip
    columns = {
        f"{name}, ln E {dust:g}{case}": share
        for (case, dust), by_name in shares.items() for name, share in by_name.items()
    }  # fmt: skip
    return Outcome(tuple(checks), partial(_draw_attention, shares, requests), columns)


def _attention_shares(context: ExperimentContext, requests: list[str]) -> Shares:
    predictor = context.predictor
    request_numbers = context.vocabulary.columns(requests) + 1
    shares: Shares = {}
    for case, more in CASES.items():
        for dust in (NO_DUST, DUSTY):
            given = context.synthetic_inputs(**STAR, **more, logebv=dust)
            star = predictor.bundle.pack(given)
            found = attention(predictor.network, star, request_numbers)
            names = [context.vocabulary.tokens[i - 1].name for i in star.ids[0]] + ["none"]
            shares[case, dust] = dict(zip(names, found.T, strict=True))
    return shares


def _draw_attention(shares: Shares, requests: list[str], figure: Any) -> None:
    for row, case in zip(figure.subplots(2, 2), CASES, strict=True):
        for axes, dust in zip(row, (NO_DUST, DUSTY), strict=True):
            _draw_shares(axes, shares[case, dust], requests)
            axes.set_title(f"Teff 5000 K, [M/H] 0{case}, ln E(B−V) {dust:g}", fontsize=8)
    row[0].set_ylabel("share of attention")
    row[0].set_xlabel("requested coefficient")


def _draw_shares(axes: Any, shares: dict[str, Floats], requests: list[str]) -> None:
    colours = {"teff": plotting.ORANGE, "m_h": plotting.GREEN, "mass": plotting.PURPLE,
               "log_age": "#c98bd0", "logebv": plotting.BLUE, "none": plotting.FAINT}  # fmt: skip
    names = {"teff": "Teff", "m_h": "[M/H]", "mass": "mass", "log_age": "age",
             "logebv": "E(B−V)", "none": "no token"}  # fmt: skip
    axes.stackplot(range(len(requests)), *shares.values(), linewidth=0,
                   colors=[colours[name] for name in shares],
                   labels=[names[name] for name in shares])  # fmt: skip
    ticks = [i for i, name in enumerate(requests) if int(name[2:]) % 20 == 0]
    axes.set_xticks(ticks, [requests[i] for i in ticks])
    axes.set(xlim=(0, len(requests) - 1), ylim=(0, 1))
    axes.legend(fontsize=6.5, loc="upper right", ncols=3, frameon=True)
