"""Figures 16 and 17: the extinction curve that a model has learned, and where it looks for dust."""

from __future__ import annotations

from typing import Any

import numpy as np

from catalogproc.features.extinction import TRUE_PER_SFD, curve, g_extinction
from catalogproc.network.attention import attention
from catalogproc.network.predictor import pack
from catalogproc.paper import plotting
from catalogproc.paper.base import (
    NO_DUST,
    Floats,
    Number,
    Outcome,
    Setting,
    Spectra,
    absolute_g,
    at_least,
    at_most,
    giant_branch,
)

LOGG = np.arange(1.0, 2.41, 0.1)
EBV = (0.4, 0.8, 1.2)
"""SFD scale, mag: those of the seed paper."""

MASS, LOG_AGE = 1.2, 9.7
"""Of all the stars, Msun and log10 yr: those of PARSEC's giant branch at solar [M/H]."""

LUMINOSITY = 1.8
"""log L/Lsun of the simulator's stars; a curve of extinction does not depend on it."""

CLOSE = 10.0
"""Per cent by which the curve may be off from 450 to 950 nm."""

RANGE = (450.0, 950.0)


def extinction_curve(flux: Floats, clear: Floats, ebv: float) -> Floats:
    """R(λ) = -2.5 log10(F/F0) / (0.884 E) (N, L) of absolute spectra behind dust and without.

    ``ebv`` is on the SFD scale, 0.884 of which is true (Schlafly & Finkbeiner 2011). The seed
    paper's code takes the natural logarithm and so comes out 8.6 % low. NaN where a flux is not
    positive.
    """
    ratio = np.where((flux > 0) & (clear > 0), flux / np.where(clear > 0, clear, 1.0), np.nan)
    return np.asarray(-2.5 * np.log10(ratio) / (TRUE_PER_SFD * ebv))


def absolute(spectra: Spectra, m_g: Floats) -> Floats:
    """Spectra over the G flux (N, L) at their absolute level, M_G (N,)."""
    return np.asarray(spectra.flux * 10 ** (-0.4 * m_g)[:, None])


def the_curve(setting: Setting) -> Outcome:
    """Figure 16."""
    teff = giant_branch(LOGG)
    star = {"teff": teff, "logg": LOGG, "m_h": 0.0}
    asked = {
        ebv: setting.table(**star, mass=MASS, log_age=LOG_AGE, logebv=np.log(ebv))
        for ebv in (np.exp(NO_DUST), *EBV)
    }
    made = {ebv: setting.spectra(given) for ebv, given in asked.items()}
    level = {ebv: absolute_g(setting.one(given, "g_fakemag")[0]) for ebv, given in asked.items()}
    none = next(iter(asked))
    wavelengths = made[none].wavelengths
    law = curve(wavelengths)
    numbers, curves = [], {"wavelength_nm": wavelengths, "F99, R_V 3.1": law}
    for ebv in EBV:
        dimmed = g_extinction(ebv, teff)
        shape = extinction_curve(absolute(made[ebv], dimmed), absolute(made[none], 0 * teff), ebv)
        whole = extinction_curve(
            absolute(made[ebv], level[ebv]), absolute(made[none], level[none]), ebv
        )
        there = _simulated(setting, star, ebv)
        for words, r in (("the model", shape), ("its own level", whole), ("simulator", there)):
            low, middle, high = percentiles(r)
            curves |= {f"{words}, E {ebv}, {p}": c
                       for p, c in (("16 %", low), ("median", middle), ("84 %", high))}  # fmt: skip
        numbers += [
            at_most(f"largest difference from F99, 450 to 950 nm, E(B-V) {ebv}",
                    largest(wavelengths, percentiles(shape)[1]), CLOSE, "%"),
            Number(f"rms difference from F99, 450 to 950 nm, E(B-V) {ebv}",
                   rms(wavelengths, percentiles(shape)[1]), "%",
                   rms(wavelengths, percentiles(there)[1]), "simulator, no noise"),
            Number(f"A_G, level from the model's own luminosities, E(B-V) {ebv}",
                   float(np.nanmedian(level[ebv] - level[none])), "mag",
                   float(np.median(dimmed)), "Gaia EDR3 relation"),
        ]  # fmt: skip

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
        for ebv, colour in zip(EBV, (plotting.BLUE, plotting.GREEN, plotting.ORANGE), strict=True):
            name = f"the model, E {ebv}"
            low, middle, high = (curves[f"{name}, {p}"] for p in ("16 %", "median", "84 %"))
            left.fill_between(wavelengths, low, high, color=colour, alpha=0.18, linewidth=0)
            left.plot(wavelengths, middle, color=colour, label=f"E(B−V) {ebv}, 16 to 84 %")
            right.plot(wavelengths, 100 * (middle / law - 1), color=colour)
            true = curves[f"simulator, E {ebv}, median"]
            right.plot(wavelengths, 100 * (true / law - 1), ":", color=colour)
        left.plot(wavelengths, law, color=plotting.INK, linewidth=1, label="Fitzpatrick 1999, 3.1")
        for r_v, style in ((2.5, ":"), (4.0, "--")):
            left.plot(wavelengths, curve(wavelengths, r_v), style, color="#888888", linewidth=0.8,
                      label=f"F99, R_V {r_v}")  # fmt: skip
        left.set(xlabel="wavelength [nm]", ylabel="R(λ) = A(λ) / E(B−V)", xlim=(380, 1020),
                 ylim=(0, 6))  # fmt: skip
        left.legend()
        right.axhspan(-CLOSE, CLOSE, color="#888888", alpha=0.15, linewidth=0)
        right.axhline(0, color=plotting.INK, linewidth=0.7)
        right.set(xlabel="wavelength [nm]", ylabel="difference from F99 [%]", xlim=(400, 1000),
                  ylim=(-50, 50), title="dotted: simulator's own spectra")  # fmt: skip

    return Outcome(tuple(numbers), draw, curves)


def percentiles(r: Floats) -> Floats:
    """16th, 50th and 84th (3, L) of curves (N, L); NaN where no star has a flux."""
    made = np.full((3, r.shape[1]), np.nan)
    known = np.isfinite(r).any(axis=0)
    made[:, known] = np.nanpercentile(r[:, known], (16, 50, 84), axis=0)
    return made


def largest(wavelengths: Floats, r: Floats) -> float:
    """The largest difference (%) of a curve (L,) from F99 in RANGE; NaN where it has gaps."""
    return float(np.abs(_off(wavelengths, r)).max())


def rms(wavelengths: Floats, r: Floats) -> float:
    """Root mean square of the same."""
    return float(np.sqrt(np.mean(_off(wavelengths, r) ** 2)))


def _off(wavelengths: Floats, r: Floats) -> Floats:
    within = (wavelengths >= RANGE[0]) & (wavelengths <= RANGE[1])
    return 100.0 * (r[within] / curve(wavelengths[within]) - 1.0)


def _simulated(setting: Setting, star: dict[str, Any], ebv: float) -> Floats:
    """The curve (N, L) of the simulator's spectra without noise, by the same formula."""
    parts = []
    for dust in (ebv, np.exp(NO_DUST)):
        spectra, m_g = setting.noiseless(**star, log_l=LUMINOSITY, ebv=dust, r_v=3.1)
        parts.append(absolute(spectra, m_g))
    return extinction_curve(parts[0], parts[1], ebv)


# --- figure 17 ---

STAR = {"teff": 5000.0, "m_h": 0.0}
DUSTY = -1.0
"""ln E(B-V) of the seed paper's dusty star."""


def where_it_looks(setting: Setting) -> Outcome:
    """Figure 17: attention of the last block to each label, with dust and without."""
    network, standardisation = setting.predictor.network, setting.predictor.bundle.standardisation
    requests = list(setting.vocabulary.named("coefficient"))
    numbers_of = setting.vocabulary.columns(requests) + 1
    cases = {"": {}, " with mass and age": {"mass": MASS, "log_age": LOG_AGE}}
    shares: dict[tuple[str, float], dict[str, Floats]] = {}
    for words, more in cases.items():
        for dust in (NO_DUST, DUSTY):
            given = setting.table(**STAR, **more, logebv=dust)
            ids, x = pack((given - standardisation.center) / standardisation.scale)
            made = attention(network, ids[0], x[0], numbers_of)
            names = [setting.vocabulary.tokens[i - 1].name for i in ids[0]] + ["none"]
            shares[words, dust] = dict(zip(names, made.T, strict=True))
    numbers = []
    for token in ("bp0", "rp0"):
        at = requests.index(token)
        for name, words in (("logebv", "E(B-V)"), ("teff", "Teff")):
            clear, dusty = (float(shares["", dust][name][at]) for dust in (NO_DUST, DUSTY))
            make = at_least if name == "logebv" else at_most
            numbers.append(make(f"attention of {token} to {words}, with dust", dusty, clear,
                                whose="without dust"))  # fmt: skip
    last = shares[" with mass and age", DUSTY], shares[" with mass and age", NO_DUST]
    for name in ("mass", "log_age"):
        change = float(np.mean(np.abs(last[0][name] - last[1][name])))
        other = float(np.mean(np.abs(last[0]["logebv"] - last[1]["logebv"])))
        numbers.append(at_most(f"mean change of attention to {name} with dust", change, other,
                               whose="that to E(B-V)"))  # fmt: skip

    def draw(figure: Any) -> None:
        for row, words in zip(figure.subplots(2, 2), cases, strict=True):
            for axes, dust in zip(row, (NO_DUST, DUSTY), strict=True):
                _draw_shares(axes, shares[words, dust], requests)
                axes.set_title(f"Teff 5000 K, [M/H] 0{words}, ln E(B−V) {dust:g}", fontsize=8)
        row[0].set_ylabel("share of attention")
        row[0].set_xlabel("coefficient that is asked for")

    columns = {
        f"{name}, ln E {dust:g}{words}": share
        for (words, dust), by_name in shares.items() for name, share in by_name.items()
    }  # fmt: skip
    return Outcome(tuple(numbers), draw, columns)


def _draw_shares(axes: Any, shares: dict[str, Floats], requests: list[str]) -> None:
    colours = {"teff": plotting.ORANGE, "m_h": plotting.GREEN, "mass": plotting.PURPLE,
               "log_age": "#c98bd0", "logebv": plotting.BLUE, "none": plotting.FAINT}  # fmt: skip
    words = {"teff": "Teff", "m_h": "[M/H]", "mass": "mass", "log_age": "age",
             "logebv": "E(B−V)", "none": "no token"}  # fmt: skip
    axes.stackplot(range(len(requests)), *shares.values(), linewidth=0,
                   colors=[colours[name] for name in shares],
                   labels=[words[name] for name in shares])  # fmt: skip
    ticks = [i for i, name in enumerate(requests) if int(name[2:]) % 20 == 0]
    axes.set_xticks(ticks, [requests[i] for i in ticks])
    axes.set(xlim=(0, len(requests) - 1), ylim=(0, 1))
    axes.legend(fontsize=6.5, loc="upper right", ncols=3, frameon=True)
